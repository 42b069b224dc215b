"""The rows of evaluations, as series (a model at a precision on a device) over tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flopray.errors import InputError
from flopray.store.location import open_run
from flopray.units import counted
from flopray.workloads.evaluation.scores import SHARES
from flopray.workloads.evaluation.workload import Evaluation

#: Columns that make a series besides the model where they differ between rows, and how they are written.
_VARY = {
    "precision": "{}",
    "device_type": "{}",
    "batch_size": "batch {}",
    "num_fewshot": "{} examples",
    "limit": "limit {}",
    "chat_template": "chat template {}",
    "include_path": "{}",
    "seed": "seed {}",
}
#: Columns by which two rows are the same evaluation.
_SAME = ("model", "task", "device_name", *_VARY)
#: Name of the panel over all tasks.
MEAN = "mean of all tasks"


@dataclass(frozen=True)
class Result:
    """One series on one task, or on all of them.

    Attributes:
        series: its name, such as `pythia-160m bf16`.
        model: its short name.
        task: name of the task, or `MEAN`.
        metric: of the score.
        score: NaN where there is none.
        score_low: lower end of its 95 % interval over the samples; NaN where not known.
        score_high: upper end.
        higher_is_better: the direction of the metric.
        samples: that were evaluated.
        time_per_sample_s: NaN where there is none.
        energy_per_sample_j: NaN where there is none.
        energy_rel_error: half width of its 95 % interval over it; NaN where not known.
        time_per_point_s: NaN where there is none.
        time_per_point_rel_error: half width of its 95 % interval over it; NaN where not known.
        energy_per_point_j: NaN where there is none.
        energy_per_point_rel_error: half width of its 95 % interval over it; NaN where not known.
        status: of the row.
        reason: why there is no score.
        energy_reason: why there is no energy.
    """

    series: str
    model: str
    task: str
    metric: str = ""
    score: float = math.nan
    score_low: float = math.nan
    score_high: float = math.nan
    higher_is_better: bool = True
    samples: int = 0
    time_per_sample_s: float = math.nan
    energy_per_sample_j: float = math.nan
    energy_rel_error: float = math.nan
    time_per_point_s: float = math.nan
    time_per_point_rel_error: float = math.nan
    energy_per_point_j: float = math.nan
    energy_per_point_rel_error: float = math.nan
    status: str = "ok"
    reason: str = ""
    energy_reason: str = ""


@dataclass(frozen=True)
class Evaluations:
    """All results of some runs.

    Attributes:
        results: of each series on each task, in the order of the runs.
        means: of each series that has a score on all tasks, where there are several.
        notes: on the choice of rows.
    """

    results: tuple[Result, ...]
    means: tuple[Result, ...]
    notes: tuple[str, ...]

    @property
    def tasks(self) -> list[str]:
        """In the order of the rows."""
        return list(dict.fromkeys(result.task for result in self.results))

    @property
    def models(self) -> list[str]:
        """In the order of the rows."""
        return list(dict.fromkeys(result.model for result in self.results))

    @property
    def series(self) -> list[str]:
        """In the order of the rows."""
        return list(dict.fromkeys(result.series for result in self.results))


def load_evaluations(paths: Sequence[Path | str]) -> Evaluations:
    """The evaluations of some runs.

    Args:
        paths: folders of runs; one that is named twice is read once.

    Raises:
        InputError: a path is not a run, is a run of another workload, or has no rows yet.
    """
    frames = []
    for path in dict.fromkeys(map(str, paths)):
        folder = open_run(path)
        if (name := folder.workload.name) != Evaluation.name:
            raise InputError(f"{path} is a run of {name or 'no workload'}, which has no scores: name an evaluation")
        frames.append(folder.load())
    return evaluations_of(pd.concat(frames, ignore_index=True), ", ".join(map(str, paths)))


def evaluations_of(frame: pd.DataFrame, where: str = "the run") -> Evaluations:
    """The evaluations of some rows, with the columns of the records.

    Raises:
        InputError: there is no row.
    """
    if frame.empty:
        raise InputError(f"{where}: no rows yet")
    # Of equal evaluations the last one is shown, not a mean, since a repeat finds the same score.
    ordered = frame.sort_values("ended_unix_s", kind="stable", na_position="first")
    kept = ordered.drop_duplicates(subset=list(_SAME), keep="last").sort_index()
    notes = []
    if left_out := len(frame) - len(kept):
        earlier = counted(left_out, "earlier one is", "earlier ones are")
        notes.append(f"evaluated more than once: the latest rows are shown, {earlier} left out")
    names, labels = short_names(list(kept["model"])), _labels(kept)
    results = tuple(_result(row, names, labels) for row in kept.astype(object).to_dict("records"))
    tasks = dict.fromkeys(result.task for result in results)
    means = tuple(_means(results, list(tasks))) if len(tasks) > 1 else ()
    return Evaluations(results, means, tuple(notes))


def short_names(models: Sequence[str]) -> dict[str, str]:
    """A short name for each model: the last parts of a path or a hub id, as many as make it unique.

    Example:
        >>> short_names(["/a/one/last", "/a/two/last", "org/base"])
        {'/a/one/last': 'one/last', '/a/two/last': 'two/last', 'org/base': 'base'}
    """
    unique = list(dict.fromkeys(models))
    names = {}
    for model in unique:
        parts = model.strip("/").split("/")
        depth = 1
        others = [other.strip("/").split("/") for other in unique if other != model]
        while depth < len(parts) and any(other[-depth:] == parts[-depth:] for other in others):
            depth += 1
        names[model] = "/".join(parts[-depth:])
    return names


def _labels(frame: pd.DataFrame) -> list[str]:
    """Columns that tell series apart beside the model."""
    return [name for name in _VARY if len(set(frame[name])) > 1 or name == "precision"]


def _result(row: dict[Any, Any], names: dict[str, str], labels: Sequence[str]) -> Result:
    model = names[row["model"]]
    words = [_VARY[name].format(_word(row[name])) for name in labels]
    if row["status"] != "ok":
        status, reason = str(row["status"]), str(row["status_reason"] or "")
        return Result(" ".join([model, *words]), model, row["task"], status=status, reason=reason)
    return Result(
        series=" ".join([model, *words]),
        model=model,
        task=row["task"],
        metric=row["score_metric"],
        score=_number(row["score"]),
        score_low=_number(row["score_low"]),
        score_high=_number(row["score_high"]),
        higher_is_better=row["score_higher_is_better"] is not False,
        samples=int(row["samples"]),
        time_per_sample_s=_number(row["time_per_sample_s"]),
        energy_per_sample_j=_number(row["energy_per_sample_j"]),
        energy_rel_error=_number(row["energy_rel_error"]),
        time_per_point_s=_number(row["time_per_point_s"]),
        time_per_point_rel_error=_number(row["time_per_point_rel_error"]),
        energy_per_point_j=_number(row["energy_per_point_j"]),
        energy_per_point_rel_error=_number(row["energy_per_point_rel_error"]),
        energy_reason="" if _is_missing(row["energy_reason"]) else str(row["energy_reason"]),
    )


def _means(results: Sequence[Result], tasks: Sequence[str]) -> list[Result]:
    """The unweighted mean score of each series that has a share of 1 on every task, and its costs over all samples."""
    found = []
    for series in dict.fromkeys(result.series for result in results):
        own = [result for result in results if result.series == series and math.isfinite(result.score)]
        if sorted(result.task for result in own) != sorted(tasks):
            continue
        if not all(result.metric in SHARES and result.higher_is_better for result in own):
            continue
        samples, n = sum(result.samples for result in own), len(own)
        energies = [result.energy_per_sample_j * result.samples for result in own]
        errors = [energy * result.energy_rel_error for energy, result in zip(energies, own, strict=True)]
        energy, score = sum(energies), sum(result.score for result in own) / n
        half = math.hypot(*((result.score_high - result.score_low) / 2 for result in own)) / n
        found.append(
            Result(
                series=series,
                model=own[0].model,
                task=MEAN,
                metric=own[0].metric if len({result.metric for result in own}) == 1 else "score",
                score=score,
                score_low=max(score - half, 0.0),
                score_high=min(score + half, 1.0),
                samples=samples,
                time_per_sample_s=sum(result.time_per_sample_s * result.samples for result in own) / samples,
                energy_per_sample_j=energy / samples,
                # Windows of one counter have errors of one kind: they add up.
                energy_rel_error=sum(errors) / energy if energy > 0 else math.nan,
            )
        )
    return found


def _number(value: Any) -> float:
    return math.nan if _is_missing(value) else float(value)


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value != value


def _word(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
