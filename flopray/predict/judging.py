"""How wrong each model is on rows that it has not seen: whole values, models and boards held out in turn.

For a set the rows of its values are taken out on every type of device, also where the set is of one type alone, since
types learn from one another. The rest is fitted anew, from the beginning. Errors are relative to what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from flopray.description import Description
from flopray.predict.arrays import Floats
from flopray.predict.device import Device
from flopray.predict.domain import Domain
from flopray.predict.fitting import LEARNED, MODELS, DeviceFit, fit_devices
from flopray.predict.held_out import BOARD, HeldOut, held_out_sets, kinds_of
from flopray.predict.kernel_choice import KernelChoices
from flopray.predict.measured import Measured

#: Share of answers that an interval is to hold.
LEVEL = 0.9
#: An interval needs at least this many errors.
_LEAST_ERRORS = 10
TIME, ENERGY = "time", "energy"
TARGETS = (TIME, ENERGY)


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of one model on one set.

    Attributes:
        rows: with a prediction and a measurement.
        mape: mean of absolute relative errors.
        bias: mean of relative errors; above 0, too much is predicted.
        coverage: share of rows inside the interval from the errors of the other sets; None where these are few.
    """

    rows: int
    mape: float
    bias: float
    coverage: float | None = None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """One set with the errors of each model.

    Attributes:
        held_out: the set.
        inside: share of its rows inside the region of the fit.
        scores: by target (`time`, `energy`), then by model.
        uncounted: by target, of the learned model where no kernel of the set's products is known.
    """

    held_out: HeldOut
    inside: float
    scores: dict[str, dict[str, Score]]
    uncounted: dict[str, Score] = {}


@dataclass(frozen=True, eq=False)
class SetErrors:
    """Errors of the rows of one set.

    Attributes:
        held_out: the set.
        phases: of its rows, shape (S,).
        inside: whether each row lies inside the region of the fit, shape (S,).
        measured: by target, shape (S,).
        predicted: by target and model, shape (S,).
        uncounted: the same where no kernel of the rows' products is known, as of a shape that nobody ever ran.
    """

    held_out: HeldOut
    phases: np.ndarray
    inside: np.ndarray
    measured: Mapping[str, Floats]
    predicted: Mapping[str, Mapping[str, Floats]]
    uncounted: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)

    def logs(self, target: str, model: str, *, counted: bool = True) -> Floats:
        """Logarithm of predicted over measured; NaN where either is not known."""
        predicted = self.predicted if counted or not self.uncounted else self.uncounted
        return np.log(predicted[target][model] / self.measured[target])


def set_errors(
    measured: Measured,
    devices: Mapping[str, Device],
    choices: KernelChoices,
    descriptions: Mapping[str, Description],
    kinds: Sequence[str] | None = None,
) -> Iterator[SetErrors]:
    """Errors on each set of the rows of one family, precision and execution.

    Args:
        measured: the rows.
        devices: types by name.
        choices: kernels of products, which are known for held-out rows too.
        descriptions: of workloads by name.
        kinds: see `flopray.predict.held_out.held_out_sets`; those that a workload does not have are skipped.
    """
    together: dict[tuple[str, tuple[str, ...]], list[tuple[HeldOut, np.ndarray]]] = {}
    names = measured.column("workload")
    for name in sorted(set(names)):
        places = np.flatnonzero(names == name)
        rows = measured.rows.iloc[places].reset_index(drop=True)
        known = None if kinds is None else [kind for kind in kinds if kind in kinds_of(descriptions[name])]
        for one, mask in held_out_sets(rows, descriptions[name], known):
            whole = np.zeros(len(names), dtype=bool)
            whole[places[mask]] = True
            together.setdefault((one.kind, one.values), []).append((one, whole))
    for (kind, values), sets in together.items():
        column = kinds_of(descriptions[sets[0][0].workload])[kind]
        seen = ~np.isin(measured.column(column), values)
        yield from _errors_of(measured, seen, sets, devices, choices)


def _errors_of(
    measured: Measured,
    seen: np.ndarray,
    sets: Sequence[tuple[HeldOut, np.ndarray]],
    devices: Mapping[str, Device],
    choices: KernelChoices,
) -> Iterator[SetErrors]:
    if not seen.any():
        return
    known = measured.of(seen)
    fits = fit_devices(known, devices, choices)
    for one, mask in sets:
        fit = fits.get(one.device_type)
        if fit is None:
            continue
        yield errors_on(one, measured.of(mask), fit)


def errors_on(held_out: HeldOut, asked: Measured, fit: DeviceFit) -> SetErrors:
    """Errors of a fit on rows that it has not seen.

    Args:
        held_out: the set.
        asked: its rows.
        fit: of the rest.
    """
    counted = fit.predict(asked.works)
    uncounted = replace(fit, choices=KernelChoices()).predict(asked.works)
    inside = np.array([_is_inside(fit.domains.get(work.phase), work) for work in asked.works])
    return SetErrors(
        held_out,
        np.array([work.phase for work in asked.works], dtype=object),
        inside,
        {TIME: asked.times_s, ENERGY: asked.energies_j},
        *(
            {target: {model: by_model[model][place] for model in MODELS} for place, target in enumerate(TARGETS)}
            for by_model in (counted, uncounted)
        ),
    )


def _is_inside(domain: Domain | None, work: Any) -> bool:
    return domain is not None and domain.why_outside(work) is None


def half_width(errors: Floats) -> float | None:
    """Half width of an interval of `LEVEL`, in logarithms, from errors on unseen rows; None where these are few.

    The quantile of split conformal prediction (Lei and others 2018, https://doi.org/10.1080/01621459.2017.1307116).

    Args:
        errors: logarithms of predicted over measured, shape (S,); NaN are passed over.
    """
    sizes = np.sort(np.abs(errors[np.isfinite(errors)]))
    if len(sizes) < _LEAST_ERRORS:
        return None
    place = min(math.ceil((len(sizes) + 1) * LEVEL), len(sizes))
    return float(sizes[place - 1])


def interval_width(
    sources: Sequence[Sequence[SetErrors]], target: str, model: str, *, inside: bool, counted: bool = True
) -> float | None:
    """Half width of an answer's interval, in logarithms, by the first source that has enough errors.

    Whole boards that were held out come last: others were measured at the very same shapes, so that their errors say
    how far boards are apart, and nothing of a shape that nobody measured.

    Args:
        sources: sets, those of the type itself before those of all types.
        target: time or energy.
        model: one of `flopray.predict.fitting.MODELS`.
        inside: of rows that lay inside of what was left to a fit, or outside.
        counted: whether the kernels of the rows' products may be known.
    """
    for boards in (False, True):
        for found in sources:
            kept = [one for one in found if (one.held_out.kind == BOARD) == boards]
            width = half_width(pooled(kept, target, model, inside=inside, counted=counted))
            if width is not None:
                return width
    return None


def judgements(found: Sequence[SetErrors], elsewhere: Sequence[SetErrors] = ()) -> list[Judgement]:
    """Scores of each set; coverage by the intervals that the other sets make, as those of answers are made.

    Args:
        found: sets of one type of device.
        elsewhere: sets of all types, which make the intervals where those of the type have too few errors.
    """
    made = []
    for place, one in enumerate(found):
        same = (one.held_out.kind, one.held_out.values)
        others = (
            [*found[:place], *found[place + 1 :]],
            [each for each in elsewhere if (each.held_out.kind, each.held_out.values) != same],
        )
        scores: dict[str, dict[str, Score]] = {}
        for target in TARGETS:
            for model in MODELS:
                if (score := _score(one, others, target, model)) is not None:
                    scores.setdefault(target, {})[model] = score
        inside = float(one.inside.mean()) if len(one.inside) else 0.0
        blind = {target: _score(one, others, target, LEARNED, counted=False) for target in TARGETS}
        uncounted = {target: score for target, score in blind.items() if score is not None}
        made.append(Judgement(held_out=one.held_out, inside=inside, scores=scores, uncounted=uncounted))
    return made


def _score(
    one: SetErrors, others: Sequence[Sequence[SetErrors]], target: str, model: str, *, counted: bool = True
) -> Score | None:
    logs = one.logs(target, model, counted=counted)
    there = np.isfinite(logs)
    if not there.any():
        return None
    errors = np.expm1(logs[there])
    covered = []
    for inside in (True, False):
        rows = logs[there & (one.inside == inside)]
        width = interval_width(others, target, model, inside=inside, counted=counted)
        covered += [] if width is None else (np.abs(rows) <= width).tolist()
    return Score(
        rows=int(there.sum()),
        mape=float(np.abs(errors).mean()),
        bias=float(errors.mean()),
        coverage=float(np.mean(covered)) if covered else None,
    )


def pooled(found: Sequence[SetErrors], target: str, model: str, *, inside: bool, counted: bool = True) -> Floats:
    """Logarithms of predicted over measured of all rows inside, or outside, the region of their fit."""
    parts = [one.logs(target, model, counted=counted)[one.inside == inside] for one in found]
    return np.concatenate(parts) if parts else np.zeros(0)
