"""Cost of a sweep by models that were fitted to measurements: seconds, and joules of the boards.

A board draws the power of a phase during warm-up and window, and that of a waiting board in between: while a model is
built, compiled or captured, the processor works. Power is predicted energy over predicted time. What is not known is
not guessed: without a fit for the type, the precision and the kind of workload there are no joules.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from flopray.errors import FloprayError, SettingError
from flopray.point import Point
from flopray.predict.fitting import LEARNED
from flopray.predict.prediction import Prediction
from flopray.predict.predictor import Predictor
from flopray.predict.shipped import shipped
from flopray.settings import MeasureSettings
from flopray.sweep.prediction import Rates, busy_seconds, phase_seconds, predict_point_seconds
from flopray.sweep.summary import duration
from flopray.units import counted, prefixed

#: Most points that are predicted one by one; of more, this many are taken.
_MOST_POINTS = 150
#: With fewer of the phases predicted, a sum would say little.
_LEAST_SHARE = 0.8


@dataclass(frozen=True)
class PlannedEnergy:
    """Cost of the points of one type of device.

    Attributes:
        seconds: device time, over all devices.
        energy_j: of the boards in that time.
        outside: share of the phases that lie outside what was measured.
        basis: what the models were fitted to.
        reference_c: temperature of the energies, in Celsius.
        unknown: share of the phases that no model knows; in their time boards are taken to wait.
        drawn: points that a search chooses as it goes: each counts as the mean of the grid; None where they are known.
    """

    seconds: float
    energy_j: float
    outside: float
    basis: str
    reference_c: float
    unknown: float = 0.0
    drawn: int | None = None

    def line(self, device_type: str) -> str:
        """For people."""
        text = f"{device_type}: {prefixed(self.energy_j, 'J')} of the boards at {self.reference_c:g} °C, in "
        text += f"{duration(self.seconds)} of measuring, by models fitted to {self.basis}"
        if self.drawn is not None:
            text += (
                f"; for {counted(self.drawn, 'point')} like the mean of the grid, since the search chooses as it goes"
            )
        text += f"; {self.outside:.0%} of it lies outside what was measured" if self.outside else ""
        return text + (f"; {self.unknown:.0%} of it was not measured and counts as waiting" if self.unknown else "")


def planned_energy(
    settings: MeasureSettings,
    points: Sequence[Point],
    rates: Rates | None,
    predictor: Predictor | None = None,
    drawn: int | None = None,
) -> PlannedEnergy | None:
    """Cost of points; None where no model covers them.

    Args:
        settings: how they are measured.
        points: of one type of device.
        rates: of the type.
        predictor: default the models that come with flopray.
        drawn: how many of them are measured, where a search chooses these as it goes; None for all.
    """
    if not points or rates is None or "time" not in settings.instruments:
        return None
    predictor = predictor or shipped()
    if points[0].device_type not in predictor.device_types:
        return None
    # at random: steps of equal length would take only some values of a grid's inner dimension
    chosen = random.Random(settings.seed).sample(list(points), min(_MOST_POINTS, len(points)))
    asked = [(point, phase) for point in chosen for phase in settings.phases]
    found = [(point, phase, known) for point, phase in asked if (known := _predicted(predictor, point, phase))]
    if len(found) < _LEAST_SHARE * len(asked):
        return None
    seconds = sum(predict_point_seconds(settings, point, has_energy=True, rates=rates) for point in chosen)
    energy_j = busy_s = shift_s = 0.0
    for point, phase, known in found:
        each_s = known.time_s.value
        shift_s += sum(phase_seconds(settings, point, phase, rates, has_energy=True, each_s=each_s))
        shift_s -= sum(phase_seconds(settings, point, phase, rates, has_energy=True))
        running_s = sum(busy_seconds(settings, each_s, rates, has_energy=True))
        busy_s += running_s
        energy_j += running_s * (known.energy_j.value if known.energy_j else 0.0) / each_s
    scale, seconds = (len(points) if drawn is None else drawn) / len(chosen), seconds + shift_s
    energy_j += max(seconds - busy_s, 0.0) * predictor.waiting_w(points[0].device_type)
    outside = sum(known.outside is not None for _, _, known in found) / len(found)
    bases = "; ".join(dict.fromkeys(known.basis for _, _, known in found))
    unknown = 1 - len(found) / len(asked)
    return PlannedEnergy(scale * seconds, scale * energy_j, outside, bases, predictor.reference_c, unknown, drawn)


def why_not_planned(settings: MeasureSettings, points: Sequence[Point], predictor: Predictor | None = None) -> str:
    """Why there are no joules of points: the first choice that nobody measured, else that no model covers them.

    Args:
        settings: how they are measured.
        points: of one type of device.
        predictor: default the models that come with flopray.
    """
    predictor = predictor or shipped()
    for point, phase in itertools.product(points[:_MOST_POINTS], settings.phases):
        try:
            predictor.predict(point, phase, model=LEARNED)
        except SettingError as error:
            return str(error)
        except FloprayError:
            continue
    return "no fitted model covers this work on it (flopray fit)"


def _predicted(predictor: Predictor, point: Point, phase: str) -> Prediction | None:
    """A prediction for work of a kind that was measured, though perhaps at other shapes or phases."""
    try:
        found = predictor.predict(point, phase, model=LEARNED)
    except FloprayError:
        return None
    return found if found.energy_j is not None and found.same_kind else None
