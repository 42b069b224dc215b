"""What the integrations share: a watch whose steps a library reports, FLOPs of one step, and the costs of all ranks.

Each rank watches the GPUs on which it holds memory. When costs are logged, the ranks exchange what a step took on which
GPU, and a GPU that several ranks use is counted once. FLOPs of all ranks are added.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from flopray.audit.hardware import peak_flops_per_s
from flopray.energy.meter import Meter
from flopray.errors import InputError
from flopray.flops.dispatched import DispatchedCount, dispatches_counted
from flopray.mappings import Arguments
from flopray.point import PRECISIONS
from flopray.watching.api import watch
from flopray.watching.running import Watch
from flopray.watching.summary import Summary

_log = logging.getLogger("flopray")
#: The first steps are counted, and a later one compiles or warms up: means leave them out.
LEFT_OUT_STEPS = 3
#: FLOPs of so many steps must agree: batches of other sizes, such as texts padded to the longest, take other FLOPs.
COUNTED_STEPS = 2
#: Costs are of the steps of at least this many seconds: fewer ticks would say little.
LEAST_WINDOW_S = 5.0
#: Working out costs may take this share of a loop's time; asked more often, the last ones are returned again.
SHARE_OF_TIME = 0.005


@dataclass(frozen=True)
class RankCosts:
    """What a rank tells the others of its steps.

    Attributes:
        energies: of a step, by node and UUID of the GPU: joules, and half width of the 95 % interval in joules.
        lacking: node and UUID of each GPU whose energy is not known yet.
        flops: of a step; None is not known.
        peak_flops_per_s: of the rank's GPU; None is not known.
    """

    energies: Mapping[str, tuple[float, float]]
    lacking: tuple[str, ...]
    flops: float | None
    peak_flops_per_s: float | None


class StepCosts:
    """Costs of the steps of one rank, and of all ranks together.

    Args:
        flops: count those of the first two steps at the dispatcher, which makes these slower and runs a compiled model
            as it was written, and give none if they differ; or a number of FLOPs of a step of this rank that is known;
            False for none.
        precision: one of `flopray.point.PRECISIONS`, whose peak `mfu` is a share of.
        save: folder that gets the series at the end; with several ranks `-rankN` is added, and `-2`, `-3`, ... where a
            folder holds an earlier one.
        meter: another source of energy than the GPUs' own.
        options: of `flopray.watch`.

    Attributes:
        watch: of this rank, once it has begun.
        summary: of this rank, once it has ended.
    """

    #: Whether some watch of this process counts a step. Counts of two watches would not end in the order in which they
    #: began, and each would then leave behind what the other one set: its dispatch mode, and torch's stance.
    _is_counting = False

    def __init__(
        self,
        *,
        flops: bool | float = True,
        precision: str | None = None,
        save: str | Path | None = None,
        meter: Meter | None = None,
        **options: Any,
    ) -> None:
        if precision is not None and precision not in PRECISIONS:
            raise InputError(f"precision: unknown {precision!r}, choose from {', '.join(PRECISIONS)}")
        if not isinstance(flops, Real) or (not isinstance(flops, bool) and not flops > 0):
            raise InputError(f"flops must be True, False or a number of FLOPs, got {flops!r}")
        self.precision = self._given_precision = precision
        self.watch: Watch | None = None
        self.summary: Summary | None = None
        self._given_flops = flops
        self._flops: float | None = None
        self._to_count = 0
        self._counting: ExitStack | None = None
        self._found: Any = None
        self._save, self._meter = save, meter
        self._options: Arguments = {"leave_out": LEFT_OUT_STEPS} | options
        self._told_steps, self._warned = 0, set[str]()
        self._last: tuple[float | None, RankCosts] | None = None
        self._again_s = self._started_s = 0.0

    def start(self, precision: str | None = None) -> Watch:
        """Begins to watch; a new watch where an old one has ended.

        Nothing is kept of an earlier training: another one has other batches, and so other FLOPs.

        Args:
            precision: of this training, unless one was given.
        """
        self.precision = self._given_precision or precision
        self._flops = None if isinstance(self._given_flops, bool) else float(self._given_flops)
        self._to_count = COUNTED_STEPS if self._given_flops is True else 0
        save = self._save
        if save is not None and _world_size() > 1:
            save = f"{save}-rank{torch.distributed.get_rank()}"
        folder, number = save, 2
        while save is not None and (Path(str(folder)) / "summary.json").exists():
            folder, number = f"{save}-{number}", number + 1
        self._told_steps, self._last, self._started_s = 0, None, time.perf_counter()
        self.watch = watch(save=folder, meter=self._meter, **self._options)
        return self.watch

    def begin(self) -> None:
        """A step begins."""
        if self.watch is not None:
            self.watch.begin_step()
            self._begin_counting()

    def next(self) -> None:
        """The step that has begun, if one has, ends, and the next one begins; regions interrupt it."""
        self._end_counting()
        if self.watch is not None:
            self.watch.next_step()
            self._begin_counting()

    def interrupt(self) -> None:
        """Something follows that is in no step: a step that is being counted is not, and a later one is instead."""
        if self._close():
            self._to_count += 1

    def _begin_counting(self) -> None:
        self.interrupt()
        if self._to_count and not StepCosts._is_counting:
            StepCosts._is_counting = True
            self._to_count -= 1
            self._counting = ExitStack()
            self._found = self._counting.enter_context(dispatches_counted())

    def end(self) -> None:
        """The step ends."""
        self._end_counting()
        if self.watch is not None:
            self.watch.end_step()

    def stop(self) -> Summary | None:
        """Ends the watch; a second call does nothing. A step that has not ended has no FLOPs."""
        self.interrupt()
        if self.watch is not None:
            self.summary = self.watch.stop().summary()
            self.watch = None
        return self.summary

    def _close(self) -> bool:
        """Whether a count was open, which it is no longer."""
        if self._counting is None:
            return False
        self._counting.close()
        self._counting, StepCosts._is_counting = None, False
        return True

    def _end_counting(self) -> None:
        if not self._close():
            return
        count: DispatchedCount = self._found()
        before, self._flops = self._flops, count.flops
        if count.flops is None:
            self._to_count = 0
            self._warn(f"no FLOPs: {count.reason}")
        elif before is not None and before != count.flops:
            self._flops = None
            differ = f"{before:.6g} and {count.flops:.6g} in the first two steps"
            self._warn(f"no FLOPs: they are {differ}, whose batches have different sizes; pass flops= if you know them")

    def metrics(self) -> dict[str, float]:
        """Costs of a step, on all ranks: every rank must ask. What is not known is missing.

        Returns:
            `time_per_step_s` (this rank's), `energy_per_step_j` and `energy_per_step_rel_error` (half width of the 95 %
            interval), `flops_per_step` and `mfu`.
        """
        if self.watch is None:
            return {}
        start_s = time.perf_counter()
        if self._last is None or start_s >= self._again_s:
            self._last = self._own(self.watch)
            now_s = time.perf_counter()
            known = self._last[1].energies or now_s - self._started_s > 10 * LEAST_WINDOW_S
            self._again_s = now_s + ((now_s - start_s) / SHARE_OF_TIME if known else 0.0)
        time_s, own = self._last
        return _told(time_s, _of_all_ranks(own))

    def _own(self, watch: Watch) -> tuple[float | None, RankCosts]:
        """Time of a step, and what this rank tells the others."""
        time_s, energies, reasons = watch.window(self._told_steps, LEAST_WINDOW_S)
        self._told_steps = watch.step_count
        for reason in reasons.values():
            self._warn(f"no energy yet: {reason}")
        here = platform.node()
        own = RankCosts(
            energies={f"{here} {uuid}": (e.energy_j, e.energy_j * e.rel_error) for uuid, e in energies.items()},
            lacking=tuple(f"{here} {uuid}" for uuid in reasons),
            flops=self._flops,
            peak_flops_per_s=self._peak_flops_per_s(),
        )
        return time_s, own

    def _peak_flops_per_s(self) -> float | None:
        """Of this rank's GPU."""
        if self.precision is None or not torch.cuda.is_initialized():
            return None
        return peak_flops_per_s(torch.cuda.get_device_name(), self.precision)

    def _warn(self, text: str) -> None:
        """Once for each reason."""
        kind = text.partition(":")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("flopray: %s", text)


def _world_size() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _of_all_ranks(own: RankCosts) -> list[RankCosts]:
    if _world_size() == 1:
        return [own]
    found: list[Any] = [None] * _world_size()
    torch.distributed.all_gather_object(found, own)
    return found


def _told(time_s: float | None, ranks: list[RankCosts]) -> dict[str, float]:
    """The metrics of all ranks together.

    Args:
        time_s: of a step.
        ranks: what each of them knows.
    """
    told: dict[str, float] = {}
    if time_s is None:
        return told
    told["time_per_step_s"] = time_s
    # A GPU of several ranks is counted once: any of them has read the same counter.
    energies = {uuid: energy for rank in ranks for uuid, energy in rank.energies.items()}
    lacking = {uuid for rank in ranks for uuid in rank.lacking} - set(energies)
    if energies and not lacking:
        energy_j = sum(energy for energy, _ in energies.values())
        told["energy_per_step_j"] = energy_j
        told["energy_per_step_rel_error"] = sum(error for _, error in energies.values()) / energy_j
    flops = [rank.flops for rank in ranks if rank.flops is not None]
    peaks = [rank.peak_flops_per_s for rank in ranks if rank.peak_flops_per_s is not None]
    if len(flops) == len(ranks):
        told["flops_per_step"] = float(sum(flops))
        if len(peaks) == len(ranks):
            told["mfu"] = sum(flops) / (time_s * sum(peaks))
    return told
