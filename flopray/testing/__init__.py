"""Meters whose truth is known, for tests and benches.

`simulated_meter.SimulatedMeter` is a counter over a `power_traces` trace.
"""
