"""How far boards of one type agree: in pairs, with their factors taken out, and with each board left out in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc, stdtrit

from flopray.report.boards.data import BoardValues
from flopray.report.boards.effects import BoardFit, Floats, Prior, fit_boards

#: Share of equal rows that a 95 % interval leaves outside, and the chance below which more of them are no chance.
_OUTSIDE, _CHANCE = 0.05, 0.025


@dataclass(frozen=True)
class Pair:
    """Two boards compared, by the rows that both have. All figures are relative.

    Attributes:
        boards: their names.
        rows: that both have.
        rms: root mean square of the differences.
        agree: share of rows that differ by no more than their stated errors together (root of the sum of squares).
        factor: the second board over the first, less 1.
        factor_error: half width of its 95 % interval; NaN where no fit of the boards gives one.
        rms_without_factor: root mean square with the factor taken out.
        agree_without_factor: as `agree`, with the factor taken out and its error added.
    """

    boards: tuple[str, str]
    rows: int
    rms: float
    agree: float
    factor: float
    factor_error: float
    rms_without_factor: float
    agree_without_factor: float

    @property
    def differ(self) -> bool | None:
        """Whether the factor is further from 1 than its error reaches; None where its error is not known."""
        return None if not np.isfinite(self.factor_error) else abs(np.log1p(self.factor)) > self.factor_error

    @property
    def rows_differ(self) -> bool:
        """Whether more rows are apart beyond their errors, with the factor taken out, than chance makes of 5 %."""
        apart = round((1 - self.agree_without_factor) * self.rows)
        return apart > 0 and float(bdtrc(apart - 1, self.rows, _OUTSIDE)) < _CHANCE


@dataclass(frozen=True)
class LeftOut:
    """A board against the interval that the others give.

    Attributes:
        board: that was left out.
        others: boards in the fit; a single one needs a prior.
        rows: of the board that the others have too.
        median: of its rows' deviations from the mean of the type, relative.
        in_type: share of its rows inside the interval of the mean over boards.
        in_other_board: share inside the interval for another board, the row's own error added; it should be 95 %.
        reason: why there is no interval, or empty.
    """

    board: str
    others: int
    rows: int
    median: float
    in_type: float
    in_other_board: float
    reason: str = ""


def pairs(part: BoardValues, fit: BoardFit | None) -> list[Pair]:
    """All pairs of boards that share rows; factors are those of the fit of all boards where there is one."""
    found = []
    for one, other in itertools.combinations(range(len(part.boards)), 2):
        both = np.isfinite(part.values[:, one]) & np.isfinite(part.values[:, other])
        if not both.any():
            continue
        apart = np.log(part.values[both, other] / part.values[both, one])
        stated = np.hypot(*(np.nan_to_num(part.errors[both, board]) for board in (one, other)))
        factor, factor_error = _factor_between(fit, one, other, apart)
        left, reach = apart - factor, np.nan_to_num(factor_error)
        found.append(
            Pair(
                (part.boards[one], part.boards[other]),
                int(both.sum()),
                _rms(apart),
                float(np.mean(np.abs(apart) <= stated)),
                float(np.expm1(factor)),
                factor_error,
                _rms(left),
                float(np.mean(np.abs(left) <= np.hypot(stated, reach))),
            )
        )
    return found


def left_out(part: BoardValues, prior: Prior | None) -> Iterator[LeftOut]:
    """Each board in turn against the fit of the others."""
    for place, board in enumerate(part.boards):
        kept = np.arange(len(part.boards)) != place
        others = part.of_boards(kept.tolist())
        fit = fit_boards(others.values, others.errors, prior)
        if fit is None:
            reason = (
                "one board is left" if kept.sum() == 1 else "no other board" if not kept.any() else "no shared rows"
            )
            yield LeftOut(board, int(kept.sum()), 0, np.nan, np.nan, np.nan, reason)
            continue
        apart = np.log(part.values[:, place] / fit.means)
        there = np.isfinite(apart)
        if not there.any():
            yield LeftOut(board, fit.boards, 0, np.nan, np.nan, np.nan, "no shared rows")
            continue
        apart, own = apart[there], np.nan_to_num(part.errors[there, place])
        yield LeftOut(
            board,
            fit.boards,
            int(there.sum()),
            float(np.expm1(np.median(apart))),
            float(np.mean(np.abs(apart) <= fit.type_errors[there])),
            float(np.mean(np.abs(apart) <= np.hypot(fit.other_board_errors[there], own))),
        )


def _factor_between(fit: BoardFit | None, one: int, other: int, apart: Floats) -> tuple[float, float]:
    """Logarithm of the second board's factor over the first's, and the half width of its 95 % interval, if known.

    The fit gives rows that agree by chance more weight, which makes its error too small with two boards: 7 to 14 % of
    equal pairs would be called different. So it is at least that of a mean of the rows that both have.
    """
    if fit is None or not np.isfinite(fit.factors[[one, other]]).all():
        return float(np.median(apart)), float("nan")
    factors = np.log1p(fit.factors[[one, other]])
    factor, error = float(factors[1] - factors[0]), float(fit.pair_errors[one, other])
    if (rows := len(apart)) < 2:
        return factor, error
    return factor, max(error, float(stdtrit(rows - 1, 0.975)) * _rms(apart - factor) / (rows - 1) ** 0.5)


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))
