"""Rules that compare the rates, powers and efficiencies of one row with what its device can do."""

from __future__ import annotations

from collections.abc import Callable

from flopray.audit.findings import (
    LEAST_SHARE,
    Row,
    Severity,
    Unjudged,
    Verdict,
    device_name,
    finding_of,
    is_missing,
    number,
    precision_of,
    rel_error,
    text,
)
from flopray.audit.foreign import is_outcome
from flopray.audit.hardware import (
    Limit,
    efficiency_limit_flops_per_j,
    find_gpu,
    hard_limit_flops_per_s,
    odd_statement,
    peak_flops_per_s,
)
from flopray.audit.implied import EFFICIENCY, EXECUTED_RATE, POWER, RATE, least, most
from flopray.point import FP8_SCALING, PRECISIONS
from flopray.units import prefixed

#: Accuracy of a board's power sensor: NVML states 5 % for the boards where it states anything
#: (https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html, nvmlDeviceGetPowerUsage).
SENSOR_TOLERANCE = 0.05
#: A share of the datasheet's peak may be above 1, since clocks are higher than the sheet assumes, but not by more.
HIGHEST_MFU = 1.1
#: More than any single board takes: none in `flopray.audit.hardware` is above 1 kW.
ANY_BOARD_W = 5000.0


def rate_limit(row: Row) -> Limit | None:
    """The hard limit of a row's device at its precision, by what the row says of SMs and clock where it does."""
    sms, clock_hz = stated(row, "sm_count"), stated(row, "max_sm_clock_hz")
    return hard_limit_flops_per_s(
        device_name(row),
        precision_of(row),
        compute_capability=text(row, "compute_capability"),
        sm_count=int(sms) if sms and sms >= 1 else None,
        max_sm_clock_hz=clock_hz,
    )


def stated(row: Row, column: str) -> float | None:
    """What a row says of its own device; None where that cannot be true, so that the datasheet's value is used.

    Some tools write -1 where they know nothing.
    """
    value = number(row, column)
    if value is None or value <= 0 or odd_statement(device_name(row), column, value):
        return None
    return value


def efficiency_limit(row: Row) -> Limit | None:
    """Peak over board power of a row's device at its precision, in FLOP/J."""
    return efficiency_limit_flops_per_j(device_name(row), precision_of(row))


def executed_rate_bound(row: Row) -> float | None:
    """The rate in FLOP/s of a row's device when its fastest units and its CUDA cores work together."""
    # Units for fewer bits than the numbers have are not used.
    units = [p for p in PRECISIONS if p not in FP8_SCALING or precision_of(row) in (None, *FP8_SCALING)]
    limits = [limit.bound for p in units if (limit := rate_limit({**row, "precision": p}))]
    return max(limits) + limits[0] if limits else None


def measured_peak(row: Row) -> float | None:
    """The rate of products that was measured on a device without a datasheet's peak; never a limit."""
    measured = number(row, "measured_peak_flops_per_s")
    known = peak_flops_per_s(device_name(row), precision_of(row))
    return measured if measured and measured > 0 and not known else None


def skipped(row: Row) -> tuple[float, str]:
    """How many times faster than dense products those of a row may be, and the column that says so.

    Tensor cores skip half of the zeros where two of four are zero; a kernel may skip all. FLOPs count as if dense.
    """
    for name in row:
        if not isinstance(name, str) or "spars" not in name.lower() or is_missing(row.get(name)) or is_outcome(name):
            continue
        share = number(row, name)
        if share == 0 or str(row[name]).strip().lower() in ("false", "no", "none", "dense", "off"):
            continue
        zeros = share if share is not None and 0 < share < 1 else 0.5
        return max(2.0, 1 / (1 - zeros)), name
    return 1.0, ""


def rate_above_limit(row: Row) -> Verdict:
    """FLOP/s above what the device can do at its highest clock."""
    found, device, precision = most(row, RATE), device_name(row), precision_of(row)
    if found is None:
        return Unjudged("rate_above_limit", "no flops_per_s, nor model_flops and time_s")
    rate = found.value
    limit = rate_limit(row)
    if limit is None and measured_peak(row):
        return Unjudged("rate_above_limit", "no limit is known for the device, and a measured peak is not a limit")
    if limit is None:
        sentence = f"no limit known for {device or 'an unnamed device'} at {precision or 'an unnamed precision'}"
        sentence += ": not judged" + _which_fp32(precision)
        return finding_of("no_limit_known", Severity.NOTE, sentence, row, {"flops_per_s": rate})
    lowest = rate / (1 + rel_error(row, "time_rel_error"))  # by the longest time within the error
    if lowest <= limit.bound:
        return None
    times, column = skipped(row)
    if lowest <= limit.bound * times:
        return Unjudged("rate_above_limit", f"{column} says that zeros are skipped, and the limit is of dense products")
    sentence = (
        f"{prefixed(rate, 'FLOP/s')}{found.source} at {precision} is {rate / limit.bound:.3g} times the "
        f"{prefixed(limit.bound, 'FLOP/s')} that the device can do ({limit.basis})"
    )
    tensor = peak_flops_per_s(device, "tf32") if precision == "fp32" else None
    if tensor and rate <= tensor:
        sentence += f"; possible only as tf32 ({prefixed(tensor, 'FLOP/s')}), and then the precision is mislabelled"
    compared = {"flops_per_s": rate, "limit_flops_per_s": limit.bound, "basis": limit.basis}
    return finding_of("rate_above_limit", Severity.IMPOSSIBLE, sentence, row, compared, rate / limit.bound)


def _which_fp32(precision: str | None) -> str:
    """What to do about a precision whose name says how numbers are stored and not which units compute."""
    if precision is None or precision.lower().removeprefix("torch.") not in ("float32", "float", "32-true", "32"):
        return ""
    return "; write fp32 (CUDA cores) or tf32 (tensor cores), whichever the products used"


def executed_rate_above_limit(row: Row) -> Verdict:
    """Executed FLOPs in less time than the chip's fastest units and its CUDA cores take for them together.

    Counters see every kind of core, and a library may compute one precision by units of another.
    """
    found = most(row, EXECUTED_RATE)
    if found is None:
        return Unjudged("executed_rate_above_limit", "no executed_flops and time_s")
    rate = found.value
    bound = executed_rate_bound(row)
    if bound is None:
        return Unjudged("executed_rate_above_limit", "no limit known for the device")
    if rate / (1 + rel_error(row, "time_rel_error")) <= bound:
        return None
    sentence = (
        f"{prefixed(rate, 'FLOP/s')} executed{found.source} is {rate / bound:.3g} times the "
        f"{prefixed(bound, 'FLOP/s')} of the device's fastest units and its CUDA cores together"
    )
    compared = {"executed_flops_per_s": rate, "limit_flops_per_s": bound}
    return finding_of("executed_rate_above_limit", Severity.IMPOSSIBLE, sentence, row, compared, rate / bound)


def power_above_limit(row: Row) -> Verdict:
    """Mean power above the board's limit: impossible against the limit the row states, implausible against a sheet.

    A board regulates to its limit, so a mean above it by more than the errors and the sensor's tolerance was not drawn
    by this work in this time. Where the row states no limit, the datasheet of an assumed variant is used.
    """
    found = most(row, POWER)
    if found is None:
        return Unjudged("power_above_limit", _why_no_energy(row, "power_w, nor energy_j and time_s"))
    power = found.value
    own, spec = stated(row, "power_limit_w"), find_gpu(device_name(row))
    limit = own or (spec.board_power_w if spec else None)
    energy_error, time_error = rel_error(row, "energy_rel_error"), rel_error(row, "time_rel_error")
    lowest = power * max(1 - energy_error, LEAST_SHARE) / (1 + time_error)
    if not limit and lowest <= ANY_BOARD_W:
        return Unjudged("power_above_limit", "no power limit stated or known")
    if not limit:
        highest = prefixed(ANY_BOARD_W, "W")
        sentence = (
            f"mean power of {prefixed(power, 'W')}{found.source} is above the {highest} that no single board takes"
        )
        if not device_name(row) or not spec:
            sentence += "; if rows cover several, name the column that counts them (rename='COLUMN=gpu_count')"
        compared = {"power_w": power, "limit_w": ANY_BOARD_W}
        return finding_of("power_above_limit", Severity.IMPLAUSIBLE, sentence, row, compared, power / ANY_BOARD_W)
    if lowest <= limit * (1 + SENSOR_TOLERANCE):
        return None
    severity = Severity.IMPOSSIBLE if own else Severity.IMPLAUSIBLE
    source = "the board enforces" if own else f"of the {spec.name if spec else 'board'}'s datasheet"
    sentence = f"mean power of {prefixed(power, 'W')}{found.source} is above the {prefixed(limit, 'W')} {source}"
    compared = {"power_w": power, "limit_w": limit}
    return finding_of("power_above_limit", severity, sentence, row, compared, power / limit)


def efficiency_above_peak(row: Row) -> Verdict:
    """FLOPs per joule above the datasheet's peak over board power."""
    found = most(row, EFFICIENCY)
    if found is None:
        return Unjudged("efficiency_above_peak", _why_no_energy(row, "flops_per_j, nor model_flops and energy_j"))
    efficiency, limit = found.value, efficiency_limit(row)
    if limit is None:
        return Unjudged("efficiency_above_peak", "no peak and board power known for the device and precision")
    lowest = efficiency / (1 + rel_error(row, "energy_rel_error"))  # by the highest energy within the error
    if lowest <= limit.bound:
        return None
    times, column = skipped(row)
    if lowest <= limit.bound * times:
        return Unjudged(
            "efficiency_above_peak", f"{column} says that zeros are skipped; the limit is of dense products"
        )
    sentence = (
        f"{prefixed(efficiency, 'FLOP/J')}{found.source} is {efficiency / limit.bound:.3g} times the {limit.basis}; "
        "only a GPU that is clocked down beats that, and not by much"
    )
    compared = {"flops_per_j": efficiency, "limit_flops_per_j": limit.bound, "basis": limit.basis}
    return finding_of("efficiency_above_peak", Severity.IMPLAUSIBLE, sentence, row, compared, efficiency / limit.bound)


def power_below_idle(row: Row) -> Verdict:
    """Mean power below that of the same process idle.

    Implausible, not impossible: idle power was measured at another time, often on a warmer board.
    """
    found, idle = least(row, POWER), number(row, "idle_power_w")
    if found is None:
        return Unjudged("power_below_idle", _why_no_energy(row, "power_w, nor energy_j and time_s"))
    if idle is None:
        return Unjudged("power_below_idle", "no idle_power_w")
    power = found.value
    energy_error, time_error = rel_error(row, "energy_rel_error"), rel_error(row, "time_rel_error")
    if power * (1 + energy_error) / max(1 - time_error, LEAST_SHARE) >= idle * (1 - SENSOR_TOLERANCE):
        return None
    sentence = (
        f"mean power of {prefixed(power, 'W')}{found.source} is below the {prefixed(idle, 'W')} of the idle device: "
        "the energy of the work was missed"
    )
    compared = {"power_w": power, "idle_power_w": idle}
    return finding_of("power_below_idle", Severity.IMPLAUSIBLE, sentence, row, compared, 2 - power / idle)


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
        sentence = f"{named}: faster than the {prefixed(measured, 'FLOP/s')} that products were measured to reach "
        sentence += "here, which is no limit: other shapes may be faster, or the machine was busy meanwhile"
        return finding_of("mfu_above_one", Severity.NOTE, sentence, row, bad, max(bad.values()))
    sentence = f"{named}: more than the device's peak; a percentage has to be divided by 100"
    return finding_of("mfu_above_one", Severity.IMPLAUSIBLE, sentence, row, bad, max(bad.values()))


def _why_no_energy(row: Row, needed: str) -> str:
    status = text(row, "energy_status")
    return f"no {needed}" + (f" (energy_status {status})" if status not in (None, "ok") else "")


#: In the order of a report: the impossible, then the unlikely.
LIMIT_RULES: tuple[Callable[[Row], Verdict], ...] = (
    rate_above_limit,
    executed_rate_above_limit,
    power_above_limit,
    efficiency_above_peak,
    power_below_idle,
    mfu_above_one,
)
