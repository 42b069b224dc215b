"""Figures and tables of finished runs. Imports neither torch nor Ray.

`document` is the report of runs as one page; `surface` draws metrics over shapes, `flops` and `counts` compare ways of
counting, `gpus` and `boards` compare devices, `scores` evaluations, `series` shows power over time and `prediction` how
well fitted models predict. `plot` is the look of all figures.
"""
