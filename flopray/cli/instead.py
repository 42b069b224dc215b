"""What can be asked instead of a question that has no answer: one flag changed, to something that was measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from flopray.cli.question import Asked, asked_of
from flopray.errors import FloprayError
from flopray.point import Point
from flopray.predict.predictor import Predictor
from flopray.predict.work import family_of

#: Of a size, so many measured ones are tried, the nearest first: a model may be counted for each.
_MOST_SIZES = 2


#: How an answer of an eager loop can be had.
_EAGER = "an eager loop takes longer; to know how long: flopray sweep --execution eager, flopray fit RUN, then --models"


def instead_of(asked: Asked, predictor: Predictor, flags: Mapping[str, str]) -> str | None:
    """A flag with which a question has an answer with an interval, in words.

    Args:
        asked: a question without an answer.
        predictor: fitted models.
        flags: of settings and fields.

    Returns:
        Such as `there is an answer with --tokens 512`; where no change gives one, what stands in the way of a point
        that can run, if this one cannot; else None.
    """
    possible = None
    for words, point in _changed(asked, predictor, flags):
        other = asked_of(point, asked.phase)
        if other.work is None:
            continue
        try:
            found = predictor.predict(other.work, device_type=point.device_type)
        except FloprayError:
            continue
        if found.time_s.low is not None:
            slower = asked.point.execution == "eager" and words == f"{flags['execution']} {point.execution}"
            return f"there is an answer with {words}" + (f"; {_EAGER}" if slower else "")
        possible = possible or f"with {words} there is none either: {found.outside}"
    return possible if asked.work is None else None


def _changed(asked: Asked, predictor: Predictor, flags: Mapping[str, str]) -> Iterator[tuple[str, Point]]:
    """The question with another execution, another size, and another precision, as far as these were measured."""
    point = asked.point
    family = family_of(point.workload.name)
    ways = predictor.ways(point.device_type, family)
    for _, execution in (way for way in ways if way[0] == point.precision and way[1] != point.execution):
        yield f"{flags['execution']} {execution}", dataclasses.replace(point, execution=execution)
    own = [way for way in ways if way == (point.precision, point.execution)]
    shapes = predictor.shapes({point.device_type: own}, family, asked.phase)
    for name, size in point.shape().items():
        for value in _nearest({shape[name] for shape in shapes if name in shape} - {size}, size):
            yield f"{flags[name]} {value}", dataclasses.replace(point, values={**point.values, name: value})
    for precision, execution in ways:
        if precision != point.precision:
            words = f"{flags['precision']} {precision} {flags['execution']} {execution}"
            yield words, dataclasses.replace(point, precision=precision, execution=execution)


def _nearest(values: set[int], size: int) -> Sequence[int]:
    return sorted(values, key=lambda value: abs(math.log(value / size)))[:_MOST_SIZES]
