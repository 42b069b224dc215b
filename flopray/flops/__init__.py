"""FLOPs that the chip executed: hardware counters, read through Nsight Compute."""
