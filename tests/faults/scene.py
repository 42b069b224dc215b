"""One run of a round: its commands, the moment of the fault, and what was reported while it ran."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import TimeoutExpired

from driver import PLAN_VARIABLE
from lane import Lane, catches, is_running
from ledger import Ledger
from machine import Sweep

HERE = Path(__file__).parent
#: Points of sweeps whose profiler replays, and of those that really measure.
REPLAYED, REAL = "--n 1 2 3 --d 8:64:8 --m 8:80:8", "--n 1 2 --d 16:64:16 --m 8:64:8"
COUNTS = {REPLAYED: 240, REAL: 64}
FLAGS = "--instruments time --phases forward --max-seconds 0.01 --target-error 0.5 --sentinel-every 0 --no-plots"
#: A command that takes longer than this hangs; the slowest ones take a fraction of it.
HANG_S = 150.0
#: A fault comes this long after a point at the most, which is more than the driver waits between two looks.
_JITTER_S = 0.4
#: About the time that the tables, the summary and leaving the cluster take.
_TABLES_S = 2.0


class Hang(Exception):
    """A command did not end."""


class TooLate(Exception):
    """The sweep had ended before the fault could come."""


class Scene:
    """A run with a fault.

    Args:
        lane: where.
        seed: of all that is random in it.
        layout: of the cluster; None lets each command start a Ray of its own.
        real: whether points are measured and not replayed.
        plan: of `driver`.
    """

    def __init__(
        self, lane: Lane, seed: int, *, layout: str | None, real: bool = False, plan: dict[str, object] | None = None
    ) -> None:
        self.lane, self.random = lane, random.Random(seed)
        self.layout, self.real, self.plan = layout, real, plan or {}
        self.json = self.random.random() < 0.5
        self.grid = REAL if real else REPLAYED
        self.points = COUNTS[self.grid]
        self.name = f"r{seed}-{time.time_ns() % 10**6}"
        self.storage = lane.storage
        self.device_type, self.flags = "CPU", ""
        self.environment: dict[str, str] = {}
        #: Points whose lines the rig destroyed.
        self.damaged: set[str] = set()
        #: What was wrong with further commands of the round.
        self.refused_wrong: list[str] = []
        self._cores = self.random.choice((1, 2)) if layout != "pair" else 1
        self._slab = self.random.choice(("8", "24", "60"))

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.storage / self.name

    @property
    def journal(self) -> Path:
        """Its journal."""
        return self.run / "journal.jsonl"

    @property
    def address(self) -> str:
        """The flag that joins the cluster, if there is one."""
        return f"--address {self.lane.cluster(self.layout)}" if self.layout else ""

    @property
    def script(self) -> str:
        """The script that is run."""
        return "mlp_grid.py" if self.real else str(HERE / "driver.py")

    def new_run(self) -> str:
        """The flags of the run."""
        space = f"{self.grid} --accelerators {self.device_type} --cpus-per-trial {self._cores}"
        slabs = f"--points-per-trial {self._slab} {FLAGS} {self.flags}"
        return f"{self.address} {space} {slabs} --name {self.name} --storage {self.storage}"

    def resume(self) -> str:
        """The flags that continue it."""
        return f"--resume {self.run} {self.address} --no-plots"

    def start(self, line: str) -> Sweep:
        """Start the script."""
        words = f"{line} --json" if self.json and "--json" not in line else line
        environment = self.environment | {PLAN_VARIABLE: json.dumps(self.plan)}
        return self.lane.start(words, script=self.script, **environment)

    def begin(self) -> None:
        """Start the run that will get the fault, and its ledger."""
        line = self.new_run()  # starts the cluster, if one is needed
        self._there = set(self.lane.processes())
        self.ledger = Ledger(self.journal)
        self._begin_s = time.monotonic()
        self.sweep = self.start(line)

    def wait_for_moment(self, when: str, within: float) -> None:
        """Wait for a random moment: of the `start-up`, of the `middle`, which is from the first line of the journal to
        that share of them, or after the last one, while `tables` are made.
        """
        if when == "start-up":
            self.wait_until(lambda: catches(self.sweep.pid, signal.SIGTERM))
            until = time.monotonic() + self.random.uniform(0, self.lane.start_s)
            self.wait_until(lambda: time.monotonic() > until or self.ledger.count)
            return
        after = self.points if when == "tables" else self.random.randint(1, round(within * self.points))
        self.wait_until(lambda: self.ledger.count)
        self.lane.start_s = time.monotonic() - self._begin_s
        self.wait_until(lambda: self.ledger.count >= after)
        time.sleep(self.random.uniform(0, _TABLES_S if when == "tables" else _JITTER_S))

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait while the sweep runs.

        Raises:
            Hang: it takes too long.
        """
        until = time.monotonic() + HANG_S
        while not condition() and is_running(self.sweep.pid):
            if time.monotonic() > until:
                raise Hang(f"no progress: {self.sweep.output[-300:]}")
            time.sleep(0.01)

    def end(self) -> int:
        """Wait for the command with the fault; returns its exit code.

        Raises:
            Hang: it does not end.
        """
        code = ended(self.sweep)
        self.ledger.settle()
        return code

    def left_behind(self, within_s: float = 30.0) -> dict[int, str]:
        """Processes of the sweep's own Ray that are still there after some time to end."""
        until = time.monotonic() + within_s
        while left := {pid: line for pid, line in self.lane.processes().items() if pid not in self._there}:
            if time.monotonic() > until:
                return left
            time.sleep(0.2)
        return {}

    def printed_command(self) -> str:
        """The flags of the command that the sweep printed to continue; those of `resume` if it printed none."""
        found = re.search(r"^ +(?:flopray|python -m flopray) resume (.*)$", self.sweep.output, re.MULTILINE)
        return f"--resume {found[1]} --no-plots" if found else self.resume()


def ended(sweep: Sweep) -> int:
    """Wait for a command; its exit code.

    Raises:
        Hang: it does not end.
    """
    try:
        return sweep.wait(HANG_S)
    except TimeoutExpired:
        raise Hang(f"not ended after {HANG_S:.0f} s: {sweep.output[-300:]}") from None
