"""A program that replaces ncu, for machines without a GPU."""

import sys
from pathlib import Path

import pytest
from warm_python import ADDRESS

from flopray.flops.executed import ncu


@pytest.fixture
def stand_in(tmp_path, monkeypatch, request):
    """Makes `stand_in_ncu.py` the ncu of this process; call it with the fault that it simulates.

    Workers are forked from a process that has imported torch, unless a test takes `ADDRESS` from the environment.
    """
    monkeypatch.setenv(ADDRESS, request.getfixturevalue("warm_python").address)
    program = tmp_path / "ncu"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("stand_in_ncu.py")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("FLOPRAY_NCU", str(program))
    ncu.ncu_version.cache_clear()
    ncu.known_chips.cache_clear()
    ncu.listed_metrics.cache_clear()

    def goes_wrong(what):
        monkeypatch.setenv("STAND_IN", what)

    return goes_wrong
