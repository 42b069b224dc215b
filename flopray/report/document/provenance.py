"""How to measure it again, and how to cite it: commands, settings, versions, the hash of the rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flopray import __version__
from flopray.report.document.certainty import days_of
from flopray.report.document.content import Block, Code, Section, Words
from flopray.report.document.data import Measured
from flopray.report.document.words import listed
from flopray.report.text_table import TextTable
from flopray.store.run import RunFolder

_MOST_VALUES = 12


def section(measured: Measured, commands: Sequence[str]) -> Section:
    """The section.

    Args:
        measured: what was measured.
        commands: that measure each of the runs again, and make this report.
    """
    blocks: list[Block] = [Code("\n".join(commands))] if commands else []
    blocks.append(_settings(measured.folders))
    blocks.append(Words(["To cite these numbers:"]))
    blocks.append(Code(citation(measured)))
    said = "Every column of every row, data only: records.parquet in each run's folder; flopray.load_run(RUN) reads it."
    blocks.append(Words([said], "note"))
    return Section("reproduce", "To measure it again, and to cite it", blocks, short=True)


def _settings(folders: Sequence[RunFolder]) -> TextTable:
    sections = [(folder.name, [[name, value] for name, value in _facts(folder)]) for folder in folders]
    sections = [(name, facts) for name, facts in sections if facts]
    return TextTable("What was asked for", ["Setting", "Value"], sections, [], "Run")


def _facts(folder: RunFolder) -> Iterator[tuple[str, str]]:
    """The axes and settings of a manifest; both empty where it describes no sweep."""
    if folder.address.startswith("reference:"):
        yield "runs", f"flopray reference {folder.name} lists them, with what was asked of each"
        return
    sweep = folder.manifest.get("sweep")
    sweep = sweep if isinstance(sweep, Mapping) else {}
    for what in ("axes", "settings"):
        part = sweep.get(what)
        for name, value in part.items() if isinstance(part, Mapping) else ():
            if value not in (None, False):
                yield str(name), _text(value)
    versions = folder.manifest.get("versions")
    if isinstance(versions, Mapping) and versions:
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())


def _text(value: Any) -> str:
    return (
        listed(["none" if each is None else str(each) for each in value], _MOST_VALUES)
        if isinstance(value, list)
        else str(value)
    )


def citation(measured: Measured) -> str:
    """A BibTeX entry, with a hash of the rows."""
    devices = listed(sorted({device.name for device in measured.devices}))
    year = days_of(measured.frame)[:4]
    return "\n".join(
        [
            "@misc{flopray-measurement,",
            f"  title = {{Time, energy and FLOPs of training steps on {devices}}},",
            f"  note = {{Measured with flopray {__version__}, {days_of(measured.frame)}, {len(measured.frame)} rows, "
            f"SHA-256 {digest(measured)[:16]}}},",
            *([f"  year = {{{year}}}"] if year.isdigit() else []),
            "}",
        ]
    )


def digest(measured: Measured) -> str:
    """SHA-256 over point, phase, time and energy of all rows, in a fixed order."""
    columns = ["trial_id", "phase", "device_uuid", "time_s", "energy_j"]
    rows = sorted(json.dumps(row, default=str) for row in measured.frame[columns].astype(object).to_numpy().tolist())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
