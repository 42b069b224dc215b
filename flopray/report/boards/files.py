"""Comparisons of boards as files: Markdown, LaTeX and JSON, and a figure for each type."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from flopray.errors import InputError
from flopray.report.boards.data import DeviceBoards
from flopray.report.boards.figure import draw_boards
from flopray.report.boards.statement import as_json, statement
from flopray.report.plot.figures import paper_style, save_figure
from flopray.report.plot.names import file_name
from flopray.report.text_table import TextTable
from flopray.store import atomic


def write_boards(
    devices: Sequence[DeviceBoards],
    tables: Sequence[TextTable],
    folder: Path,
    plots: Path,
    formats: Sequence[str],
    said: Sequence[str] = (),
) -> list[Path]:
    """Write `boards.md`, `boards.tex` and `boards.json`, and `boards/TYPE.FORMAT` where boards share rows.

    Args:
        devices: the types.
        tables: of them, as `flopray.report.boards.table.board_tables` gives them.
        folder: of the tables; made where it is missing.
        plots: of the figures.
        formats: among `flopray.report.plot.figures.IMAGE_FORMATS`.
        said: further lines on the rows.

    Raises:
        InputError: a file cannot be written.
    """
    lines = [*(line for device in devices for line in statement(device)), *said]
    listed = [f"- {line.strip()}" for line in lines]
    markdown = "\n".join(["## Boards compared", "", *listed, "", *(table.to_markdown() for table in tables)])
    found = json.dumps([{"type": device.name, **as_json(device)} for device in devices], indent=1, allow_nan=False)
    texts = {"md": markdown, "tex": "\n".join(table.to_latex() for table in tables), "json": found + "\n"}
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for ending, text in texts.items():
            path = folder / f"boards.{ending}"
            atomic.write(path, text)
            paths.append(path)
        with paper_style():
            for device in devices:
                if (figure := draw_boards(device)) is not None:
                    name = file_name(device.device_name)
                    paths += save_figure(figure, plots / "boards" / name, formats)
    except OSError as error:
        raise InputError(f"cannot write {error.filename or folder}: {error.strerror or error}") from error
    return paths
