"""The cost of a run from predictions for one step: seconds, joules and the bill, for each type of GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flopray.cli.question import Asked
from flopray.errors import InputError, SettingError
from flopray.footprint.assumptions import Ranged
from flopray.footprint.bill import Bill, Prices, bill_of
from flopray.predict.prediction import Estimate, Prediction
from flopray.predict.predictor import Predictor
from flopray.predict.work import Work, family_of
from flopray.workloads.registry import BUILT_IN


@dataclass(frozen=True)
class Answer:
    """What one point costs on some GPUs of a type.

    Attributes:
        device_type, precision, execution: of the point.
        gpus: boards, each with a batch of its own.
        steps: of the run; None where only a step was asked for.
        step_s, step_j: of one step on one board; None where it is not known.
        run_s: wall-clock time of the run.
        run_j: of all boards in that time.
        bill: of the run, or of one step.
        outside: why the question lies outside what was measured; None where it does not.
        why_none: why there are no numbers; None where there are.
        basis: what the models were fitted to.
    """

    device_type: str
    precision: str
    execution: str
    gpus: int
    steps: int | None
    step_s: Ranged | None = None
    step_j: Ranged | None = None
    run_s: Ranged | None = None
    run_j: Ranged | None = None
    bill: Bill | None = None
    outside: str | None = None
    why_none: str | None = None
    basis: str | None = None

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.gpus} x {self.device_type} {self.precision} {self.execution}"


def answer(
    asked: Asked,
    predictor: Predictor,
    prices: Prices,
    *,
    gpus: int = 1,
    steps: int | None = None,
    utilisation: float = 1.0,
) -> Answer:
    """Answer for one type of GPU.

    A board waits for the share of time in which it is not utilised, and then takes its power at rest between kernels.

    Args:
        asked: the point.
        predictor: fitted models.
        prices: for the bill.
        gpus: boards, each doing all steps with a batch of its own.
        steps: None asks for one.
        utilisation: share of the wall-clock time in which boards compute, above 0 and at most 1.
    """
    point = asked.point
    head = (point.device_type, point.precision, point.execution, gpus, steps)
    if asked.work is None:
        return Answer(*head, why_none=asked.why_not)
    try:
        found = predictor.predict(asked.work, device_type=point.device_type)
    except SettingError as error:  # a choice that nobody measured
        return Answer(*head, outside=str(error), why_none=str(error))
    except InputError as error:
        return Answer(*head, why_none=str(error))
    if found.outside and found.time_s.low is None:
        why = _why(found.outside, asked.work, predictor, point.device_type)
        return Answer(*head, outside=why, why_none=why)
    step_s, step_j = _ranged(found.time_s), _energy(found)
    times = steps or 1
    run_s = step_s * (times / utilisation)
    waiting_s = step_s * (1 / utilisation - 1)
    waiting_j = waiting_s * predictor.waiting_w(point.device_type)
    run_j = None if step_j is None else _sum(step_j, waiting_j) * (times * gpus)
    bill = bill_of(run_j, run_s * gpus, prices)
    return Answer(*head, step_s, step_j, run_s, run_j, bill, found.outside, None, found.basis)


def _why(outside: str, work: Work, predictor: Predictor, device_type: str) -> str:
    """Why there is no answer, without the fit that would have stood in; of a user's own workload, how to get one."""
    why, other, _ = outside.partition(": answered by")
    if not other or not why.startswith(f"{work.family} was not"):
        return why
    if predictor.ways(device_type, work.family):
        return f"{why} at {work.precision}"
    if work.family in {family_of(name) for name in BUILT_IN}:
        return why
    return f"{why}: a workload of your own needs flopray fit on runs of it, then <models=FILE>"


def _ranged(estimate: Estimate) -> Ranged:
    return Ranged(estimate.value, estimate.low, estimate.high)


def _energy(found: Prediction) -> Ranged | None:
    return None if found.energy_j is None else _ranged(found.energy_j)


def _sum(one: Ranged, other: Ranged) -> Ranged:
    if other.value == 0:
        return one
    low = None if one.low is None or other.low is None else one.low + other.low
    high = None if one.high is None or other.high is None else one.high + other.high
    return Ranged(one.value + other.value, low, high)


def cheapest(answers: Sequence[Answer], deadline_s: float) -> Answer | None:
    """Of the answers whose whole interval of time lies before a deadline, the one with the least energy."""
    there = [one for one in answers if one.run_s and one.run_j and _most(one.run_s) <= deadline_s]
    return min(there, key=lambda one: one.run_j.value if one.run_j else 0.0, default=None)


def fastest(answers: Sequence[Answer], budget_j: float) -> Answer | None:
    """Of the answers whose whole interval of energy lies within a budget, the fastest one."""
    there = [one for one in answers if one.run_s and one.run_j and _most(one.run_j) <= budget_j]
    return min(there, key=lambda one: one.run_s.value if one.run_s else 0.0, default=None)


def _most(ranged: Ranged) -> float:
    return ranged.value if ranged.high is None else ranged.high
