"""How energy was measured: the meter, the windows between its ticks, and what is in a joule and what is not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flopray.report.document.content import Words
from flopray.report.document.words import counted
from flopray.report.gpus.data import Frame
from flopray.units import prefixed

#: By `energy_source`: what is read, and what its joules are of.
_METERS = {
    "nvml_counter": (
        "NVML's counter of energy (nvmlDeviceGetTotalEnergyConsumption)",
        "the whole board: chip, memory and voltage regulators",
    ),
    "nvml_power": ("NVML's readings of power, added up over time", "the whole board"),
    "rapl": ("the kernel's RAPL counters", "the processors' packages and their memory"),
    "simulated": ("a simulated meter", "a device that does not exist"),
}
_LEFT_OUT = {"rapl": "the rest of the computer and losses of its power supply"}
_ANOTHER = "the host's processors, fans and losses of power supplies"


def method(frame: Frame) -> Words | None:
    """How the energy of the rows was measured, a paragraph a meter; None where no row has energy.

    Args:
        frame: rows with the columns of the records.
    """
    measured = frame[frame["energy_j"].notna()]
    said = [_of_meter(str(source), part) for source, part in measured.groupby("energy_source", sort=True)]
    return Words(said) if said else None


def _of_meter(source: str, part: Frame) -> str:
    read, joules_of = _METERS.get(source, (f"the meter {source.replace('_', ' ')}", "the whole device"))
    return (
        f"How energy was measured ({counted(len(part), 'row')}): a thread reads {read} while the step repeats without "
        f"pause. {_windows(part)}The power between the first and the last tick, times the time of a step, is its "
        f"energy. It is that of {joules_of}, and what it takes at rest is not subtracted. Not in it: "
        f"{_LEFT_OUT.get(source, _ANOTHER)}."
    )


def _windows(part: Frame) -> str:
    """Between which ticks energy was taken: their distance, their number and how long that was."""
    facts = "; ".join(_facts(part))
    return f"A window begins and ends at ticks of the meter, moments at which it advances: {facts}. " if facts else ""


def _facts(part: Frame) -> Iterator[str]:
    period = _known(part, "energy_tick_period_s")
    if len(period):
        yield f"one every {prefixed(float(np.median(period)), 's')}"
    ticks = _known(part, "energy_ticks")
    if len(ticks):
        yield f"{_range(ticks, '{:.0f}')} of them a window"
    length = _known(part, "energy_window_s")
    if len(length):
        yield f"{_range(length, '{:.2g} s')} from the first to the last"


def _known(part: Frame, name: str) -> np.ndarray:
    return part[name].dropna().to_numpy(float) if name in part else np.array([])


def _range(values: np.ndarray, form: str) -> str:
    """The least and the most with the median: `3 to 29 (median 4)`; one number where all are alike."""
    low, middle, high = (form.format(value) for value in (values.min(), np.median(values), values.max()))
    return low if low == high else f"{low} to {high} (median {middle})"
