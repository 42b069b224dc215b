"""An interactive page: one file that needs no network, with plotly.js, the data and a script in it.

Data is JSON and is put into the page as text only, so a device's name cannot become markup.
"""

from __future__ import annotations

import importlib.util
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from flopray.errors import InputError, SettingError
from flopray.report.plot.scales import Array
from flopray.settings import setting
from flopray.store import atomic

#: Parts that a view fills, in this order.
PARTS = """\
<h1 data-part="title"></h1>
<p data-part="subtitle"></p>
<div data-part="controls"></div>
<p data-part="remarks"></p>
<div data-part="plots"></div>
<p data-part="legend"></p>
<details data-part="numbers"><summary data-part="caption"></summary>
<div data-part="scroll"><table data-part="table"></table></div></details>
<p data-part="actions"></p>"""
NO_PLOTLY = "the interactive page needs plotly: pip install 'flopray[html]'"


def page_setting(**known: Any) -> Any:
    """The setting of a report for its page."""
    doc = "one interactive page that works offline (default: where plotly is installed, flopray[html])"
    return setting(None, doc=doc, kind=bool, **known)


def page_wanted(html: bool | None) -> bool:
    """Whether to write a page: as asked for, by default where plotly is installed.

    Raises:
        InputError: it is asked for and plotly is not installed.
    """
    installed = importlib.util.find_spec("plotly") is not None
    if html and not installed:
        raise SettingError(f"{NO_PLOTLY}, or leave <html> out")
    return installed if html is None else html


def page_of(script: str, data: Any) -> str:
    """The page as text.

    Args:
        script: name of a file in this package, such as `surface_page.js`.
        data: what the script reads, without NaN.

    Raises:
        InputError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise InputError(NO_PLOTLY) from error
    # inside <script> only "<" could end the data early; JSON may write it as an escape
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "/*STYLE*/": source("page.css"),
        "/*PLOTLY*/": get_plotlyjs(),
        "/*PARTS*/": PARTS,
        "/*DATA*/": text,
        "/*COMMON*/": source("page.js"),
        "/*SCRIPT*/": source(script),
    }
    rest, page = source("page.html"), ""
    for mark, part in parts.items():
        before, _, rest = rest.partition(mark)
        page += before + part
    return page + rest


def source(name: str) -> str:
    """The text of a file of this package, such as `page.js`."""
    return resources.files("flopray.report").joinpath(name).read_text(encoding="utf-8")


def write_text(page: str, path: Path) -> Path:
    """Write a page, making its folder first.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, page)
    return path


def nullable(array: Array) -> list[Any]:
    """Numbers as JSON has them, of the same shape: null where they are not finite."""
    if np.ndim(array) > 1:
        return [nullable(row) for row in array]
    return [None if not np.isfinite(value) else float(value) for value in array]
