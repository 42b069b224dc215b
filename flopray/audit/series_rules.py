"""The launch-window mark: energy or time that does not rise where the FLOPs do.

A window that closes when the last kernel is *launched*, not finished, sees the same host work whatever the size, so its
energy and time stay flat along an axis. Flatness alone proves nothing: a tiny model in eager mode really is flat, since
the host is slower than its kernels. What shows a wrong window is flatness that the device is too slow for. So over
at least `MIN_GROWTH` times the FLOPs, the rule asks what the *added* FLOPs would have cost at the datasheet's best rate
(time) or best efficiency (energy), and fires only when that alone is a large share of what the smaller point cost, and
yet the larger point cost hardly more.

    energy: (F2 - F1) / (peak / board power) >= 1/2 E1, and E2 < 1.5 E1
    time:   (F2 - F1) / peak                 >= 3/4 t1, and t2 < 1.3 t1

In both, the added FLOPs ran better than the best the datasheet allows. In time, the larger point would have to use at
least 77 % of the peak just where launches stop limiting it, which real kernels do not reach.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from flopray.audit.cells import identities, numbers
from flopray.audit.findings import (
    CONDITIONS,
    Finding,
    Row,
    Severity,
    Unjudged,
    keys_of,
    number,
    rel_error,
)
from flopray.audit.hardware import Limit
from flopray.audit.limit_rules import efficiency_limit, rate_limit
from flopray.units import prefixed

#: Columns along which FLOPs grow; the others that a row has must agree within a series.
AXES = ("n_layers", "width", "tokens", "batch_size", "sequence_length")
_IDENTITY = (
    *("run", "workload", "model", "weights", "attention", "adapter"),
    *("device_type", "device_name", "device_uuid", "precision", "execution", "phase", *CONDITIONS),
)
#: A grid's usual step is 4 x; this is a little less, since parts that do not scale keep FLOPs just below it.
MIN_GROWTH = 3.5


class _Quantity(NamedTuple):
    column: str
    error_column: str
    unit: str
    limit: Callable[[Row], Limit | None]
    flat_below: float
    share: float


_QUANTITIES = (
    _Quantity("energy_j", "energy_rel_error", "J", efficiency_limit, 1.5, 0.5),
    _Quantity("time_s", "time_rel_error", "s", rate_limit, 1.3, 0.75),
)


def judge_series(rows: Sequence[Row], further: Sequence[str] = ()) -> list[Finding | Unjudged]:
    """Findings of the launch-window mark in rows of any number of series, with the reasons why some were not judged.

    Args:
        rows: records of one or more sweeps.
        further: columns that also tell measurements apart.

    Returns:
        One finding for each series and quantity, on the pair that breaks the rule most; `rows` of a finding are the
        positions of every row of the series from the smaller to the larger one.
    """
    verdicts: list[Finding | Unjudged] = []
    compared = 0
    unlimited: set[int] = set()
    known = {quantity: _points(rows, quantity) for quantity in _QUANTITIES}
    for series in _series(rows, further):
        for quantity, of_rows in known.items():
            points = sorted(point for place in series if (point := of_rows[place]) is not None)
            if not points or points[-1].flops < MIN_GROWTH * points[0].flops:
                continue
            limit = quantity.limit(rows[points[-1].place])
            if limit is None:
                unlimited.update(point.place for point in points)
                continue
            compared += 1
            finding = _worst(rows, points, quantity, limit)
            verdicts += [finding] if finding else []
    if unlimited:
        reason = "no peak and board power known for the device and precision"
        verdicts.append(Unjudged("launch_window", reason, tuple(sorted(unlimited))))
    elif not compared:
        verdicts.append(Unjudged("launch_window", f"no series in which model_flops grow by {MIN_GROWTH:g} x"))
    return verdicts


class _Point(NamedTuple):
    flops: float
    value: float
    error: float
    place: int


def _series(rows: Sequence[Row], further: Sequence[str]) -> Iterable[list[int]]:
    """Positions of rows that differ along one axis only; without any axis, of rows with one identity."""
    columns = {axis: numbers(rows, axis) for axis in AXES}
    present = [axis for axis, values in columns.items() if any(value is not None for value in values)]
    checkpointing = [
        str(value) if value in (True, False) else None for value in (row.get("checkpointing") for row in rows)
    ]
    # a size that is no number in any row, such as `4K`, is a name
    named = [identities(rows, column) for column in (*_IDENTITY, *further, *(a for a in AXES if a not in present))]
    apart = list(zip(*named, checkpointing, strict=True))
    for axis in present or [None]:
        fixed = zip(*(columns[other] for other in present if other != axis), strict=True)
        keys = zip(apart, fixed, strict=True) if len(present) > 1 else apart
        groups: dict[Hashable, list[int]] = {}
        for place, same in enumerate(keys):
            if axis is None or columns[axis][place] is not None:
                groups.setdefault(same, []).append(place)
        yield from (group for group in groups.values() if len(group) > 1)


def _points(rows: Sequence[Row], quantity: _Quantity) -> list[_Point | None]:
    """Each row as a point of its series; None where it lacks FLOPs or the quantity."""
    points: list[_Point | None] = []
    for place, (row, flops) in enumerate(zip(rows, numbers(rows, "model_flops"), strict=True)):
        value = number(row, quantity.column)
        if flops is not None and flops > 0 and value is not None and value > 0:
            points.append(_Point(flops, value, rel_error(row, quantity.error_column), place))
        else:
            points.append(None)
    return points


def _worst(rows: Sequence[Row], points: Sequence[_Point], quantity: _Quantity, limit: Limit) -> Finding | None:
    """The pair whose added FLOPs are most out of proportion; a point is compared with the nearest much smaller one."""
    worst: tuple[float, int, int] | None = None
    base = -1
    for top, large in enumerate(points):
        while base + 1 < top and points[base + 1].flops * MIN_GROWTH <= large.flops:
            base += 1
        if base < 0:
            continue
        small = points[base]
        share = (large.flops - small.flops) / limit.bound / small.value
        growth = large.value * (1 + large.error) / (small.value * max(1 - small.error, 1e-9))
        if growth < quantity.flat_below and share >= quantity.share and (worst is None or share > worst[0]):
            worst = (share, base, top)
    return None if worst is None else _report(rows, points[worst[1] : worst[2] + 1], quantity, limit)


def _report(rows: Sequence[Row], points: Sequence[_Point], quantity: _Quantity, limit: Limit) -> Finding:
    small, large = points[0], points[-1]
    floor = (large.flops - small.flops) / limit.bound
    name = quantity.column.rsplit("_", 1)[0]
    sentence = (
        f"{large.flops / small.flops:.3g} times the FLOPs, but {name} changed {large.value / small.value:.3g} times "
        f"({prefixed(small.value, quantity.unit)} to {prefixed(large.value, quantity.unit)}), where the added FLOPs "
        f"alone take {prefixed(floor, quantity.unit)} at best: the mark of a window that saw only the launches"
    )
    return Finding(
        "launch_window",
        Severity.IMPLAUSIBLE,
        sentence,
        numbers={
            "quantity": quantity.column,
            "flops_ratio": large.flops / small.flops,
            "value_ratio": large.value / small.value,
            "added_floor": floor,
            "basis": limit.basis,
        },
        rows=tuple(point.place for point in points),
        keys=keys_of(rows[large.place]),
        excess=floor / small.value,
    )
