"""What a meter of energy is: something with a cumulative counter that can be read.

A read takes time, so a reading carries the host clock before and after it: the counter had the returned value at some
instant between the two. All host times are `time.perf_counter()` in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Reading:
    """One read of a cumulative energy counter.

    Attributes:
        before_s: host clock just before the read.
        after_s: host clock just after it.
        energy_j: the counter. Counters are integers of mJ or uJ and stay far below 2**53 of those, so the division
            that makes joules is exact enough for two equal counters to compare equal and two different ones not.
        slept: the reader slept through ticks before it: a change since the last reading may have come at any time, and
            is not a tick.
    """

    before_s: float
    after_s: float
    energy_j: float
    slept: bool = False


class Temperature(NamedTuple):
    """One read of a device's temperature: host clock and degrees Celsius."""

    time_s: float
    temperature_c: float


@dataclass(frozen=True, slots=True)
class Characteristics:
    """What is known of a meter before it is read, as far as it matters to the power that its readings give.

    Attributes:
        quantum_j: resolution of the counter.
        settle_s: how long after the load starts the counter still shows what was before it.
        rel_error: 95 % half width, relative, of what the meter itself gets wrong beyond the scatter of its readings;
            0 for counters, whose sensor bias cannot be known from inside.
        power_noise_rel: least standard deviation of the mean power between two ticks, relative, that is known of this
            kind of meter (duty cycle of its sensor, fluctuating load); a few ticks alone cannot show it.
        tick_error_share: variance of a tick's time over the squared width of the interval that holds it. The sampling
            instant inside a read is unknown: width**2 / 48 if it is always the same (the tick is uniform between two
            instants half a width apart), width**2 / 24 if it is uniform and independent; the default is between the
            two, and the residuals correct the scale.
        max_power_w: the most power that the device can take, where that is known; a tick of more is a jump of the
            counter.
        seen_share: least part of each tick that the sensor may see; 1 for a counter that adds up all power.
    """

    quantum_j: float = 0.001
    settle_s: float = 0.15
    rel_error: float = 0.0
    power_noise_rel: float = 0.0
    tick_error_share: float = 1 / 32
    max_power_w: float | None = None
    # a quarter (https://arxiv.org/abs/2312.02741), and a little for ticks that come somewhat early
    seen_share: float = 0.26


class Meter(Protocol):
    """A cumulative energy counter of one device. Not thread-safe: one thread reads a meter at a time.

    Attributes:
        source: `nvml_counter`, `nvml_power`, `rapl` or `simulated`; becomes `energy_source` of the record.
        read_cost_s: what one read is expected to take; a poller spaces its reads by it and measures the real value.
        changes_on_read: True for a counter that is computed by reading it (an integral of power samples): it changes
            at every read and at no other time, so there are no ticks to wait for.
        characteristics: what an estimate of power from its readings needs.
    """

    source: str
    read_cost_s: float
    changes_on_read: bool

    @property
    def characteristics(self) -> Characteristics:
        """Of this meter on its device; the same as long as the meter is open."""
        ...

    def read(self) -> Reading:
        """Reads the counter.

        Raises:
            MeterError: the counter worked before and cannot be read any more.
        """
        ...

    def temperature_c(self) -> float | None:
        """Temperature of the device now; None where it reports none. Read once a tick."""
        ...

    def close(self) -> None:
        """Releases what the meter holds; a second call does nothing."""
        ...
