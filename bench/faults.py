"""Faults, one per round, at random moments of real sweeps: is a point lost or doubled, or a failure not reported?

    python bench/faults.py --rounds 200 --out results/faults                  # some 24 s per round on two cores
    python bench/faults.py --rounds 3 --out again --only driver-sigkill --seed 71   # the round of seed 71, two more
    python bench/faults.py --list

A round starts a sweep of some hundred short points by its command line, causes one fault, waits for its end, continues
it with the command that it printed, and compares the run's folder with what was reported before. `tests/faults` has the
kinds, the rounds and the checks. Writes `faults.json` and `faults.md` after each round; exits with 1 if anything was
lost, doubled, hung, or reported wrongly. The log and the folder of a failed round are kept in `--out`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("faults", "end_to_end")]

from catalogue import KINDS  # noqa: E402
from faults_table import markdown  # noqa: E402
from lane import Lane  # noqa: E402
from rounds import Outcome, play  # noqa: E402

#: Shares of the rounds that really measure, and of those whose sweep starts its own Ray, among the kinds that can.
REAL, OWN = 0.1, 0.15


def schedule(rounds: int, only: list[str], seed: int) -> list[tuple[str, int]]:
    """Kind and seed of each round: kinds in turn, grouped by the cluster that they need."""
    names = [only[i % len(only)] for i in range(rounds)]
    return sorted(((name, seed + i) for i, name in enumerate(names)), key=lambda job: KINDS[job[0]].layout)


class Campaign:
    """Runs rounds in lanes and records their findings."""

    def __init__(self, out: Path, jobs: list[tuple[str, int]]) -> None:
        self._out, self._total = out, len(jobs)
        self._jobs: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        for job in jobs:
            self._jobs.put(job)
        self._lock = threading.Lock()
        self._begin_s = time.monotonic()
        self._ended = False
        self.outcomes: list[Outcome] = []
        self.skipped: dict[str, str] = {}

    def run(self, count: int) -> None:
        """Run all rounds, some in parallel; their processes are ended, also after Ctrl-C."""
        with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
            lanes = [Lane(Path(folder) / str(number)) for number in range(count)]
            threads = [threading.Thread(target=self._play_all, args=[lane], daemon=True) for lane in lanes]
            try:
                for thread in threads:
                    thread.start()
                while any(thread.is_alive() for thread in threads):
                    time.sleep(0.5)
            finally:
                self._ended = True  # the rounds that are running fail now, and report nothing
                for lane in lanes:
                    lane.closed = True
                    lane.clean_up()

    def _play_all(self, lane: Lane) -> None:
        with contextlib.suppress(queue.Empty):
            while not self._ended:
                self._round(lane, *self._jobs.get_nowait())

    def _round(self, lane: Lane, kind: str, seed: int) -> None:
        if kind in self.skipped:
            return
        chance = random.Random(f"conditions {seed}")
        how = {"real": chance.random() < REAL, "own": chance.random() < OWN}
        try:
            outcome = play(KINDS[kind], lane, seed, **how)
        except PermissionError as error:
            self.skipped[kind] = str(error)
            return
        except Exception as error:
            if self._ended:
                return
            outcome = Outcome(kind, seed, "the rig failed", wrong=[f"{type(error).__name__}: {error}"])
            lane.end_cluster()
        with self._lock:
            if not self._ended:
                self._note(lane, outcome)

    def _note(self, lane: Lane, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if not outcome.ok:
            kept = self._out / "failed" / f"{outcome.kind}-{outcome.seed}"
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir(parents=True)
            if lane.storage.exists():
                shutil.copytree(lane.storage, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tune"))
            (kept / "log.txt").write_text(outcome.log)
        shutil.rmtree(lane.storage, ignore_errors=True)
        self.write()
        done = len(self.outcomes)
        left_s = (time.monotonic() - self._begin_s) / done * (self._total - done)
        word = "ok" if outcome.ok else "WRONG " + "; ".join(_problems(outcome))
        where = f"{outcome.kind} seed {outcome.seed} ({outcome.conditions})"
        print(f"{done}/{self._total} ETA {left_s / 60:.0f} min | {where}: {word}", file=sys.stderr, flush=True)

    def write(self) -> None:
        """Write all outcomes so far, as JSON and as a table."""
        found = {"skipped": self.skipped, "rounds": [outcome.to_dict() for outcome in self.outcomes]}
        (self._out / "faults.json").write_text(json.dumps(found, indent=1) + "\n")
        (self._out / "faults.md").write_text(markdown(self.outcomes, self.skipped))


def _problems(outcome: Outcome) -> list[str]:
    counts = {"lost": outcome.lost, "duplicates": outcome.duplicates}
    return [f"{len(ids)} {name}" for name, ids in counts.items() if ids] + outcome.hangs + outcome.wrong


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path, help="folder for faults.json, faults.md and failed rounds")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the first round")
    parser.add_argument("--only", nargs="+", metavar="KIND", choices=KINDS, default=list(KINDS), help="kinds of faults")
    parser.add_argument("--lanes", type=int, default=2, help="rounds in parallel (default 2)")
    parser.add_argument("--list", action="store_true", help="print the kinds and do nothing")
    args = parser.parse_args()
    if args.list:
        print(*KINDS, sep="\n")
        return 0
    if args.out is None or args.rounds < 1 or args.lanes < 1:
        parser.error("give --out FOLDER, and at least one round and one lane")
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs, and what they start, ignore Ctrl-C
        signal.signal(number, signal.default_int_handler)
    args.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # the rig made the damage
    print(f"seed {args.seed}: round i has seed {args.seed} + i", file=sys.stderr)
    jobs = schedule(args.rounds, args.only, args.seed)
    campaign = Campaign(args.out, jobs)
    campaign.write()
    with contextlib.suppress(KeyboardInterrupt):  # the table of the rounds so far
        campaign.run(args.lanes)
    print((args.out / "faults.md").read_text())
    played = len(campaign.outcomes) + sum(kind in campaign.skipped for kind, _ in jobs)
    return 0 if campaign.outcomes and played == len(jobs) and all(outcome.ok for outcome in campaign.outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
