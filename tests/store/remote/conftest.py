"""Runs in the S3 server of this machine, seen from machines with separate local copies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from points import sweep

from flopray.store.location import create_run
from flopray.store.run import RunFolder


@pytest.fixture
def on_machine(tmp_path, monkeypatch) -> Callable[[str], None]:
    """Continue as another machine, with local copies elsewhere."""

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
