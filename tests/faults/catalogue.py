"""The kinds of faults: what is done to a sweep, and what its user must be told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import acts
import damage
from acts import given_up, nothing
from scene import Scene

Act = Callable[[Scene], Any]
INTERRUPTED = r"^interrupted; every finished point is in the journal\. Go on with:\n  .*flopray resume \S+"
NOT_SAVED = r"^error: \d+ points? could not be saved to \S+journal\.jsonl: "
MEND = r"; all points before are safe: mend that, and .*flopray resume \S+.* goes on$"
GONE = r"the run folder or its journal was (removed|replaced) while the run was being written"
TORN = r"^warning: \S+ ended in a torn line of \d+ bytes: cut off and kept as journal\.torn-"
DAMAGED = r"^warning: 1 damaged line in \S+ \(first: line \d+\) skipped; a resume measures those points again"
STOPPED = r"^error: the sweep was stopped: the last 20 points on every device failed alike: .* resume .*--retry-failed"
TOO_LONG = r"it took longer than 3 s \(--trial-timeout\)"
#: For faults that the sweep notices after seconds, when fast points would all be done.
SLOW: dict[str, object] = {"point_s": 0.1}
LOST_CLUSTER = r"^error: the sweep lost its cluster .*flopray resume \S+"
LOST_RECORDER = (
    r"^error: the sweep's recorder is gone: its process, on the driver's node, ended without a message .*"
    r"every point in the journal is safe, .*flopray resume \S+.* goes on$"
)


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
        resume_codes: exit codes that it may have.
        resumes: whether a resume follows; otherwise the struck command must have finished the sweep.
        layout: of the cluster; `any` stands for a standing one or one of its own, `own` for the latter.
        any_time: may strike during start-up, and after the last point while tables are made.
        ends_cluster: whether the cluster is gone after it.
        place: storage of the run, None for the lane's.
        plan: of `driver`; None replays all points alike.
        device_type: of the points.
        within: the fault comes after this share of the points at the latest.
        flags: further flags of the sweep.
        environment: further variables of the sweep.
    """

    name: str
    strike: Act
    codes: tuple[int, ...] = (0,)
    says: tuple[str, ...] = ()
    check: Callable[[Scene], Iterable[str]] = nothing
    mend: Act = nothing
    resume_says: tuple[str, ...] = ()
    resume_codes: tuple[int, ...] = (0,)
    resumes: bool = True
    layout: str = "any"
    any_time: bool = False
    ends_cluster: bool = False
    place: Callable[[Scene], AbstractContextManager[Path | None]] = lambda _: nullcontext()
    plan: dict[str, object] | None = None
    device_type: str = "CPU"
    within: float = 0.8
    flags: str = ""
    environment: Callable[[], dict[str, str]] = dict

    @property
    def can_be_real(self) -> bool:
        """Whether its points can be measured and not replayed: on this machine, without a misbehaving point."""
        return self.plan is None and self.device_type == "CPU"


def misbehaving(name: str, act: str, check: Callable[[Scene], Iterable[str]], flags: str = "") -> Kind:
    """One point does something, each time it is tried; the sweep gives it up and measures all others."""
    plan: dict[str, object] = {"act": act, "shape": {"n_layers": 2, "width": 32, "tokens": 40}}
    return Kind(name, nothing, (3,), check=check, resumes=False, plan=plan, flags=flags)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("driver-sigkill", acts.sigkill, (-9,), check=acts.told_as_killed, any_time=True),
        Kind("driver-sigterm", acts.sigterm, (130,), (INTERRUPTED,), any_time=True),
        Kind("driver-ctrl-c", acts.ctrl_c, (130,), (INTERRUPTED,), any_time=True),
        Kind("driver-ctrl-c-twice", acts.ctrl_c_twice, (130,), (INTERRUPTED,), any_time=True),
        Kind("actor-sigkill", acts.kill_actor, (0, 3), check=acts.attempts, resumes=False),
        Kind(
            "node-lost",
            acts.kill_node,
            (0, 3),
            check=acts.attempts,
            resumes=False,
            layout="pair",
            ends_cluster=True,
            plan=SLOW,
            within=0.5,
        ),
        Kind(
            "recorder-sigkill",
            acts.kill_recorder,
            (1,),
            (LOST_RECORDER,),
            mend=acts.behave,
            plan=SLOW,
            within=0.5,
        ),
        Kind("gcs-sigkill", acts.kill_gcs, (1,), (LOST_CLUSTER,), layout="plain", ends_cluster=True),
        Kind(
            "raylet-sigkill",
            acts.kill_own_raylet,
            (1,),
            (LOST_CLUSTER,),
            mend=acts.behave,
            layout="plain",
            ends_cluster=True,
            plan=SLOW,
            within=0.5,
        ),
        Kind(
            "disk-full",
            acts.fill,
            (1,),
            (NOT_SAVED + "No space left on device" + MEND,),
            mend=acts.make_room,
            place=acts.small_disk,
        ),
        Kind(
            "folder-read-only",
            lambda scene: damage.freeze(scene.run, frozen=True),
            (1,),
            (NOT_SAVED + "Operation not permitted" + MEND,),
            mend=lambda scene: damage.freeze(scene.run, frozen=False),
        ),
        Kind("folder-moved", acts.move, (1,), (NOT_SAVED + GONE + MEND,), mend=acts.move_back),
        Kind("journal-torn", acts.sigkill, (-9,), check=acts.told_as_killed, mend=acts.tear, resume_says=(TORN,)),
        Kind("journal-flipped", acts.sigkill, (-9,), mend=acts.flip, resume_says=(DAMAGED,)),
        Kind("journal-emptied", acts.sigkill, (-9,), mend=acts.empty),
        Kind("journal-emptied-with-parquet", acts.sigkill, (-9,), mend=acts.compact_and_empty),
        Kind("parquet-older", acts.compact_then_kill, (-9,)),
        Kind("second-driver", acts.second_driver, resumes=False, layout="plain", plan={"point_s": 0.2}, within=0.25),
        Kind("other-flags", acts.sigkill, (-9,), mend=acts.other_flags, layout="plain"),
        Kind("other-devices", acts.sigkill, (-9,), mend=acts.other_devices, layout="boastful", device_type="H100"),
        misbehaving("point-exits", "exit", given_up("failed", 3, "its process ended without a message")),
        misbehaving("point-hangs", "sleep", given_up("failed", 2, TOO_LONG), "--trial-timeout 3"),
        misbehaving("point-stops", "stop", given_up("failed", 1, TOO_LONG), "--trial-timeout 3 --retries 0"),
        replace(
            misbehaving("point-eats-memory", "eat", given_up("out_of_memory", 1, "its node ran out of host memory")),
            layout="own",
            place=acts.alone,
            environment=damage.little_memory,
        ),
        Kind(
            "all-points-fail",
            nothing,
            (4,),
            (STOPPED,),
            mend=acts.behave,
            resume_codes=(3,),
            plan={"act": "fail"},
        ),
    )
}
