"""The cost of a phase, predicted: `fit(frames)` makes a `Predictor`, which answers with intervals and is kept as JSON.

    >>> from flopray.predict.shipped import shipped
    >>> from flopray.workloads.mlp import MLP
    >>> point = MLP(n_layers=8, width=1024, tokens=128).point(device_type="H100", precision="bf16", execution="graph")
    >>> answer = shipped().predict(point, "forward")
    >>> answer.time_s.low < 44.3e-6 < answer.time_s.high  # 44.3 us were measured
    True
    >>> answer.outside is None
    True

A stranger's file is safe to load: it is data, checked by its types, and nothing in it is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from flopray import __version__
from flopray.description import Description
from flopray.errors import InputError, SettingError
from flopray.point import Point
from flopray.predict.carried import carried, carried_intervals, is_alike, type_errors
from flopray.predict.fitting import LEARNED, MODELS, DeviceFit, devices_of, fit_devices
from flopray.predict.held_out import kinds_of
from flopray.predict.intervals import intervals_of
from flopray.predict.judging import (
    ENERGY,
    TIME,
    Judgement,
    SetErrors,
    judgements,
    set_errors,
)
from flopray.predict.kernel_choice import Counted, KernelChoices
from flopray.predict.measured import REFERENCE_C, Measured, measured_rows
from flopray.predict.prediction import Estimate, Prediction
from flopray.predict.residual import Residual
from flopray.predict.stored import Interval, StoredGroup, StoredPredictor, Where, restored, stored
from flopray.predict.type_spread import type_spread
from flopray.predict.work import Work, work_of
from flopray.store import atomic
from flopray.workloads.registry import BUILT_IN

_LARGEST_FILE = 50_000_000


@dataclass(frozen=True, eq=False)
class Group:
    """One type of device at one precision and execution, with its fits.

    Attributes:
        where: what was fitted.
        fit: all models.
        judged: errors on each held-out set.
        intervals: by target and model.
        errors: of each row of the held-out sets; not kept in a file.
    """

    where: Where
    fit: DeviceFit
    judged: Sequence[Judgement]
    intervals: Mapping[str, Mapping[str, Interval]]
    errors: Sequence[SetErrors] = ()


class Predictor:
    """Answers what a phase of a workload will take on a type of device.

    Args:
        groups: fits.
        counted: kernels of products.
        reference_c: temperature of energies.
        made_by: version of flopray that made it.
        left_out: rows that were not fitted, by reason; not kept in a file.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        counted: Sequence[Counted] = (),
        reference_c: float = REFERENCE_C,
        made_by: str = __version__,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self.groups, self.counted = tuple(groups), tuple(counted)
        self.reference_c, self.made_by = reference_c, made_by
        self.left_out = dict(left_out or {})

    @property
    def device_types(self) -> tuple[str, ...]:
        """Types of device that have fits."""
        return tuple(sorted({group.where.device_type for group in self.groups}))

    def ways(self, device_type: str, family: str) -> list[tuple[str, str]]:
        """Precisions with executions in which a workload was fitted on a type of device, most rows first."""
        there = [one.where for one in self.groups if (one.where.device_type, one.where.family) == (device_type, family)]
        return [(where.precision, where.execution) for where in sorted(there, key=lambda where: -where.rows)]

    def shapes(self, ways: Mapping[str, Sequence[tuple[str, str]]], family: str, phase: str) -> list[dict[str, int]]:
        """Shapes of a workload at which a phase was fitted, those that are common to all of some ways if there are any.

        Args:
            ways: precisions with executions, by type of device.
            family: of the workload.
            phase: of it.
        """
        found: list[set[tuple[tuple[str, int], ...]]] = []
        for group in self.groups:
            where, domain = group.where, group.fit.domains.get(phase)
            if where.family == family and (where.precision, where.execution) in ways.get(where.device_type, ()):
                found += [set(domain.shapes)] if domain is not None else []
        common = set.intersection(*found) if found else set()
        return [dict(shape) for shape in sorted(common or set().union(*found))]

    def predict(
        self,
        asked: Point | Work,
        phase: str | None = None,
        *,
        device_type: str | None = None,
        model: str = LEARNED,
    ) -> Prediction:
        """What one iteration will cost.

        Args:
            asked: a point whose workload's code is here, or its `Work`.
            phase: of the point.
            device_type: default that of the point.
            model: one of `flopray.predict.fitting.MODELS`.

        Raises:
            InputError: nothing was measured that could answer, or nothing with the choices of the point.
            NoWork: the point's FLOPs or bytes are not known.
        """
        if isinstance(asked, Point):
            if phase is None:
                raise InputError("predict: name a phase of the point")
            device_type = device_type or asked.device_type
            asked = work_of(asked, phase)
        if model not in MODELS:
            raise InputError(f"unknown model {model!r}: choose from {', '.join(MODELS)}")
        group, other = self._group(asked, device_type or "")
        _refuse_other_choices(group, asked)
        time, energy = (values[0] for values in group.fit.predict([asked])[model])
        outside = other or self._why_outside(group, asked)
        if not math.isfinite(time):
            raise InputError(f"{model}: {asked.phase} was not measured on {group.where.device_type}")
        far = other is not None or self._is_far(group, asked)
        counted = group.fit.knows_kernels(asked)

        def estimate(target: str, value: float) -> Estimate:
            interval = group.intervals.get(target, {}).get(model)
            # the error of such answers was not measured
            half = None if far or interval is None else interval.half(outside=outside is not None, counted=counted)
            return _estimate(value, half)

        return Prediction(
            time_s=estimate(TIME, time),
            energy_j=estimate(ENERGY, energy) if math.isfinite(energy) else None,
            outside=outside,
            model=model,
            basis=group.where.label,
            reference_c=self.reference_c,
            same_kind=other is None,
        )

    def waiting_w(self, device_type: str) -> float:
        """Power of a board that waits for small kernels, or at rest between; 0 where no energy is known."""
        fits = [
            one.fit.energy.constants for one in self.groups if one.where.device_type == device_type and one.fit.energy
        ]
        return max((min(values["waiting_w"], values["rest_w"]) for values in fits), default=0.0)

    def _group(self, asked: Work, device_type: str) -> tuple[Group, str | None]:
        """The group that answers, and in what it differs from the question."""
        there = [group for group in self.groups if group.where.device_type == device_type]
        if not there:
            known = ", ".join(self.device_types) or "nothing"
            raise InputError(f"no fit for {device_type or 'this device type'}: there are fits for {known}")
        there = [group for group in there if group.where.precision == asked.precision]
        if not there:
            of_type = [group for group in self.groups if group.where.device_type == device_type]
            known = ", ".join(sorted({group.where.precision for group in of_type}))
            raise InputError(f"no fit for {asked.precision} on {device_type}: there are fits for {known}")
        wanted = (asked.family, asked.execution)
        best = max(there, key=lambda g: (g.where.family == wanted[0], g.where.execution == wanted[1], g.where.rows))
        if best.where.family != asked.family:
            return best, f"{asked.family} was not measured: answered by the fit of {best.where.family}"
        if best.where.execution != asked.execution:
            return best, f"{asked.execution} was not measured: answered by the fit of {best.where.execution}"
        return best, None

    def _is_far(self, group: Group, asked: Work) -> bool:
        domain = group.fit.domains.get(asked.phase)
        if domain is None or domain.is_far(asked):
            return True
        return group.where.device_type != "CPU" and domain.runs_other_kernels(asked)

    def _why_outside(self, group: Group, asked: Work) -> str | None:
        domain = group.fit.domains.get(asked.phase)
        if domain is None:
            return f"{asked.phase} was not measured, but {', '.join(sorted(group.fit.domains))}"
        return domain.why_outside(asked)

    def to_json(self) -> bytes:
        """As JSON, in one line."""
        residuals: list[Residual] = []
        groups = [
            StoredGroup(
                where=one.where,
                fit=stored(one.fit, residuals),
                judged=list(one.judged),
                intervals={target: dict(models) for target, models in one.intervals.items()},
            )
            for one in self.groups
        ]
        made = StoredPredictor(
            made_by=self.made_by,
            reference_c=self.reference_c,
            counted=list(self.counted),
            residuals=residuals,
            groups=groups,
        )
        return msgspec.json.format(msgspec.json.encode(made), indent=0) + b"\n"

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as JSON.

        Raises:
            InputError: the file cannot be written.
        """
        try:
            atomic.write(Path(path), self.to_json())
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error

    @classmethod
    def from_json(cls, text: bytes, source: str = "the file") -> Predictor:
        """Read it; it may be a stranger's.

        Raises:
            InputError: it is not JSON of fitted models.
        """
        if len(text) > _LARGEST_FILE:
            raise InputError(f"{source}: {len(text)} bytes are more than fitted models have")
        try:
            made = msgspec.json.decode(text, type=StoredPredictor)
            made.check()
            choices = KernelChoices(made.counted)
            groups = [
                Group(one.where, restored(one.fit, made.residuals, choices), one.judged, one.intervals)
                for one in made.groups
            ]
        except (msgspec.MsgspecError, ValueError, KeyError, RecursionError) as error:
            raise InputError(f"{source}: not fitted models of flopray: {error}") from None
        return cls(groups, made.counted, made.reference_c, made.made_by)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Predictor:
        """Read a file.

        Raises:
            InputError: it is missing, or holds something else.
        """
        try:
            if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
                raise InputError(f"cannot read {path}: it is not a file")  # a device may have no end
            return cls.from_json(Path(path).read_bytes(), str(path))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _refuse_other_choices(group: Group, asked: Work) -> None:
    """Refuse work whose choices nobody measured: how wrong a number would be is not known, nor in which direction.

    Raises:
        SettingError: naming the choice.
    """
    domains, own = group.fit.domains, group.fit.domains.get(asked.phase)
    measured = [known for one in ([own] if own else domains.values()) for known in one.choices]
    if group.where.family == asked.family and (reason := asked.choices.why_not_measured(measured)):
        raise SettingError(reason)


def _estimate(value: float, half: float | None) -> Estimate:
    if half is None:
        return Estimate(float(value), None, None)
    return Estimate(float(value), float(value * math.exp(-half)), float(value * math.exp(half)))


def fit(
    frames: Sequence[pd.DataFrame],
    *,
    workloads: Mapping[str, Description] | None = None,
    kinds: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    reference_c: float = REFERENCE_C,
    counted: Sequence[Counted] = (),
    judge: bool = True,
) -> Predictor:
    """Fit all models to measured rows, and judge them by rows that are held out.

    Args:
        frames: as `flopray.load_run` gives them.
        workloads: of rows whose workload is not built in: its description, or the class itself, by name.
        kinds: what is held out in turn: letters of dimensions, `board`, `model`; None for all.
        leave_out: models whose rows are not used at all.
        reference_c: temperature of energies, in Celsius.
        counted: kernels of products, besides those of the frames' own counters.
        judge: whether held-out sets are fitted; without, there are no intervals.

    Raises:
        InputError: nothing can be fitted.
    """
    measured = measured_rows(frames, workloads=workloads, leave_out=leave_out, reference_c=reference_c, counted=counted)
    descriptions: dict[str, Description] = {name: cls() for name, cls in BUILT_IN.items()}
    descriptions |= dict(workloads or {})
    _check_kinds(kinds, [descriptions[name] for name in set(measured.column("workload")) if name in descriptions])
    with threadpool_limits(1, user_api="blas"):  # matrices are small: two threads take 1.7 times as long as one
        groups = _fitted_groups(measured, descriptions, kinds, judge=judge)
    return Predictor(groups, measured.counted, reference_c, left_out=measured.left_out)


def _fitted_groups(
    measured: Measured, descriptions: Mapping[str, Description], kinds: Sequence[str] | None, *, judge: bool
) -> list[Group]:
    groups: list[Group] = []
    pools = pools_of(measured)
    for pool in pools:
        devices, choices = devices_of(pool), KernelChoices(pool.counted)
        fits = fit_devices(pool, devices, choices)
        errors: list[SetErrors] = []
        if judge:
            known = {name: descriptions[name] for name in set(pool.column("workload")) if name in descriptions}
            errors = list(set_errors(pool, devices, choices, known, kinds))
        for name, one in fits.items():
            groups.append(_group(pool.of(pool.column("device_type") == name), one, errors))
    groups += _carried_groups(groups, type_errors(pools) if judge else [])
    return groups


def _check_kinds(kinds: Sequence[str] | None, there: Sequence[Description]) -> None:
    known = list(dict.fromkeys(kind for one in there for kind in kinds_of(one)))
    for kind in kinds or ():
        if kind not in known:
            raise InputError(f"rows are not held out by {kind!r:.40}: choose from {', '.join(known)}")


def pools_of(measured: Measured) -> list[Measured]:
    """Rows that are fitted together: of one family at one precision and execution."""
    keys = [(work.family, work.precision, work.execution) for work in measured.works]
    return [measured.of(_equal(keys, key)) for key in sorted(set(keys))]


def _equal(keys: Sequence[object], key: object) -> NDArray[np.bool_]:
    return np.array([one == key for one in keys])


def _group(rows: Measured, one: DeviceFit, errors: Sequence[SetErrors]) -> Group:
    own = [each for each in errors if each.held_out.device_type == one.device.name]
    intervals = intervals_of(own, errors, type_spread(rows))
    return Group(Where.of(rows), one, judgements(own, errors), intervals, own)


def _carried_groups(groups: Sequence[Group], errors: Sequence[SetErrors]) -> Iterator[Group]:
    """For each type and each kind of work that it lacks, the fit of a type with the same chip that has it."""
    devices = {group.where.device_type: group.fit.device for group in groups}
    kinds = {(one.where.device_type, *_kind(one.where)) for one in groups}
    for group in sorted(groups, key=lambda one: -one.where.rows):
        where = group.where
        if not group.judged:  # nobody knows how wrong it is where it was measured
            continue
        for name, device in devices.items():
            key = (name, *_kind(where))
            if key in kinds or not is_alike(group.fit.device, device, where.precision):
                continue
            kinds.add(key)
            wanted = (where.precision, (where.device_type,))
            known = [one for one in errors if (one.held_out.precision, one.held_out.values) == wanted]
            yield Group(
                msgspec.structs.replace(where, device_type=name, carried_from=where.device_type),
                carried(group.fit, device, where.precision),
                judgements(known),
                carried_intervals(group.intervals, known),
            )


def _kind(where: Where) -> tuple[str, str, str]:
    return where.family, where.precision, where.execution
