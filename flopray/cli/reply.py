"""The reply of `flopray ask`: answers on each type of GPU, what they assume, and which is best."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from flopray.cli.answer import Answer, answer, cheapest, fastest
from flopray.cli.instead import instead_of
from flopray.cli.prices import Overheads
from flopray.cli.quantities import energy_range, energy_text, time_range, time_text
from flopray.cli.question import Asked, Question, asked_of, axes_of, points_of, steps_of, tokens_of, ways_of
from flopray.errors import SettingError
from flopray.errors import named as named_as
from flopray.footprint.bill import Prices
from flopray.predict.predictor import Predictor
from flopray.predict.shipped import shipped
from flopray.predict.work import family_of
from flopray.workloads.base import Workload

#: Answers are as good as one another where they differ by less.
_TIE = 0.01
_LONGER = "an ordinary eager loop launches each kernel by itself and takes longer, most of all where kernels are short"
#: What an answer is of, where a loop usually runs otherwise.
_EXECUTIONS = {
    "graph": f"the step is captured once as a CUDA graph and replayed; {_LONGER}",
    "compile": "the step is compiled by torch.compile; an ordinary eager loop usually takes longer",
    "compile_graph": f"the step is compiled by torch.compile and replayed as a CUDA graph; {_LONGER}",
}


@dataclasses.dataclass(frozen=True)
class Reply:
    """The whole answer.

    Attributes:
        title: the question in words.
        answers: one for each type of GPU, precision and number.
        prices: what was assumed.
        lines: further assumptions, and what the numbers rest on.
        choices: sentences on which is best.
    """

    title: str
    answers: list[Answer]
    prices: Prices
    lines: list[str]
    choices: list[str]


def reply_of(
    workload: Workload,
    model: str | None,
    question: Question,
    overheads: Overheads,
    named: Mapping[str, Sequence[str]],
    flags: Mapping[str, str],
) -> Reply:
    """Answer the question of a command line.

    Args:
        workload: that is asked about.
        model: of a language model.
        question: what is asked of it.
        overheads: of the building, and prices.
        named: words for the fields of the workload, by field.
        flags: of settings and fields, for reasons that name them.

    Raises:
        InputError: an impossible question, or models that cannot be read.
    """
    phase = question.phase or ("train_step" if "train_step" in workload.phases else workload.phases[0])
    if phase not in workload.phases:
        raise SettingError(f"<phase> {phase}: {workload.name} has {', '.join(workload.phases)}")
    prices = overheads.prices()
    predictor = shipped() if question.models is None else _fitted(question.models, workload)
    gpus, family = _types(question.gpu, predictor), family_of(workload.name)
    ways = {gpu: ways_of(workload, predictor.ways(gpu, family), question.precision, question.execution) for gpu in gpus}
    axes, assumed = axes_of(workload, named, model, predictor.shapes(ways, family, phase))
    points = points_of(workload, axes, ways)
    answers = []
    for point in points:
        asked = asked_of(point, phase)
        own = []
        for number in dict.fromkeys(question.gpus):
            often = steps_of(question.steps, question.total_tokens, tokens_of(point, phase), number)
            how = {"gpus": number, "steps": often, "utilisation": question.utilisation}
            own.append(_told(answer(asked, predictor, prices, **how), flags))
        answers += _with_way_out(own, asked, predictor, flags)
    label = points[0].label().replace(f" {points[0].precision} {points[0].execution}", "")
    lines = _lines(answers, assumed, question.utilisation, predictor)
    return Reply(f"{phase} of {workload.name} {label}", answers, prices, lines, _choices(answers, question))


def _told(one: Answer, flags: Mapping[str, str]) -> Answer:
    """An answer whose reasons call settings by their flags."""
    outside, why_none = (None if text is None else named_as(text, flags) for text in (one.outside, one.why_none))
    return dataclasses.replace(one, outside=outside, why_none=why_none)


def _with_way_out(own: Sequence[Answer], asked: Asked, predictor: Predictor, flags: Mapping[str, str]) -> list[Answer]:
    """Answers of one point; a reason why there are none goes on with what can be asked instead."""
    if not any(one.why_none for one in own):
        return list(own)
    words = instead_of(asked, predictor, flags)
    return [dataclasses.replace(one, why_none=f"{one.why_none}; {words}") if words else one for one in own]


def _types(named: Sequence[str], predictor: Predictor) -> tuple[str, ...]:
    """The types of GPU that are asked about, by their names in the models.

    Raises:
        SettingError: there are no models of any of them.
    """
    known = {name.lower(): name for name in predictor.device_types}
    types = tuple(dict.fromkeys(known.get(name.lower(), name) for name in named or predictor.device_types))
    if not set(types) & set(predictor.device_types):
        there = ", ".join(predictor.device_types)
        meant = f": did you mean <gpus={' '.join(types)}>?" if "".join(types).isdecimal() else ""
        raise SettingError(f"<gpu> {' '.join(types)}: nothing was fitted for it; there are models of {there}{meant}")
    return types


def _fitted(path: Path, workload: Workload) -> Predictor:
    """The models of a file.

    Raises:
        InputError: it is missing, or holds something else.
    """
    if not path.exists():
        of_a_model = path.suffix != ".json" and any(field.name == "model" for field in workload.fields)
        meant = f": did you mean <model={path}>?" if of_a_model else ""
        raise SettingError(f"<models> {path}: there is no such file, as flopray fit --out writes it{meant}")
    return Predictor.load(path)


def _lines(answers: Sequence[Answer], assumed: Sequence[str], utilisation: float, fit: Predictor) -> list[str]:
    lines = [f"taken by default: {', '.join(assumed)}"] if assumed else []
    if any(one.gpus > 1 for one in answers):
        lines.append("each GPU has its own batch; the cost of exchanging gradients is not included: --utilisation")
    if utilisation < 1:
        waiting = ", ".join(
            f"{fit.waiting_w(name):.0f} W ({name})" for name in sorted({a.device_type for a in answers})
        )
        lines.append(f"GPUs compute {utilisation:.0%} of the time, as given; a board that waits takes {waiting}")
    answered = [one for one in answers if one.step_s]
    lines += _missing(answered)
    if answered:
        said = "ranges of step and boards: 90 % interval for a board of the type"
        if any(one.step_j for one in answered):
            said += f"; energy is that of the boards alone, at {fit.reference_c:g} °C"
            said += "; ranges from servers on: this interval with all assumptions at the same end"
        lines += [f"{name}: {_EXECUTIONS[name]}" for name in _executions(answered)]
        lines.append(said)
        lines += [f"fitted to {basis}" for basis in dict.fromkeys(one.basis for one in answered) if basis]
    return lines


def _executions(answered: Sequence[Answer]) -> list[str]:
    """Those that are not how most loops run."""
    return [name for name in dict.fromkeys(one.execution for one in answered) if name in _EXECUTIONS]


def _missing(answered: Sequence[Answer]) -> list[str]:
    """Why an answer has no energy, or no range."""
    lines = []
    for one in answered:
        if one.step_j is None:
            lines.append(f"{one.label}: no energy; none was measured in the runs that its models were fitted to")
        if one.step_s and one.step_s.low is None:
            lines.append(f"{one.label}: no range; too few rows were held out of the fit to say how wrong it is")
    return lines


def _choices(answers: Sequence[Answer], question: Question) -> list[str]:
    deadline, budget = question.deadline_s, question.energy_budget_j
    lines = []
    if deadline is not None:
        best = cheapest(answers, deadline)
        within = f"within {time_text(deadline)}"
        lines.append(
            f"least energy {within}: {best.label}, {energy_range(best.run_j)} of the boards in {time_range(best.run_s)}"
            + _as_good(best, [one for one in answers if cheapest([one], deadline)])
            if best
            else f"none is sure to end {within}: the high end of its interval must lie before that"
        )
    if budget is not None:
        best = fastest(answers, budget)
        within = f"within {energy_text(budget)} of the boards"
        lines.append(
            f"fastest {within}: {best.label}, {time_range(best.run_s)} and {energy_range(best.run_j)}"
            + _as_good(best, [one for one in answers if fastest([one], budget)], by_time=True)
            if best
            else f"none is sure to stay {within}: the high end of its interval must lie below that"
        )
    return lines


def _as_good(best: Answer, allowed: Sequence[Answer], *, by_time: bool = False) -> str:
    """Others that are as good as the best one, with what tells them apart; empty where there are none."""

    def of(one: Answer) -> float:
        ranged = one.run_s if by_time else one.run_j
        return ranged.value if ranged else math.inf

    tied = [one for one in allowed if one is not best and math.isclose(of(one), of(best), rel_tol=_TIE)]
    if not tied:
        return ""
    each = (f"{one.label} ({energy_range(one.run_j) if by_time else time_range(one.run_s)})" for one in tied)
    return f"; equal to {_TIE:.0%}: {', '.join(each)}"
