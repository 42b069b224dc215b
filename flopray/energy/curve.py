"""Energy over time from the ticks of a counter: how much was used between two moments, with its interval."""

from __future__ import annotations

import numpy as np

from flopray.energy.ticks import Ticks

#: A tick whose time lies in an interval so many times wider than usual says little about power.
_BLURRED = 2.5


class EnergyCurve:
    """Energy at any time, linear between ticks.

    Where the counter was reset or jumped, the power of the ticks around is used.

    Ticks whose time is known far worse than usual, since the thread that reads was late, are left out.

    Args:
        ticks: two or more.

    Attributes:
        time_s: of the ticks; shape (n,).
        energy_j: since the first tick; shape (n,).
        power_w: mean power between neighbouring ticks, NaN where the counter did not show it; shape (n - 1,).
    """

    def __init__(self, ticks: Ticks) -> None:
        sharp = ticks.width_s <= _BLURRED * np.median(ticks.width_s)
        ticks = ticks.where(sharp) if sharp.sum() >= 2 else ticks
        self.time_s = ticks.time_s
        gaps_s = np.maximum(np.diff(self.time_s), 1e-9)
        shown = np.diff(ticks.segment) == 0
        self.power_w = np.where(shown, np.diff(ticks.energy_j) / gaps_s, np.nan)
        known = np.flatnonzero(shown)
        places = np.arange(len(gaps_s))
        self._filled_w = np.interp(places, known, self.power_w[known]) if len(known) else np.zeros(len(gaps_s))
        self.energy_j = np.concatenate([[0.0], np.cumsum(self._filled_w * gaps_s)])
        self._gap_s = float(np.median(gaps_s))

    def at(self, time_s: np.ndarray) -> np.ndarray:
        """Energy since the first tick at each time; beyond the ticks with the power of the nearest two."""
        inside = np.interp(time_s, self.time_s, self.energy_j)
        before = np.minimum(time_s - self.time_s[0], 0.0) * self._filled_w[0]
        after = np.maximum(time_s - self.time_s[-1], 0.0) * self._filled_w[-1]
        return inside + before + after

    def peak_power_w(self, over_s: float = 0.09) -> float:
        """Highest mean power over a span that is longer than the blur of a fast counter's ticks."""
        last = np.minimum(np.searchsorted(self.time_s, self.time_s + over_s), len(self.time_s) - 1)
        first = np.arange(len(last))
        whole = self.time_s[last] - self.time_s >= over_s
        if not whole.any():
            return float((self.energy_j[-1] - self.energy_j[0]) / (self.time_s[-1] - self.time_s[0]))
        first, last = first[whole], last[whole]
        return float(np.max((self.energy_j[last] - self.energy_j[first]) / (self.time_s[last] - self.time_s[first])))

    def between(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Energy from one time to another, and half the width of the interval that holds it (95 %).

        Where between two ticks the power changed is unknown. So each end may be off by half a tick times the
        difference of the powers around it.
        """
        first_j, last_j = self.at(np.array([start_s, end_s])).tolist()
        return last_j - first_j, float(np.hypot(self._edge_error_j(start_s), self._edge_error_j(end_s)))

    def _edge_error_j(self, time_s: float) -> float:
        place = int(np.searchsorted(self.time_s, time_s))
        around = self._filled_w[max(0, place - 2) : place + 1]
        if not len(around):
            around = self._filled_w[-2:]
        # Beyond the last tick the power is not known yet; at least its usual scatter is allowed for.
        unseen_s = max(time_s - self.time_s[-1], self.time_s[0] - time_s, 0.0)
        return float(np.ptp(around)) * self._gap_s / 2 + float(np.mean(around)) * (0.02 * self._gap_s + unseen_s / 2)
