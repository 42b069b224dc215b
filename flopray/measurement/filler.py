"""Filler work for a device that is too cool: a product of matrices, which takes all the power that a GPU may."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from flopray.measurement.device import Device
from flopray.measurement.temperature_hold import Act, TemperatureHold
from flopray.records import Row
from flopray.workloads.execution import Work, is_out_of_memory

#: Sides of the matrices, the largest that fits first. From 2048 on a GPU is busy from one launch to the next.
_SIDES = (8192, 4096, 2048, 1024)
#: At most this share of the free memory, so that the work itself never lacks it.
_MEMORY_SHARE = 0.25
#: The work runs this long before the temperature under it is read.
_PROBE_S = 0.8
#: Launches between two reads of the clock.
_BATCH = 8


class HeldTemperature:
    """Brings a device to a temperature before each window, and records the time that took.

    Args:
        device: the device; the temperature of a CPU cannot be held, and the columns say so.
        target_c: the temperature.
    """

    def __init__(self, device: Device, target_c: float) -> None:
        self._device, self._hold = device, TemperatureHold(target_c)
        self._seconds = 0.0
        self._reason: str | None = None

    def before_window(self, work: Work) -> int | None:
        """Bring the device to the temperature under a work.

        Returns:
            Peak of torch's allocations so far. The peak is reset: filler work does not count. None on a CPU.

        Raises:
            Exception: whatever the work raises.
        """
        if not self._device.is_cuda:
            self._reason = "the temperature of a CPU cannot be held"
            return None
        peak_bytes, begin_s = self._device.peak_memory_bytes(), time.monotonic()
        try:
            _, self._reason = hold_temperature(self._hold, work, self._device)
        finally:
            self._seconds += time.monotonic() - begin_s
            self._device.reset_peak_memory()
        return peak_bytes

    def columns(self) -> Row:
        """The record's columns: what was asked for, the seconds since the last record, and why it was not reached."""
        seconds, self._seconds = self._seconds, 0.0
        reason, self._reason = self._reason, None
        return {
            "hold_temperature_c": self._hold.target_c,
            "hold_temperature_s": seconds,
            "hold_temperature_reason": reason,
        }


def hold_temperature(hold: TemperatureHold, work: Work, device: Device) -> tuple[float, str | None]:
    """Bring a device to a temperature under a work, right before its window.

    Args:
        hold: decides what to do; the same one for all windows of a device.
        work: that will be measured.
        device: where.

    Returns:
        Seconds that it took, and why the temperature could not be reached; None where it was.

    Raises:
        Exception: whatever the work raises.
    """
    begin_s = time.monotonic()
    hold.begin(begin_s)
    fill: Work | None = None
    while True:
        _run(work, device, _PROBE_S)
        state = device.state()
        step = hold.next(time.monotonic(), state.temperature_c if state else None)
        if step.act is Act.FILL:
            fill = fill or filler(device.torch_name) or work
            _run(fill, device, step.seconds)
        elif step.act is Act.PAUSE:
            time.sleep(step.seconds)
        else:
            del fill
            device.release()
            return time.monotonic() - begin_s, step.reason


def filler(torch_name: str, free_bytes: Callable[[str], int] | None = None) -> Work | None:
    """A product of matrices in bf16, as large as memory allows; None where none fits.

    Args:
        torch_name: of the device.
        free_bytes: of its memory; by default what CUDA says.
    """
    free = (free_bytes or _free_bytes)(torch_name)
    for side in _SIDES:
        if 3 * 2 * side**2 > _MEMORY_SHARE * free:
            continue
        try:
            a, b, out = torch.randn(3, side, side, device=torch_name, dtype=torch.bfloat16).unbind()
        except RuntimeError as error:
            if is_out_of_memory(error):
                continue
            raise
        return lambda a=a, b=b, out=out: torch.mm(a, b, out=out)
    return None


def _free_bytes(torch_name: str) -> int:
    return torch.cuda.mem_get_info(torch_name)[0]


def _run(work: Work, device: Device, seconds: float) -> None:
    """Repeat a work, waiting for the device now and then so that few launches are queued."""
    until = time.monotonic() + seconds
    while True:
        for _ in range(_BATCH):
            work()
        device.synchronize()
        if time.monotonic() >= until:
            return
