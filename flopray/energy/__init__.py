"""Readings of energy counters, the moments at which they tick, and the power that they tell, with its error.

`source` opens the meter of a device, `poller.Poller` reads it while work runs, `estimator.estimate_energy` turns the
readings into joules with an interval.
"""
