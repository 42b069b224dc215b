"""What is known of a type of device before anything is fitted: where the search for constants starts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flopray.audit.hardware import find_gpu
from flopray.predict.work import Work


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A type of device.

    Attributes:
        name: as Ray names the type, or `CPU`.
        processors: streaming multiprocessors; cores of a CPU.
        flops_per_s: peak of products, by precision.
        memory_bytes_per_s: peak of its memory.
        cache_bytes: of the last cache.
        power_w: highest power of the board; a guess where no datasheet has it.
        known: whether these come from a datasheet; else they are the highest that rows reached.
    """

    name: str
    processors: int
    flops_per_s: dict[str, float]
    memory_bytes_per_s: float
    cache_bytes: float
    power_w: float = 200.0
    known: bool = True


def device_of(
    device_type: str, device_name: str | None, processors: int | None, works: Sequence[Work], times_s: Sequence[float]
) -> Device:
    """A device by its datasheet, or by the highest values of measured rows.

    Args:
        device_type: as Ray names it.
        device_name: in full, where it is known.
        processors: as its rows say.
        works: that were measured on it.
        times_s: of each.
    """
    gpu = find_gpu(device_name) or find_gpu(device_type)
    if gpu is not None:
        return Device(
            name=device_type,
            processors=processors or gpu.sm_count,
            flops_per_s=dict(gpu.peaks),
            memory_bytes_per_s=gpu.memory_bytes_per_s,
            cache_bytes=float(gpu.l2_bytes),
            power_w=gpu.board_power_w or 200.0,
        )
    peaks: dict[str, float] = {}
    moved = 1e9
    for work, time_s in zip(works, times_s, strict=True):
        peaks[work.precision] = max(peaks.get(work.precision, 1e9), work.flops / time_s)
        moved = max(moved, work.moved_bytes / time_s)
    return Device(
        name=device_type,
        processors=processors or 1,
        flops_per_s=peaks,
        memory_bytes_per_s=moved,
        cache_bytes=32e6,
        known=False,
    )
