"""What is measured: models, their phases, their closed forms, and how a phase is executed.

`registry` finds a workload by name, `phases` turns a point into one callable for each phase, `execution` runs them
eagerly, as a CUDA graph or compiled.
"""
