"""Which rows of a large table the rules must judge one by one.

Judging whole columns shows which rows cannot have a finding. Of such rows, those that lack the same columns on the same
device get the same verdicts, so one of them is judged for all.
Only the rules decide: a row that may have a finding goes to them, and so does every row with a cell that is not a plain
number where one is expected.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from flopray.audit.cells import names_of, texts
from flopray.audit.column_rules import (
    COUNTS,
    DERIVED,
    DERIVED_TOLERANCE,
    EXCESSES,
    EXECUTED_CLASSES,
    PARTS_OF_FLOPS,
    RATES,
    REFERENCE_RANGE,
)
from flopray.audit.counter_rules import UNCLASSIFIED_NOTE
from flopray.audit.drift import DRIFT_NOTE
from flopray.audit.findings import LEAST_SHARE, Row, device_name, number, precision_of, text
from flopray.audit.hardware import find_gpu, odd_statement, peak_flops_per_s
from flopray.audit.implied import EFFICIENCY, EXECUTED_RATE, POWER, QUANTITIES, RATE, Quantity, all_of
from flopray.audit.limit_rules import (
    ANY_BOARD_W,
    HIGHEST_MFU,
    SENSOR_TOLERANCE,
    efficiency_limit,
    executed_rate_bound,
    rate_limit,
)

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

#: Bounds are drawn in by this much, far more than rounding, so that a row at a bound goes to the rules.
_SLACK = 1e-9
#: Numbers outside are left to the rules: products and quotients of those inside neither overflow nor vanish.
_SMALLEST, _LARGEST = 1e-100, 1e100
_DRIFTS = tuple(f"sentinel_{quantity}_drift{end}" for quantity in ("time", "energy") for end in ("", "_unexplained"))
_DEVICE = ("device_name", "device_type", "precision", "compute_capability")
#: What a row states of its device, beside the datasheet.
_STATED = ("sm_count", "max_sm_clock_hz", "power_limit_w")
_NUMBERS = dict.fromkeys(
    (
        *("time_s", "energy_j", "power_w", *COUNTS, *RATES, *EXECUTED_CLASSES),
        *(name for column, each in DERIVED for name in (column, *each.upper, *each.lower)),
        *(name for names in EXCESSES for name in names),
        *("executed_tensor_flops", "executed_cuda_flops", "active_energy_j", "idle_power_w", "power_limit_w"),
        *("other_processes", "target_error", "time_rel_error", "energy_rel_error", "sm_count", "max_sm_clock_hz"),
        *("measured_peak_flops_per_s", "energy_at_reference_j"),
        *(name for quantity in QUANTITIES for name in quantity.columns()),
        *(
            f"sentinel_{name}_drift{end}"
            for name in ("time", "energy")
            for end in ("", "_error", "_unexplained", "_unexplained_error")
        ),
    )
)


def alike(rows: Sequence[Row], apart: Sequence[Hashable]) -> list[list[int]]:
    """Positions of rows that get the same verdicts from the rules of rows.

    Args:
        rows: records.
        apart: one value a row; rows with different ones are never put together.

    Returns:
        Groups in the order of their first rows. A row that may have a finding is alone, unless it is one that follows
        from what the group shares: that the device was throttled, or that no limit is known for it.
    """
    import numpy as np

    columns = _Columns(rows)
    devices = _devices(rows, columns)
    suspect = columns.odd | _may_break(columns, devices)
    # absent, negative, zero, positive: what the rules ask of a number before they compare it
    signs = [
        np.where(np.isnan(values), 0, np.sign(np.nan_to_num(values)) + 2).astype(np.int8)
        for values in columns.known.values()
    ]
    patterns = np.stack(signs, axis=1) if signs else np.zeros((len(rows), 0), dtype=np.int8)
    groups: dict[Hashable, list[int]] = {}
    for place, row in enumerate(rows):
        stated = row.get("throttle_end")
        reasons = stated if isinstance(stated, str) else None
        key: Hashable = place
        if not suspect[place]:
            words = (text(row, "phase") == "optimizer_step", text(row, "energy_status"), reasons)
            key = (*devices.keys[place], *words, patterns[place].tobytes(), apart[place])
        groups.setdefault(key, []).append(place)
    return list(groups.values())


class _Columns:
    """Columns of numbers as arrays, NaN where there is none; `odd` marks rows with other cells in them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        import numpy as np

        self.odd: Array = np.zeros(len(rows), dtype=bool)
        self._none: Array = np.full(len(rows), np.nan)
        names = names_of(rows)
        self.errors = [n for n in names if isinstance(n, str) and n.endswith(("_rel_error", "_drift_error"))]
        self.known: dict[str, Array] = {}
        for name in dict.fromkeys((*_NUMBERS, *self.errors)):
            if name in names:
                self.known[name] = self._read([row.get(name) for row in rows])

    def __getitem__(self, name: str) -> Array:
        return self.known.get(name, self._none)

    def _read(self, cells: Sequence[Any]) -> Array:
        import numpy as np

        plain = {float, int, type(None)}
        if not set(map(type, cells)) <= plain:
            self.odd |= np.array([type(cell) not in plain for cell in cells])
            cells = [cell if type(cell) in plain else None for cell in cells]
        try:
            values = np.array(cells, dtype=float)
        except OverflowError:  # whole numbers beyond any float
            far = np.array([type(cell) is int and abs(cell) > _LARGEST for cell in cells])
            self.odd |= far
            values = np.array([None if out else cell for out, cell in zip(far, cells, strict=True)], dtype=float)
        size = np.abs(values)
        self.odd |= (size > _LARGEST) | ((size > 0) & (size < _SMALLEST))
        return values

    def quotient(self, *upper: str, lower: Sequence[str]) -> Array:
        """Products of columns over others, NaN where one is missing or a lower one is not positive."""
        import numpy as np

        above = np.prod([self[name] for name in upper], axis=0)
        return above / np.prod([np.where(self[name] > 0, self[name], np.nan) for name in lower], axis=0)

    def values(self, quantity: Quantity) -> list[Array]:
        """Of each quotient of a quantity."""
        return all_of(quantity, lambda each: self.quotient(*each.upper, lower=each.lower))


class _Devices(NamedTuple):
    """What the rules know of each row's device: limits, NaN where unknown, and where they come from."""

    keys: list[tuple[Any, ...]]
    rate: Array
    executed_rate: Array
    efficiency: Array
    peak: Array
    board_power_w: Array
    odd: Array


def _devices(rows: Sequence[Row], columns: _Columns) -> _Devices:
    import numpy as np

    keys: list[tuple[Any, ...]] = []
    known: dict[tuple[Any, ...], tuple[float, ...]] = {}
    figures = [columns[name].tolist() for name in _STATED]
    stated = zip(*(texts(rows, name) for name in _DEVICE), *figures, strict=True)
    for place, (row, cells) in enumerate(zip(rows, stated, strict=True)):
        key = tuple(None if cell != cell else cell for cell in cells)
        keys.append(key)
        if key not in known and not columns.odd[place]:
            known[key] = _limits(row)
    unknown = (np.nan,) * 6
    table = np.array([known.get(key, unknown) for key in keys], dtype=float).reshape(-1, 6)
    return _Devices(keys, *table.T)


def _limits(row: Row) -> tuple[float, ...]:
    rate, efficiency, spec = rate_limit(row), efficiency_limit(row), find_gpu(device_name(row))
    values = (
        rate.bound if rate else None,
        executed_rate_bound(row),
        efficiency.bound if efficiency else None,
        peak_flops_per_s(device_name(row), precision_of(row)),
        spec.board_power_w if spec else None,
        float(any(odd_statement(device_name(row), name, number(row, name) or 0.0) for name in _STATED)),
    )
    return tuple(float("nan") if value is None else value for value in values)


def _may_break(columns: _Columns, devices: _Devices) -> Array:
    """Rows that may have a finding; comparisons with NaN are false, as a rule without its columns finds nothing."""
    import numpy as np

    with np.errstate(all="ignore"):
        return np.any(
            [
                *(columns[name] <= 0 for name in ("time_s", "energy_j", "power_w")),
                *(columns[name] < 0 for name in (*COUNTS, *EXECUTED_CLASSES, *RATES)),
                *((columns[name] < 0) | (columns[name] >= 1) for name in columns.errors),
                devices.odd > 0,
                *_disagreements(columns, devices),
                *_above_limits(columns, devices),
                *(columns[name] > HIGHEST_MFU for name in ("mfu", "hfu")),
                columns["other_processes"] > 0,
                *(np.abs(columns[name]) > DRIFT_NOTE * (1 - _SLACK) for name in _DRIFTS),
                columns["executed_gemm_flops"] < columns["gemm_flops"],
                columns["executed_other_rel"] > UNCLASSIFIED_NOTE,
                *(columns[name] > columns["target_error"] for name in ("time_rel_error", "energy_rel_error")),
                # without an error of the time, the rule asks whether its window converged
                ~np.isnan(columns["target_error"]) & np.isnan(columns["time_rel_error"]),
            ],
            axis=0,
        )


def _differ(stated: Array, value: Array, scale: Array | None = None) -> Array:
    import numpy as np

    largest = np.maximum(np.abs(stated), np.abs(value)) if scale is None else scale
    return np.abs(stated - value) > DERIVED_TOLERANCE * (1 - _SLACK) * largest


def _disagreements(columns: _Columns, devices: _Devices) -> list[Array]:
    """Where `inconsistent_columns` may have a finding, or a comparison that other rows do not have."""
    import numpy as np

    found = [_differ(columns[name], columns.quotient(*each.upper, lower=each.lower)) for name, each in DERIVED]
    found += [_differ(1 + columns[name], columns.quotient(upper, lower=[lower])) for name, upper, lower in EXCESSES]
    executed, energy, active = columns["executed_flops"], columns["energy_j"], columns["active_energy_j"]
    units = columns["executed_tensor_flops"] + columns["executed_cuda_flops"]
    found.append(_differ(executed, units))
    classes = np.nansum([columns[name] for name in EXECUTED_CLASSES], axis=0)
    # Nearly everywhere the classes are the whole. Beside a sum of units one comparison more tells nothing.
    found.append((classes > executed * (1 - _SLACK)) & (np.isnan(units) | _differ(executed, classes)))
    found += _wholes_of_energy(columns)
    # Without rounding: the two are equal where nothing is computed again, which is nearly everywhere.
    found.append(columns["hfu"] < columns["mfu"])
    found += [columns[name] > columns["model_flops"] for name in PARTS_OF_FLOPS]
    found.append(columns["time_s"] * columns["time_iterations"] > columns["window_s"] * (1 - _SLACK))
    expected = energy - columns["idle_power_w"] * columns["time_s"]
    found.append(_differ(active, expected, np.abs(energy)))
    for rate in (columns.quotient("model_flops", lower=["time_s"]), columns["flops_per_s"]):
        found.append(_differ(columns["mfu"], rate / devices.peak))
        found.append(_differ(columns["mfu"], rate / columns["measured_peak_flops_per_s"]))
        again = columns.quotient("recomputed_flops", lower=["time_s"])
        for peak in (devices.peak, columns["measured_peak_flops_per_s"]):
            found.append(_differ(columns["hfu"], (rate + again) / peak))
    return found


def _wholes_of_energy(columns: _Columns) -> list[Array]:
    import numpy as np

    product = columns["power_w"] * columns["time_s"]
    energy = np.where(np.isnan(columns["energy_j"]), product, columns["energy_j"])
    active, reference = columns["active_energy_j"], columns["energy_at_reference_j"] / energy
    return [
        active > energy * (1 - _SLACK),
        active < -DERIVED_TOLERANCE * (1 - _SLACK) * energy,
        reference > REFERENCE_RANGE * (1 - _SLACK),
        reference < (1 + _SLACK) / REFERENCE_RANGE,
    ]


def _above_limits(columns: _Columns, devices: _Devices) -> list[Array]:
    """Where a rule may find a rate, an efficiency or a power out of bounds."""
    import numpy as np

    time_error, energy_error = (np.nan_to_num(columns[f"{name}_rel_error"]) for name in ("time", "energy"))
    limit_w = np.where(columns["power_limit_w"] > 0, columns["power_limit_w"], devices.board_power_w)
    highest_w = np.where(np.isnan(limit_w), ANY_BOARD_W, limit_w * (1 + SENSOR_TOLERANCE)) * (1 - _SLACK)
    lowest_w = columns["idle_power_w"] * (1 - SENSOR_TOLERANCE) * (1 + _SLACK)
    found = []
    for quantity, error, bound in (
        (EXECUTED_RATE, time_error, devices.executed_rate),
        (RATE, time_error, devices.rate),
        (EFFICIENCY, energy_error, devices.efficiency),
    ):
        found += [value / (1 + error) > bound * (1 - _SLACK) for value in columns.values(quantity)]
    for power in columns.values(POWER):
        found.append(power * np.maximum(1 - energy_error, LEAST_SHARE) / (1 + time_error) > highest_w)
        found.append(power * (1 + energy_error) / np.maximum(1 - time_error, LEAST_SHARE) < lowest_w)
    return found
