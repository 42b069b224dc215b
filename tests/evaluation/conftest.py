"""What tests of evaluations need: models that are made once, and no hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import save_model


@pytest.fixture(scope="session")
def guessing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    return save_model(tmp_path_factory.mktemp("models") / "guessing")


@pytest.fixture(scope="session")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows all answers."""
    return save_model(tmp_path_factory.mktemp("models") / "knowing", knows=20)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub that refuses connections, and an empty cache."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.fixture
def own_tasks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness without its own tasks, whose index takes ten seconds."""
    from flopray.workloads.evaluation import tasks

    index = tasks._manager
    monkeypatch.setattr(tasks, "_manager", lambda folder, with_harness: index(folder, False))
