"""The tables of a watch, and the folder that keeps them: samples, ticks, steps and the summary.

A folder has `series.parquet` (a row a sample and device), `ticks.parquet` (each read of a counter that was kept),
`steps.parquet` (a row a piece of a step) and `summary.json` (the summary, the regions, when it began). Times are
seconds since the watch began. It is data only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flopray.errors import InputError, MeasurementError, RunError, check_path
from flopray.mappings import Json
from flopray.records import Row
from flopray.store import atomic
from flopray.watching.recording import STATE_COLUMNS, Recording
from flopray.watching.timeline import Region, Timeline

if TYPE_CHECKING:
    import pandas as pd

#: Version of the folder's form.
VERSION = 1


@dataclass(frozen=True)
class Series:
    """What a folder keeps.

    Attributes:
        samples: columns `time_s`, `device`, `uuid`, `energy_j` (since the device was watched), `power_w` (mean since
            the sample before), `temperature_c`, `sm_clock_hz`, `memory_clock_hz`, `memory_used_bytes`, `step` (steps
            done) and `region` (innermost, or None).
        ticks: columns `uuid`, `before_s`, `after_s`, `energy_j`, `slept` (see `flopray.energy.meter.Reading`).
        steps: columns `step`, `start_s`, `end_s`.
        regions: `name`, `start_s`, `end_s` of each.
        about: what else is known, as plain values: the summary, the start in UTC and on the host clock.
    """

    samples: pd.DataFrame
    ticks: pd.DataFrame
    steps: pd.DataFrame
    regions: list[Row]
    about: Json


def series_of(
    recordings: Sequence[Recording],
    timeline: Timeline,
    regions: Sequence[Region],
    origin_s: float,
    about: Mapping[str, Any],
) -> Series:
    """Tables of recordings.

    Args:
        recordings: of all devices.
        timeline: of the steps.
        regions: that have ended.
        origin_s: host clock when the watch began, from which times count.
        about: see `Series`.
    """
    import pandas as pd

    samples = [_samples(recording, timeline, regions, origin_s) for recording in recordings]
    ticks = [_ticks(recording, origin_s) for recording in recordings]
    steps = {"step": timeline.step, "start_s": timeline.start_s - origin_s, "end_s": timeline.end_s - origin_s}
    passed = [{"name": r.name, "start_s": r.start_s - origin_s, "end_s": r.end_s - origin_s} for r in regions]
    empty = _samples_frame({})
    filled = [frame for frame in samples if len(frame)]
    return Series(
        samples=pd.concat(filled, ignore_index=True) if filled else empty,
        ticks=pd.concat(ticks, ignore_index=True) if ticks else pd.DataFrame(columns=[*_TICKS]),
        steps=pd.DataFrame(steps),
        regions=passed,
        about=dict(about),
    )


_TICKS = ("uuid", "before_s", "after_s", "energy_j", "slept")
_SAMPLES = ("time_s", "device", "uuid", "energy_j", "power_w", *STATE_COLUMNS, "step", "region")


def _samples_frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: columns.get(name, []) for name in _SAMPLES})


def _samples(recording: Recording, timeline: Timeline, regions: Sequence[Region], origin_s: float) -> pd.DataFrame:
    table = recording.samples()
    at_s = table[:, 0]
    try:
        curve = recording.curve()
        energy_j = curve.at(at_s) - curve.at(np.array([recording.start_s]))
        power_w = np.diff(energy_j, prepend=np.nan) / np.maximum(np.diff(at_s, prepend=np.nan), 1e-9)
    except MeasurementError:
        energy_j = power_w = np.full(len(at_s), np.nan)
    columns = {
        "time_s": at_s - origin_s,
        "device": np.full(len(at_s), recording.device.name, dtype=object),
        "uuid": np.full(len(at_s), recording.device.uuid, dtype=object),
        "energy_j": energy_j,
        "power_w": power_w,
        **{name: table[:, 1 + number] for number, name in enumerate(STATE_COLUMNS)},
        "step": timeline.done(at_s),
        "region": _regions_at(at_s, regions),
    }
    return _samples_frame(columns)


def _regions_at(at_s: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
    names = np.full(len(at_s), None, dtype=object)
    # Later ones lie inside earlier ones.
    for region in regions:
        first, last = np.searchsorted(at_s, [region.start_s, region.end_s])
        names[first:last] = region.name
    return names


def _ticks(recording: Recording, origin_s: float) -> pd.DataFrame:
    import pandas as pd

    table = recording.readings()
    columns = {"before_s": table[:, 0] - origin_s, "after_s": table[:, 1] - origin_s, "energy_j": table[:, 2]}
    columns["slept"] = table[:, 3] > 0
    uuid = np.full(len(table), recording.device.uuid, dtype=object)
    return pd.DataFrame({"uuid": uuid, **columns})


def save_series(series: Series, folder: Path) -> Path:
    """Write a folder; existing files of the same watch are replaced one by one, atomically.

    Raises:
        InputError: it cannot be written, or holds another watch.
    """
    _refuse_another(folder / "summary.json", series.about)
    about = {"version": VERSION, **series.about, "regions": series.regions}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in (("series", series.samples), ("ticks", series.ticks), ("steps", series.steps)):
            with atomic.replacing(folder / f"{name}.parquet") as file:
                frame.to_parquet(file, index=False)
        with atomic.replacing(folder / "summary.json") as file:
            file.write(json.dumps(about, indent=1, default=str).encode() + b"\n")
    except OSError as error:
        raise InputError(f"cannot write {error.filename or folder}: {error.strerror or error}") from error
    return folder


def checked_folder(given: str | Path, name: str = "") -> Path:
    """Refuse what cannot be the folder of a watch.

    Args:
        given: that is to be written.
        name: of the argument, for the message.

    Raises:
        InputError: it is empty, no path, or a file.
    """
    check_path(name or "the folder", given)
    said, folder = f"{name}: " if name else "", Path(given)
    if not str(given):
        raise InputError(f"{said}name a folder, such as results/watched")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{said}{folder} is a file: name a folder")
    return folder


def _refuse_another(summary: Path, about: Mapping[str, Any]) -> None:
    """A folder holds one watch.

    Raises:
        InputError: it holds another one.
    """
    try:
        there = json.loads(summary.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        there = {}
    if not isinstance(there, dict) or any(there.get(name) != about.get(name) for name in ("started_at", "origin_s")):
        raise InputError(
            f"{summary.parent} holds another watch: nothing that was measured is overwritten; name another folder"
        )


def load_series(folder: str | Path) -> Series:
    """Read a folder that `save_series` wrote.

    Raises:
        RunError: it is not a folder of a watch, or one of its files cannot be read.
    """
    import pandas as pd

    folder = Path(folder)
    try:
        about = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        regions = about.pop("regions")
        if about.get("version") != VERSION:
            raise RunError(f"{folder} has version {about.get('version')!r} of a watch's folder, and {VERSION} is read")
        frames = [pd.read_parquet(folder / f"{name}.parquet") for name in ("series", "ticks", "steps")]
    except OSError as error:
        raise RunError(f"{folder} is not a folder of a watch: {error.strerror or error}") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise RunError(f"{folder} is not a folder of a watch: {str(error).splitlines()[0]}") from error
    return Series(*frames, regions=regions, about=about)
