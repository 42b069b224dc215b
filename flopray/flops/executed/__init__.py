"""FLOPs that the chip executed, read from its hardware counters by Nsight Compute (ncu).

`ncu` finds and runs the program, `report` reads what it wrote, `counts` adds the kernels of each phase up.
"""
