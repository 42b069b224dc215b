"""A sweep as a user runs it, on a Ray of its own: to its end, and through every way of being stopped in the middle."""

from __future__ import annotations

import shlex
import signal

import pytest
from machine import QUICK, Machine

from flopray import load_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

#: Points of a quarter of a second each: long enough to be stopped in the middle.
GRID = f"--n 1 --d 16 24 --m 8:64:8 --phases forward {QUICK}"
POINTS = 16


def assert_complete(machine: Machine, name: str, points: int = POINTS) -> None:
    ids = machine.journal_ids(machine.run_path(name))
    assert len(ids) == points
    assert len(set(ids)) == points
    frame = load_run(machine.run_path(name))
    assert len(frame) == points
    assert set(frame.trial_id) == set(ids)
    assert (frame.status == "ok").all()
    assert (frame.time_s > 0).all()


def test_a_sweep_to_its_end(machine):
    code, output = machine.sweep(f"--n 1 2 --d 16 32 --m 8 16 {QUICK.replace('--no-plots', '')} --name whole")
    assert code == 0, output
    assert "Ray dashboard: http://127.0.0.1:" in output
    run = machine.run_path("whole")
    frame = load_run(run)
    assert len(frame) == 2 * 2 * 2 * 4
    assert frame.groupby("trial_id").phase.nunique().eq(4).all()
    assert sorted(frame.order_index.unique()) == list(range(8))
    assert frame.ray_version.notna().all()
    without_energy = (frame.energy_status == "no_energy_source").all()
    assert output.count("no energy on CPU, only time and FLOPs: ") == int(without_energy)  # said once
    for file in ("manifest.json", "journal.jsonl", "records.parquet", "summary.json"):
        assert (run / file).stat().st_size > 0
    assert list(run.glob("plots/surfaces/CPU_fp32_eager/forward/time_*.png"))
    assert not machine.left_over()


def test_failures_become_rows_and_an_exit_code(machine):
    code, output = machine.sweep(f"--n 1 --d 16 --m 8 16 --precision fp32 tf32 --phases forward {QUICK} --name failing")
    assert code == 3, output
    frame = load_run(machine.run_path("failing")).set_index("precision")
    assert (frame.loc["fp32"].status == "ok").all()
    assert (frame.loc["tf32"].status == "unsupported").all()
    assert frame.loc["tf32"].status_reason.str.contains("NVIDIA").all()
    assert frame.loc["tf32"].time_s.isna().all()
    assert "2 unsupported" in output


def test_ctrl_c_leaves_a_run_that_the_printed_command_finishes(machine):
    command, before = interrupted(machine, "ctrl_c", lambda sweep: sweep.signal_like_a_terminal(signal.SIGINT))
    code, output = machine.sweep(shlex.join(command), script="")
    assert code == 0, output
    assert machine.journal_ids(machine.run_path("ctrl_c"))[: len(before)] == before
    assert_complete(machine, "ctrl_c")


def test_sigterm_is_an_interrupt(machine):
    command, _ = interrupted(machine, "sigterm", lambda sweep: sweep.signal(signal.SIGTERM))
    assert command == ["resume", str(machine.run_path("sigterm"))]


def interrupted(machine, name, strike):
    """The words behind the program that an interrupted sweep printed to go on, and the points that it had finished."""
    sweep = machine.start(f"{GRID} --name {name}")
    run = machine.run_path(name)
    machine.wait_for(lambda: len(machine.journal_ids(run)) >= 3)
    strike(sweep)
    assert sweep.wait() == 130, sweep.output
    assert "Traceback" not in sweep.output
    before = machine.journal_ids(run)
    assert 3 <= len(before) < POINTS
    assert not machine.left_over()
    words = shlex.split(next(line for line in sweep.output.splitlines() if " resume /" in line))
    return words[words.index("resume") :], before


def test_a_killed_sweep_is_resumed(machine):
    sweep = machine.start(f"{GRID} --name killed")
    run = machine.run_path("killed")
    machine.wait_for(lambda: len(machine.journal_ids(run)) >= 3)
    sweep.signal(signal.SIGKILL)
    sweep.wait()
    before = machine.journal_ids(run)
    assert len(before) < POINTS
    machine.wait_for(lambda: not any("PointTrial" in command for command in machine.processes().values()))
    code, output = machine.sweep(f"--resume {run}")
    assert code == 0, output
    assert machine.journal_ids(run)[: len(before)] == before
    assert_complete(machine, "killed")
    code, output = machine.sweep(f"--resume {run}")
    assert code == 2
    assert "is finished" in output


@pytest.mark.parametrize(
    "search", ["random", pytest.param("optuna --objective flops_per_s", marks=pytest.mark.extras("optuna"))]
)
def test_a_search_draws_each_point_once(machine, search):
    name = search.split()[0]
    code, output = machine.sweep(f"{GRID} --search {search} --samples 6 --name {name}")
    assert code == 0, output
    assert_complete(machine, name, points=6)
