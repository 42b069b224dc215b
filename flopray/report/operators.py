"""Which operators take the time and, by estimate, the energy of a run's phases, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flopray.units import prefixed

_SHOWN = 6
#: What the profiler writes before the name of a node that autograd runs, and what is shown.
_OF_AUTOGRAD = ("autograd::engine::evaluate_function: ", "autograd: ")
_SUMMED = ("time_share", "energy_estimate_j", "calls", "flops")
_TITLE = "operators by share of time (torch.profiler, mean of the points); energy is an estimate by that share"


def print_operators(console: Console, path: Path, shown: int = _SHOWN) -> None:
    """Print the operators that take most of the time of each phase; nothing without the file.

    Args:
        console: for the table.
        path: of `operators.parquet`.
        shown: operators a phase.
    """
    if not path.is_file():
        return
    import pyarrow.parquet as pq

    table = Table(title=_TITLE, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("operator", no_wrap=True, overflow="ellipsis")
    for name in ("calls", "time", "energy", "FLOPs"):
        table.add_column(name, justify="right", no_wrap=True)
    columns = ["trial_id", "phase", "region", "operator", *_SUMMED]
    for phase, operators in mean_operators(pq.read_table(path, columns=columns).to_pylist()).items():
        table.add_row(Text(phase, style="bold"))
        for (region, operator), mean in list(operators.items())[:shown]:
            # a region that torch itself names has the name of the optimizer twice
            within = f" ({region.removeprefix('Optimizer.step#')})" if region else ""
            words = (Text(f"{operator.replace(*_OF_AUTOGRAD)}{within}"),)
            share = mean["time_share"]
            numbers = (f"{mean['calls']:.3g}", "-" if share is None else f"{share:.1%}")
            table.add_row(*words, *numbers, prefixed(mean["energy_estimate_j"], "J"), prefixed(mean["flops"], "FLOP"))
    console.print(table)


def mean_operators(
    rows: Iterable[Mapping[str, Any]],
) -> dict[str, dict[tuple[str, str], dict[str, float | None]]]:
    """Means over the points, by phase, and by region and operator, those first that take most of the time.

    Args:
        rows: of `flopray.store.operator_table.SCHEMA`.

    Returns:
        `time_share`, `energy_estimate_j`, `calls` and `flops`; None where a point lacks it.
    """
    points: dict[str, set[str]] = {}
    sums: dict[str, dict[tuple[str, str], dict[str, float | None]]] = {}
    for row in rows:
        points.setdefault(row["phase"], set()).add(row["trial_id"])
        key = row["region"], row["operator"]
        so_far = sums.setdefault(row["phase"], {}).setdefault(key, dict.fromkeys(_SUMMED, 0.0))
        for name in _SUMMED:
            before = so_far[name]
            so_far[name] = None if before is None or row[name] is None else before + row[name]
    means = {}
    for phase, operators in sums.items():
        count = len(points[phase])
        of_phase = {
            key: {name: None if total is None else total / count for name, total in totals.items()}
            for key, totals in operators.items()
        }
        means[phase] = dict(sorted(of_phase.items(), key=lambda item: -(item[1]["time_share"] or 0)))
    return means
