"""Rules that one row can break by itself. Each takes a plain mapping, so that they also run while measuring.

A rule returns its finding, `None` when the row passes, or `Unjudged` when the row lacks what the rule compares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flopray.audit.findings import (
    Finding,
    Severity,
    Unjudged,
    device_name,
    flops_per_j,
    flops_per_s,
    is_usable,
    keys_of,
    lowest_power_w,
    number,
    power_w,
    precision_of,
    quotient,
    rel_error,
    si,
    text,
)
from flopray.audit.hardware import (
    Limit,
    efficiency_limit_flops_per_j,
    find_gpu,
    hard_limit_flops_per_s,
    peak_flops_per_s,
)

Row = Mapping[str, Any]
Verdict = Finding | Unjudged | None

#: Accuracy of a board's power sensor: NVML states 5 % for the boards where it states anything
#: (https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html, nvmlDeviceGetPowerUsage).
SENSOR_TOLERANCE = 0.05
#: Relative difference that a derived column may have from its parts: rounding, and means of quotients.
DERIVED_TOLERANCE = 0.05
DERIVED = (
    ("flops_per_s", "model_flops", "time_s"),
    ("flops_per_j", "model_flops", "energy_j"),
    ("power_w", "energy_j", "time_s"),
    ("energy_per_token_j", "energy_j", "tokens_per_iteration"),
    ("tokens_per_s", "tokens_per_iteration", "time_s"),
    ("executed_other_rel", "executed_other_flops", "executed_flops"),
)
#: Excesses over 1: column, what is more, than what.
EXCESSES = (
    ("gemm_overhead", "executed_gemm_flops", "gemm_flops"),
    ("executed_rel_difference", "executed_flops", "model_flops"),
    ("dispatched_rel_difference", "dispatched_flops", "model_flops"),
)
#: A share of the datasheet's peak may be above 1, since clocks are higher than the sheet assumes, but not by more.
HIGHEST_MFU = 1.1
#: Columns that count, and rates: none of them is negative.
COUNTS = (
    *("model_flops", "dispatched_flops", "executed_flops", "gemm_flops", "executed_gemm_flops", "activation_flops"),
    *("tokens_per_iteration", "memory_peak_bytes", "parameters"),
)
RATES = ("flops_per_s", "flops_per_j", "mfu", "hfu", "energy_per_token_j")
#: Classes of executed FLOPs; without those that are not of one kind (`_rel`, tensor and CUDA cores).
EXECUTED_CLASSES = tuple(
    f"executed_{kind}_flops"
    for kind in ("gemm", "reduction", "elementwise", "attention", "normalisation", "optimizer", "other")
)
#: Drift of the sentinel that deserves a note, and that which makes rows of one sweep hard to compare; where a larger
#: error was asked for, a note begins with that error, and the other with twice as much.
DRIFT_NOTE, DRIFT_IMPLAUSIBLE = 0.03, 0.10
#: Throttle reasons that do not slow work down: nothing to do, or clocks that somebody chose.
_HARMLESS = frozenset({"none", "gpuidle", "idle", "applicationsclockssetting", "displayclocksetting", "syncboost"})


def not_positive(row: Row) -> Verdict:
    """A time, energy or power of zero or less, or a count or rate below zero."""
    seen = {column: number(row, column) for column in ("time_s", "energy_j", "power_w")}
    counts = {column: number(row, column) for column in (*COUNTS, *RATES)}
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
        reasons[-1] += ": a count is not negative"
    if not reasons:
        return None
    return _finding("not_positive", Severity.IMPOSSIBLE, "; ".join(reasons), row, bad | below)


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
    return _finding("error_not_usable", Severity.IMPLAUSIBLE, sentence, row, bad, max(map(abs, bad.values())))


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
    compared = {column: stated for column, _, stated, _ in found}
    compared |= {parts.replace(" ", ""): value for _, parts, _, value in found}
    ratios = [max(abs(a), abs(b)) / max(min(abs(a), abs(b)), 1e-300) for *_, a, b in found]
    return _finding("inconsistent_columns", Severity.IMPLAUSIBLE, sentence, row, compared, max(ratios))


def _derivations(row: Row) -> Iterator[tuple[str, str, float | None]]:
    """Derived columns with what they are made of, in words and as a number."""
    for column, upper, lower in DERIVED:
        yield column, f"{upper} / {lower}", quotient(row, upper, lower)
    yield from _excesses(row)
    yield from _sums(row)
    peak, measured = peak_flops_per_s(device_name(row), precision_of(row)), measured_peak(row)
    rate = quotient(row, "model_flops", "time_s") or number(row, "flops_per_s")
    if measured and rate is not None and text(row, "phase") != "optimizer_step":
        yield "mfu", f"flops_per_s / measured_peak_flops_per_s of {si(measured, 'FLOP/s')}", rate / measured
    elif peak and rate is not None and text(row, "phase") != "optimizer_step":
        yield "mfu", f"flops_per_s / peak of {peak / 1e12:g} TFLOP/s", rate / peak
    total = [number(row, column) for column in ("energy_j", "idle_power_w", "time_s")]
    if None not in total:
        energy_j, idle_w, time_s = total
        # Close to idle, the difference of two similar numbers is all error: compare it with the whole energy.
        active = number(row, "active_energy_j")
        expected = energy_j - idle_w * time_s  # type: ignore[operator]
        if active is not None and abs(active - expected) > DERIVED_TOLERANCE * abs(energy_j):  # type: ignore[arg-type]
            yield "active_energy_j", "energy_j - idle_power_w * time_s", expected


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
    if executed is not None and counted > executed:
        yield "executed_flops", "the sum of its classes", counted
    energy, active = number(row, "energy_j"), number(row, "active_energy_j")
    if energy is not None and active is not None and active > energy:
        yield "energy_j", "active_energy_j, which is a part of it,", active


def mfu_above_one(row: Row) -> Verdict:
    """A share of the peak above what clocks can explain: often a percentage."""
    seen = {column: value for column in ("mfu", "hfu") if (value := number(row, column)) is not None}
    if not seen:
        return Unjudged("mfu_above_one", "no mfu or hfu")
    bad = {column: value for column, value in seen.items() if value > HIGHEST_MFU}
    if not bad:
        return None
    named = " and ".join(f"{column} is {value:.4g}" for column, value in bad.items())
    measured = measured_peak(row)
    if measured:
        sentence = f"{named}: faster than the {si(measured, 'FLOP/s')} that products were measured to reach here, "
        sentence += "which is no limit: other shapes may be faster, or the machine was busy meanwhile"
        return _finding("mfu_above_one", Severity.NOTE, sentence, row, bad, max(bad.values()))
    sentence = f"{named}: more than the device's peak; a percentage has to be divided by 100"
    return _finding("mfu_above_one", Severity.IMPLAUSIBLE, sentence, row, bad, max(bad.values()))


def measured_peak(row: Row) -> float | None:
    """The rate of products that was measured on a device without a datasheet's peak; never a limit."""
    measured = number(row, "measured_peak_flops_per_s")
    known = peak_flops_per_s(device_name(row), precision_of(row))
    return measured if measured and measured > 0 and not known else None


def rate_limit(row: Row) -> Limit | None:
    """The hard limit of a row's device at its precision, by what the row says of SMs and clock where it does."""
    sms, clock_hz = number(row, "sm_count"), number(row, "max_sm_clock_hz")
    return hard_limit_flops_per_s(
        device_name(row),
        precision_of(row),
        compute_capability=text(row, "compute_capability"),
        sm_count=int(sms) if sms and sms >= 1 else None,
        max_sm_clock_hz=clock_hz if clock_hz and clock_hz > 0 else None,
    )


def efficiency_limit(row: Row) -> Limit | None:
    """Peak over board power of a row's device at its precision, in FLOP/J."""
    return efficiency_limit_flops_per_j(device_name(row), precision_of(row))


def rate_above_limit(row: Row) -> Verdict:
    """FLOP/s above what the device can do at its highest clock."""
    rate, device, precision = flops_per_s(row), device_name(row), precision_of(row)
    if rate is None:
        return Unjudged("rate_above_limit", "no flops_per_s, nor model_flops and time_s")
    limit = rate_limit(row)
    if limit is None and measured_peak(row):
        return Unjudged("rate_above_limit", "no limit is known for the device, and a measured peak is none")
    if limit is None:
        sentence = f"no limit known for {device or 'an unnamed device'} at {precision or 'an unnamed precision'}"
        sentence += ": not judged" + _which_fp32(precision)
        return _finding("no_limit_known", Severity.NOTE, sentence, row, {"flops_per_s": rate})
    if rate / (1 + rel_error(row, "time_rel_error")) <= limit.bound:  # the longest time within the error
        return None
    sentence = (
        f"{si(rate, 'FLOP/s')} at {precision} is {rate / limit.bound:.3g} times the "
        f"{si(limit.bound, 'FLOP/s')} that the device can do ({limit.basis})"
    )
    tensor = peak_flops_per_s(device, "tf32") if precision == "fp32" else None
    if tensor and rate <= tensor:
        sentence += f"; possible only as tf32 ({si(tensor, 'FLOP/s')}), and then the precision is mislabelled"
    compared = {"flops_per_s": rate, "limit_flops_per_s": limit.bound, "basis": limit.basis}
    return _finding("rate_above_limit", Severity.IMPOSSIBLE, sentence, row, compared, rate / limit.bound)


def executed_rate_above_limit(row: Row) -> Verdict:
    """Executed FLOPs in less time than the chip's fastest units and its CUDA cores take for them together.

    Counters see every kind of core, and a library may compute one precision by units of another.
    """
    rate = quotient(row, "executed_flops", "time_s")
    if rate is None:
        return Unjudged("executed_rate_above_limit", "no executed_flops and time_s")
    bound = executed_rate_bound(row)
    if bound is None:
        return Unjudged("executed_rate_above_limit", "no limit known for the device")
    if rate / (1 + rel_error(row, "time_rel_error")) <= bound:
        return None
    sentence = (
        f"{si(rate, 'FLOP/s')} executed is {rate / bound:.3g} times the {si(bound, 'FLOP/s')} "
        "of the device's fastest units and its CUDA cores together"
    )
    compared = {"executed_flops_per_s": rate, "limit_flops_per_s": bound}
    return _finding("executed_rate_above_limit", Severity.IMPOSSIBLE, sentence, row, compared, rate / bound)


def executed_rate_bound(row: Row) -> float | None:
    """The rate in FLOP/s of a row's device with its fastest units and its CUDA cores together."""
    limits = [limit.bound for p in ("fp32", "tf32", "bf16", "fp16") if (limit := rate_limit({**row, "precision": p}))]
    return max(limits) + limits[0] if limits else None


def _which_fp32(precision: str | None) -> str:
    """What to do about a name of the precision that says how numbers are stored, and not which units compute."""
    if precision is None or precision.lower().removeprefix("torch.") not in ("float32", "float", "32-true", "32"):
        return ""
    return "; write fp32 (CUDA cores) or tf32 (tensor cores), whichever the products used"


def efficiency_above_peak(row: Row) -> Verdict:
    """FLOPs per joule above the datasheet's peak over board power."""
    efficiency = flops_per_j(row)
    if efficiency is None:
        return Unjudged("efficiency_above_peak", _why_no_energy(row, "flops_per_j, nor model_flops and energy_j"))
    limit = efficiency_limit(row)
    if limit is None:
        return Unjudged("efficiency_above_peak", "no peak and board power known for the device and precision")
    if efficiency / (1 + rel_error(row, "energy_rel_error")) <= limit.bound:  # the highest energy within the error
        return None
    sentence = (
        f"{si(efficiency, 'FLOP/J')} is {efficiency / limit.bound:.3g} times the {limit.basis}; "
        "only a GPU that is clocked down beats that, and not by much"
    )
    compared = {"flops_per_j": efficiency, "limit_flops_per_j": limit.bound, "basis": limit.basis}
    return _finding("efficiency_above_peak", Severity.IMPLAUSIBLE, sentence, row, compared, efficiency / limit.bound)


def power_above_limit(row: Row) -> Verdict:
    """Mean power above the board's limit: impossible against the limit the row states, implausible against a sheet.

    A board regulates to its limit, so a mean above it by more than the errors and the sensor's tolerance was not drawn
    by this work in this time. Where the row states no limit, the datasheet of an assumed variant is used.
    """
    power = power_w(row)
    if power is None:
        return Unjudged("power_above_limit", _why_no_energy(row, "power_w, nor energy_j and time_s"))
    stated, spec = number(row, "power_limit_w"), find_gpu(device_name(row))
    stated = stated if stated and stated > 0 else None  # some tools write -1 where they know none
    limit = stated or (spec.board_power_w if spec else None)
    if not limit:
        return Unjudged("power_above_limit", "no power limit stated or known")
    energy_error, time_error = rel_error(row, "energy_rel_error"), rel_error(row, "time_rel_error")
    if power * (1 - energy_error) / (1 + time_error) <= limit * (1 + SENSOR_TOLERANCE):
        return None
    severity = Severity.IMPOSSIBLE if stated else Severity.IMPLAUSIBLE
    source = "the board enforces" if stated else f"of the {spec.name if spec else 'board'}'s datasheet"
    sentence = f"mean power of {si(power, 'W')} is above the {si(limit, 'W')} {source}"
    compared = {"power_w": power, "limit_w": limit}
    return _finding("power_above_limit", severity, sentence, row, compared, power / limit)


def power_below_idle(row: Row) -> Verdict:
    """Mean power below that of the same process idle.

    Implausible, not impossible: idle power was measured at another time, often on a warmer board.
    """
    power, idle = lowest_power_w(row), number(row, "idle_power_w")
    if power is None:
        return Unjudged("power_below_idle", _why_no_energy(row, "power_w, nor energy_j and time_s"))
    if idle is None:
        return Unjudged("power_below_idle", "no idle_power_w")
    energy_error, time_error = rel_error(row, "energy_rel_error"), rel_error(row, "time_rel_error")
    if power * (1 + energy_error) / (1 - time_error) >= idle * (1 - SENSOR_TOLERANCE):
        return None
    sentence = (
        f"mean power of {si(power, 'W')} is below the {si(idle, 'W')} of the idle device: "
        "the energy of the work was missed"
    )
    compared = {"power_w": power, "idle_power_w": idle}
    return _finding("power_below_idle", Severity.IMPLAUSIBLE, sentence, row, compared, 2 - power / idle)


def shared_device(row: Row) -> Verdict:
    """Other processes computed on the device, whose energy and delays are in the numbers."""
    others = number(row, "other_processes")
    if others is None:
        return Unjudged("shared_device", "no other_processes")
    if others <= 0:
        return None
    noun = "process" if others == 1 else "processes"
    sentence = f"{others:g} other {noun} used the device: their energy and delays are in these numbers"
    return _finding("shared_device", Severity.IMPLAUSIBLE, sentence, row, {"other_processes": others}, others)


def throttled(row: Row) -> Verdict:
    """The device slowed itself down: a note for the power cap, which is how a full board runs; else implausible."""
    stated = row.get("throttle_end")
    if not isinstance(stated, str):  # an empty text means "no reason"; a missing one means that nothing is known
        return Unjudged("throttled", "no throttle_end")
    reasons = {reason.strip() for reason in stated.split("|") if reason.strip()}
    slow = sorted(reason for reason in reasons if _letters(reason) not in _HARMLESS)
    if not slow:
        return None
    capped = all("powercap" in _letters(reason) for reason in slow)
    severity = Severity.NOTE if capped else Severity.IMPLAUSIBLE
    sentence = (
        "the board ran at its power limit, below its highest clock"
        if capped
        else f"the device was throttled ({', '.join(slow)}): the numbers are of a slower device"
    )
    return _finding("throttled", severity, sentence, row, {"throttle_end": stated})


def target_error_missed(row: Row) -> Verdict:
    """The error that was asked for was not reached before the cap."""
    target = number(row, "target_error")
    errors = {column: number(row, column) for column in ("time_rel_error", "energy_rel_error")}
    errors = {column: value for column, value in errors.items() if value is not None}
    if target is not None and "time_rel_error" not in errors and str(row.get("time_converged")) == "False":
        # With fewer laps than `flopray.measurement.statistics.FEWEST_LAPS` there is a mean without an interval.
        sentence = f"the window held too few laps for an error of the time, where {target:.2%} was asked for"
        return _finding("target_error_missed", Severity.NOTE, sentence, row, {"target_error": target})
    if target is None or not errors:
        return Unjudged("target_error_missed", "no target_error, time_rel_error or energy_rel_error")
    missed = {column: value for column, value in errors.items() if value > target}
    if not missed:
        return None
    named = " and ".join(f"{column.removesuffix('_rel_error')} {value:.2%}" for column, value in missed.items())
    sentence = f"error reached: {named}, where {target:.2%} was asked for"
    compared = {"target_error": target, **missed}
    excess = max(missed.values()) / target if target > 0 else 1.0
    return _finding("target_error_missed", Severity.NOTE, sentence, row, compared, excess)


def sentinel_drift(row: Row) -> Verdict:
    """The sentinel point, measured again and again, no longer gave what it gave at first, by more than its error."""
    found = {}
    for quantity in ("time", "energy"):
        drift = number(row, f"sentinel_{quantity}_drift")
        if drift is not None:
            found[quantity] = drift, number(row, f"sentinel_{quantity}_drift_error")
    if not found:
        return Unjudged("sentinel_drift", "no sentinel_time_drift or sentinel_energy_drift")
    # an error that is missing or bounds nothing excuses nothing
    beyond = max(
        abs(drift) - (error if error and (is_usable(error) or 0 <= error < abs(drift)) else 0.0)
        for drift, error in found.values()
    )
    asked = number(row, "target_error") or 0.0
    asked = asked if is_usable(asked) else 0.0
    if beyond <= max(DRIFT_NOTE, asked):
        return None
    severity = Severity.IMPLAUSIBLE if beyond > max(DRIFT_IMPLAUSIBLE, 2 * asked) else Severity.NOTE
    named = " and ".join(
        f"{what} by {drift:+.1%}" + ("" if error is None else f" ± {error:.1%}")
        for what, (drift, error) in found.items()
    )
    sentence = f"the sentinel drifted: {named} since the first point"
    compared = {f"sentinel_{what}_drift": drift for what, (drift, _) in found.items()}
    return _finding("sentinel_drift", severity, sentence, row, compared, beyond / DRIFT_NOTE)


#: In the order of a report: what cannot be, what is unlikely, what is good to know.
ROW_RULES: tuple[Callable[[Row], Verdict], ...] = (
    not_positive,
    error_not_usable,
    inconsistent_columns,
    rate_above_limit,
    executed_rate_above_limit,
    power_above_limit,
    efficiency_above_peak,
    power_below_idle,
    mfu_above_one,
    shared_device,
    throttled,
    sentinel_drift,
    target_error_missed,
)


def _finding(
    rule: str, severity: Severity, sentence: str, row: Row, compared: Mapping[str, Any], excess: float = 1.0
) -> Finding:
    return Finding(rule, severity, sentence, numbers=dict(compared), rows=(0,), keys=keys_of(row), excess=excess)


def _why_no_energy(row: Row, needed: str) -> str:
    status = text(row, "energy_status")
    return f"no {needed}" + (f" (energy_status {status})" if status not in (None, "ok") else "")


def _letters(reason: str) -> str:
    return "".join(letter for letter in reason.lower() if letter.isalnum())
