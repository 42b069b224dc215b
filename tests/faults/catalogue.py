"""The kinds of faults: what is done to a sweep, and what its user must be told."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import damage
from lane import kill
from scene import Scene, ended

from flopray.store import RunFolder
from flopray.watch.status import status_of_run

Act = Callable[[Scene], Any]
INTERRUPTED = r"^interrupted; every finished point is in the journal\. Go on with:\n  python \S+ --resume \S+"
NOT_SAVED = r"^error: \d+ points? could not be saved to \S+journal\.jsonl: "
MEND = r"; all points before are safe: mend that, and --resume \S+ goes on$"
GONE = r"the run folder or its journal was (removed|replaced) while the run was being written"
LOST_CLUSTER = r"^error: the sweep lost its cluster .*--resume \S+"


def nothing(_: Scene) -> Iterable[str]:
    """No further act or check."""
    return ()


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: on the command line and in the table.
        strike: does it.
        codes: exit codes that the struck command may have.
        says: patterns of what it must print.
        check: what else is wrong after it, in words; each line is a wrong message.
        mend: done before the resume: damage between the two, or making room.
        resume_says: patterns of what the resume must print.
        resumes: whether a resume follows; otherwise the struck command must have finished the sweep.
        layout: of the cluster; `any` stands for a standing one or one of its own.
        any_time: may strike during start-up, and after the last point while tables are made.
        ends_cluster: whether the cluster is no more after it.
        place: storage of the run, None for the lane's.
        plan: of `driver`, from a scene.
        device_type: of the points.
        flags: further flags of the sweep.
    """

    name: str
    strike: Act
    codes: tuple[int, ...] = (0,)
    says: tuple[str, ...] = ()
    check: Callable[[Scene], Iterable[str]] = nothing
    mend: Act = nothing
    resume_says: tuple[str, ...] = ()
    resumes: bool = True
    layout: str = "any"
    any_time: bool = False
    ends_cluster: bool = False
    place: Callable[[Scene], AbstractContextManager[Path | None]] = lambda _: nullcontext()
    plan: dict[str, object] | None = None
    device_type: str = "CPU"
    flags: str = ""

    @property
    def can_be_real(self) -> bool:
        """Whether its points can be measured and not replayed: on this machine, and none misbehaves."""
        return self.plan is None and self.device_type == "CPU"


# --- the driver


def _sigkill(scene: Scene) -> None:
    kill(scene.sweep.pid)


def _sigterm(scene: Scene) -> None:
    scene.sweep.signal(signal.SIGTERM)


def _ctrl_c(scene: Scene) -> None:
    scene.sweep.signal_like_a_terminal(signal.SIGINT)


def _ctrl_c_twice(scene: Scene) -> None:
    _ctrl_c(scene)
    time.sleep(scene.random.uniform(0.02, 1.5))
    if scene.sweep.running:
        _ctrl_c(scene)


def _told_as_killed(scene: Scene) -> Iterable[str]:
    """A killed process says nothing; `flopray status` does."""
    if not scene.run.exists():
        return
    status = status_of_run(scene.run)
    if not status.finished:
        return  # it may have died before it took the run's lock
    if status.finished < scene.points and (status.state != "killed" or str(scene.run) not in (status.resume or "")):
        yield f"status says {status.state!r}, resume {status.resume!r}"


# --- what measures


def _kill_actor(scene: Scene) -> None:
    actors = (
        scene.lane.find("ray::PointTrial") or scene.lane.find("ray::ReplayTrial") or scene.lane.find("ray::flopray")
    )
    if actors:
        kill(scene.random.choice(actors))


def _attempts(scene: Scene) -> Iterable[str]:
    """At most two attempts; one that is not the first stands in the log, with its reason."""
    frame: Any = RunFolder.open(scene.run).load(["attempt", "status", "status_reason"])
    log = (scene.run / "run.log").read_text()
    if frame["attempt"].max() > 2:
        yield f"attempt {frame['attempt'].max()} of a point"
    if frame["attempt"].max() > 1 and "its process died" not in log:
        yield "run.log does not say why a point was tried again"
    failed = frame[frame["status"] != "ok"]
    yield from (f"a point is {reason!r}" for reason in failed["status_reason"] if "process died" not in str(reason))


def _kill_node(scene: Scene) -> None:
    kill(scene.lane.nodes[1])


def _kill_gcs(scene: Scene) -> None:
    kill(scene.lane.find(r"\S*/gcs_server ")[0])


def _kill_own_raylet(scene: Scene) -> None:
    kill(scene.lane.raylets()[0])


# --- its disk


def _small_disk(scene: Scene) -> AbstractContextManager[Path]:
    return damage.small_disk(scene.lane.folder / f"disk-{scene.name}")


def _fill(scene: Scene) -> None:
    damage.fill(scene.storage, scene.random.randrange(12_000))


def _make_room(scene: Scene) -> None:
    (scene.storage / "ballast").unlink()


def _move(scene: Scene) -> None:
    scene.run.rename(scene.run.with_name("elsewhere-" + scene.name))


def _move_back(scene: Scene) -> None:
    scene.run.with_name("elsewhere-" + scene.name).rename(scene.run)


# --- its journal, between a kill and the resume


def _tear(scene: Scene) -> None:
    scene.damaged |= damage.torn(scene.journal, scene.random)


def _flip(scene: Scene) -> None:
    scene.damaged |= damage.flipped(scene.journal, scene.random)


def _empty(scene: Scene) -> None:
    scene.damaged |= damage.emptied(scene.journal)


def _compact_and_empty(scene: Scene) -> None:
    RunFolder.open(scene.run).compact()
    damage.emptied(scene.journal)


def _compact_then_kill(scene: Scene) -> None:
    RunFolder.open(scene.run).compact()
    time.sleep(scene.random.uniform(0.3, 1.0))
    _sigkill(scene)


# --- a second command


def _second(scene: Scene, flags: str, code: int, says: str) -> None:
    """Run another command beside or after the sweep, which must be refused."""
    other = scene.start(flags)
    got = ended(other)
    if got != code or says not in other.output or "Traceback" in other.output:
        scene.refused_wrong.append(f"the second command: exit code {got}, {other.output[-300:]!r}")


def _second_driver(scene: Scene) -> None:
    _second(scene, scene.resume(), 2, f"is being written by process {scene.sweep.pid} on ")


def _other_flags(scene: Scene) -> None:
    _second(scene, f"{scene.resume()} --n 7", 2, "--resume takes --n from the run's manifest; leave it out")


def _other_devices(scene: Scene) -> None:
    _second(scene, f"--resume {scene.run}", 2, "no node has it; the cluster has CPU")


KINDS = {
    kind.name: kind
    for kind in (
        Kind("driver-sigkill", _sigkill, (-9,), check=_told_as_killed, any_time=True),
        Kind("driver-sigterm", _sigterm, (130,), (INTERRUPTED,), any_time=True),
        Kind("driver-ctrl-c", _ctrl_c, (130,), (INTERRUPTED,), any_time=True),
        Kind("driver-ctrl-c-twice", _ctrl_c_twice, (130,), (INTERRUPTED,), any_time=True),
        Kind("actor-sigkill", _kill_actor, (0, 3), check=_attempts, resumes=False),
        Kind("node-lost", _kill_node, (0, 3), check=_attempts, resumes=False, layout="pair", ends_cluster=True),
        Kind("gcs-sigkill", _kill_gcs, (1,), (LOST_CLUSTER,), layout="plain", ends_cluster=True),
        Kind("raylet-sigkill", _kill_own_raylet, (1,), (LOST_CLUSTER,), layout="plain", ends_cluster=True),
        Kind(
            "disk-full",
            _fill,
            (1,),
            (NOT_SAVED + "No space left on device" + MEND,),
            mend=_make_room,
            place=_small_disk,
        ),
        Kind(
            "folder-read-only",
            lambda scene: damage.freeze(scene.run, frozen=True),
            (1,),
            (NOT_SAVED + "Operation not permitted" + MEND,),
            mend=lambda scene: damage.freeze(scene.run, frozen=False),
        ),
        Kind("folder-moved", _move, (1,), (NOT_SAVED + GONE + MEND,), mend=_move_back),
        Kind(
            "journal-torn",
            _sigkill,
            (-9,),
            mend=_tear,
            resume_says=(r"^warning: .* ended in a torn line of \d+ bytes",),
        ),
        Kind("journal-flipped", _sigkill, (-9,), mend=_flip, resume_says=(r"^warning: 1 damaged line in .* skipped",)),
        Kind("journal-emptied", _sigkill, (-9,), mend=_empty),
        Kind("journal-emptied-with-parquet", _sigkill, (-9,), mend=_compact_and_empty),
        Kind("parquet-older", _compact_then_kill, (-9,)),
        Kind("second-driver", _second_driver, resumes=False, layout="plain", plan={"point_s": 0.1}),
        Kind("other-flags", _sigkill, (-9,), mend=_other_flags, layout="plain"),
        Kind("other-devices", _sigkill, (-9,), mend=_other_devices, layout="boastful", device_type="H100"),
        Kind(
            "point-exits",
            nothing,
            (3,),
            check=_attempts,
            resumes=False,
            plan={"act": "exit", "shape": {"n_layers": 2, "width": 32, "tokens": 40}},
        ),
    )
}
