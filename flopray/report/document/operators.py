"""Which operators take the time of each phase, and by estimate its joules, where a run profiled them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from flopray.report.document.content import Bars, Block, Section, without_empty
from flopray.report.document.data import Measured
from flopray.report.document.words import amount, percent
from flopray.report.gpus.data import phase_name
from flopray.report.operators import mean_operators
from flopray.report.text_table import TextTable
from flopray.store.run import RunFolder

_SHOWN = 8
_NOTE = "mean of the points, by torch.profiler in a separate pass; energy is an estimate, by share of the time"


def section(measured: Measured) -> Section | None:
    """The section; None where no run profiled operators."""
    blocks: list[Block] = list(_tables(measured.folders))
    return Section("operators", "Which operators take it", blocks) if blocks else None


def _tables(folders: Sequence[RunFolder]) -> Iterator[Bars]:
    import pyarrow.parquet as pq

    for folder in folders:
        if not folder.operators_path.is_file():
            continue
        columns = ["trial_id", "phase", "region", "operator", "time_share", "energy_estimate_j", "calls", "flops"]
        sections, shares = [], []
        for phase, operators in mean_operators(
            pq.read_table(folder.operators_path, columns=columns).to_pylist()
        ).items():
            rows = []
            for (region, operator), mean in list(operators.items())[:_SHOWN]:
                share = math.nan if mean["time_share"] is None else mean["time_share"]
                name = f"{operator} ({region})" if region else operator
                cells = [name, f"{mean['calls']:.3g}", percent(share), _told(mean["energy_estimate_j"], "J")]
                rows.append([*cells, _told(mean["flops"], "FLOP")])
                shares.append(share)
            sections.append((phase_name(phase), rows))
        if sections:
            header = ["Operator", "Calls", "of the time", "Energy (estimate)", "FLOPs"]
            table = TextTable(f"{folder.name}: operators", header, sections, [_NOTE], "Phase")
            yield without_empty(Bars(table, {2: shares}))


def _told(value: float | None, unit: str) -> str:
    return amount(math.nan if value is None else value, unit)
