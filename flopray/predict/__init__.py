"""Fitted models of time and energy: from measured rows to what a phase will cost that was not measured."""
