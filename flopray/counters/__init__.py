"""FLOPs that the chip executed, read from its hardware counters by Nsight Compute (ncu)."""
