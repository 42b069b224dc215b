"""The parts of a document in any format: words, tables, interactive views, code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flopray.report.text_table import TextTable


@dataclass(frozen=True)
class Words:
    """Paragraphs.

    Attributes:
        paragraphs: plain texts.
        kind: `answer` for the main statement, `note` for small print, else empty.
    """

    paragraphs: Sequence[str]
    kind: str = ""


@dataclass(frozen=True)
class Bars:
    """A table with bars behind some of its numbers.

    Attributes:
        table: the numbers.
        shares: by the column of the table, the length of the bar of each row from 0 to 1, NaN for none; in the order of
            all rows of all sections.
    """

    table: TextTable
    shares: Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class View:
    """An interactive view; only the page has it.

    Attributes:
        name: of its script, such as `surface_page.js`.
        data: what the script reads, without NaN.
        words: what it shows, for readers without scripts.
    """

    name: str
    data: object
    words: str


@dataclass(frozen=True)
class Code:
    """Lines to copy."""

    text: str


def without_empty(block: Bars) -> Bars:
    """The table without columns in which no row has anything."""
    kept = block.table.filled_columns()
    shares = {place: block.shares[at] for place, at in enumerate(kept) if at in block.shares}
    return Bars(block.table.of_columns(kept), shares)


Block = Words | Bars | TextTable | View | Code


@dataclass(frozen=True)
class Section:
    """A part of the document under a heading.

    Attributes:
        anchor: its address in the page.
        title: its heading.
        blocks: what it holds, in order.
        short: whether a summary has it too.
    """

    anchor: str
    title: str
    blocks: Sequence[Block]
    short: bool = False


@dataclass(frozen=True)
class Document:
    """What is written.

    Attributes:
        title: of the whole.
        subtitle: on what it was measured, in a line.
        sections: in order.
    """

    title: str
    subtitle: str
    sections: Sequence[Section] = field(default=())
