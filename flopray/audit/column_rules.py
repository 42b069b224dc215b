"""Rules on what the columns of one row say by themselves: signs, errors, and derived columns beside their parts.

A rule returns its finding, `None` when the row passes, or `Unjudged` when the row lacks what the rule compares. Each
takes a plain mapping, so that it also runs while measuring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from flopray.audit.findings import (
    Row,
    Severity,
    Unjudged,
    Verdict,
    device_name,
    finding_of,
    is_usable,
    number,
    precision_of,
    quotient,
    text,
)
from flopray.audit.hardware import odd_statement, peak_flops_per_s
from flopray.audit.implied import Quotient
from flopray.audit.limit_rules import measured_peak
from flopray.units import prefixed

#: Relative difference that a derived column may have from its parts: rounding, and means of quotients.
DERIVED_TOLERANCE = 0.05
DERIVED = (
    ("flops_per_s", Quotient(("model_flops",), ("time_s",))),
    ("flops_per_j", Quotient(("model_flops",), ("energy_j",))),
    ("power_w", Quotient(("energy_j",), ("time_s",))),
    ("energy_per_token_j", Quotient(("energy_j",), ("tokens_per_iteration",))),
    ("tokens_per_s", Quotient(("tokens_per_iteration",), ("time_s",))),
    ("executed_other_rel", Quotient(("executed_other_flops",), ("executed_flops",))),
    ("flops_per_j", Quotient(("flops_per_s",), ("power_w",))),
    ("flops_per_j", Quotient(("flops_per_s", "time_s"), ("energy_j",))),
    ("flops_per_j", Quotient(("model_flops",), ("power_w", "time_s"))),
    ("energy_per_token_j", Quotient(("power_w",), ("tokens_per_s",))),
    ("energy_per_token_j", Quotient(("power_w", "time_s"), ("tokens_per_iteration",))),
    ("energy_per_token_j", Quotient(("energy_j",), ("tokens_per_s", "time_s"))),
)
#: No temperature that a board runs at changes its energy by more than this factor.
REFERENCE_RANGE = 1.5
#: Excesses over 1: column, what is more, than what.
EXCESSES = (
    ("gemm_overhead", "executed_gemm_flops", "gemm_flops"),
    ("executed_rel_difference", "executed_flops", "model_flops"),
    ("dispatched_rel_difference", "dispatched_flops", "model_flops"),
)
#: Columns that count, and rates: none of them is negative.
COUNTS = (
    *("model_flops", "dispatched_flops", "executed_flops", "gemm_flops", "executed_gemm_flops", "activation_flops"),
    *("optimizer_flops", "recomputed_flops", "least_moved_bytes", "kernel_launches", "kernel_launches_counted"),
    *("executed_tensor_flops", "executed_cuda_flops", "tokens_per_iteration", "memory_peak_bytes", "parameters"),
    *("time_iterations", "warmup_iterations", "warmup_s", "window_s", "energy_window_s", "energy_ticks"),
)
#: FLOPs that are a part of the closed form.
PARTS_OF_FLOPS = ("gemm_flops", "activation_flops", "optimizer_flops")
RATES = (
    "idle_power_w",
    "awake_idle_power_w",
    "energy_at_reference_j",
    "tokens_per_s",
    "flops_per_s",
    "flops_per_j",
    "mfu",
    "hfu",
    "energy_per_token_j",
)
#: Classes of executed FLOPs; without those that are not of one kind (`_rel`, tensor and CUDA cores).
EXECUTED_CLASSES = tuple(
    f"executed_{kind}_flops"
    for kind in ("gemm", "reduction", "elementwise", "attention", "normalisation", "optimizer", "other")
)


def not_positive(row: Row) -> Verdict:
    """A time, energy or power of zero or less, or a count or rate below zero."""
    seen = {column: number(row, column) for column in ("time_s", "energy_j", "power_w")}
    counts = {column: number(row, column) for column in (*COUNTS, *EXECUTED_CLASSES, *RATES)}
    if all(value is None for value in (*seen.values(), *counts.values())):
        return Unjudged("not_positive", "no time_s, energy_j or power_w")
    bad = {column: value for column, value in seen.items() if value is not None and value <= 0}
    below = {column: value for column, value in counts.items() if value is not None and value < 0}
    reasons = []
    if bad:
        reasons.append(" and ".join(f"{column} is {value:g}" for column, value in bad.items()))
        reasons[-1] += ": work takes time and energy"
    if below:
        reasons.append(" and ".join(f"{column} is {value:g}" for column, value in below.items()))
        reasons[-1] += ": no count or rate is negative"
    if not reasons:
        return None
    return finding_of("not_positive", Severity.IMPOSSIBLE, "; ".join(reasons), row, bad | below)


def error_not_usable(row: Row) -> Verdict:
    """A stated error of 100 % or more, or below zero: it bounds nothing, so the value is as good as unknown."""
    columns = [column for column in row if isinstance(column, str) and column.endswith(("_rel_error", "_drift_error"))]
    stated = {column: value for column in columns if (value := _stated_error(row, column)) is not None}
    if not stated:
        return Unjudged("error_not_usable", "no time_rel_error or energy_rel_error")
    bad = {column: value for column, value in stated.items() if not _bounds(row, column, value)}
    if not bad:
        return None
    named = " and ".join(f"{column} is {value:.3g}" for column, value in bad.items())
    sentence = f"{named}: that bounds nothing, the value is as good as unknown; it is judged as if no error were stated"
    return finding_of("error_not_usable", Severity.IMPLAUSIBLE, sentence, row, bad, max(map(abs, bad.values())))


def _bounds(row: Row, column: str, error: float) -> bool:
    """Whether a stated error bounds its value: below 100 %, or, of a drift, below the drift itself (9 +- 3)."""
    drift = number(row, column.removesuffix("_error")) if column.endswith("_drift_error") else None
    return is_usable(error) or (drift is not None and 0 <= error < abs(drift))


def _stated_error(row: Row, column: str) -> float | None:
    """A stated error, also an infinite one."""
    value = row.get(column)
    return value if isinstance(value, float) and math.isinf(value) else number(row, column)


def inconsistent_columns(row: Row) -> Verdict:
    """A derived column that is not what its parts give, or parts that are more than their whole."""
    found, compared_any = [], False
    for column, parts, value in _derivations(row):
        stated = number(row, column)
        if stated is None or value is None:
            continue
        compared_any = True
        if abs(stated - value) > DERIVED_TOLERANCE * max(abs(stated), abs(value)):
            found.append((column, parts, stated, value))
    if not found:
        return None if compared_any else Unjudged("inconsistent_columns", "no derived column beside its parts")
    sentence = "; ".join(f"{c} is {stated:.4g}, but {parts} is {value:.4g}" for c, parts, stated, value in found)
    sentence += ": one of them is not what its name says"
    if powers := {_power_of_ten(stated, value) for _, _, stated, value in found} - {0}:
        sentence += f"; a factor of {10.0 ** min(powers):g} is that of another unit, such as kilo or per cent"
    compared = {column: stated for column, _, stated, _ in found}
    compared |= {parts.replace(" ", ""): value for _, parts, _, value in found}
    ratios = [max(abs(a), abs(b)) / max(min(abs(a), abs(b)), 1e-300) for *_, a, b in found]
    return finding_of("inconsistent_columns", Severity.IMPLAUSIBLE, sentence, row, compared, max(ratios))


#: No two units of one quantity that anybody uses are further apart, in powers of ten: atto and one.
_LARGEST_PREFIX = 18


def _power_of_ten(one: float, other: float) -> int:
    """How many powers of ten, 2 to 18, two values are apart; 0 where it is another factor."""
    if not one or not other or (one < 0) != (other < 0) or not math.isfinite(one) or not math.isfinite(other):
        return 0
    apart = abs(math.log10(abs(one)) - math.log10(abs(other)))  # the ratio of a very small number may be 0
    whole = round(apart)
    return whole if 2 <= whole <= _LARGEST_PREFIX and abs(apart - whole) < math.log10(1 + DERIVED_TOLERANCE) else 0


def _derivations(row: Row) -> Iterator[tuple[str, str, float | None]]:
    """Derived columns with what they are made of, in words and as a number."""
    for column, derived in DERIVED:
        yield column, derived.words, derived.of(row)
    yield from _excesses(row)
    yield from _sums(row)
    for column in ("power_limit_w", "sm_count", "max_sm_clock_hz"):
        value = number(row, column)
        if value is not None and (odd := odd_statement(device_name(row), column, value)):
            yield column, f"that of the datasheet of the {odd[0]}", odd[1]
    yield from _shares_of_peak(row)
    total = [number(row, column) for column in ("energy_j", "idle_power_w", "time_s")]
    if None not in total:
        energy_j, idle_w, time_s = total
        # Close to idle, the difference of two similar numbers is all error: compare it with the whole energy.
        active = number(row, "active_energy_j")
        expected = energy_j - idle_w * time_s  # type: ignore[operator]
        if active is not None and abs(active - expected) > DERIVED_TOLERANCE * abs(energy_j):  # type: ignore[arg-type]
            yield "active_energy_j", "energy_j - idle_power_w * time_s", expected


def _shares_of_peak(row: Row) -> Iterator[tuple[str, str, float]]:
    """Shares of a device's peak, or of the rate that was measured there."""
    peak, measured = peak_flops_per_s(device_name(row), precision_of(row)), measured_peak(row)
    rate = quotient(row, "model_flops", "time_s") or number(row, "flops_per_s")
    if measured and rate is not None and text(row, "phase") != "optimizer_step":
        yield "mfu", f"flops_per_s / measured_peak_flops_per_s of {prefixed(measured, 'FLOP/s')}", rate / measured
    elif peak and rate is not None and text(row, "phase") != "optimizer_step":
        yield "mfu", f"flops_per_s / peak of {peak / 1e12:g} TFLOP/s", rate / peak
    again, time_s = number(row, "recomputed_flops"), number(row, "time_s")
    best = measured or peak
    if best and rate is not None and again is not None and time_s and text(row, "phase") != "optimizer_step":
        yield "hfu", "mfu with recomputed_flops", (rate + again / time_s) / best


def _excesses(row: Row) -> Iterator[tuple[str, str, float]]:
    """Columns `a / b - 1`; near 0 a difference of two similar numbers, so `a / b` is compared."""
    for column, upper, lower in EXCESSES:
        stated, ratio = number(row, column), quotient(row, upper, lower)
        if stated is not None and ratio is not None:
            close = abs(1 + stated - ratio) <= DERIVED_TOLERANCE * max(abs(1 + stated), ratio)
            yield column, f"{upper} / {lower} - 1", stated if close else ratio - 1


def _sums(row: Row) -> Iterator[tuple[str, str, float]]:
    """Wholes whose parts are all there, and wholes below one of their parts."""
    tensor, cuda = number(row, "executed_tensor_flops"), number(row, "executed_cuda_flops")
    if tensor is not None and cuda is not None:
        yield "executed_flops", "executed_tensor_flops + executed_cuda_flops", tensor + cuda
    executed = number(row, "executed_flops")
    classes = [
        name for name in row if isinstance(name, str) and name.startswith("executed_") and name in EXECUTED_CLASSES
    ]
    counted = sum(number(row, name) or 0.0 for name in classes)
    if executed is not None and counted > executed >= 0:
        yield "executed_flops", "the sum of its classes", counted
    yield from _wholes_of_energy(row)
    flops = number(row, "model_flops")
    for name in PARTS_OF_FLOPS:
        if flops is not None and flops >= 0 and (part := number(row, name)) is not None and part > flops:
            yield "model_flops", f"{name}, which is a part of it,", part
    window, laps = number(row, "window_s"), Quotient(("time_s", "time_iterations")).of(row)
    if window is not None and laps is not None and laps > window >= 0:
        yield "window_s", "time_s * time_iterations, which it holds,", laps
    mfu, hfu = number(row, "mfu"), number(row, "hfu")
    if mfu is not None and hfu is not None and hfu < mfu:
        yield "hfu", "mfu, which counts no recomputed FLOPs,", mfu


def _wholes_of_energy(row: Row) -> Iterator[tuple[str, str, float]]:
    """Energies beside those that they are a part of, or that they are at another temperature."""
    energy, name = energy_of(row)
    active, reference = number(row, "active_energy_j"), number(row, "energy_at_reference_j")
    if energy is None or energy <= 0:
        return
    if active is not None and active > energy:
        if name == "energy_j":
            yield "energy_j", "active_energy_j, which is a part of it,", active
        else:
            yield "active_energy_j", f"{name}, which it is a part of,", energy
    if active is not None and active < -DERIVED_TOLERANCE * energy:
        yield "active_energy_j", "the least that is left of an energy", 0.0
    if reference is not None and not 1 / REFERENCE_RANGE <= reference / energy <= REFERENCE_RANGE:
        yield "energy_at_reference_j", f"{name}, at another temperature,", energy


def energy_of(row: Row) -> tuple[float | None, str]:
    """The energy of a row in J, stated or as power times time, and what it is called."""
    energy, power, time_s = (number(row, name) for name in ("energy_j", "power_w", "time_s"))
    if energy is None and power is not None and time_s is not None:
        return power * time_s, "power_w * time_s"
    return energy, "energy_j"


#: In the order of a report.
COLUMN_RULES: tuple[Callable[[Row], Verdict], ...] = (
    not_positive,
    error_not_usable,
    inconsistent_columns,
)
