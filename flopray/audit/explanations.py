"""What each rule of the audit means, how it is judged and what to do: for `python -m flopray explain`."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import NamedTuple

from flopray.audit.cache_bounds import SMALL_KERNELS, TIME_SHARE, UNKNOWN_SHARE
from flopray.audit.column_rules import DERIVED_TOLERANCE
from flopray.audit.counter_rules import UNCLASSIFIED_NOTE
from flopray.audit.drift import DRIFT_IMPLAUSIBLE, DRIFT_NOTE, SCATTER
from flopray.audit.findings import LEAST_SHARE, USELESS_ERROR
from flopray.audit.limit_rules import ANY_BOARD_W, HIGHEST_MFU, SENSOR_TOLERANCE
from flopray.audit.point_rules import CPU_TOLERANCE, TOLERANCE
from flopray.audit.series_rules import MIN_GROWTH
from flopray.audit.table import RULES
from flopray.errors import InputError, named

#: The command that explains a finding.
COMMAND = "python -m flopray explain RULE"


class Explanation(NamedTuple):
    """What a person needs to know of a rule.

    Attributes:
        severity: what its findings are, worst first: `impossible`, `implausible`, `note`.
        meaning: what a finding says about the numbers.
        judged: what is compared with what, and how much is allowed.
        mend: what to do about it; settings stand in it as `flopray.errors.named` takes them.
    """

    severity: str
    meaning: str
    judged: str
    mend: str


EXPLANATIONS: dict[str, Explanation] = {
    "not_positive": Explanation(
        "impossible",
        "A time, energy or power is zero or less, or a count or rate is below zero. Work takes time and energy, so "
        "the number was not measured: it is a placeholder, or a counter wrapped around.",
        "time_s, energy_j and power_w must be above 0; counts and rates must not be below 0. Nothing is allowed.",
        "Find out what wrote the number. A value that is missing belongs in the table as an empty cell, not as 0.",
    ),
    "error_not_usable": Explanation(
        "implausible",
        "The stated error of a number is so large, or below zero, that it bounds nothing: the number is as good as "
        "unknown.",
        f"Every column ending in _rel_error or _drift_error must lie from 0 to below {USELESS_ERROR:.0%}; the error of "
        "a drift may also be below the drift itself. "
        "One that does not is left out, and the other rules judge the row as if no error were stated.",
        "Measure longer (<max_seconds>), on a quiet machine. In a table from elsewhere, look whether the column is "
        "in per cent: 0.01 is 1 %.",
    ),
    "inconsistent_columns": Explanation(
        "implausible",
        "A column that should follow from others does not: one of them is not what its name says, often because of its "
        "unit (ms, mJ) or because it is a mean over something else.",
        "flops_per_s, flops_per_j, power_w and energy_per_token_j are compared with their parts, mfu with the peak "
        "of the datasheet, active_energy_j against energy_j - idle_power_w * time_s; power_limit_w, sm_count and "
        "max_sm_clock_hz against the datasheet, from which they may differ by half. "
        f"{DERIVED_TOLERANCE:.0%} are allowed, of the larger value (of energy_j for active_energy_j).",
        "Look at units first; <rename=energy=energy_mJ> says what a column is. In a run of "
        "flopray this should not happen: please report it with the row.",
    ),
    "not_a_number": Explanation(
        "note",
        "A column of numbers has a text or an infinity. The cell counts as empty.",
        "Plain numbers (1.5, 2e-3) are read; thousands separators, units and words are not. Words that say that a "
        "value is missing (NA, none, -) are not a finding. Nothing is estimated.",
        "Mend the cell, or leave it empty where there is no value.",
    ),
    "not_understood": Explanation(
        "note",
        "The table has columns that the audit does not know. Either they tell rows apart, and then only rows that "
        "agree in them are compared, or they sound like a measured quantity that was not judged.",
        "By the names of the columns and by their values. No tolerance.",
        "Say what such a column is with <rename=NAME=COLUMN>, or remove it if it means nothing.",
    ),
    "rate_above_limit": Explanation(
        "impossible",
        "More FLOP/s than the device can do. The window was too short, usually because it saw the launch and not the "
        "end of the work; or the precision is not the one that ran (fp32 that was tf32); or the FLOPs are counted "
        "too high.",
        "The larger of flops_per_s and model_flops / time_s, less its stated error, against SMs x FLOP per clock x "
        "highest clock at that precision, or else the peak of the datasheet. Nothing else is allowed.",
        "Synchronise before and after the work, check what precision really ran and how the FLOPs were counted, and "
        "measure again. Do not publish the number.",
    ),
    "executed_rate_above_limit": Explanation(
        "impossible",
        "The hardware counted more FLOPs than all units of the device can execute in this time: the time is too "
        "short, or counts and time are not of the same work.",
        "executed_flops / time_s, less its stated error, against the fastest units at any precision and the CUDA cores "
        "together. Nothing else is allowed.",
        "Check that counters and time are of the same window, and that the window ends when the work does.",
    ),
    "mfu_above_one": Explanation(
        "implausible against a datasheet, a note against a measured peak",
        "A share of the peak is above what clocks can explain. Often it is a percentage, or the peak is that of "
        "another precision. On a CPU the peak is what products reached in a short test, which is not a limit.",
        f"mfu and hfu must not be above {HIGHEST_MFU:g}: some boards clock higher than the datasheet says.",
        "Divide a percentage by 100, and check which peak the share refers to.",
    ),
    "power_above_limit": Explanation(
        "impossible where the row states its limit, implausible against a datasheet",
        "A board keeps its mean power at or below its limit, so this energy was not drawn in this time: the energy "
        "covers more than the work, or the time less.",
        "The larger of power_w and energy_j / time_s, less the stated errors of energy and time (that of "
        f"energy excuses a factor of {1 / LEAST_SHARE:g} at most), against "
        f"power_limit_w or else the board power of the datasheet, with {SENSOR_TOLERANCE:.0%} for the sensor; where "
        f"neither is known, against {ANY_BOARD_W:g} W, which no single board takes.",
        "Check that energy and time are of the same window and of one device. If the board has another limit than "
        "the datasheet, state it in power_limit_w.",
    ),
    "efficiency_above_peak": Explanation(
        "implausible",
        "More FLOPs per joule than a device reaches at its full rate and power. Only a GPU that is clocked down beats "
        "that, and not by much; usually a part of the energy was missed.",
        "The larger of flops_per_j and model_flops / energy_j, less the stated error of the energy, against peak / "
        "board power of the datasheet at that precision. Nothing else is allowed.",
        "Look whether the energy window covers the whole work, whether the GPU was clocked down deliberately, and how "
        "the FLOPs were counted.",
    ),
    "power_below_idle": Explanation(
        "implausible",
        "Work seems to draw less power than the idle device: a part of its energy was missed, or the idle power was "
        "measured on a warmer or busier board.",
        "The smaller of power_w and energy_j / time_s, with the stated errors of energy and time, against "
        f"idle_power_w, with {SENSOR_TOLERANCE:.0%} for the sensor.",
        "Measure longer windows (<max_seconds>), and the idle power again on a device that nobody else uses.",
    ),
    "launch_window": Explanation(
        "implausible",
        "Along a series the FLOPs grow, but energy or time hardly does, although the device would be near its best. "
        "This is the mark of a window that saw only the launches of the work.",
        f"Over at least {MIN_GROWTH:g} times the FLOPs: energy that grows less than 1.5 times although the added "
        "FLOPs alone take half of the smaller point's energy at peak / board power; or time that grows less than 1.3 "
        "times although they alone take 3/4 of its time at the device's limit. Stated errors count in favour.",
        "Synchronise before the window ends, or use events of the device, and measure the series again.",
    ),
    "executed_below_closed_form": Explanation(
        "impossible",
        "The hardware counted fewer FLOPs in matrix products than these products have: some cores were not counted.",
        "executed_gemm_flops against gemm_flops. Nothing is allowed.",
        "Do not use the counters of this row. Count again; if it recurs, the metrics for this GPU are "
        "incomplete: please report it with the row's kernels.",
    ),
    "additivity": Explanation(
        "implausible; a note on a CPU, and where launches can overlap",
        "The phases of a step, each measured by itself, do not add up to the whole. One of the windows missed work or "
        "has too much in it. A whole that costs less than its parts can be right where the host launches kernels.",
        "forward + backward against forward_backward, and these with optimizer_step against train_step, in time and "
        "in energy, at the reference temperature where all rows have it. Allowed are the stated errors and, of the "
        f"sum, {TOLERANCE['graph']:.0%} with CUDA graphs, {TOLERANCE['eager']:.0%} in eager and compiled mode, "
        f"{CPU_TOLERANCE:.0%} on a CPU; or, where that is more, what a GPU's cache can do (phases_interact).",
        "Measure the point again with a smaller <target_error> on a quiet machine, or with <execution=graph>. If it "
        "stays, trust the whole more than its parts.",
    ),
    "phases_interact": Explanation(
        "note",
        "A step costs more or less than its phases, each repeated by itself, and a cache can explain it: what a phase "
        "finds there depends on the phase before it. The difference is real and repeats when measured again.",
        "As additivity, beyond the errors and its tolerance, and within what the cache can do: the bytes that each "
        "phase touches (least_moved_bytes, else memory_peak_bytes), as many as the cache holds, at the memory's "
        f"bandwidth (small kernels reach less: up to {SMALL_KERNELS:g} times as long, for at most {TIME_SHARE:.0%} of "
        "the sum) and at twice its published energy per byte, with idle power over the time that differed. Where no "
        f"row has least_moved_bytes, no more than {UNKNOWN_SHARE:.0%} of the sum in energy.",
        "Nothing is wrong. For the cost of a training step use the whole, not the sum of its phases.",
    ),
    "shared_device": Explanation(
        "implausible",
        "Other processes computed on the device, so their energy and the delays they caused are in these numbers.",
        "other_processes must be 0. Nothing is allowed.",
        "End them, or measure on a device of your own, and measure the point again.",
    ),
    "throttled": Explanation(
        "implausible; a note if the power cap alone slowed it",
        "The device slowed itself down while it was measured, for heat or a power brake, so the numbers are of a "
        "slower device. At the power cap alone a full board simply runs as it always does.",
        "By the reasons in throttle_end. Being idle and clocks that were chosen do not count. No tolerance.",
        "Better cooling; <cooldown_c> waits before each point until the board is cool, <hold_temperature_c> brings it "
        "to a temperature before each window.",
    ),
    "sentinel_drift": Explanation(
        f"implausible beyond {DRIFT_IMPLAUSIBLE:.0%}, a note beyond {DRIFT_NOTE:.0%}",
        "One point is measured repeatedly during a sweep, and its value changed. The "
        "device changed (warmer, throttled, shared), so early and late points of the sweep are hard to compare.",
        "sentinel_time_drift and sentinel_energy_drift (sentinel_energy_drift_unexplained, what temperature does not "
        "explain, where it is known) less their own errors: beyond "
        f"{DRIFT_NOTE:.0%} is a note, beyond {DRIFT_IMPLAUSIBLE:.0%} implausible; or beyond target_error "
        "and twice of it, where these are larger.",
        "Let the device warm up first, use <hold_temperature_c>, keep other users off it, and measure the sweep again.",
    ),
    "target_error_missed": Explanation(
        "note",
        "The number is less exact than was asked for; its stated error still holds. Where the window reached its "
        "target and the sentinel's drift alone took the error above it, the sentence says so.",
        "time_rel_error and energy_rel_error against target_error. No tolerance. Both include the sentinel's drift, "
        f"as a sum, where it is beyond {SCATTER:g} of its own standard deviations.",
        "A larger <max_seconds>, a larger <target_error>, or a quieter machine; against drift, let the device warm up "
        "first. Longer windows do not help against drift.",
    ),
    "unclassified_kernels": Explanation(
        "note",
        "A part of the executed FLOPs is in kernels whose names do not tell what they compute, so their split into "
        "matrix products and the rest is uncertain by that part.",
        f"executed_other_rel must not be above {UNCLASSIFIED_NOTE:.0%}.",
        "Look at the column kernels. Kernels of a common library that are not recognised are worth a report.",
    ),
    "no_limit_known": Explanation(
        "note",
        "No peak is known for this device at this precision, so its rate was not checked.",
        "By the device's name and precision, in the list of flopray.audit.hardware. No tolerance.",
        "Check the rate against the datasheet yourself, or add the device to flopray.audit.hardware.",
    ),
    "not_judged": Explanation(
        "note",
        "A rule lacked what it compares, so it neither passed nor failed. It says nothing about the numbers.",
        "The sentence names the rule, the rows and what is missing. No tolerance.",
        "Record the missing columns, or give them the names that the audit knows (<rename=NAME=COLUMN>).",
    ),
}


def explain(rule: str, names: Mapping[str, str] | None = None) -> str:
    """A rule in full, for a terminal; each paragraph is one line.

    Args:
        rule: its name, also as `severity:rule`, which is how records and the sweep's summary write it.
        names: of settings where this is read, as `flopray.errors.named` takes them.

    Raises:
        InputError: there is no such rule.
    """
    name = rule.strip().rpartition(":")[2].lower().replace("-", "_")
    if name not in RULES:
        near = get_close_matches(name, RULES, n=1)
        meant = f"did you mean {near[0]}? There is " if near else "choose from "
        raise InputError(f"explain: unknown rule {rule!r:.60}: {meant}{', '.join(RULES)}")
    of = EXPLANATIONS[name]
    parts = ("what it means", of.meaning), ("how it is judged", of.judged), ("what to do", named(of.mend, names))
    return "\n".join([f"{name} ({of.severity}): {RULES[name]}", *(f"{title}: {text}" for title, text in parts)])
