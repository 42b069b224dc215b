"""A table of words that can be printed, and written as Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

IMPOSSIBLE_MARK, IMPLAUSIBLE_MARK = "✗", "?"
_FIRST_WIDTH = 19
#: A longer name, such as that of a machine, breaks within.
_LONGEST_NAME = 30
_STYLES = {IMPOSSIBLE_MARK: "red", IMPLAUSIBLE_MARK: "yellow"}
_LATEX = {
    **{"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "±": r"$\pm$", "µ": r"\textmu{}"},
    **{"−": "$-$", IMPOSSIBLE_MARK: r"$\times$", "…": r"\dots{}", "<": "$<$", ">": "$>$"},
}


@dataclass(frozen=True)
class TextTable:
    """Cells as people read them.

    Attributes:
        title: above the table.
        header: names of columns; a line feed breaks one; the column of the audit's mark may be nameless.
        sections: a title above some rows, and these rows, each as long as the header.
        notes: sentences below the table.
        section_name: name of the sections, and of the first column where they have no separate line.
    """

    title: str
    header: Sequence[str]
    sections: Sequence[tuple[str, Sequence[Sequence[str]]]]
    notes: Sequence[str] = field(default=())
    section_name: str = "Configuration"

    def filled_columns(self) -> list[int]:
        """The first column, and those in which some row has more than a dash."""
        rows = [row for _, part in self.sections for row in part]
        return [at for at in range(len(self.header)) if at == 0 or any(row[at] not in ("", "-", "–") for row in rows)]

    def of_columns(self, kept: Sequence[int]) -> TextTable:
        """The table with these columns alone."""
        sections = [(title, [[row[at] for at in kept] for row in part]) for title, part in self.sections]
        return replace(self, header=[self.header[at] for at in kept], sections=sections)

    def to_rich(self) -> Table:
        """For a terminal of at least 80 columns; rows that end with a mark of the audit have its colour.

        Numbers stay on one line. Names and a last column of words break between words where there is no room, and are
        never cut.
        """
        table = Table(
            title=escape(self.title),
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            padding=0,
            show_edge=False,
        )
        rows = [row for _, part in self.sections for row in part]
        # a long section title wraps in the first column, which leaves room for the numbers
        names = _longest_word(row[0] for row in rows)
        table.add_column(escape(self.header[0]), min_width=names, max_width=max(names, _FIRST_WIDTH), overflow="fold")
        for name in self.header[1:-1]:
            table.add_column(escape(name), justify="right", no_wrap=True)
        last = [row[-1] for row in rows]
        words = any(len(cell) > _FIRST_WIDTH for cell in last)
        table.add_column(
            escape(self.header[-1]),
            justify="left" if words else "right",
            no_wrap=not words,
            overflow="fold",
            min_width=_longest_word(last) if words else None,
        )
        for title, rows in self.sections:
            if title:
                table.add_row(f"[bold]{escape(title)}[/]")
            for row in rows:
                table.add_row(*map(escape, row), style=_STYLES.get(row[-1]))
        return table

    def to_markdown(self) -> str:
        """A table of GitHub's Markdown under a heading, with the notes as a list."""
        # where no section has a name, there is no column for it
        first = [self.section_name] if any(title for title, _ in self.sections) else []
        names = [*first, *self._names()]
        lines = [f"### {self.title}", "", _pipes(names)]
        lines.append(_pipes(["---"] * (len(first) + 1) + ["---:"] * (len(self.header) - 1)))
        lines += [_pipes([title, *row][1 - len(first) :]) for title, rows in self.sections for row in rows]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)]).rstrip() + "\n"

    def to_latex(self) -> str:
        """A `table` with the rules of the package booktabs; the notes are in the caption."""
        columns = len(self.header)
        lines = [r"\begin{table}", r"\centering\small", rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}", r"\toprule"]
        lines += [_ampersands(self._names()), r"\midrule"]
        for place, (title, rows) in enumerate(self.sections):
            if title:
                lines += [r"\addlinespace"] * (place > 0)
                lines.append(rf"\multicolumn{{{columns}}}{{l}}{{\textbf{{{latex(title)}}}}} \\")
            lines += [_ampersands(row) for row in rows]
        caption = " ".join([f"{self.title}.", *(f"{note.rstrip('.')}." for note in self.notes)])
        lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{latex(caption)}}}", r"\end{table}"]
        return "\n".join(lines) + "\n"

    def _names(self) -> list[str]:
        return [" ".join(name.split()) or ("audit" if place else "") for place, name in enumerate(self.header)]


def _longest_word(cells: Iterable[str]) -> int:
    return min(_LONGEST_NAME, max((len(word) for cell in cells for word in cell.split()), default=0))


def latex(text: str) -> str:
    """A text with what LaTeX reads as commands escaped."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _ampersands(cells: Iterable[str]) -> str:
    return " & ".join(latex(cell) for cell in cells) + r" \\"
