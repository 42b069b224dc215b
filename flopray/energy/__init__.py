"""Meters with one interface, and the estimator that turns counter ticks into power with an error."""
