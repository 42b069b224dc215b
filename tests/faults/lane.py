"""Rounds that run one after the other, with their own processes and, if needed, a standing cluster."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from machine import Machine

#: Flags of the nodes of a cluster: the head node first.
LAYOUTS = {
    "plain": ("--num-cpus=2",),
    "pair": ("--num-cpus=1", "--num-cpus=1 --node-ip-address=127.0.0.2"),
    "boastful": ('--num-cpus=2 --num-gpus=1 --resources={"accelerator_type:H100":1}',),
}


class Lane(Machine):
    """A machine with a standing cluster, which is started when a round needs it and kept while all its nodes live."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder)
        # A sweep on a Ray of its own makes a token, which later clusters of this home would ask for.
        self.environment |= {"RAY_AUTH_MODE": "disabled"}
        self._layout: str | None = None
        self._address = ""
        self.nodes: list[int] = []
        #: Seconds from a command to its first point, for the moment of faults during start-up.
        self.start_s = 10.0

    def cluster(self, layout: str) -> str:
        """Address of a standing cluster of this layout."""
        if self._layout != layout or not self.raylets():
            self.end_cluster()
            head, *others = LAYOUTS[layout]
            flags = "--port=0 --include-dashboard=false --min-worker-port=0 --max-worker-port=0"
            started = self.ray(f"start --head {flags} {head}")
            found = re.search(r"--address='([^']+)'", started)
            assert found, started
            self._address = found[1]
            self.nodes = self.raylets()
            for node in others:
                self.ray(f"start --address={self._address} --min-worker-port=0 --max-worker-port=0 {node}")
                self.nodes += [pid for pid in self.raylets() if pid not in self.nodes]
            self._layout = layout
        return self._address

    def end_cluster(self) -> None:
        """End it, and all other processes of this lane."""
        self._layout = None
        self.end_processes()

    def raylets(self) -> list[int]:
        """Process ids of the lane's raylets, oldest first."""
        return sorted(self.find(r"\S*/raylet "))

    def find(self, pattern: str) -> list[int]:
        """Process ids of the lane whose command line begins with a pattern."""
        return [pid for pid, command in self.processes().items() if re.match(pattern, command)]


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)
