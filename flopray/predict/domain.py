"""The region of shapes that was measured; a question outside of it is marked.

The region is the box of the logarithms of the dimensions, of FLOPs and of intensity (FLOPs a byte), and the convex
hull of the dimensions' logarithms. A little room is left beyond both. A size that can be divided by less than what was
measured lies outside, too (`flopray.predict.alignment`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from scipy.optimize import linprog

from flopray.predict.alignment import alignment_of, between_multiples, edge_dimensions, unaligned, uneven
from flopray.predict.choices import measured_choices
from flopray.predict.work import Work
from flopray.units import prefixed

#: Room beyond the box, in logarithms: 2 %.
_ROOM = 0.02
#: A held-out edge lies about this far beyond the rest.
_EDGE = 2.0
_FLOPS, _INTENSITY = "FLOPs", "FLOPs a byte"


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """Where rows were measured.

    Attributes:
        names: of the sizes, F of them.
        low, high: of each.
        points: logarithms of the dimensions of each shape that was measured, shape (R, D); D is the first of F.
        alignment: by how many elements each edge of the products can be divided at least, see `alignment_of`.
        edges: dimensions that are edges of products.
        choices: combinations that were measured, each without its workload's defaults.
    """

    names: list[str]
    low: list[float]
    high: list[float]
    points: list[list[float]]
    alignment: dict[str, int] = {}
    edges: list[str] = []
    choices: list[dict[str, str]] = msgspec.field(default_factory=lambda: [{}])

    @classmethod
    def of(cls, works: Sequence[Work]) -> Domain:
        """The region of some works.

        Args:
            works: of one phase, at least one.
        """
        shapes = sorted({name for work in works for name in work.shape if work.shape[name] > 0})
        table = np.array([_sizes(work, shapes) for work in works])
        logs = np.unique(np.log(table[:, : len(shapes)]).round(6), axis=0)
        return cls(
            names=[*shapes, _FLOPS, _INTENSITY],
            low=table.min(axis=0).tolist(),
            high=table.max(axis=0).tolist(),
            points=logs.tolist(),
            alignment=alignment_of(works),
            edges=edge_dimensions(works, shapes),
            choices=measured_choices(work.choices for work in works),
        )

    @property
    def shapes(self) -> list[tuple[tuple[str, int], ...]]:
        """Each shape that was measured, as the names and sizes of its dimensions."""
        names = self.names[: -len((_FLOPS, _INTENSITY))]
        return [tuple(zip(names, np.exp(point).round().astype(int).tolist(), strict=True)) for point in self.points]

    def is_far(self, work: Work) -> bool:
        """Whether a size of a work lies beyond what was measured by more than a held-out edge does: a factor of 2."""
        for name, low, high in zip(self.names[:-2], self.low, self.high, strict=False):
            size = work.shape.get(name, 0.0)
            if not low / _EDGE <= size <= high * _EDGE:
                return True
        return False

    def runs_other_kernels(self, work: Work) -> bool:
        """Whether a GPU runs products of a work by kernels of another kind than all measured ones."""
        return unaligned(work, self.alignment) is not None

    def why_outside(self, work: Work) -> str | None:
        """Why a work lies outside what was measured, in words; None where it does not."""
        shapes = self.names[:-2]
        missing = [name for name in shapes if not work.shape.get(name)]
        if missing:
            return f"its {', '.join(missing)} is not known"
        sizes = _sizes(work, shapes)
        for name, size, low, high in zip(self.names, sizes, self.low, self.high, strict=True):
            if low > 0 and size > 0 and not low * np.exp(-_ROOM) <= size <= high * np.exp(_ROOM):
                return f"{name} {_number(size)} is outside the measured range {_number(low)} to {_number(high)}"
        if not _inside_hull(np.array(self.points), np.log(sizes[: len(shapes)])):
            return f"this combination of {', '.join(shapes)} does not lie between measured ones"
        return unaligned(work, self.alignment) or uneven(work, self.alignment) or self._between_multiples(work)

    def _between_multiples(self, work: Work) -> str | None:
        for name in self.edges:
            place = self.names.index(name)
            measured = {round(float(np.exp(point[place]))) for point in self.points}
            if found := between_multiples(work.shape[name], measured):
                both, *near = found
                size, below, above = map(_number, (work.shape[name], *near))
                return f"{name} {size} is no multiple of {both}, as the nearest measured ones are ({below}, {above})"
        return None


def _sizes(work: Work, shapes: Sequence[str]) -> list[float]:
    intensity = work.flops / work.moved_bytes if work.moved_bytes else 0.0
    return [*(work.shape.get(name, 1.0) for name in shapes), work.flops, intensity]


def _inside_hull(points: np.ndarray, point: np.ndarray) -> bool:
    """Whether a point is a mean of others, with a little room in each dimension."""
    if not points.size:
        return True
    if (np.abs(points - point) <= _ROOM).all(axis=1).any():
        return True
    count = len(points)
    above = np.vstack([points.T, -points.T])
    limits = np.concatenate([point + _ROOM, _ROOM - point])
    found = linprog(np.zeros(count), A_ub=above, b_ub=limits, A_eq=np.ones((1, count)), b_eq=[1.0], bounds=(0, None))
    return bool(found.status == 0)


def _number(value: float) -> str:
    return f"{value:g}" if value < 1e6 else prefixed(value, "").strip()
