"""`watch`: the cost of a loop, which is not changed and never synchronised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flopray.energy.meter import Meter
from flopray.errors import InputError, plain
from flopray.watching.devices import named_gpus
from flopray.watching.running import Watch
from flopray.watching.series import checked_folder

#: First steps, which are left out of means: they compile kernels, choose algorithms and fill caches.
LEFT_OUT_STEPS = 2
#: Sampling takes milliseconds for each device.
_LEAST_EVERY_S = 0.02


def watch(
    *,
    devices: Sequence[Any] | str | int | None = None,
    every: float = 0.5,
    cpu: bool = True,
    leave_out: int = LEFT_OUT_STEPS,
    meter: Meter | None = None,
    save: str | Path | None = None,
) -> Watch:
    """Watch the devices of this process from now on, and the steps and regions of a loop that are named to it.

    The loop is never synchronised: a step costs it two events that are recorded. Energy per step comes from the ticks
    of the energy counters, regressed on step numbers, and has an interval that narrows as steps go by.

    Args:
        devices: GPUs to watch, such as `cuda:1`, an index of torch or a UUID; by default those on which torch holds
            memory in this process, also from later on.
        every: seconds between two samples of temperature, clocks and memory.
        cpu: also the counters of the CPU packages and their memory (RAPL), where they can be read.
        leave_out: first steps that are left out of means.
        meter: another source of energy than the devices' own.
        save: folder that gets the series when the watch ends, also by an exception; it must not hold another watch.

    Returns:
        The watch, which has begun; it ends with `stop`, or with its `with` block.

    Raises:
        InputError: an impossible argument.

    Example:
        >>> import torch
        >>> from flopray.watching.api import watch
        >>> x = torch.ones(64, 64)
        >>> with watch(cpu=False) as w:
        ...     for _ in range(30):
        ...         with w.step():
        ...             y = x @ x
        >>> s = w.summary()
        >>> s.steps, s.time.time_s > 0, s.energy_j is None, bool(s.reason)
        (30, True, True, True)
    """
    every, leave_out, devices = plain(every), plain(leave_out), plain(devices)
    if isinstance(every, bool) or not isinstance(every, int | float) or not _LEAST_EVERY_S <= every < float("inf"):
        raise InputError(f"every must be at least {_LEAST_EVERY_S} s, got {every!r:.60}")
    if isinstance(leave_out, bool) or not isinstance(leave_out, int) or leave_out < 0:
        raise InputError(f"leave_out must be a number of steps, 0 or more, got {leave_out!r}")
    if meter is not None and devices is not None:
        raise InputError("devices: leave it out, since meter says what is measured")
    if save is not None and (checked_folder(save, "save") / "summary.json").exists():
        raise InputError(
            f"save: {save} holds another watch: nothing that was measured is overwritten; name another folder"
        )
    named = None if devices is None else named_gpus(devices)
    return Watch(named, every, cpu, leave_out, meter, Path(save) if save is not None else None)
