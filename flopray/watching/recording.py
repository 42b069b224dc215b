"""The recording of one device while a program runs: the ticks of its energy counter, and samples of its state."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flopray.energy.curve import EnergyCurve
from flopray.energy.meter import Meter, Reading
from flopray.energy.nvml import Gpu, GpuState
from flopray.energy.poller import Poller
from flopray.energy.source import open_cpu_meter, open_gpu_meter
from flopray.energy.ticks import Ticks, find_ticks, refuse_frozen
from flopray.errors import MeterError, NoEnergySource

#: Counters that tick faster are read this often: enough for any step, and days of it fit into memory.
TICK_GAP_S = 0.095
#: Columns of a sample besides its time.
STATE_COLUMNS = ("temperature_c", "sm_clock_hz", "memory_clock_hz", "memory_used_bytes")
#: Fewer ticks give no energy over time.
_ENOUGH_FOR_A_CURVE = 2
#: New GPUs are looked for again after this share of the time since the start, and after this many seconds at the
#: latest.
_SELDOM, _AT_LEAST_S = 0.02, 10.0


@dataclass(frozen=True)
class DeviceName:
    """Which device it is.

    Attributes:
        kind: `GPU` or `CPU`.
        uuid: of NVML; a word for a CPU or another meter.
        name: in full.
    """

    kind: str
    uuid: str
    name: str


class Recording:
    """One device, from `start` to `stop`.

    Args:
        device: which.
        meter: of its energy; None where there is none.
        reason: why there is none.
        gpu: the GPU whose state is sampled; None on a CPU.
    """

    def __init__(self, device: DeviceName, meter: Meter | None, reason: str | None = None, gpu: Gpu | None = None):
        self.device, self.meter, self.reason = device, meter, reason
        self._gpu = gpu
        self._poller = Poller(meter, min_gap_s=TICK_GAP_S) if meter is not None else None
        self._readings = array("d")
        self._samples = array("d")
        self.start_s = self.end_s = time.perf_counter()

    def start(self) -> Recording:
        """Begins to read the counter in a thread of its own."""
        self.start_s = time.perf_counter()
        if self._poller is not None:
            self._poller.start()
        return self

    def sample(self) -> None:
        """Takes what the poller has kept, and one sample of the state; a lost device raises nothing."""
        self.take()
        if self._gpu is None:
            self._samples.extend((self.end_s, *(np.nan for _ in STATE_COLUMNS)))
            return
        try:
            state, memory = self._gpu.state(), self._gpu.memory_used_bytes()
        except (MeterError, NoEnergySource) as error:
            self.reason, self._gpu = self.reason or str(error), None
            return
        self._samples.extend((self.end_s, *_numbers(state, memory)))

    def stop(self) -> None:
        """Ends the thread; a second call does nothing."""
        if self._poller is None:
            self.end_s = time.perf_counter()
            return
        try:
            self._poller.stop()
        except MeterError as error:
            self.reason = str(error)
        self.take()
        if self.meter is not None:
            self.meter.close()
        self._poller = None

    def take(self) -> None:
        """Takes what the poller has kept; quicker than `sample`."""
        self.end_s = time.perf_counter()
        if self._poller is None:
            return
        for reading in self._poller.take():
            if len(self._readings) < 4 or self._readings[-3] < reading.after_s:
                self._readings.extend((reading.before_s, reading.after_s, reading.energy_j, reading.slept))
        if self._poller.failure is not None:
            self.reason = str(self._poller.failure)

    def ticks(self, since_s: float = -np.inf) -> Ticks:
        """The ticks so far, from a host time on."""
        table = np.array(self._readings).reshape(-1, 4)
        table = table[max(0, int(np.searchsorted(table[:, 0], since_s)) - 1) :]
        return find_ticks(
            [Reading(*row[:3], slept=bool(row[3])) for row in table.tolist()],
            self.meter.characteristics.max_power_w if self.meter else None,
        )

    def readings(self) -> np.ndarray:
        """Host clock before and after each kept read, the counter, and whether ticks were slept over; shape (n, 4)."""
        return np.array(self._readings).reshape(-1, 4)

    def samples(self) -> np.ndarray:
        """Host clock and `STATE_COLUMNS` of each sample, NaN where a device does not say; shape (n, 5)."""
        return np.array(self._samples).reshape(-1, 1 + len(STATE_COLUMNS))

    def curve(self) -> EnergyCurve:
        """Energy over time.

        Raises:
            NoEnergySource: with the reason.
        """
        if self.meter is None:
            raise NoEnergySource(self.reason or "no meter")
        ticks = self.ticks()
        if len(ticks) < _ENOUGH_FOR_A_CURVE:
            try:
                refuse_frozen(ticks, self.end_s - self.start_s)
            except MeterError as error:
                raise NoEnergySource(str(error)) from error
            said = f"{self.reason}; " if self.reason else ""
            raise NoEnergySource(f"{said}{len(ticks)} counter ticks in {self.end_s - self.start_s:.2g} s are too few")
        return EnergyCurve(ticks)


def _numbers(state: GpuState, memory: int | None) -> tuple[float, ...]:
    values = (state.temperature_c, state.sm_clock_hz, state.memory_clock_hz, memory)
    return tuple(np.nan if value is None else float(value) for value in values)


def record_gpu(uuid: str) -> Recording:
    """A recording of a GPU; without a counter it still samples the state, and says why there is no energy."""
    gpu, name, meter, reason = None, "NVIDIA GPU", None, None
    try:
        gpu = Gpu.from_uuid(uuid)
        info = gpu.info()
        name, uuid = info["device_name"] or name, info["device_uuid"] or uuid
        meter = open_gpu_meter(uuid)
    except (NoEnergySource, MeterError) as error:
        reason = str(error)
    return Recording(DeviceName("GPU", uuid, name), meter, reason, gpu)


def record_cpu() -> Recording:
    """A recording of the CPU packages of this machine and their memory (RAPL), or why there is none."""
    try:
        return Recording(DeviceName("CPU", "CPU", "CPU packages and DRAM"), open_cpu_meter())
    except NoEnergySource as error:
        return Recording(DeviceName("CPU", "CPU", "CPU packages and DRAM"), None, str(error))


def record_meter(meter: Meter) -> Recording:
    """A recording of any other meter."""
    return Recording(DeviceName("GPU", meter.source, meter.source), meter)


class Recorder:
    """Recordings of several devices, sampled in a thread.

    Args:
        recordings: to begin with; the recorder starts them.
        every_s: between two samples.
        find: gives the UUIDs of GPUs that are to be recorded; asked now and then. New ones are recorded from then on.
        after: called after each round of samples, such as to save them.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        every_s: float,
        find: Callable[[], Sequence[str]] | None = None,
        after: Callable[[], Any] | None = None,
    ) -> None:
        self.recordings = [recording.start() for recording in recordings]
        self.failure: str | None = None
        self._every_s, self._find, self._after = every_s, find, after
        self._stopping = threading.Event()
        self._lock = threading.RLock()
        self._start_s, self._found_s = time.perf_counter(), 0.0
        self._thread = threading.Thread(target=self._run, name="flopray-watch", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Looks for new GPUs and samples all devices now."""
        with self._lock:
            self._look_for_new()
            for recording in self.recordings:
                recording.sample()

    def _look_for_new(self) -> None:
        """Looks for new GPUs, less and less often: most are used from the beginning or not at all."""
        now_s = time.perf_counter()
        if self._find is None or now_s - self._found_s < min(_SELDOM * (now_s - self._start_s), _AT_LEAST_S):
            return
        self._found_s = now_s
        known = {recording.device.uuid.removeprefix("GPU-") for recording in self.recordings}
        for uuid in self._find():
            if uuid.removeprefix("GPU-") not in known:
                self.recordings.append(record_gpu(uuid).start())

    def take(self) -> None:
        """Takes what the pollers have kept now, without asking devices anything."""
        with self._lock:
            for recording in self.recordings:
                recording.take()

    def stop(self) -> None:
        """Ends all threads; a second call does nothing."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._thread.join(timeout=10.0)
            self.look()
            for recording in self.recordings:
                recording.stop()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.look()
                if self._after is not None:
                    self._after()
                self._stopping.wait(self._every_s)
        except Exception as error:  # a thread must not fail silently: the summary says so
            self.failure = f"sampling stopped: {type(error).__name__}: {error}"
