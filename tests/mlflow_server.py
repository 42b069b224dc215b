"""An MLflow tracking server on this machine, with a SQLite store."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from mlflow import MlflowClient

#: A hang guard: MLflow takes 10 s to be imported on a busy machine, and its server imports it twice.
_DEADLINE_S = 150.0
#: Without the eight processes for MLflow's own jobs, which tracking does not need.
_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class MLflowServer:
    """A server that can stop and start again with all of its runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self.client = MlflowClient(self.uri)
        self.start()

    def start(self) -> None:
        store = f"--backend-store-uri sqlite:///{self._folder}/mlflow.db --artifacts-destination {self._folder}/files"
        line = f"-m mlflow server {store} --host 127.0.0.1 --port {self._port} --workers 1"
        with (self._folder / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *line.split()],
                cwd=self._folder,
                env=os.environ | _ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + _DEADLINE_S
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError((self._folder / "mlflow.log").read_text()[-2000:])
            time.sleep(0.1)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def runs(self, experiment: str) -> list:
        found = self.client.get_experiment_by_name(experiment)
        return list(self.client.search_runs([found.experiment_id])) if found else []

    def points(self, experiment: str) -> Counter[str]:
        """How many runs there are of each point; those without one are counted as an empty one."""
        return Counter(run.data.tags.get("point_id", "") for run in self.runs(experiment))

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
