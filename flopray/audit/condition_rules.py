"""Rules on the conditions of one row: who else used the device, what slowed it, and what error was reached."""

from __future__ import annotations

from collections.abc import Callable

from flopray.audit.findings import (
    Row,
    Severity,
    Unjudged,
    Verdict,
    finding_of,
    is_usable,
    number,
)

#: Drift of the sentinel that deserves a note, and that which makes rows of one sweep hard to compare; where a larger
#: error was asked for, a note begins with that error, and the other with twice as much.
DRIFT_NOTE, DRIFT_IMPLAUSIBLE = 0.03, 0.10
#: Throttle reasons that do not slow work down: nothing to do, or clocks that somebody chose.
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
    excess = max(missed.values()) / target if target > 0 else 1.0
    return finding_of("target_error_missed", Severity.NOTE, sentence, row, compared, excess)


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
    return finding_of("sentinel_drift", severity, sentence, row, compared, beyond / DRIFT_NOTE)


def _letters(reason: str) -> str:
    return "".join(letter for letter in reason.lower() if letter.isalnum())


#: In the order of a report.
CONDITION_RULES: tuple[Callable[[Row], Verdict], ...] = (
    shared_device,
    throttled,
    sentinel_drift,
    target_error_missed,
)
