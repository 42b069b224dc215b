"""Runs in the S3 server of this machine, seen from machines whose local copies are apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flopray.definition import Sweep
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.storage import create_run
from flopray.store import RunFolder


def sweep() -> Sweep:
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    axes |= {"n_layers": (1,), "width": (16, 32, 64, 128, 256), "tokens": (8,)}
    return Sweep(workload="mlp", axes=axes, settings=MeasureSettings(phases=("forward",)), cpus_per_trial={"CPU": 1})


#: The points of a run, as if they had been measured.
POINTS = sweep().points()


def row(point, **changes):
    fields = {"trial_id": point.trial_id, "phase": "forward", "time_s": 1.0, **point.fields()}
    return [PhaseRecord(**{**fields, **changes})]


@pytest.fixture
def on_machine(tmp_path, monkeypatch) -> Callable[[str], None]:
    """Go on as another machine: one whose local copies are elsewhere."""

    def change(name: str) -> None:
        monkeypatch.setenv("FLOPRAY_CACHE", str(tmp_path / name))

    change("first")
    return change


@pytest.fixture
def storage(s3, tmp_path) -> str:
    """A prefix in the store that no other test uses."""
    return s3.uri(f"storage/{tmp_path.name}")


@pytest.fixture
def run(storage, on_machine) -> RunFolder:
    return create_run(storage, "r", sweep().to_manifest("r", {}))


@pytest.fixture
def prefix(tmp_path) -> str:
    """Where `run` is in the bucket."""
    return f"storage/{tmp_path.name}/r"
