"""Idle power of a device on which this process has an open context."""

from __future__ import annotations

import time
from dataclasses import replace

from flopray.energy.estimator import PowerEstimate, estimate_power
from flopray.energy.load import LoadSpan, Warming
from flopray.energy.meter import Meter
from flopray.energy.poller import Poller
from flopray.errors import WindowTooShort


def idle_power(meter: Meter, seconds: float = 1.0, *, max_seconds: float = 10.0) -> PowerEstimate:
    """Mean power over the ticks of the next `seconds`, or of longer if that holds too few of them.

    The device must have been idle for a while: a GPU takes seconds to lower its clocks.

    Args:
        meter: of the device; nothing else may read it meanwhile.
        seconds: how long to watch at least.
        max_seconds: when to give up on a counter that does not advance.

    Raises:
        WindowTooShort: too few ticks within `max_seconds`.
        MeterError: the meter failed.
    """
    with Poller(meter) as poller:
        start_s = time.perf_counter()
        while True:
            time.sleep(max(0.0, start_s + seconds - time.perf_counter()))
            end_s = time.perf_counter()
            try:
                return estimate_power(
                    poller.readings(),
                    LoadSpan(start_s, end_s),
                    meter=replace(meter.characteristics, settle_s=0.0),
                    warming=Warming(poller.temperatures()),
                )
            except WindowTooShort as error:
                if end_s - start_s >= max_seconds:
                    raise
                seconds = min(max(error.needed_s, 1.2 * seconds), max_seconds)
