"""What finished runs say: surfaces, FLOPs, GPUs. Reads runs; imports neither torch nor Ray.

`surface` draws metrics over shapes, `flops` compares ways of counting, `gpus` compares devices; `plot` is the look of
all figures.
"""
