"""Runs a round: a sweep, one fault at a random moment, a resume; then compares the run with what was reported."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from catalogue import Kind, nothing
from lane import Lane, is_running
from ledger import duplicates, lost, measurements, printed_count, printed_ids
from scene import Hang, Scene, TooLate, ended

from flopray.store.run import RunFolder

#: Parts of a sweep, and how often a fault that may come at any time comes in each.
SHARES = {"start-up": 0.2, "middle": 0.65, "tables": 0.15}
_TRIES = 3
#: What no user should see.
_NOISE = re.compile(
    r"Traceback \(most recent|Logging error|^\*\*\* |StackTrace|core dumped|^\[[\d-]+ [\d:,]+ [EFC] ", re.MULTILINE
)
#: Lines that may occur among the events of `--json`.
_PLAIN = re.compile(r'\{"event"|interrupted|  python |  flopray |error: |warning: |$')


@dataclass
class Outcome:
    """What a round found.

    Attributes:
        kind, seed: which round.
        conditions: of the round, in words.
        finished_before: points that were reported when the fault came.
        lost, duplicates: trial ids.
        hangs, wrong: in words: commands that did not end; exit codes and messages that were not as they should be.
        end_s: from the fault to the end of the command.
        resume_s: of the resume.
    """

    kind: str
    seed: int
    conditions: str
    finished_before: int = 0
    lost: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    end_s: float | None = None
    resume_s: float | None = None
    log: str = ""

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.duplicates or self.hangs or self.wrong)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def play(kind: Kind, lane: Lane, seed: int, *, real: bool = False, own: bool = False) -> Outcome:
    """Run one round. If the sweep ended before the fault, the round is repeated.

    Args:
        kind: of fault.
        lane: where.
        seed: of the moment and of all else that is random.
        real: measure points really where the kind allows it.
        own: let the sweep start its own Ray where the kind allows it.

    Raises:
        PermissionError: this machine does not permit the fault.
    """
    layouts = {"any": None if own else "plain", "own": None}
    layout = layouts.get(kind.layout, kind.layout)
    for attempt in range(_TRIES):
        scene = Scene(lane, seed + attempt * 10**6, layout=layout, real=real and kind.can_be_real, plan=kind.plan)
        scene.device_type, scene.flags = kind.device_type, kind.flags
        with kind.place(scene) as storage:
            scene.storage, scene.environment = storage or lane.storage, kind.environment()
            outcome = _play(kind, scene, Outcome(kind.name, seed, _words(scene)))
        if kind.ends_cluster:
            lane.end_cluster()
        if outcome is not None:
            return outcome
    raise RuntimeError(f"{kind.name}, seed {seed}: the sweep ended before the fault {_TRIES} times")


def _words(scene: Scene) -> str:
    words = ["real" if scene.real else "replay", scene.layout or "own Ray", "json" if scene.json else "text"]
    return ", ".join(words)


def _play(kind: Kind, scene: Scene, outcome: Outcome) -> Outcome | None:
    try:
        scene.begin()
        when = scene.random.choices(list(SHARES), SHARES.values())[0] if kind.any_time else "middle"
        outcome.conditions += "" if when == "middle" else f", {when}"
        with scene.ledger:
            scene.wait_for_moment(when, kind.within)
            if kind.strike is not nothing and not is_running(scene.sweep.pid):
                return None if not scene.end() else _died(scene, outcome)
            outcome.finished_before = scene.ledger.count
            if when == "middle" and kind.resumes and outcome.finished_before == scene.points:
                return None if not scene.end() else _died(scene, outcome)
            begin_s = time.monotonic()
            kind.strike(scene)
            code = scene.end()
        outcome.end_s = time.monotonic() - begin_s
        if code == 0 and 0 not in kind.codes and (when == "tables" or not kind.any_time):
            return None
        outcome.wrong += _ended_wrong(kind, scene, code)
        kind.mend(scene)
        outcome.lost += sorted(_untold(scene))
        if kind.resumes:
            _go_on(kind, scene, outcome)
        _judge(scene, outcome)
    except TooLate:
        scene.end()
        return None
    except Hang as hang:
        outcome.hangs.append(str(hang))
        scene.lane.end_cluster()
    outcome.wrong += scene.refused_wrong
    outcome.log = scene.sweep.output + "\n== resume\n" + outcome.log
    return outcome


def _died(scene: Scene, outcome: Outcome) -> Outcome:
    outcome.wrong.append("the sweep ended by itself before the fault")
    outcome.log = scene.sweep.output
    return outcome


def _ended_wrong(kind: Kind, scene: Scene, code: int) -> Iterable[str]:
    output = scene.sweep.output
    if code not in kind.codes:
        yield f"exit code {code}"
    # Before the run's folder is there, and once its last file is, there is nothing to go on with.
    goes_on = not kind.any_time or (scene.run.exists() and not RunFolder.open(scene.run).has_results())
    yield from _messages(scene, output, kind.says if goes_on or not kind.says else ("^interrupted",))
    yield from kind.check(scene)
    if scene.layout is None and code >= 0:  # Ray ends what a killed driver leaves
        yield from (f"left behind: {line[:100]!r}" for line in scene.left_behind().values())


def _messages(scene: Scene, output: str, says: Iterable[str]) -> Iterable[str]:
    yield from (f"no message like {text!r}" for text in says if not re.search(text, output, re.MULTILINE))
    yield from {f"shown to the user: {noise[0]!r}" for noise in _NOISE.finditer(output)}
    if scene.json:
        beside = [line for line in output.splitlines() if not _PLAIN.match(line)]
        yield from (f"beside the events: {line!r}" for line in beside[:3])


def _untold(scene: Scene) -> set[str]:
    """Points that were printed as finished and are not in the journal."""
    missing = printed_ids(scene.sweep.output) - set(scene.ledger.told)
    uncounted = printed_count(scene.sweep.output) - len(scene.ledger.told)
    return missing | {f"{uncounted} counted points" for _ in range(1) if uncounted > 0}


def _go_on(kind: Kind, scene: Scene, outcome: Outcome) -> None:
    """Continue the run as its user would: with the printed command, or from the start if nothing began."""
    if kind.ends_cluster:
        scene.lane.end_cluster()
    codes, says = kind.resume_codes, kind.resume_says if scene.damaged else ()
    if not scene.run.exists():
        line = scene.new_run()
    else:
        line = scene.resume() if kind.ends_cluster else scene.printed_command()
        left = scene.points - len(RunFolder.open(scene.run).finished())
        if left and not scene.json:
            says += (rf"^resuming \S+: {left} points are left",)
        if not left and RunFolder.open(scene.run).has_results():  # the kill came after the last file
            codes, says = (2,), ("^error: .* is finished",)
    begin_s = time.monotonic()
    resumed = scene.start(line)
    code = ended(resumed)
    outcome.resume_s = time.monotonic() - begin_s
    found = [f"exit code {code}"] * (code not in codes) + list(_messages(scene, resumed.output, says))
    outcome.wrong += [f"resume: {text}" for text in found]
    if found:
        outcome.log = resumed.output


def _judge(scene: Scene, outcome: Outcome) -> None:
    """Compare the run with the grid and with what was reported."""
    rows: Any = RunFolder.open(scene.run).load(["trial_id", "phase", "started_unix_s", "status"])
    final = dict(zip(rows["trial_id"], rows["started_unix_s"], strict=True))
    lines = [trial_id for trial_id, _ in measurements(scene.journal.read_bytes())]
    outcome.lost += sorted(lost(scene.ledger.told, scene.damaged, final))
    outcome.duplicates += sorted(duplicates(lines, zip(rows["trial_id"], rows["phase"], strict=True)))
    if len(final) != scene.points:
        outcome.wrong.append(f"{len(final)} of {scene.points} points in the end")
    for name in ("records.parquet", "summary.json"):
        if not (scene.run / name).exists():
            outcome.wrong.append(f"no {name} in the end")
    if outcome.ok:
        shutil.rmtree(scene.run)
