"""How counts of FLOPs grow with the shape: a table, its file, and a figure with logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from flopray.errors import InputError
from flopray.flops.comparison import Counts
from flopray.records import Row
from flopray.report.counts.lines import KINDS, lines_of
from flopray.units import prefixed

if TYPE_CHECKING:
    import pandas as pd


class CountTable(list[Counts]):
    """The counts of several shapes."""

    def axis(self) -> str:
        """The value of the shape that a figure is drawn over: the number that takes the most values.

        Raises:
            InputError: no number changes.
        """
        found = {
            name: len({one.shape.get(name) for one in self})
            for name in dict.fromkeys(name for one in self for name in one.shape)
            if all(_is_number(one.shape.get(name)) for one in self)
        }
        name = max(found, key=lambda key: found[key], default=None)
        if name is None or found[name] < 2:
            raise InputError("a figure needs shapes of which one number changes, such as width=256 and width=512")
        return name

    def frame(self) -> pd.DataFrame:
        """A row for each shape: its values, `phase`, three counts, their reasons, and executed FLOPs by class."""
        import pandas as pd

        return pd.DataFrame([_row(one) for one in self])

    def table(self) -> Table:
        """A row for each shape; values that are the same in all of them are in the title."""
        values_of = {
            name: {repr(one.shape.get(name)) for one in self}
            for name in dict.fromkeys(name for one in self for name in one.shape)
        }
        names = [name for name, values in values_of.items() if len(values) > 1 or len(self) == 1]
        same = [f"{name}={self[0].shape[name]}" for name in values_of if name not in names]
        title = ", ".join(word for word in (self[0].name, " ".join(same), self[0].phase) if word)
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in (*names, *KINDS, "closed / dispatched", "executed / dispatched"):
            table.add_column(name, justify="right", overflow="fold")
        for one in self:
            base = one.dispatched.flops
            values = {kind: getattr(one, kind).flops for kind in KINDS}
            ratios = [
                f"{v / base:.4f}" if v is not None and base else "-" for k, v in values.items() if k != "dispatched"
            ]
            shown = [prefixed(value, "FLOP") if value is not None else "none" for value in values.values()]
            table.add_row(*(str(one.shape.get(name, "")) for name in names), *shown, *ratios)
        return table

    def reasons(self) -> list[str]:
        """Why counts are missing, each reason once."""
        said = [(kind, getattr(one, kind)) for one in self for kind in KINDS]
        return list(dict.fromkeys(f"{kind}: {count.reason}" for kind, count in said if count.flops is None))

    def exponents(self) -> dict[str, float]:
        """By count, the power of the axis that FLOPs grow with, by least squares in logarithms.

        Where other values of the shape change too, each of their combinations has a level of its own.

        Raises:
            InputError: no number changes.
        """
        axis, found = self.axis(), {}
        for kind in KINDS:
            lines = [_logs(axis, kind, line) for line in lines_of(self, axis).values()]
            products = sum(x * y for line in lines for x, y in line)
            squares = sum(x * x for line in lines for x, _ in line)
            if squares:
                found[kind] = products / squares
        return found

    def plot(self, path: str | Path) -> Path:
        """Draw FLOPs over the axis, with logarithmic scales, and below them the ratios to the dispatched count.

        Args:
            path: of the figure; its ending says the format, `png` by default.

        Returns:
            The file.

        Raises:
            InputError: no number changes, nothing was counted, or the format is unknown.
        """
        from flopray.report.counts.figure import draw

        shown = [kind for kind in KINDS if any(getattr(one, kind).flops for one in self)]
        axis = self.axis()
        if not shown:
            raise InputError("nothing was counted, so there is nothing to draw: " + "; ".join(self.reasons()))
        return draw(self, axis, self.exponents(), Path(path))


def _row(counts: Counts) -> Row:
    row: Row = {"name": counts.name, **counts.shape, "phase": counts.phase}
    for kind in KINDS:
        count = getattr(counts, kind)
        row |= {f"{kind}_flops": count.flops, f"{kind}_reason": count.reason}
    return row | {f"executed_{name}_flops": value for name, value in counts.executed.by_class.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _logs(axis: str, kind: str, line: Sequence[Counts]) -> list[tuple[float, float]]:
    """Logarithms of axis and count around their means."""
    points = [(one.shape[axis], getattr(one, kind).flops) for one in line]
    logs = [(math.log(x), math.log(y)) for x, y in points if y]
    if not logs:
        return []
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    return [(x - mean_x, y - mean_y) for x, y in logs]
