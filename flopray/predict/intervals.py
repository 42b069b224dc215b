"""The intervals of one type of device at one precision: from errors on held-out rows, and how far boards are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flopray.predict.fitting import MODELS
from flopray.predict.judging import TARGETS, SetErrors, interval_width
from flopray.predict.stored import Interval

#: Two-sided quantile of the normal distribution at 90 %.
_NORMAL = 1.6449


def intervals_of(
    own: Sequence[SetErrors], errors: Sequence[SetErrors], spread: Mapping[str, float]
) -> dict[str, dict[str, Interval]]:
    """Intervals by target, then by model.

    Args:
        own: errors on the held-out sets of the type.
        errors: of all types, which serve where those of the type are few.
        spread: standard deviation of a board about its type, by target, relative.
    """
    return {
        target: {model: _interval(own, errors, target, model, _NORMAL * spread[target]) for model in MODELS}
        for target in TARGETS
    }


def _interval(
    own: Sequence[SetErrors], errors: Sequence[SetErrors], target: str, model: str, boards: float
) -> Interval:
    inside, outside, blind_inside, blind_outside = (
        interval_width((own, errors), target, model, inside=where, counted=counted)
        for counted in (True, False)
        for where in (True, False)
    )
    return Interval(
        inside=inside,
        outside=_wider(inside, outside),
        boards=boards,
        uncounted_inside=blind_inside,
        uncounted_outside=_wider(blind_inside, blind_outside),
    )


def _wider(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), default=None)
