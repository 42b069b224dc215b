"""What is done to a sweep and what is checked afterwards; the catalogue is made of these."""

from __future__ import annotations

import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import damage
from lane import kill
from scene import Scene, TooLate, ended

from flopray.monitoring.status import status_of_run
from flopray.store.run import RunFolder

#: Why a point is tried again whose process or node is killed.
LOST_PROCESS = "its process died|its process ended|its process or its node could not be reached|its node was lost"

_alone = threading.Lock()


def nothing(_: Scene) -> Iterable[str]:
    """No further act or check."""
    return ()


# --- the driver


def sigkill(scene: Scene) -> None:
    kill(scene.sweep.pid)


def sigterm(scene: Scene) -> None:
    scene.sweep.signal(signal.SIGTERM)


def ctrl_c(scene: Scene) -> None:
    scene.sweep.signal_like_a_terminal(signal.SIGINT)


def ctrl_c_twice(scene: Scene) -> None:
    ctrl_c(scene)
    time.sleep(scene.random.uniform(0.02, 1.5))
    if scene.sweep.running:
        ctrl_c(scene)


def told_as_killed(scene: Scene) -> Iterable[str]:
    """A killed process prints nothing; `flopray status` says that it was killed."""
    if not scene.run.exists():
        return
    status = status_of_run(scene.run)
    if not status.finished:
        return  # it may have died before it took the run's lock
    if status.finished < scene.points and (status.state != "killed" or str(scene.run) not in (status.resume or "")):
        yield f"status says {status.state!r}, resume {status.resume!r}"


# --- what measures


def kill_actor(scene: Scene) -> None:
    actors: list[int] = []
    scene.wait_until(lambda: actors.extend(scene.lane.find(r"ray::(PointTrial|ReplayTrial|flopray)")) or actors)
    if not actors:
        raise TooLate
    kill(scene.random.choice(actors))


def kill_recorder(scene: Scene) -> None:
    kill(scene.lane.find(r"ray::(sweep |RecorderActor)")[0])


def attempts(scene: Scene) -> Iterable[str]:
    """No point is given up, and a point that was tried again is in the log, with the reason."""
    frame: Any = RunFolder.open(scene.run).load(["attempt", "status", "status_reason"])
    again = [
        line for line in (scene.run / "run.log").read_text().splitlines() if " is tried again after attempt " in line
    ]
    if frame["attempt"].max() > 1 and not any(re.search(LOST_PROCESS, line) for line in again):
        yield "run.log does not say why a point was tried again"
    yield from (f"a point is {reason!r}" for reason in frame.loc[frame["status"] != "ok", "status_reason"])


def given_up(status: str, after: int, reason: str) -> Callable[[Scene], Iterable[str]]:
    """Check that the misbehaving point is a row with its reason, after this many attempts, and all others are ok."""

    def check(scene: Scene) -> Iterable[str]:
        frame: Any = RunFolder.open(scene.run).load(["attempt", "status", "status_reason"])
        bad = frame[frame["status"] != "ok"]
        if [tuple(row) for row in bad[["status", "attempt"]].to_numpy()] != [(status, after)]:
            yield f"not ok: {bad[['status', 'attempt', 'status_reason']].to_dict('records')[:3]}"
        yield from (f"a reason is {text!r}" for text in bad["status_reason"] if not re.match(reason, str(text)))
        again = (scene.run / "run.log").read_text().count(" is tried again after attempt ")
        if again != after - 1:
            yield f"run.log tells of {again} further attempts"

    return check


def behave(scene: Scene) -> None:
    """Points of the resume are short, and none fails."""
    scene.plan = {}


def kill_node(scene: Scene) -> None:
    kill(scene.lane.nodes[1])  # the driver joins the head node, which is the first one


def kill_gcs(scene: Scene) -> None:
    kill(scene.lane.find(r"\S*/gcs_server ")[0])


def kill_own_raylet(scene: Scene) -> None:
    kill(scene.lane.raylets()[0])


# --- its disk


def small_disk(scene: Scene) -> AbstractContextManager[Path]:
    return damage.small_disk(scene.lane.folder / f"disk-{scene.name}")


@contextmanager
def alone(_: Scene) -> Iterator[None]:
    """One round of its kind at a time: two that use up the machine's memory would end each other's sweeps."""
    with _alone:
        yield


def fill(scene: Scene) -> None:
    damage.fill(scene.storage, scene.random.randrange(12_000))


def make_room(scene: Scene) -> None:
    (scene.storage / "ballast").unlink()


def move(scene: Scene) -> None:
    scene.run.rename(scene.run.with_name("elsewhere-" + scene.name))


def move_back(scene: Scene) -> None:
    if {path.name for path in scene.run.glob("*")} <= {"tune"}:  # Ray makes the folder anew for its own files
        shutil.rmtree(scene.run, ignore_errors=True)
    scene.run.with_name("elsewhere-" + scene.name).rename(scene.run)
    scene.ledger.settle()  # while the folder was away it could not read what was written last


# --- its journal, between a kill and the resume


def tear(scene: Scene) -> None:
    scene.damaged |= damage.torn(scene.journal, scene.random)


def flip(scene: Scene) -> None:
    scene.damaged |= damage.flipped(scene.journal, scene.random)


def empty(scene: Scene) -> None:
    scene.damaged |= damage.emptied(scene.journal)


def compact_and_empty(scene: Scene) -> None:
    RunFolder.open(scene.run).compact()
    damage.emptied(scene.journal)


def compact_then_kill(scene: Scene) -> None:
    RunFolder.open(scene.run).compact()
    time.sleep(scene.random.uniform(0.3, 1.0))
    sigkill(scene)


# --- a second command


def second(scene: Scene, flags: str, code: int, says: str) -> None:
    """Run another command during or after the sweep, which must be refused."""
    other = scene.start(flags)
    got = ended(other)
    if got != code or says not in other.output or "Traceback" in other.output:
        scene.refused_wrong.append(f"the second command: exit code {got}, {other.output[-300:]!r}")


def second_driver(scene: Scene) -> None:
    second(scene, scene.resume(), 2, f"is being written by process {scene.sweep.pid} on ")
    if not scene.sweep.running:
        raise TooLate


def other_flags(scene: Scene) -> None:
    second(scene, f"{scene.resume()} --n 7", 2, "--resume takes --n from the run's manifest; leave it out")


def other_devices(scene: Scene) -> None:
    second(scene, f"--resume {scene.run}", 2, "no node has it; the cluster has CPU")
