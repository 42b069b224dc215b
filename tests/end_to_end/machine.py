"""Real sweeps on this machine, started as separate processes that can be identified, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "sweeps"
TAG = "FLOPRAY_TEST_TAG"
T = TypeVar("T")
#: A hang guard, not a measurement: Ray's start alone takes 20 s on a busy machine with two cores.
DEADLINE_S = 150.0
#: Flags of a sweep that shall end soon.
QUICK = "--max-seconds 0.3 --target-error 0.3 --sentinel-every 0 --no-plots"


class Sweep:
    """A running script of `sweeps/`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process, self._log = process, log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """What it printed so far, standard output and error together."""
        return self._log.read_text()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, within_s: float = DEADLINE_S) -> int:
        """Its exit code."""
        return self._process.wait(within_s)

    def signal_like_a_terminal(self, number: signal.Signals) -> None:
        """Ctrl-C goes to the whole process group, so to Ray's processes too."""
        os.killpg(self.pid, number)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


class Machine:
    """Starts sweeps whose processes can be identified on this machine, and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Short, since Ray puts sockets below it, whose paths may have 107 characters.
        self.ray_folder = Path(tempfile.mkdtemp(prefix="fr", dir="/tmp"))
        self._tag = uuid.uuid4().hex
        #: Nothing more is started: what begins while it is being cleaned up would stay behind.
        self.closed = False
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "COVERAGE"))}
        # A home of its own: Ray keeps its token there, and what a user has there must not matter.
        home = folder / "home"
        home.mkdir()
        own = {TAG: self._tag, "RAY_TMPDIR": str(self.ray_folder), "HOME": str(home), "COLUMNS": "80"}
        self.environment |= own

    def run_path(self, name: str) -> Path:
        """Folder of a run."""
        return self.storage / name

    @property
    def storage(self) -> Path:
        return self.folder / "results"

    def start(self, line: str, *, script: str = "mlp_grid.py", **environment: str) -> Sweep:
        """Start a script of `sweeps/`, or the command `flopray` if none is named."""
        self._check_open()
        log = self.folder / f"log-{uuid.uuid4().hex[:8]}.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, *([str(SCRIPTS / script)] if script else ["-m", "flopray"]), *line.split()],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=self.folder,
                env=self.environment | environment,
                start_new_session=True,
            )
        return Sweep(process, log)

    def sweep(self, line: str, *, script: str = "mlp_grid.py") -> tuple[int, str]:
        """Run a sweep to its end; returns its exit code and its output."""
        started = self.start(line, script=script)
        return started.wait(), started.output

    def ray(self, line: str) -> str:
        """Run Ray's own command line, which leaves daemons when it starts a cluster; returns its output."""
        self._check_open()
        command = [sys.executable, "-m", "ray.scripts.scripts", *line.split()]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=DEADLINE_S)
        if done.returncode:
            raise RuntimeError(f"ray {line}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("this machine was closed")

    def processes(self) -> dict[int, str]:
        """Process id and command line of all descendants of the processes that this object has started."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if f"{TAG}={self._tag}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    if command:  # a zombie has none
                        found[int(entry.name)] = command
        return found

    def left_over(self, within_s: float = 20.0) -> dict[int, str]:
        """Processes that are still there after some time to end."""
        until = time.monotonic() + within_s
        while self.processes() and time.monotonic() < until:
            time.sleep(0.2)
        return self.processes()

    @staticmethod
    def wait_for(condition: Callable[[], T], within_s: float = DEADLINE_S) -> T:
        """The first true value of a condition."""
        until = time.monotonic() + within_s
        while not (value := condition()):
            if time.monotonic() > until:
                raise TimeoutError("the condition was not met in time")
            time.sleep(0.05)
        return value

    @staticmethod
    def journal_ids(run: Path) -> list[str]:
        """Trial ids of the journal's complete lines, in their order, with repetitions."""
        journal = run / "journal.jsonl"
        lines = journal.read_text().splitlines(keepends=True) if journal.exists() else []
        return [json.loads(line)["entry"]["trial_id"] for line in lines if line.endswith("\n")]

    @staticmethod
    def kill(pid: int) -> None:
        """Kill a process if it has not ended by itself."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def end_processes(self) -> None:
        """End all that this object has started; `ray stop` would end every other Ray on this machine too."""
        for pid in self.processes():
            self.kill(pid)

    def clean_up(self) -> None:
        self.end_processes()
        shutil.rmtree(self.ray_folder, ignore_errors=True)


def free_port() -> int:
    """A TCP port that nothing listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
