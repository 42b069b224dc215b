"""A sweep as a user runs it, which starts Ray itself: to its end, and stopped in the middle in every way."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal

import pytest
from machine import QUICK, Machine

from flopray import load_run
from flopray.monitoring.status import status_of_run

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
    code, output = machine.sweep(f"--n 1 --d 16 32 --m 8 16 {QUICK.replace('--no-plots', '')} --name whole")
    assert code == 0, output
    assert "Ray dashboard: http://127.0.0.1:" in output
    run = machine.run_path("whole")
    frame = load_run(run)
    assert len(frame) == 2 * 2 * 4
    assert frame.groupby("trial_id").phase.nunique().eq(4).all()
    assert sorted(frame.order_index.unique()) == list(range(4))
    assert frame.ray_version.notna().all()
    without_energy = (frame.energy_status == "no_energy_source").all()
    assert output.count("no energy on CPU, only time and FLOPs: ") == int(without_energy)  # said once
    for file in ("manifest.json", "journal.jsonl", "records.parquet", "summary.json"):
        assert (run / file).stat().st_size > 0
    assert list(run.glob("plots/surfaces/CPU_fp32_eager/forward/time_*.png"))
    assert_start_is_told((run / "run.log").read_text())
    assert not machine.left_over()


def assert_start_is_told(log: str) -> None:
    """Once the start of the command, and once that of each process, with parts that are within the whole."""
    told = re.findall(r"(the first trial started|CPU@\S+: ready) after ([\d.]+) s \((.*)\)", log)
    assert [what.partition("@")[0] for what, *_ in told] == ["the first trial started", "CPU"], log
    for _, whole, parts in told:
        seconds = {name: float(s) for name, s in re.findall(r"([^,]+?) ([\d.]+)(?:, |$)", parts)}
        assert sum(seconds.values()) <= float(whole) + 0.05 * (len(seconds) + 1)  # each is rounded
        assert {"Ray", "Tune and the first process"} <= set(seconds) or "imports" in seconds
    assert len(re.findall(r"CPU@\S+: first window [\d.]+ s later", log)) == 1


def test_ctrl_c_leaves_a_run_that_the_printed_command_finishes(machine):
    command, before = interrupted(machine, "ctrl_c", lambda sweep: sweep.signal_like_a_terminal(signal.SIGINT))
    code, output = machine.sweep(shlex.join(command), script="")
    assert code == 0, output
    assert machine.journal_ids(machine.run_path("ctrl_c"))[: len(before)] == before
    assert_complete(machine, "ctrl_c")


def test_sigterm_is_an_interrupt_of_which_also_a_quiet_sweep_tells(machine):
    command, _ = interrupted(machine, "sigterm", lambda sweep: sweep.signal(signal.SIGTERM), "--quiet")
    run = machine.run_path("sigterm")
    assert command == ["resume", str(run)]
    assert (status_of_run(run).state, status_of_run(run).driver) == ("interrupted", None)


def interrupted(machine, name, strike, flag=""):
    """The arguments of the command that an interrupted sweep printed to continue, and its finished points."""
    sweep = machine.start(f"{GRID} {flag} --name {name}")
    run = machine.run_path(name)
    machine.wait_for(lambda: len(machine.journal_ids(run)) >= 3)
    strike(sweep)
    assert sweep.wait() == 130, sweep.output
    assert "Traceback" not in sweep.output
    said = sweep.output.strip().splitlines()
    assert said[-2].startswith("interrupted")
    assert flag != "--quiet" or len(said) == 2, sweep.output  # nothing else was said
    before = machine.journal_ids(run)
    assert 3 <= len(before) < POINTS
    assert not machine.left_over()
    words = shlex.split(next(line for line in said if " resume /" in line))
    return words[words.index("resume") :], before


@pytest.mark.extras("optuna")
def test_a_search_draws_each_point_once_and_keeps_every_device_busy(machine):
    """Two devices: a core each. Points are shorter than the start of the second process."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("two trials of one core each need two cores")
    objective = "--objective time_s forward/flops_per_s --cpus-per-trial 1"
    code, output = machine.sweep(f"{GRID} --search optuna --samples 10 --name optuna {objective}")
    assert code == 0, output
    assert_complete(machine, "optuna", points=10)
    assert "Pareto front, " in output
    assert json.loads((machine.run_path("optuna") / "summary.json").read_text())["winners"]
    rows = load_run(machine.run_path("optuna")).sort_values("started_unix_s")
    began, ended = rows.started_unix_s.to_numpy(), rows.ended_unix_s.to_numpy()
    assert (began[1:] < ended[:-1]).any(), "two points were being measured at the same time"
