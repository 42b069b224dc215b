"""What a search optimises: numbers of phases, such as `train_step/energy_j`, each with the direction that is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flopray.errors import SettingError, spaced


class Metric(NamedTuple):
    """A column that can be an objective.

    Attributes:
        mode: `min` or `max`: which direction is better.
        unit: SI unit; empty for a ratio.
        error: column of its relative error; None where it has none, such as a count of bytes.
        title: on an axis of a figure.
        of_energy: whether it needs an energy source.
        of_flops: whether it needs FLOPs that are known.
        of_peak: whether it needs the peak of the device.
    """

    mode: str
    unit: str
    error: str | None
    title: str
    of_energy: bool = False
    of_flops: bool = False
    of_peak: bool = False


METRICS = {
    "time_s": Metric("min", "s", "time_rel_error", "time"),
    "energy_j": Metric("min", "J", "energy_rel_error", "energy", of_energy=True),
    "energy_per_token_j": Metric("min", "J", "energy_rel_error", "energy per token", of_energy=True),
    "memory_peak_bytes": Metric("min", "B", None, "peak memory"),
    "power_w": Metric("min", "W", None, "mean power", of_energy=True),
    "flops_per_s": Metric("max", "FLOP/s", "time_rel_error", "rate", of_flops=True),
    "flops_per_j": Metric("max", "FLOP/J", "energy_rel_error", "efficiency", of_energy=True, of_flops=True),
    "mfu": Metric("max", "", "time_rel_error", "model FLOPs utilisation", of_flops=True, of_peak=True),
    "hfu": Metric("max", "", "time_rel_error", "hardware FLOPs utilisation", of_flops=True, of_peak=True),
}

#: Objectives of `pareto` in an active search, of the first phase.
FRONT = ("flops_per_j", "flops_per_s")


@dataclass(frozen=True)
class Objective:
    """One number of one phase.

    Attributes:
        text: as it was asked for, such as `time_s`.
        phase: whose number it is.
        column: of the record.
    """

    text: str
    phase: str
    column: str

    @property
    def metric(self) -> Metric:
        """Description of the column."""
        return METRICS[self.column]

    @property
    def key(self) -> str:
        """Its name in Tune's results, such as `train_step/time_s`."""
        return f"{self.phase}/{self.column}"


def objectives_of(texts: Sequence[str], phases: Sequence[str], known: Sequence[str]) -> tuple[Objective, ...]:
    """The objectives of words such as `energy_j`, which is of the first phase, or `train_step/energy_j`.

    Args:
        texts: the words.
        phases: that are measured, in order.
        known: phases that the workload has.

    Raises:
        SettingError: a phase or a metric that does not exist, or an objective that is named twice.
    """
    found: list[Objective] = []
    for text in texts:
        objective = _objective(text, phases, known)
        if objective.key in (other.key for other in found):
            raise SettingError(f"<objective> has {objective.key} twice")
        found.append(objective)
    return tuple(found)


def of_a_surface(phases: Sequence[str], *, energy: bool) -> list[str]:
    """Objectives of `surface` in an active search: time and, where it is measured, energy of each phase."""
    columns = ("time_s", "energy_j") if energy else ("time_s",)
    return [f"{phase}/{name}" for phase in phases for name in columns]


def _objective(text: str, phases: Sequence[str], known: Sequence[str]) -> Objective:
    phase, slash, column = text.rpartition("/")
    phase = phase if slash else phases[0]
    if column not in METRICS:
        hint = spaced("<objective>", text)
        raise SettingError(f"<objective> {text!r:.80}: unknown metric, choose from {', '.join(METRICS)}{hint}")
    if phase not in known:
        raise SettingError(f"<objective> {text!r:.80}: unknown phase, choose from {', '.join(phases)}")
    if phase not in phases:
        measured = f"{phase} is not measured: add it to <phases>, or choose from {', '.join(phases)}"
        raise SettingError(f"<objective> {text}: {measured}")
    return Objective(text, phase, column)
