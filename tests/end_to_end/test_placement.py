"""Trials land on the type of device they name, on clusters of several nodes and types."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from machine import DEADLINE_S, ROOT

from flopray import load_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
STAND_IN = Path(__file__).parents[1] / "counting" / "stand_in_ncu.py"
PROGRAM = Path(__file__).with_name("two_types.py")


@pytest.fixture(scope="module")
def ran(machine):
    """Exit codes and node ids of the program, its output, and the folder of its runs."""
    ncu = machine.folder / "ncu"
    ncu.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
    ncu.chmod(0o755)
    environment = machine.environment | {"PYTHONPATH": str(ROOT), "FLOPRAY_NCU": str(ncu)}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(machine.storage)],
        capture_output=True,
        text=True,
        cwd=machine.folder,
        env=environment,
        timeout=2 * DEADLINE_S,
    )
    output = done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, output
    return {**json.loads(lines[-1].removeprefix("RESULT ")), "output": output, "storage": machine.storage}


def places(frame):
    """Node and GPUs that Ray assigned to each row, by device type."""
    found = {}
    for row in frame.itertuples():
        found.setdefault(row.device_type, []).append(json.loads(row.node))
    return found


def test_each_trial_lands_on_the_type_it_names_and_holds_one_whole_gpu(ran):
    assert ran["codes"]["both"] == 0, ran["output"]
    frame = load_run(ran["storage"] / "both")
    assert (frame.status == "ok").all()
    by_type = places(frame)
    assert {device_type: len(rows) for device_type, rows in by_type.items()} == {"H100": 2, "A100": 2}
    for device_type, rows in by_type.items():
        assert {row["node"] for row in rows} == {ran["nodes"][device_type]}
        assert all(len(row["gpus"]) == 1 for row in rows)
    assert len({row["gpus"][0] for row in by_type["H100"]}) == 2, "both GPUs of the node work side by side"


def test_a_type_that_is_not_there_is_an_error_that_lists_what_is(ran):
    assert ran["codes"]["missing"] == 2
    assert "--accelerators L40S: no node has it; the cluster has A100, H100, CPU" in ran["output"]
    assert not (ran["storage"] / "missing").exists()


def test_trials_of_the_chosen_type_count_their_slab_before_its_points_are_recorded(ran):
    assert ran["codes"]["counted"] == 0, ran["output"]
    frame = load_run(ran["storage"] / "counted")
    assert frame.device_type.tolist() == ["H100", "H100"]
    assert (frame.counters_status == "ok").all()
    assert (frame.executed_flops > 0).all()
    assert frame.time_s.isna().all()
    assert (ran["storage"] / "counted" / "kernels.parquet").stat().st_size > 0
    assert "2 rows have hardware counters" in ran["output"]


def test_a_type_that_joins_later_is_waited_for(ran):
    assert ran["codes"]["waited"] == 0, ran["output"]
    assert "waiting up to 90 s for L40S to join the cluster" in ran["output"]
    (row,) = places(load_run(ran["storage"] / "waited"))["L40S"]
    assert row["node"] not in ran["nodes"].values()


def test_the_recorder_is_beside_the_driver_so_that_no_other_node_ends_the_sweep(ran):
    assert set(ran["recorders"]) == {ran["driver"]}
