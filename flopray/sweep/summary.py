"""What a person reads after a sweep."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from flopray.audit.explanations import COMMAND
from flopray.description import Description
from flopray.errors import with_names
from flopray.mappings import Arguments, Json
from flopray.records import Status
from flopray.units import counted, prefixed

if TYPE_CHECKING:
    import pandas as pd

    from flopray.store.run import RunFolder

#: What is made of a complete run, as messages about failures name it.
TOTALS, RECORDS, FIGURES, REPORT, COPY = (
    *("totals", "table of records", "figures", "report"),
    "copy in the object store",
)
#: What else may differ between the points of a run, besides the choices of its workload.
_VARY = ("device_type", "precision", "execution")
#: The error of a rate, since FLOPs are exact.
_ERROR_OF = {"flops_per_s": "time_rel_error", "flops_per_j": "energy_rel_error"}
_BEST_AND_WORST = (("flops_per_s", "FLOP/s"), ("flops_per_j", "FLOPs/J"))
_COLUMNS = (
    *("trial_id", "phase", "status", "status_reason", "energy_status", "counters_status", "counters_reason"),
    *("time_s", "time_rel_error", "energy_rel_error", "target_error", "flops_per_s", "flops_per_j"),
    *("mfu", "measured_peak_flops_per_s", "findings", "executed_rel_difference", *_VARY),
    *("hold_temperature_c", "hold_temperature_s", "hold_temperature_reason"),
    *("device_name", "device_uuid", "board_factor", "board_factor_rel_error"),
)


def summary_columns(folder: RunFolder) -> tuple[str, ...]:
    """The columns that a summary of a run needs."""
    return (*_COLUMNS, *(f.name for f in folder.workload.fields))


def summarise(frame: pd.DataFrame, measured_fraction: float | None) -> Json:
    """Totals of a run, as `summary.json` keeps them.

    Args:
        frame: all records of the run.
        measured_fraction: share of device time since start-up that lay in measured windows, in this session.

    Returns:
        JSON-ready counts; what was not measured is None.
    """
    failed = set(frame.loc[frame["status"] != Status.OK, "trial_id"])
    findings = Counter(code for codes in frame["findings"] for code in codes)
    return {
        "points": len(set(frame["trial_id"])),
        "points_not_ok": len(failed),
        "rows": len(frame),
        "rows_by_status": dict(Counter(frame["status"])),
        "rows_with_energy": sum(status == Status.OK for status in frame["energy_status"]),
        "rows_with_time": sum(frame["time_s"].notna()),
        "rows_with_counters": sum(status == Status.OK for status in frame["counters_status"]),
        "rows_at_target_in_time": _at_target(frame, "time_rel_error"),
        "rows_at_target_in_energy": _at_target(frame, "energy_rel_error"),
        "findings": dict(findings.most_common()),
        "measured_fraction": measured_fraction,
        **_held(frame),
    }


def _held(frame: pd.DataFrame) -> Json:
    """What holding a temperature took and where it failed; nothing where none was held."""
    asked = frame["hold_temperature_c"].dropna().tolist()
    if not asked:
        return {}
    return {
        "hold_temperature_c": sorted(set(asked)),
        "hold_temperature_s": math.fsum(frame["hold_temperature_s"].dropna().tolist()),
        "rows_not_held": len(frame["hold_temperature_reason"].dropna()),
    }


def _at_target(frame: pd.DataFrame, error: str) -> int:
    """Rows whose error, the sentinel's drift included, is no larger than was asked for."""
    return sum((frame[error] <= frame["target_error"]).tolist())


def _has_targets(frame: pd.DataFrame) -> bool:
    """Whether any row was measured until an error was reached; an evaluation is run once."""
    return len(frame["target_error"].dropna()) > 0


def print_summary(
    console: Console,
    folder: RunFolder,
    frame: pd.DataFrame,
    summary: Mapping[str, Any],
    failed: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> None:
    """Print best and worst points, totals and where the files are.

    Args:
        console: where to.
        folder: of the run.
        frame: its records.
        summary: of `summarise`.
        failed: what could not be made, whose file is not named.
        names: of settings where this is read, as `flopray.errors.with_names` takes them.
    """
    # Narrow, to fit into 80 columns.
    style: Arguments = {"box": SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0)}
    table = Table("phase", "best", "at", "worst", "at ", title=f"run {folder.name}", **style)
    workload = folder.workload
    vary = varying(frame, workload)
    for phase in frame["phase"].drop_duplicates():
        for column, unit in _BEST_AND_WORST:
            rows = frame.loc[(frame["phase"] == phase) & frame[column].notna()].sort_values(by=column)
            if len(rows):
                ends = rows.iloc[-1], rows.iloc[0]
                cells = [
                    cell for row in ends for cell in (_with_error(row, column, unit), point_label(row, workload, vary))
                ]
                table.add_row(phase, *cells)
    if table.row_count:
        console.print(table)
        console.print("±: 95 % interval of the window, on this board; ?: too few repeats to tell", highlight=False)
    counts = ", ".join(f"{count} {status}" for status, count in summary["rows_by_status"].items())
    amounts = [f"{summary[name]} {name if summary[name] != 1 else name[:-1]}" for name in ("points", "rows")]
    console.print(f"{', '.join(amounts)}: {counts}", highlight=False, soft_wrap=True)
    fraction = summary["measured_fraction"]
    measured = "" if fraction is None else f"; {fraction:.0%} of device time lay in measured windows"
    if summary["rows_with_time"] and _has_targets(frame):
        reached = ", ".join(
            f"{summary[f'rows_at_target_in_{what}']} of {summary[f'rows_with_{what}']} in {what}"
            for what in ("time", "energy")
            if summary[f"rows_with_{what}"]
        )
        console.print(f"rows that reached the target error: {reached}{measured}", highlight=False, soft_wrap=True)
    for line in (*_held_lines(frame, summary), *_factor_lines(frame)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    _print_counters(console, frame)
    for code, count in summary["findings"].items():
        console.print(f"audit: {count} x {code}", highlight=False, soft_wrap=True)
    if summary["findings"]:
        console.print(f"what a finding means: {COMMAND}", highlight=False, soft_wrap=True)
    for line in _without_a_gpu(frame, summary, workload, vary):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    _print_failures(console, frame, names or {})
    there = COPY not in failed  # else neither is at its address
    if there and RECORDS not in failed:
        console.print(f"records  {folder.place(folder.records_path.name)}", highlight=False, soft_wrap=True)
    if there and FIGURES not in failed and folder.plots_path.is_dir() and any(folder.plots_path.iterdir()):
        console.print(f"plots    {folder.place(folder.plots_path.name)}", highlight=False, soft_wrap=True)
    console.print(f"load     flopray.load_run({folder.address!r})", highlight=False, soft_wrap=True)
    if there and REPORT not in failed and folder.report_path.is_file():
        console.print(f"report   {folder.place(folder.report_path.name)}", highlight=False, soft_wrap=True)


def _held_lines(frame: pd.DataFrame, summary: Mapping[str, Any]) -> list[str]:
    """What holding a temperature took, and why it failed for some rows."""
    if "hold_temperature_c" not in summary:
        return []
    at = ", ".join(f"{celsius:g}" for celsius in summary["hold_temperature_c"])
    lines = [f"held at {at} °C: {duration(summary['hold_temperature_s'])} of filler work and pauses before windows"]
    if reasons := Counter(frame["hold_temperature_reason"].dropna()):
        reason, _ = reasons.most_common(1)[0]
        more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
        lines.append(f"{counted(summary['rows_not_held'], 'row')} could not be held: {reason}{more}")
    return lines


def _factor_lines(frame: pd.DataFrame) -> list[str]:
    """The factor of each board that has one."""
    columns = ("device_uuid", "device_name", "board_factor", "board_factor_rel_error")
    rows = zip(*(frame[name].tolist() for name in columns), strict=True)
    known = dict.fromkeys(row for row in rows if row[2] == row[2] and row[2] is not None)
    return [
        f"board {uuid}: takes {factor:.3f} ±{error:.1%} times the energy of a typical {name}; energies here are this "
        "board's, and energy_typical_board_j is that of the typical one"
        for uuid, name, factor, error in known
    ]


def _share(ratio: float) -> str:
    """In per cent, with two digits of what is small: never 0 % of something."""
    return f"{ratio:.0%}" if ratio >= 0.1 else f"{100 * ratio:.2g}%"


def _without_a_gpu(
    frame: pd.DataFrame, summary: Mapping[str, Any], workload: Description, vary: Sequence[str]
) -> list[str]:
    """Results on a CPU and what a GPU would add, in two lines; nothing where there was a GPU."""
    if set(frame["device_type"]) != {"CPU"} or not summary["rows_with_time"]:
        return []
    lines = []
    shares = frame.loc[frame["mfu"].notna() & frame["measured_peak_flops_per_s"].notna()].sort_values(by="mfu")
    if len(shares):
        known = shares[shares["time_rel_error"] < 1]  # one whose error bounds it, if there is one
        best = (known if len(known) else shares).iloc[-1]
        peak = prefixed(best["measured_peak_flops_per_s"], "FLOP/s")
        rate = f"{_with_error(best, 'flops_per_s', 'FLOP/s')}, {_share(best['mfu'])} of the {peak}"
        where = f"{best['phase']} at {point_label(best, workload, vary)}"
        lines.append(f"found: {where} does {rate} that products reach on this CPU (measured)")
    adds = [] if summary["rows_with_energy"] else ["the energy of each phase (this machine has no source of it)"]
    if _has_targets(frame):  # otherwise the rows are evaluations, which are not counted
        adds.append("executed FLOPs by hardware counters")
    return [*lines, f"a GPU would add: {' and '.join(adds)}; see `python -m flopray doctor`"] if adds else lines


def _with_error(row: Any, column: str, unit: str) -> str:
    """A value with the half width of its 95 % interval: that of this window, on this board, on this day."""
    error = row[_ERROR_OF[column]]
    # Without a blank after the sign: a narrow table breaks at blanks.
    return f"{prefixed(row[column], unit)} ±{f'{error:.1%}' if error == error else '?'}"


def _print_counters(console: Console, frame: pd.DataFrame) -> None:
    """Executed FLOPs beyond the closed form, or why they are not known."""
    above = frame["executed_rel_difference"].dropna()
    if len(above):
        ends = f"median {above.median():+.1%}, from {above.min():+.1%} to {above.max():+.1%}"
        rows = counted(len(above), "row has", "rows have")
        text = f"{rows} hardware counters; executed FLOPs against the closed form: {ends}"
        console.print(text, highlight=False, soft_wrap=True)
    missing = frame[~frame["counters_status"].isin([str(Status.OK), str(Status.NOT_REQUESTED)])]
    missing = missing[missing["status"] == Status.OK]  # the others' status is known
    for reason, count in Counter(missing["counters_reason"]).items():
        console.print(
            f"{counted(count, 'row')} without counters: {reason}", highlight=False, markup=False, soft_wrap=True
        )


def _print_failures(console: Console, frame: pd.DataFrame, names: Mapping[str, str]) -> None:
    failed = frame[frame["status"] != Status.OK]
    for (status, reason), count in Counter(zip(failed["status"], failed["status_reason"], strict=True)).items():
        said = with_names(str(reason), names)
        console.print(f"{counted(count, 'row')} {status}: {said}", highlight=False, markup=False, soft_wrap=True)


def varying(frame: pd.DataFrame, workload: Description) -> list[str]:
    """Columns beside the workload's dimensions in which the points of a run differ."""
    choices = [f.name for f in workload.choices if not f.implied]
    return [name for name in (*_VARY, *choices) if len(set(frame[name])) > 1]


def point_label(row: Any, workload: Description, vary: Sequence[str]) -> str:
    """The point of a row in short: its shape, and what else differs between the points of the run."""
    import pandas as pd

    dims = [f"{f.letter or f.name}={row[f.name]}" for f in workload.dimensions if not pd.isna(row[f.name])]
    return " ".join(dims + [_word(name, row[name]) for name in vary])


def _word(name: str, value: Any) -> str:
    """A choice as a word."""
    import pandas as pd

    if pd.isna(value):
        return f"no {name}"
    return ("" if value else "no ") + name if isinstance(value, bool | np.bool_) else str(value)


def duration(seconds: float) -> str:
    """Seconds for people: `45 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
