"""Polls a meter in a thread of its own and keeps the readings around each tick of its counter.

NVML's counter advances ten times a second and one read of it blocks for milliseconds, so most reads would see nothing
new. Once the period is known, `TickWatcher` sleeps through most of it and reads densely only around the next tick.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from flopray.energy.meter import Meter, Reading, Temperature
from flopray.errors import MeterError

#: Ticks closer than this are not all waited for (RAPL advances every millisecond): enough for any window, cheap to run.
MIN_TICK_GAP_S = 0.02
#: Dense reads of a meter that answers at once still leave the interpreter to the launching thread for this long.
MIN_READ_SPACING_S = 0.0005
#: Number of tick gaps from which the period is trusted.
_LEARNED_GAPS = 3
#: Two ticks that are further apart than this many periods say nothing about the period.
_MAX_MISSED = 8


class TickWatcher:
    """Decides which readings to keep and when to read next; knows no thread and no clock, so tests can drive it.

    The start of each dense phase is shifted at random by up to the distance of two reads. Without that, a regular
    counter and a regular poller beat against each other: the error of the tick times then drifts slowly through a
        window, tilts its regression line and shows in no residual.

    Args:
        meter: gives `read_cost_s` and `changes_on_read`; it is not read here.
        tick_period_s: period of the counter if it is known already, else it is learned from the first ticks.
        seed: of the random shifts.
        min_gap_s: ticks closer than this are not all waited for.
    """

    def __init__(
        self,
        meter: Meter,
        tick_period_s: float | None = None,
        seed: int | None = None,
        min_gap_s: float = MIN_TICK_GAP_S,
    ) -> None:
        self._min_gap_s = min_gap_s
        self.readings: list[Reading] = []
        self.ticks = 0
        self._period_s = tick_period_s
        self._on_read = meter.changes_on_read
        self._cost_s = deque([meter.read_cost_s], maxlen=32)
        self._gaps_s: deque[float] = deque(maxlen=32)
        self._last: Reading | None = None
        self._last_tick_s: float | None = None
        self._random = random.Random(seed)
        self._slept_over_ticks = False

    @property
    def period_s(self) -> float | None:
        """The period that is being used, None while it is unknown."""
        return self._period_s

    @property
    def latest(self) -> Reading | None:
        """The newest reading, kept or not."""
        return self._last

    def feed(self, reading: Reading) -> float:
        """Takes the newest reading and returns how long to sleep before the next one, in seconds."""
        last, self._last = self._last, reading
        self._cost_s.append(reading.after_s - reading.before_s)
        if last is None:
            self.readings.append(reading)
            return 0.0
        if self._slept_over_ticks:
            # A change during the sleep has no known time; the next one has.
            self._slept_over_ticks = False
            self._last = replace(reading, slept=True)
            self.readings.append(self._last)
            return 0.0
        if reading.energy_j == last.energy_j and not self._on_read:
            return self._spacing_s(reading)
        if self._on_read:
            # The counter changed because of this very read: just before it, it still had the old value.
            last = Reading(reading.before_s, reading.before_s, last.energy_j)
        if self.readings[-1] is not last:
            self.readings.append(last)
        self.readings.append(reading)
        self.ticks += 1
        if self._on_read:
            return max(0.0, self._min_gap_s - (reading.after_s - reading.before_s))
        return self._after_tick(last, reading)

    def _spacing_s(self, reading: Reading) -> float:
        """Sleep between two dense reads."""
        return max(0.0, MIN_READ_SPACING_S - (reading.after_s - reading.before_s))

    def _after_tick(self, last: Reading, reading: Reading) -> float:
        """Notes the tick between two readings and returns the sleep to the dense phase of the next one."""
        tick_s = (last.before_s + reading.after_s) / 2
        if self._last_tick_s is not None:
            self._learn(tick_s - self._last_tick_s)
        self._last_tick_s = tick_s
        cost_s = statistics.median(self._cost_s)
        dither_s = self._random.random() * max(cost_s, self._spacing_s(reading))
        if self._period_s is None:
            return dither_s
        stride = max(1, round(self._min_gap_s / self._period_s))
        self._slept_over_ticks = stride > 1
        expected_s = tick_s + stride * self._period_s
        return max(0.0, expected_s - self._guard_s(cost_s) - reading.after_s) + dither_s

    def _learn(self, gap_s: float) -> None:
        """Updates the period with the distance of two ticks, which may hold several periods."""
        if self._period_s is not None:
            periods = max(1, round(gap_s / self._period_s))
            if periods > max(_MAX_MISSED, 2 * self._min_gap_s / self._period_s):
                return
            gap_s /= periods
        self._gaps_s.append(gap_s)
        if len(self._gaps_s) >= _LEARNED_GAPS:
            self._period_s = statistics.median(self._gaps_s)

    def _guard_s(self, cost_s: float) -> float:
        """How long before the expected tick the dense phase starts: ticks scatter, and one before is blurred."""
        period_s = self._period_s or 0.0
        if len(self._gaps_s) >= _LEARNED_GAPS:
            scatter_s = max(abs(gap - period_s) for gap in self._gaps_s)
        else:
            scatter_s = 0.05 * period_s
        return 2.5 * cost_s + MIN_READ_SPACING_S + scatter_s


class Poller:
    """Reads a meter in a daemon thread from `start` to `stop`; also a context manager.

    The thread owns the meter while it runs: nothing else may read it.

    Args:
        meter: the meter to poll; it is not closed.
        tick_period_s: period of its counter where it was measured before; saves the dense reads of learning it.
        min_gap_s: see `TickWatcher`.
        at_tick: called in the thread after each tick; must be cheap.
    """

    def __init__(
        self,
        meter: Meter,
        tick_period_s: float | None = None,
        min_gap_s: float = MIN_TICK_GAP_S,
        at_tick: Callable[[], object] | None = None,
    ) -> None:
        self._meter, self._at_tick = meter, at_tick
        self._watcher = TickWatcher(meter, tick_period_s, min_gap_s=min_gap_s)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._temperatures: list[Temperature] = []
        self._telling = True
        self._error: MeterError | None = None
        self._thread: threading.Thread | None = None

    @property
    def ticks(self) -> int:
        """Ticks seen so far; costs nothing."""
        return self._watcher.ticks

    @property
    def tick_period_s(self) -> float | None:
        """Period the poller has learned or was given, None while unknown."""
        return self._watcher.period_s

    @property
    def broken(self) -> bool:
        """Whether the meter failed; `readings` raises what it said. Costs nothing."""
        return self._error is not None

    def start(self) -> Poller:
        """Starts the thread and returns at once.

        Raises:
            RuntimeError: it was started before.
        """
        if self._thread is not None:
            raise RuntimeError("a Poller can be started only once")
        self._thread = threading.Thread(target=self._run, name="flopray-poller", daemon=True)
        self._thread.start()
        return self

    def readings(self) -> list[Reading]:
        """The readings kept so far: for each tick the last one before it and the first one after it; and the newest.

        Raises:
            MeterError: the meter failed in the thread.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            kept, latest = list(self._watcher.readings), self._watcher.latest
        return kept if latest is None or kept[-1] is latest else [*kept, latest]

    def take(self) -> list[Reading]:
        """The readings kept since the last call; the poller drops all of them but the last, which is returned again.

        A poller that runs for days is emptied by this. It does not raise the meter's error: see `failure`.
        """
        with self._lock:
            taken = list(self._watcher.readings)
            del self._watcher.readings[:-1]
            del self._temperatures[:-1]
        return taken

    @property
    def failure(self) -> MeterError | None:
        """Why the meter cannot be read any more."""
        return self._error

    def temperatures(self) -> list[Temperature]:
        """Temperature of the device at the start and at each tick; empty where it reports none."""
        return list(self._temperatures)

    def stop(self) -> list[Reading]:
        """Ends the thread, waits for its last read and returns all kept readings; further calls return the same.

        Raises:
            MeterError: the meter failed in the thread, or its last read does not return.
        """
        self._end()
        if self._thread is not None and self._thread.is_alive():
            raise MeterError(f"the {self._meter.source} meter did not answer a read for 10 s")
        return self.readings()

    def _end(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=10.0)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                reading = self._meter.read()
                with self._lock:
                    ticks = self._watcher.ticks
                    sleep_s = self._watcher.feed(reading)
                if self._watcher.ticks > ticks or not self._temperatures:
                    self._read_temperature()
                    if self._at_tick is not None:
                        self._at_tick()
                if sleep_s > 0:
                    self._sleep(sleep_s)
        except MeterError as error:
            with self._lock:
                self._error = error
        except Exception as error:  # a thread must not fail silently: `readings` raises the error
            with self._lock:
                self._error = MeterError(f"polling the {self._meter.source} meter failed: {error!r}")

    def _read_temperature(self) -> None:
        if self._telling and (now_c := self._meter.temperature_c()) is not None:
            self._temperatures.append(Temperature(time.perf_counter(), now_c))
        else:
            self._telling = False

    def _sleep(self, sleep_s: float) -> None:
        # Event.wait is interrupted by stop(); time.sleep is cheaper and exact for the short dense spacing.
        if sleep_s > 0.005:
            self._stopping.wait(sleep_s)
        else:
            time.sleep(sleep_s)

    def __enter__(self) -> Poller:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self._end()
