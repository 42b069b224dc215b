"""A document as one page that needs no network: words and tables in plain HTML, views drawn by plotly.js.

plotly.js and the data of the views are in the page compressed (gzip in base64): unpacked, plotly.js alone has 4.8 MB.
Measured data are put into the page as text only, so that no name of a device becomes markup.
"""

from __future__ import annotations

import base64
import gzip
import html
import importlib.util
import json
import math
import re
from collections.abc import Mapping, Sequence

from flopray import __version__
from flopray.report.document.content import Bars, Block, Code, Document, Section, View, Words
from flopray.report.document.words import DASH
from flopray.report.page import PARTS, source
from flopray.report.text_table import TextTable

NO_VIEWS = (
    "The interactive views need plotly where the report is made: pip install 'flopray[html]', then make it again."
)
#: In the place of a view until its script has drawn it, and for good where scripts are off.
_WAITING = (
    "This view is drawn when it comes into sight, by plotly.js, which is inside of this page. Where scripts are off, "
    "the tables have its numbers."
)
_NUMBER = re.compile(r"[<±+−-]? ?\d")


def to_html(document: Document) -> str:
    """The page as text."""
    views = [block for section in document.sections for block in section.blocks if isinstance(block, View)]
    drawn = views if importlib.util.find_spec("plotly") else []
    places = {id(view): place for place, view in enumerate(drawn)}
    parts = {
        "TITLE": html.escape(document.title),
        "STYLE": source("page.css") + source("document.css"),
        "SUBTITLE": html.escape(document.subtitle),
        "CONTENTS": "".join(
            f'<a href="#{html.escape(section.anchor)}">{html.escape(section.title)}</a>'
            for section in document.sections
        ),
        "SECTIONS": "\n".join(_section(section, places) for section in document.sections),
        "VERSION": __version__,
        "SCRIPTS": f"{_scripts(drawn)}<script>{source('document_tables.js')}</script>",
    }
    page = source("document.html")
    for mark, text in parts.items():
        before, _, after = page.partition(f"<!--{mark}-->")
        page = before + text + after
    return page


def _section(section: Section, places: dict[int, int]) -> str:
    inside = "\n".join(_block(block, places) for block in section.blocks)
    return f'<section id="{html.escape(section.anchor)}">\n<h2>{html.escape(section.title)}</h2>\n{inside}\n</section>'


def _block(block: Block, places: dict[int, int]) -> str:
    if isinstance(block, Words):
        kind = f' class="{block.kind}"' if block.kind else ""
        return "\n".join(f"<p{kind}>{_unbroken(html.escape(text))}</p>" for text in block.paragraphs)
    if isinstance(block, Code):
        return f"<pre>{html.escape(block.text)}</pre>"
    if isinstance(block, View):
        if id(block) not in places:
            return f"<p>{html.escape(NO_VIEWS)}</p>"
        return f'<div class="view" data-view="v{places[id(block)]}"><p class="wait">{html.escape(_WAITING)}</p></div>'
    if isinstance(block, Bars):
        return _table(block.table, block.shares)
    return _table(block, {})


#: Blanks at which no line ends: behind ±, and between a number and its unit or the number that it is multiplied by.
_KEPT_TOGETHER = re.compile(
    r"(?<=±) (?=\S)|(?<=[\d?]) (?=%|°C|× \d|[fpnµmkMGTPE]?(?:s|J|W|B|FLOP(?:/[sJ])?)\b)|(?<=\d ×) (?=\d)"
)


def _unbroken(text: str) -> str:
    """A text in which numbers, their errors and their units stay in one line.

    >>> _unbroken("takes 9.26 mJ ± 1.2 % at 8 × 1024 of 3 shapes")
    'takes 9.26&nbsp;mJ ±&nbsp;1.2&nbsp;% at 8&nbsp;×&nbsp;1024 of 3 shapes'
    """
    return _KEPT_TOGETHER.sub("&nbsp;", text)


def _table(table: TextTable, shares: Mapping[int, Sequence[float]]) -> str:
    columns = len(table.header)
    words = [_of_words(table, column) for column in range(columns)]
    head = "".join(
        f"<th{' class=text' if text else ''}>{html.escape(name.strip())}</th>"
        for name, text in zip(table.header, words, strict=True)
    )
    lines, place = [], 0
    for title, rows in table.sections:
        if title:
            lines.append(f'<tr class="part"><th colspan="{columns}" scope="rowgroup">{html.escape(title)}</th></tr>')
        for row in rows:
            cells = [_cell(text, words[column], shares.get(column), place) for column, text in enumerate(row)]
            lines.append(f"<tr>{''.join(cells)}</tr>")
            place += 1
    notes = "".join(f"<li>{_unbroken(html.escape(note))}</li>" for note in table.notes)
    inside = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    below = f"<ul>{notes}</ul>" if notes else ""
    caption = f"<figcaption>{html.escape(table.title)}</figcaption>"
    return f'<figure>{caption}<div class="wide" tabindex="0">{inside}</div>{below}</figure>'


def _of_words(table: TextTable, column: int) -> bool:
    """Whether a column has words, which are aligned left, and not numbers."""
    cells = [row[column] for _, rows in table.sections for row in rows]
    return column == 0 or any(cell and cell != DASH and not _NUMBER.match(cell) for cell in cells)


def _cell(text: str, words: bool, bars: Sequence[float] | None, place: int) -> str:
    if bars is not None and math.isfinite(bars[place]):
        width = 100 * min(1.0, max(0.0, bars[place]))
        return f'<td class="bar"><span style="width:{width:.1f}%"></span><b>{html.escape(text)}</b></td>'
    # a narrow page breaks lines before ± only
    shown = html.escape(text) if words else html.escape(text).replace(" ", "&nbsp;").replace("&nbsp;±", " ±")
    return f"<td{' class=text' if words else ''}>{shown}</td>"


def _scripts(views: list[View]) -> str:
    """plotly.js and the data, packed, and a function for each view."""
    if not views:
        return ""
    from plotly.offline import get_plotlyjs

    packed = [f'<script type="text/plain" id="plotly">{pack(get_plotlyjs())}</script>']
    functions = []
    for place, view in enumerate(views):
        data = json.dumps(view.data, allow_nan=False, separators=(",", ":"))
        packed.append(f'<script type="text/plain" id="v{place}">{pack(data)}</script>')
        functions.append(f"VIEWS.v{place} = (ROOT, DATA) => {{\n{source('page.js')}\n{source(view.name)}\n}};")
    parts = f"const PARTS = {json.dumps(PARTS.replace('h1', 'h3'))};"
    script = (
        f'<script>\n"use strict";\n{parts}\nconst VIEWS = {{}};\n'
        + "\n".join(functions)
        + f"\n{source('document.js')}</script>"
    )
    return "\n".join([*packed, script])


def pack(text: str) -> str:
    """A text, compressed, as letters that need no escape in HTML."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
