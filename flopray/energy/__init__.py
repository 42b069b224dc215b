"""Readings of energy counters, the times at which the counters advance, and power with its error.

`source` opens the meter of a device, `poller.Poller` reads it while work runs, `estimator.estimate_energy` turns the
readings into joules with an interval.
"""
