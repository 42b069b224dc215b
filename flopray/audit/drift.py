"""What the sentinel's deviation from its first value says of a row, and how much of it enters the row's error."""

from __future__ import annotations

from flopray.audit.findings import Row, Severity, Unjudged, Verdict, finding_of, is_usable, number

#: Drift of the sentinel that deserves a note, and drift that makes rows of one sweep hard to compare; where a larger
#: error was asked for, that error and twice that error.
DRIFT_NOTE, DRIFT_IMPLAUSIBLE = 0.03, 0.10
#: A deviation within so many of its standard deviations is scatter of the sentinel. `bench/drift_coverage.py` compares
#: this with other rules.
SCATTER = 1.4
#: Half width of a 95 % interval in standard deviations.
_HALF_WIDTH = 1.96


def added_error(drift: float, drift_error: float | None) -> float:
    """How much a deviation of the sentinel adds to the relative error of a row: all of it, or nothing as scatter.

    It is added to the window's error as it is and not in quadrature: a device that has moved by 2 % moves all rows to
    one side. In quadrature with a window of 0.9 %, it would leave 0.2 % for the scatter of the window.

    Args:
        drift: relative deviation from the sentinel's first value.
        drift_error: half width of its 95 % interval; None where it is unknown, which excuses nothing.

    Example:
        >>> added_error(0.020, 0.0135), added_error(0.0085, 0.0135)
        (0.02, 0.0)
    """
    return abs(drift) if abs(drift) > SCATTER * (drift_error or 0.0) / _HALF_WIDTH else 0.0


def drift_column(row: Row, quantity: str) -> str:
    """The column of a quantity's drift: of the part that temperature does not explain, where that is known.

    What temperature explains is not an error, since energy is stated at a temperature.
    """
    column = f"sentinel_{quantity}_drift"
    return f"{column}_unexplained" if number(row, f"{column}_unexplained") is not None else column


def sentinel_drift(row: Row) -> Verdict:
    """The sentinel point, measured repeatedly, differs from its first value by more than its error."""
    found = {}
    for quantity in ("time", "energy"):
        column = drift_column(row, quantity)
        if (drift := number(row, column)) is not None:
            found[quantity] = column, drift, number(row, f"{column}_error")
    if not found:
        return Unjudged("sentinel_drift", "no sentinel_time_drift or sentinel_energy_drift")
    # a missing error, or one that bounds nothing, allows nothing
    beyond = max(
        abs(drift) - (error if error and (is_usable(error) or 0 <= error < abs(drift)) else 0.0)
        for _, drift, error in found.values()
    )
    asked = number(row, "target_error") or 0.0
    asked = asked if is_usable(asked) else 0.0
    if beyond <= max(DRIFT_NOTE, asked):
        return None
    severity = Severity.IMPLAUSIBLE if beyond > max(DRIFT_IMPLAUSIBLE, 2 * asked) else Severity.NOTE
    named = " and ".join(
        f"{what} by {drift:+.1%}"
        + ("" if error is None else f" ± {error:.1%}")
        + (" beyond what temperature explains" if column.endswith("_unexplained") else "")
        for what, (column, drift, error) in found.items()
    )
    sentence = f"the sentinel drifted: {named} since the first point"
    compared = {column: drift for column, drift, _ in found.values()}
    return finding_of("sentinel_drift", severity, sentence, row, compared, beyond / DRIFT_NOTE)
