"""A sweep with its run in an object store: the store stops for a while, and another machine reads the run."""

from __future__ import annotations

import json
import os
import signal

import pytest
from machine import Machine

from flopray import load_run
from flopray.errors import RunLocked
from flopray.monitoring.status import status_of_run
from flopray.store.location import open_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

POINTS = 12
GRID = (
    "--n 1 --d 16 24 32 --m 8:32:8 --phases forward --instruments time --accelerators CPU --cpus-per-trial 1 "
    "--max-seconds 1 --target-error 0.001 --sentinel-every 0 --points-per-trial 3 --no-plots"
)


@pytest.fixture(scope="module")
def machine(machine, s3) -> Machine:
    machine.environment |= {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    return machine


def entries(s3, run: str) -> dict[str, str]:
    """Line by trial id of all segments of a run; a trial id that is there twice is an error."""
    lines = s3.journal(run).decode().splitlines()
    found = {json.loads(line)["entry"]["trial_id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def test_a_run_in_a_store_is_seen_from_another_machine_and_survives_its_store(machine, s3, monkeypatch):
    run, uri = "sweeps/r", s3.uri("sweeps/r")
    sweep = machine.start(f"{GRID} --storage {s3.uri('sweeps')} --name r")
    machine.wait_for(lambda: len(entries(s3, run)) >= 2)
    sweep.signal(signal.SIGSTOP)  # so that it does not end while it is looked at
    monkeypatch.setenv("FLOPRAY_CACHE", str(machine.folder / "another machine"))
    seen = open_run(uri)
    assert status_of_run(uri).state == "running"
    with pytest.raises(RunLocked, match=f"is being written by process {sweep.pid} on"):
        seen.check_unlocked()
    s3.stop()
    sweep.signal(signal.SIGCONT)
    code = sweep.wait()
    s3.start_again()
    assert code == 1, sweep.output
    assert "could not be saved to s3://" in sweep.output
    assert "Traceback" not in sweep.output
    (outbox,) = (machine.folder / "home").glob(".cache/flopray/*/r/outbox")
    unsent = {(line := json.loads(text)["entry"])["trial_id"]: line for f in outbox.iterdir() for text in f.open()}
    first = entries(s3, run)
    assert unsent
    assert not set(unsent) & set(first)
    assert len(first) + len(unsent) < POINTS

    code, output = machine.sweep(f"--resume {uri}")
    assert code == 0, output
    assert f"flopray.load_run('{uri}')" in output
    last = entries(s3, run)
    assert len(last) == POINTS
    assert {trial_id: last[trial_id] for trial_id in first} == first  # not one was measured again
    assert {trial_id: json.loads(last[trial_id])["entry"] for trial_id in unsent} == unsent
    frame = load_run(uri)
    assert set(frame.trial_id) == set(last)
    assert (frame.status == "ok").all()
    names = s3.names(run)
    assert {"manifest.json", "records.parquet", "summary.json"} <= set(names)
    assert len([name for name in names if name.startswith("journal/")]) == 1  # the stopped session's are merged too
    assert not [name for name in names if name.startswith("writers/")]
