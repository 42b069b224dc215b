"""One document of some runs: its sections in the order in which they answer questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flopray.report.boards.data import board_names, noun_of
from flopray.report.document import (
    answer,
    certainty,
    findings,
    operators,
    overheads,
    predictions,
    provenance,
    shares,
    views,
)
from flopray.report.document.content import Document, Section
from flopray.report.document.data import Measured
from flopray.report.document.words import counted, listed


def document_of(measured: Measured, commands: Sequence[str] = (), *, interactive: bool = True) -> Document:
    """The document.

    Args:
        measured: what was measured.
        commands: that measure it again.
        interactive: with views, which only a page can show.
    """
    devices = sorted({str(name) for name in measured.frame["device_name"].fillna(measured.frame["device_type"])})
    boards = board_names(measured.frame).nunique()
    models = list(dict.fromkeys(each.title.partition(",")[0] for each in measured.comparisons))
    title = f"What a training step costs: {listed(models, 4)}"
    nouns = set(map(noun_of, measured.frame["device_type"].unique()))
    said = [
        listed(devices, 4),
        counted(boards, nouns.pop() if len(nouns) == 1 else "board"),
        counted(len(measured.frame), "row"),
    ]
    said.append(certainty.days_of(measured.frame))
    return Document(title, " · ".join(said), tuple(_sections(measured, commands, interactive)))


def _sections(measured: Measured, commands: Sequence[str], interactive: bool) -> Iterator[Section]:
    yield answer.section(measured)
    yield shares.section(measured)
    if by_operator := operators.section(measured):
        yield by_operator
    if interactive:
        yield from views.sections(measured)
    if counted_ways := overheads.section(measured):
        yield counted_ways
    yield certainty.section(measured)
    yield findings.section(measured)
    if predicted := predictions.section(measured):
        yield predicted
    yield provenance.section(measured, commands)
