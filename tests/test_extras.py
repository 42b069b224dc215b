"""Tests of extras are skipped where the extra is not installed, and everything else passes without it."""

from extras import EXTRAS, lacking_of


def test_what_is_installed_is_not_lacking():
    assert lacking_of(["pytest>=8", "numpy"]) == []


def test_what_is_absent_or_too_old_is_lacking():
    lacking = ["no-such-distribution>=1", "pytest>=999"]
    assert lacking_of([*lacking, "pytest"]) == lacking


def test_the_extras_are_those_of_the_project():
    assert {"html", "optuna", "bench"} <= set(EXTRAS)
