"""Finds Nsight Compute's `ncu`, asks what it knows, and runs it around a command.

Ray cannot start ncu around an actor (https://github.com/ray-project/ray/issues/53759), so it runs as a child process.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from flopray.errors import Unsupported
from flopray.flops.executed.metrics import CounterPass
from flopray.flops.executed.report import DOMAIN

_FOLDERS = ("/usr/local/cuda*/bin", "/opt/nvidia/nsight-compute/*", "/usr/local/NVIDIA-Nsight-Compute*")
_POLL_S = 0.1
#: How long a killed process group may take to end.
_GONE_S = 10.0


def find_ncu() -> Path:
    """The ncu of this machine: `FLOPRAY_NCU` if it is set, else the one on PATH, else the newest that is installed.

    Raises:
        Unsupported: there is none, with what would give one.
    """
    chosen = os.environ.get("FLOPRAY_NCU")
    if chosen:
        if not os.access(chosen, os.X_OK) or Path(chosen).is_dir():
            raise Unsupported(f"FLOPRAY_NCU names {chosen}, which is not a program: set it to the path of ncu")
        return Path(chosen)
    on_path = shutil.which("ncu")
    if on_path:
        return Path(on_path)
    installed = [
        path for folder in _FOLDERS for path in Path("/").glob(f"{folder[1:]}/ncu") if os.access(path, os.X_OK)
    ]
    if not installed:
        raise Unsupported(
            "ncu is not installed: install Nsight Compute (part of the CUDA toolkit), or set FLOPRAY_NCU to its path"
        )
    return max(installed, key=lambda path: [int(number) for number in re.findall(r"\d+", str(path))])


@cache
def ncu_version(path: Path) -> str:
    """Version such as `2025.3.1.0`.

    Raises:
        Unsupported: it does not start.
    """
    match = re.search(r"Version (\d+(?:\.\d+)+)", _ask(path, "--version"))
    if match is None:
        raise Unsupported(f"{path} does not state its version: is it Nsight Compute?")
    return match[1]


@cache
def known_chips(path: Path) -> frozenset[str]:
    """Chips whose counters this ncu can read, by NVIDIA's short names such as `gh100`.

    Raises:
        Unsupported: it does not start.
    """
    return frozenset(re.findall(r"\b[a-z]{2}\d{2}[0-9a-z]\b", _ask(path, "--list-chips")))


@cache
def listed_metrics(path: Path) -> frozenset[str]:
    """Metrics that ncu lists for the GPU of this machine, without the part after a dot; empty where it cannot."""
    try:
        listed = _ask(path, "--query-metrics")
    except Unsupported:
        return frozenset()
    return frozenset(re.findall(r"^([a-z][a-z0-9]*__\w+)", listed, re.MULTILINE))


def check_chip(path: Path, chip: str) -> None:
    """Refuse a chip whose counters this ncu cannot read.

    Raises:
        Unsupported: with what would help.
    """
    if chip not in known_chips(path):
        older = "an older ncu (2025.3 no longer knows Volta)" if chip == "gv100" else "a newer ncu"
        raise Unsupported(f"ncu {ncu_version(path)} does not know the chip {chip}: install {older}")


def _ask(path: Path, option: str) -> str:
    try:
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unsupported(f"{path} does not start: {error}") from error
    return done.stdout


def command(path: Path, counters: CounterPass, log: Path, worker: Sequence[str]) -> list[str]:
    """The command line that counts what a worker launches inside of NVTX ranges of flopray's domain.

    Clocks and caches are left alone: counts do not depend on them, and other processes do.

    Args:
        path: of ncu.
        counters: what to count.
        log: where ncu writes its messages and its table.
        worker: the command to run.
    """
    return [
        *(str(path), "--clock-control", "none", "--cache-control", "none", "--print-units", "base"),
        *("--nvtx", "--nvtx-include", f"regex:{DOMAIN}@.+"),
        *("--csv", "--page", "details", "--log-file", str(log), "--metrics", ",".join(counters.weights)),
        *worker,
    ]


class Process:
    """A running command with the processes that it started; it ends with the context.

    Args:
        arguments: the command.
        output: file for what it prints.
        environment: of the process.
    """

    def __init__(self, arguments: Sequence[str], *, output: Path, environment: dict[str, str]) -> None:
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._process)

    def finish(self, *, quiet_for_s: float, progress: Callable[[], object]) -> str | None:
        """Wait for its end, or kill it when its progress stops.

        Args:
            quiet_for_s: it is killed when `progress` returns the same value for this long.
            progress: asked several times a second.

        Returns:
            None when it ended well, else one line that says how it ended.
        """
        try:
            last, since = progress(), time.monotonic()
            while self._process.poll() is None:
                time.sleep(_POLL_S)
                now = progress()
                if now != last:
                    last, since = now, time.monotonic()
                elif time.monotonic() - since > quiet_for_s:
                    return f"nothing moved for {quiet_for_s:.0f} s"
        finally:
            _end(self._process)
        return None if self._process.returncode == 0 else _how(self._process.returncode)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group: the worker may still run when ncu itself has ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_GONE_S)


def _how(code: int) -> str:
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it ended with exit code {code}"
