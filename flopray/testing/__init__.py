"""Meters whose truth is known, and a profiler that replays rows, for tests and benches.

`simulated_meter.SimulatedMeter` is a counter over a `power_traces` trace; `replay.Replay` takes a profiler's place.
"""
