"""Figures and tables of finished runs: surfaces, FLOPs, GPUs. Imports neither torch nor Ray.

`surface` draws metrics over shapes, `flops` compares ways of counting, `gpus` compares devices; `plot` is the look of
all figures.
"""
