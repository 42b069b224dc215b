"""Decides how a device is brought to a temperature before a window: by filler work, by a pause, or not at all.

What counts is the temperature under the measured work, which a chip reaches within a second of load, while its heat
sink takes a minute. So the work runs for a moment, the temperature is read, and filler work or a pause follow until it
fits. How fast either changes that temperature is learned on the way. This module knows no device and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: The window begins when the temperature is this close to the one that is asked for.
TOLERANCE_K = 2.0
#: Longest that a window waits for its temperature.
CAP_S = 60.0
#: Longest wait after a window that did not reach it, so that a board that cannot reach it does not cost each window a
#: minute.
RETRY_CAP_S = 5.0
#: Kelvin per second that filler work and pauses are assumed to give at first; boards of 700 W and their heat sinks
#: begin faster.
_FIRST_RATE_K_PER_S = 1.0
_LEAST_RATE_K_PER_S = 0.05
_SHORTEST_S, _LONGEST_S = 0.2, 5.0
#: After this many seconds without a kelvin of progress, the board is as hot or as cool as it gets.
_PLATEAU_S, _PLATEAU_K = 15.0, 1.0


class Act(StrEnum):
    """What to do next."""

    READY = "ready"
    FILL = "fill"
    PAUSE = "pause"
    GIVE_UP = "give_up"


@dataclass(frozen=True)
class Step:
    """What to do next, for how long, and why the temperature was given up.

    Attributes:
        act: one of `Act`.
        seconds: of filler work or of the pause; 0 otherwise.
        reason: one line where the act is to give up; None otherwise.
    """

    act: Act
    seconds: float = 0.0
    reason: str | None = None


class TemperatureHold:
    """Brings a device to a temperature before each window, and keeps what it learned from window to window.

    Args:
        target_c: the temperature.
        tolerance_k: how close is close enough.
        cap_s: most seconds for one window.

    Example:
        >>> hold = TemperatureHold(50.0)
        >>> hold.begin(0.0)
        >>> hold.next(0.0, 44.0).act, hold.next(3.0, 49.0).act
        (<Act.FILL: 'fill'>, <Act.READY: 'ready'>)
    """

    def __init__(self, target_c: float, *, tolerance_k: float = TOLERANCE_K, cap_s: float = CAP_S) -> None:
        self.target_c, self.tolerance_k, self.cap_s = target_c, tolerance_k, cap_s
        self._reached = True
        self._rates = {Act.FILL: _FIRST_RATE_K_PER_S, Act.PAUSE: _FIRST_RATE_K_PER_S}
        self._begun_s = 0.0
        self._last: tuple[Step, float] | None = None
        self._since: tuple[Act, float, float] | None = None

    def begin(self, now_s: float) -> None:
        """A window is about to be measured.

        Args:
            now_s: of any clock that only advances.
        """
        self._begun_s, self._last, self._since = now_s, None, None

    def next(self, now_s: float, temperature_c: float | None) -> Step:
        """What to do, after the work ran for a moment.

        Args:
            now_s: same clock as `begin`.
            temperature_c: of the device, read under the work; None where it has no sensor.
        """
        if temperature_c is None:
            return Step(Act.GIVE_UP, reason="the device reports no temperature, so none can be held")
        self._learn(temperature_c)
        gap_k = self.target_c - temperature_c
        if abs(gap_k) <= self.tolerance_k:
            self._reached = True
            return Step(Act.READY)
        act = Act.FILL if gap_k > 0 else Act.PAUSE
        if (reason := self._why_stop(now_s, act, temperature_c)) is not None:
            self._reached = False
            return Step(Act.GIVE_UP, reason=reason)
        seconds = min(max(abs(gap_k) / self._rates[act], _SHORTEST_S), _LONGEST_S)
        self._last = Step(act, seconds), temperature_c
        return self._last[0]

    def _learn(self, temperature_c: float) -> None:
        """Kelvin per second of the last step, half of it new each time: readings are whole kelvin."""
        if self._last is None:
            return
        step, before_c = self._last
        moved_k = (temperature_c - before_c) * (1 if step.act is Act.FILL else -1)
        rate = max(moved_k / step.seconds, _LEAST_RATE_K_PER_S)
        self._rates[step.act] = (self._rates[step.act] + rate) / 2

    def _why_stop(self, now_s: float, act: Act, temperature_c: float) -> str | None:
        """Why the temperature is given up for this window; None while it is not."""
        cap_s = self.cap_s if self._reached else min(self.cap_s, RETRY_CAP_S)
        doing = "filler work" if act is Act.FILL else "pausing"
        where = f"the device was at {temperature_c:.0f} °C after"
        if now_s - self._begun_s >= cap_s:
            return f"{where} {now_s - self._begun_s:.0f} s of waiting for {self.target_c:g} °C"
        if self._since is None or self._since[0] is not act:
            self._since = act, now_s, temperature_c
        _, since_s, since_c = self._since
        if abs(temperature_c - since_c) >= _PLATEAU_K:
            self._since = act, now_s, temperature_c
        elif now_s - since_s >= _PLATEAU_S:
            return (
                f"{where} {now_s - since_s:.0f} s of {doing} without a change, and {self.target_c:g} °C was asked for"
            )
        return None
