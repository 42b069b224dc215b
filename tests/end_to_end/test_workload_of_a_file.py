"""A workload of a file as a user sweeps it: measured by workers, resumed by whoever trusts it, merged without it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from machine import QUICK

from flopray import load_run
from flopray.point import point_of
from flopray.sweep.merge import merge

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
CONV = Path(__file__).parents[1] / "workloads" / "models" / "conv.py"
GRID = "--channels 8 --image-size 8 16 --images 2 4"


def test_a_workload_of_a_file_is_swept_resumed_and_merged(machine, standing):
    """The second run begins with half of its points, and its file has moved."""
    cache = machine.folder / "cache"
    machine.environment["FLOPRAY_CACHE"] = str(cache)
    file = machine.folder / "conv.py"
    shutil.copy(CONV, file)
    words = f"sweep conv.py:ConvNet {GRID} --phases forward --instruments time {QUICK} --name whole {standing}"
    code, output = machine.sweep(words, script="")
    assert code == 0, output
    whole = machine.run_path("whole")
    frame = load_run(whole)
    assert sorted(zip(frame.image_size, frame.images, strict=True)) == [(8, 2), (8, 4), (16, 2), (16, 4)]
    assert set(frame.status) == {"ok"}, frame.status_reason.dropna().tolist()
    assert (frame.dispatched_flops == 3 * 2 * 9 * 8 * 8 * frame.image_size**2 * frame.images).all()
    assert frame.model_flops.isna().all()

    digest = hashlib.sha256(CONV.read_bytes()).hexdigest()
    assert (cache / "workloads" / digest).is_file()  # a resume may run it

    part = interrupted(machine, whole, "part", points=2)
    file.rename(machine.folder / "moved.py")
    code, output = machine.sweep(f"resume {part} --no-plots --workload moved.py:ConvNet {standing}", script="")
    assert code == 0, output
    assert set(load_run(part).trial_id) == set(frame.trial_id)

    (machine.folder / "moved.py").unlink()
    merged = merge([whole, part], machine.run_path("both"))
    # Two of the points are those of the first run, and stand there once; two were measured again.
    assert (merged.points, merged.measurements, merged.identical) == (4, 6, 2)
    assert {point_of(trial_id) for trial_id in load_run(merged.path).trial_id} == set(frame.trial_id)


def interrupted(machine, whole, name: str, points: int) -> Path:
    """The same run as if it had been killed after some points."""
    part = machine.run_path(name)
    shutil.copytree(whole, part)
    for file in part.iterdir():
        if file.is_file() and file.name not in ("manifest.json", "journal.jsonl"):
            file.unlink()
    lines = (part / "journal.jsonl").read_text().splitlines(keepends=True)
    (part / "journal.jsonl").write_text("".join(lines[:points]))
    return part
