"""Rules on the conditions of one row: who else used the device, what slowed it, and what error was reached."""

from __future__ import annotations

from collections.abc import Callable

from flopray.audit.drift import added_error, drift_column, sentinel_drift
from flopray.audit.findings import (
    Row,
    Severity,
    Unjudged,
    Verdict,
    finding_of,
    is_usable,
    number,
)

#: Throttle reasons that do not slow work down: nothing to do, or clocks that were chosen.
_HARMLESS = frozenset({"none", "gpuidle", "idle", "applicationsclockssetting", "displayclocksetting", "syncboost"})


def shared_device(row: Row) -> Verdict:
    """Other processes computed on the device, whose energy and delays are in the numbers."""
    others = number(row, "other_processes")
    if others is None:
        return Unjudged("shared_device", "no other_processes")
    if others <= 0:
        return None
    noun = "process" if others == 1 else "processes"
    sentence = f"{others:g} other {noun} used the device: their energy and delays are in these numbers"
    return finding_of("shared_device", Severity.IMPLAUSIBLE, sentence, row, {"other_processes": others}, others)


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
    return finding_of("throttled", severity, sentence, row, {"throttle_end": stated})


def target_error_missed(row: Row) -> Verdict:
    """The error that was asked for was not reached before the cap."""
    target = number(row, "target_error")
    errors = {column: number(row, column) for column in ("time_rel_error", "energy_rel_error")}
    errors = {column: value for column, value in errors.items() if value is not None}
    if target is not None and "time_rel_error" not in errors and str(row.get("time_converged")) == "False":
        # With fewer laps than `flopray.measurement.statistics.FEWEST_LAPS` there is a mean without an interval.
        sentence = f"the window held too few laps for an error of the time, where {target:.2%} was asked for"
        return finding_of("target_error_missed", Severity.NOTE, sentence, row, {"target_error": target})
    if target is None or not errors:
        return Unjudged("target_error_missed", "no target_error, time_rel_error or energy_rel_error")
    missed = {column: value for column, value in errors.items() if value > target}
    if not missed:
        return None
    named = " and ".join(f"{column.removesuffix('_rel_error')} {value:.2%}" for column, value in missed.items())
    sentence = f"error reached: {named}, where {target:.2%} was asked for"
    compared = {"target_error": target, **missed}
    for column, error in missed.items():
        words, drift = _missed_by_drift(row, column.removesuffix("_rel_error"), error, target)
        sentence += words
        compared |= drift
    excess = max(missed.values()) / target if target > 0 else 1.0
    return finding_of("target_error_missed", Severity.NOTE, sentence, row, compared, excess)


def _missed_by_drift(row: Row, quantity: str, error: float, target: float) -> tuple[str, dict[str, float]]:
    """Words and numbers on an error that is above its target for the sentinel's drift alone; none for another."""
    column = drift_column(row, quantity)
    drift, drift_error = number(row, column), number(row, f"{column}_error")
    if drift is None or not all(map(is_usable, (error, abs(drift), drift_error or 0.0))):
        return "", {}
    added = added_error(drift, drift_error)
    converged = str(row.get(f"{quantity}_converged"))
    reached = error - added <= target if converged not in ("True", "False") else converged == "True"
    if not added or not reached:
        return "", {}
    words = f"; for {quantity}, the window reached it, and the rest is the sentinel's drift of {drift:+.2%}"
    words += "" if drift_error is None else f" ± {drift_error:.2%}"
    words += " that temperature does not explain" if column.endswith("_unexplained") else ""
    return words, {column: drift}


def _letters(reason: str) -> str:
    return "".join(letter for letter in reason.lower() if letter.isalnum())


#: In the order of a report.
CONDITION_RULES: tuple[Callable[[Row], Verdict], ...] = (
    shared_device,
    throttled,
    sentinel_drift,
    target_error_missed,
)
