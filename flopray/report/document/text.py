"""A document as Markdown, for a pull request, and its tables as LaTeX, for a paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from flopray.report.document.content import Bars, Block, Code, Document, Words
from flopray.report.text_table import TextTable


def to_markdown(document: Document, *, short: bool = True) -> str:
    """The document as GitHub's Markdown.

    Args:
        document: what is written; its views are left out.
        short: only the sections that a reviewer needs; the others are in the page alone.
    """
    lines = [f"## {document.title}", "", document.subtitle, ""]
    for section in document.sections:
        if section.short or not short:
            blocks = [text for block in section.blocks if (text := _markdown(block))]
            lines += [f"### {section.title}", "", *(f"{text}\n" for text in blocks)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def to_latex(document: Document) -> str:
    """The tables of the document, for a text that uses the package booktabs."""
    heads = [f"% {document.title}", f"% {document.subtitle}", r"% \usepackage{booktabs}", ""]
    return "\n".join([*heads, *(table.to_latex() for table in _tables(document))])


def _tables(document: Document) -> Iterator[TextTable]:
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Bars | TextTable):
                yield block.table if isinstance(block, Bars) else block


def _markdown(block: Block) -> str:
    if isinstance(block, Words):
        joined = "\n\n".join(block.paragraphs)
        return (
            "\n".join(f"> {line}" if line else ">" for line in joined.split("\n")) if block.kind == "answer" else joined
        )
    if isinstance(block, Code):
        return f"```\n{block.text}\n```"
    if isinstance(block, Bars):
        return _table(block.table)
    return _table(block) if isinstance(block, TextTable) else ""


def _table(table: TextTable) -> str:
    """A table under a line in bold, since its section has the heading."""
    text = replace(table, header=[name or " " for name in table.header]).to_markdown()
    return text.replace(f"### {table.title}", f"**{table.title}**", 1)
