"""Rows that fits are made of: measured, ok, with their work; energy at the reference temperature."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from flopray.audit.cells import rows_of
from flopray.description import Description
from flopray.energy.reference import told_later
from flopray.energy.thermal import AT_LIMIT, is_limited
from flopray.errors import FloprayError, InputError
from flopray.predict.arrays import Floats
from flopray.predict.kernel_choice import Counted, counted_products
from flopray.predict.work import NoWork, Work, work_of_row
from flopray.records import Row
from flopray.store.kernel_table import kernel_rows
from flopray.workloads.base import ELEMENT_BYTES
from flopray.workloads.registry import BUILT_IN

#: What a row must have to be fitted.
NEEDED = ("workload", "device_type", "precision", "execution", "phase", "trial_id", "status", "time_s")
_KERNEL_COLUMNS = ("trial_id", "phase", "device_type", "precision", "execution", "kernels")
REFERENCE_C = 50.0


@dataclass(frozen=True, eq=False)
class Measured:
    """Rows with their works.

    Attributes:
        rows: R of them, with the columns of a record.
        works: of each.
        times_s: of one iteration, shape (R,).
        energies_j: at the reference temperature of `reference_c`, shape (R,); of a board at its limit as measured; NaN
            where there is none.
        counted: kernels of products, from counters.
        reference_c: temperature of the energies, in Celsius.
        left_out: rows that are not used, by reason.
    """

    rows: pd.DataFrame
    works: tuple[Work, ...]
    times_s: Floats
    energies_j: Floats
    counted: tuple[Counted, ...]
    reference_c: float
    left_out: Mapping[str, int]

    def of(self, mask: np.ndarray) -> Measured:
        """Some of the rows."""
        places = np.flatnonzero(mask)
        works = tuple(self.works[place] for place in places)
        rows = self.rows.iloc[places].reset_index(drop=True)
        parts = (self.times_s[places], self.energies_j[places], self.counted, self.reference_c, self.left_out)
        return Measured(rows, works, *parts)

    def first(self, name: str) -> Any:
        """The first value of a column that is there; None where there is none."""
        known = self.rows[name].dropna() if name in self.rows else ()
        return known.iloc[0] if len(known) else None  # type: ignore[union-attr]

    def column(self, name: str) -> np.ndarray:
        """A column as texts, shape (R,)."""
        return self.rows[name].astype(str).to_numpy(dtype=object)


def measured_rows(
    frames: Sequence[pd.DataFrame],
    *,
    workloads: Mapping[str, Description] | None = None,
    leave_out: Sequence[str] = (),
    reference_c: float = REFERENCE_C,
    counted: Sequence[Counted] = (),
) -> Measured:
    """The rows of runs that can be fitted.

    Args:
        frames: as `flopray.load_run` gives them; rows with kernels tell which kernels products get.
        workloads: descriptions or classes of those that are not built in, by name.
        leave_out: models whose rows are not used.
        reference_c: temperature of energies.
        counted: further kernels of products.

    Raises:
        InputError: there are no rows, or columns are missing.
    """
    if not frames:
        raise InputError("nothing to fit: there are no runs")
    for frame in frames:
        if missing := [name for name in NEEDED if name not in frame]:
            raise InputError(f"a frame without {', '.join(missing)} cannot be fitted: give records, as load_run does")
    rows = pd.concat(frames, ignore_index=True)
    known = {**{name: cls() for name, cls in BUILT_IN.items()}, **(workloads or {})}
    found = (*counted, *_counted(rows))
    left_out: Counter[str] = Counter()
    kept: list[int] = []
    works: list[Work] = []
    for place, row in enumerate(plain_rows(rows)):
        reason, work = _work_or_reason(row, known, leave_out)
        if work is None:
            left_out[reason] += 1
            continue
        kept.append(place)
        works.append(work)
    if not kept:
        said = "; ".join(f"{reason} ({count} rows)" for reason, count in left_out.most_common(3))
        raise InputError(f"nothing to fit: {said or 'there are no rows'}")
    rows = rows.iloc[kept].reset_index(drop=True)
    rows["device_uuid"] = _boards(rows)
    energies = _energies(rows, reference_c)
    times = rows["time_s"].to_numpy(float, na_value=np.nan)
    return Measured(rows, tuple(works), times, energies, found, reference_c, dict(left_out))


def plain_rows(rows: Any) -> list[Row]:
    """Rows of a data frame as mappings; a missing value is None."""
    table = rows.astype(object)
    return table.where(table.notna(), None).to_dict("records")


def _work_or_reason(
    row: Mapping[str, Any], known: Mapping[str, Description], leave_out: Sequence[str]
) -> tuple[str, Work | None]:
    if row.get("model") in leave_out:
        return f"{row['model']} is left out", None
    if row["status"] != "ok":
        return f"not measured: {row['status']}", None
    if not 0 < float(row.get("time_s") or 0) < math.inf:
        return "without time", None
    if row["precision"] not in ELEMENT_BYTES:
        return f"{row['precision']!s:.20} is not a known precision", None
    if any(str(finding).startswith("impossible") for finding in row.get("findings") or ()):
        return "impossible by the audit", None
    try:
        workload = known.get(str(row["workload"]))
        return "", work_of_row(row, workload)
    except NoWork as error:
        return str(error), None
    except FloprayError as error:
        return f"its point cannot be made: {error}", None


def _boards(rows: Any) -> Any:
    """GPUs by UUID; a CPU by its node."""
    names = rows["device_uuid"] if "device_uuid" in rows else pd.Series(pd.NA, index=rows.index)
    nodes = rows["node"] if "node" in rows else pd.Series("unknown", index=rows.index)
    return names.astype(object).where(names.notna(), nodes.astype(object)).fillna("unknown").astype(str)


def _energies(rows: Any, reference_c: float) -> Floats:
    """Energy at the reference temperature; worked out here for rows that have none or another one."""
    have = pd.Series(np.nan, index=rows.index)
    if "energy_at_reference_j" in rows and "reference_temperature_c" in rows:
        same = rows["reference_temperature_c"].astype("Float64") == reference_c
        have = rows["energy_at_reference_j"].where(same.fillna(False)).astype("Float64").astype(float)
    without = rows_of(rows.assign(energy_at_reference_j=None))
    later = [told.get("energy_at_reference_j") for told in told_later(without, reference_c)]
    told = pd.Series([value if isinstance(value, float) else np.nan for value in later], index=rows.index)
    found = have.fillna(told).to_numpy(float)
    measured = _floats(rows, "energy_j")
    return np.where(found > 0, found, np.where(at_limit(rows) & (measured > 0), measured, np.nan))


def at_limit(rows: Any) -> np.ndarray:
    """Rows whose power was at a limit, shape (R,): there temperature changes time, not power.

    Their energy is taken as it was measured.
    """
    throttles = rows["throttle_end"].astype(object) if "throttle_end" in rows else pd.Series("", index=rows.index)
    held = [isinstance(text, str) and bool(is_limited(text)) for text in throttles]
    full = _floats(rows, "power_w") >= AT_LIMIT * _floats(rows, "power_limit_end_w")
    return np.array(held) | full


def _floats(rows: Any, name: str) -> Floats:
    return rows[name].astype("Float64").to_numpy(float, na_value=np.nan) if name in rows else np.full(len(rows), np.nan)


def _counted(rows: Any) -> list[Counted]:
    if "kernels" not in rows:
        return []
    held: Any = rows[rows["kernels"].map(lambda kernels: kernels is not None and len(kernels) > 0).astype(bool)]
    if not len(held):
        return []
    names = [name for name in _KERNEL_COLUMNS if name in held]
    records: Any = held[names].to_dict("records")
    return counted_products(kernel_rows(records), plain_rows(held))
