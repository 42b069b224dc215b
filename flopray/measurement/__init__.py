"""Time, energy and FLOPs of the phases of one point on one device. Knows no Ray.

`profiler.Profiler` measures points for as long as it is open, `phase.measure_phase` measures one phase,
`window.run_window` repeats the work until enough is known.
"""
