"""Results of an evaluation as columns: the score with its standard error, and the cost of a sample and of a point.

A *point* is a hundredth of a score that is a share: of an accuracy of 0.62 there are 62. Standard library only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flopray.records import Row

#: Metrics of the harness that are shares of 1, so that a hundredth of them is a point:
#: https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/task_guide.md
SHARES = frozenset(
    (
        *("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_all", "exact_match", "em", "f1", "mcc"),
        *("pass@1", "contains"),
    )
)
#: Half width of a 95 % interval in standard errors.
_HALF_WIDTH = 1.96
#: Longest text of a metric that a journal keeps.
_LARGEST_TEXT = 4000


def interval_of(score: float, stderr: float | None, samples: int) -> tuple[float, float] | None:
    """The 95 % interval of a score over its samples; None where no error is known.

    Where the score is the share of samples that are right, which its standard error shows, it is Wilson's: that of a
    model that had all 20 of 20 right is not of zero width (https://doi.org/10.1080/01621459.1927.10502953). Else it is
    1.96 standard errors to either side.

    Args:
        score: the score.
        stderr: its standard error.
        samples: that were evaluated.

    Example:
        >>> [round(end, 3) for end in interval_of(1.0, 0.0, 20)], [round(end, 3) for end in interval_of(5.2, 0.1, 9)]
        ([0.839, 1.0], [5.004, 5.396])
    """
    if stderr is None or samples < 1:
        return None
    if not 0 <= score <= 1 or samples < 2 or not _is_of_a_share(score, stderr, samples):
        return score - _HALF_WIDTH * stderr, score + _HALF_WIDTH * stderr
    z2 = _HALF_WIDTH**2 / samples
    middle = (score + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * score * (1 - score) + z2**2 / 4) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def _is_of_a_share(score: float, stderr: float, samples: int) -> bool:
    """Whether a standard error is that of the mean of zeros and ones."""
    return math.isclose(stderr, math.sqrt(score * (1 - score) / (samples - 1)), rel_tol=1e-3, abs_tol=1e-9)


@dataclass(frozen=True)
class Score:
    """The score of one task.

    Attributes:
        metric: its name in the harness.
        filter_name: of the answers that it judges, such as `none` or `strict-match`.
        value: the score.
        stderr: its standard error over the samples; None where the harness gives none.
        higher_is_better: the direction; None where the task does not say.
        every: all metrics of the task as JSON, as the harness names them.
    """

    metric: str
    filter_name: str
    value: float
    stderr: float | None
    higher_is_better: bool | None
    every: str

    def columns(self) -> Row:
        """By the columns of the workload."""
        return {
            "score": self.value,
            "score_stderr": self.stderr,
            "score_metric": self.metric,
            "score_filter": self.filter_name,
            "score_higher_is_better": self.higher_is_better,
            "scores": self.every,
        }


def score_of(results: Mapping[str, Any], higher_is_better: Mapping[str, Any]) -> Score | None:
    """The score of a task: the first metric that the task names, which is that of its authors' tables.

    Args:
        results: of the harness by `metric,filter`; a standard error is `metric_stderr,filter`.
        higher_is_better: by metric.

    Returns:
        The score; None where no metric is a number.

    Example:
        >>> found = score_of({"alias": "rte", "acc,none": 0.6, "acc_stderr,none": 0.03}, {"acc": True})
        >>> found.metric, found.value, found.stderr
        ('acc', 0.6, 0.03)
    """
    every = {name: value for name, value in results.items() if "," in name}
    for name, value in every.items():
        metric, _, filter_name = name.partition(",")
        if metric.endswith("_stderr") or (number := _finite(value)) is None:
            continue
        stderr = _finite(results.get(f"{metric}_stderr,{filter_name}"))
        better = higher_is_better.get(metric)
        text = json.dumps(every, default=str)
        text = text if len(text) <= _LARGEST_TEXT else json.dumps({name: value})
        return Score(metric, filter_name, number, stderr, better if isinstance(better, bool) else None, text)
    return None


def cost_columns(row: Mapping[str, Any]) -> Row:
    """The cost of a sample and of a point, or why there is no cost of a point.

    Args:
        row: with `score`, its interval, `samples`, and time and energy of all answers; energy may be missing.

    Example:
        >>> found = cost_columns({"score": 0.5, "score_low": 0.4, "score_high": 0.6, "score_metric": "acc",
        ...                       "samples": 20, "time_s": 10.0, "energy_j": 200.0})
        >>> found["energy_per_sample_j"], found["energy_per_point_j"], found["time_per_point_s"]
        (10.0, 4.0, 0.2)
    """
    columns: Row = {}
    time_s, energy_j, samples = row.get("time_s"), row.get("energy_j"), row.get("samples")
    if samples:
        columns["time_per_sample_s"] = None if time_s is None else time_s / samples
        columns["energy_per_sample_j"] = None if energy_j is None else energy_j / samples
    if reason := _why_no_points(row):
        return columns | {"per_point_reason": reason}
    points = 100 * row["score"]
    low, high = row.get("score_low"), row.get("score_high")
    score_error = None if low is None or high is None else (high - low) / 2 / row["score"]
    columns["time_per_point_s"] = None if time_s is None else time_s / points
    columns["time_per_point_rel_error"] = score_error
    if energy_j is None:
        return columns
    energy_error = row.get("energy_rel_error")
    columns["energy_per_point_j"] = energy_j / points
    if score_error is not None and energy_error is not None:
        columns["energy_per_point_rel_error"] = math.hypot(score_error, energy_error)
    return columns


def _why_no_points(row: Mapping[str, Any]) -> str | None:
    """Why a score has no points; None where it has."""
    score, metric = row.get("score"), row.get("score_metric")
    if score is None:
        return "there is no score"
    if metric not in SHARES:
        return f"a hundredth of {metric} is not a point: it is not a share of 1"
    if row.get("score_higher_is_better") is False:
        return f"a lower {metric} is better"
    if not 0 < score <= 1:
        return f"a score of {score:.4g} has no points: it is not above 0" if score <= 0 else f"{metric} is above 1"
    return None


def _finite(value: Any) -> float | None:
    """A number of the harness, whose numbers may be numpy's, and whose missing ones are texts such as N/A."""
    if isinstance(value, bool | str) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
