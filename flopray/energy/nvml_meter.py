"""Meters of NVIDIA GPUs: the energy counter where there is one, else the integral of power samples.

NVML's manual, "Device Queries": https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

from __future__ import annotations

import time
from dataclasses import replace

from flopray.energy.meter import Characteristics, Reading
from flopray.energy.nvml import Gpu
from flopray.energy.nvml_errors import GpuLost, NvmlNotSupported, typed
from flopray.errors import MeterError

#: Boards whose counter was seen to add up all power, by NVML's name: on H200s (driver 580.159.04) the time under load
#: in the whole of a tick explains its power, and that in a part does not (docs/method.md, "What the counter of an H200
#: sees"). Others may see less.
_ADDS_UP_ALL = ("NVIDIA H200",)


class NvmlCounterMeter:
    """`nvmlDeviceGetTotalEnergyConsumption`: mJ of the whole board since the driver was loaded (Volta and newer).

    Raises:
        NvmlNotSupported: the GPU has no such counter, or is (split into) MIG slices.
    """

    source = "nvml_counter"
    #: Measured on an H100; the poller measures the real one.
    read_cost_s = 0.004
    changes_on_read = False
    characteristics = Characteristics(
        quantum_j=0.001,
        # One tick of 100 ms that may hold energy from before the start, and the sensor's own lag.
        settle_s=0.15,
        # The sensors of A100 and H100 see about a quarter of the time (https://arxiv.org/abs/2312.02741), so that the
        # mean power of one tick scatters even under a perfectly steady load.
        power_noise_rel=0.005,
        # A read waits for the counter: on an H100 (driver 580.159) ticks are 0.3 to 0.45 ms (standard deviation) from
        # the middle of an interval of 6 ms; allowed for is 0.6 ms, and the residuals correct it.
        tick_error_share=1 / 100,
    )

    def __init__(self, gpu: Gpu) -> None:
        _refuse_mig(gpu, "the energy counter")
        self._gpu, self._nvml, self._handle = gpu, gpu._nvml, gpu.handle
        try:
            self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except Exception as error:
            raise typed(error, "the energy counter (Volta or newer has one)") from error
        limit_w = gpu.state().power_limit_w
        self.characteristics = replace(
            self.characteristics,
            # Generous: a board exceeds its limit for milliseconds, and a tick is 100 of them.
            max_power_w=2 * limit_w if limit_w else None,
            seen_share=1.0 if gpu.name in _ADDS_UP_ALL else self.characteristics.seen_share,
        )

    def read(self) -> Reading:
        """See `flopray.energy.meter.Meter`."""
        before_s = time.perf_counter()
        try:
            energy_mj = float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except Exception as error:
            raise _broken(error, "reading the energy counter") from error
        return Reading(before_s, time.perf_counter(), energy_mj / 1000)

    def temperature_c(self) -> float | None:
        """See `flopray.energy.meter.Meter`."""
        return self._gpu.temperature_c()

    def close(self) -> None:
        """Nothing to release: NVML lives as long as the process."""


class NvmlPowerMeter:
    """The integral of power samples over the host clock, by the trapezoidal rule.

    The instantaneous field is used where the driver has it. Otherwise `nvmlDeviceGetPowerUsage`, which on Ampere and
    newer (except GA100) is an average over one second, so that the first second and a half after a load starts is lost.
    Its energy is worse than a counter's: power between two samples is not seen, which matters little for a steady load
    and much for a pulsating one.

    Raises:
        NvmlNotSupported: the GPU reports no power, or is (split into) MIG slices.
    """

    source = "nvml_power"
    read_cost_s = 0.0005
    changes_on_read = True

    def __init__(self, gpu: Gpu) -> None:
        _refuse_mig(gpu, "the power sensor")
        self._gpu, self._nvml, self._handle = gpu, gpu._nvml, gpu.handle
        self._energy_j = 0.0
        self._last: tuple[float, float] | None = None
        self.instant = self._instant_mw() is not None
        self.characteristics = Characteristics(
            quantum_j=1e-6,
            settle_s=0.25 if self.instant else 1.5,
            # Accuracy of the power reading, "within +/- 5% of current power draw" in NVML's manual.
            rel_error=0.05,
            power_noise_rel=0.01,
        )
        if not self.instant:
            try:
                self._nvml.nvmlDeviceGetPowerUsage(self._handle)
            except Exception as error:
                raise typed(error, "the power sensor") from error

    def read(self) -> Reading:
        """Takes a power sample and adds the energy since the last one; see `flopray.energy.meter.Meter`."""
        before_s = time.perf_counter()
        power_w = self.power_w()
        after_s = time.perf_counter()
        at_s = (before_s + after_s) / 2
        if self._last is not None:
            last_s, last_w = self._last
            self._energy_j += (at_s - last_s) * (power_w + last_w) / 2
        self._last = (at_s, power_w)
        return Reading(before_s, after_s, self._energy_j)

    def temperature_c(self) -> float | None:
        """See `flopray.energy.meter.Meter`."""
        return self._gpu.temperature_c()

    def close(self) -> None:
        """Nothing to release: NVML lives as long as the process."""

    def power_w(self) -> float:
        """One sample: instantaneous where `instant` is set, else NVML's average.

        Raises:
            MeterError: the sensor worked before and does not any more.
        """
        if self.instant:
            power_mw = self._instant_mw()
            if power_mw is None:
                raise MeterError("the GPU stopped reporting instantaneous power")
            return power_mw / 1000
        try:
            return self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000
        except Exception as error:
            raise _broken(error, "reading the power sensor") from error

    def _instant_mw(self) -> int | None:
        """Instantaneous power, None where the driver does not have the field."""
        field = getattr(self._nvml, "NVML_FI_DEV_POWER_INSTANT", None)
        if field is None:
            return None
        try:
            value = self._nvml.nvmlDeviceGetFieldValues(self._handle, [field])[0]
        except Exception as error:
            if isinstance(reason := typed(error, "reading instantaneous power"), GpuLost):
                raise reason from error
            return None
        return value.value.uiVal if value.nvmlReturn == self._nvml.NVML_SUCCESS else None


def _refuse_mig(gpu: Gpu, what: str) -> None:
    if gpu.is_mig():
        raise NvmlNotSupported(f"{what} covers a whole GPU and this one is split by MIG: measure on a GPU without MIG")


def _broken(error: Exception, doing: str) -> MeterError:
    """A failure of a meter that worked before, whatever NVML's code."""
    reason = typed(error, doing)
    return reason if isinstance(reason, MeterError) else MeterError(str(reason))
