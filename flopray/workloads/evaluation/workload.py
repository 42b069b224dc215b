"""The workload `evaluation`: its fields, its columns, and what is refused before a run begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from flopray.description import Column, Field
from flopray.errors import InputError, SettingError
from flopray.point import Point
from flopray.workloads.base import Built, Workload
from flopray.workloads.evaluation.models import find_model
from flopray.workloads.evaluation.tasks import GLUE, HARNESS, check_folder, code_in, find_tasks, require_harness

#: The one phase: the model answers all requests of the task, once.
EVALUATION = "evaluation"
#: Words in place of numbers: all samples of a task, and as many examples as the task states.
ALL, OF_THE_TASK = "all", "task"
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
_NO_FLOPS = "what an evaluation computes depends on its samples: it is measured, not counted"
_BATCH = "sequences that the model answers at once"


class Evaluation(Workload):
    """Evaluate language models: score and standard error on tasks, joules and seconds of a sample and of a point."""

    name = "evaluation"
    fields = (
        Field(name="model", letter="model", type=str, free=True, doc="hub id, or folder of save_pretrained"),
        Field(name="task", letter="task", type=str, free=True, flag="--tasks", values=GLUE, doc="of the harness"),
        Field(
            name="include_path",
            type=str,
            free=True,
            values=(HARNESS,),
            doc="folder with tasks of your own, each a YAML file",
        ),
        Field(
            name="num_fewshot",
            type=str,
            free=True,
            values=(OF_THE_TASK,),
            doc="examples before each sample, or task: as many as the task states",
        ),
        Field(name="limit", type=str, free=True, values=(ALL,), doc="first samples of each task, or all"),
        Field(
            name="chat_template",
            type=bool,
            values=("off",),
            words={"off": False, "on": True},
            doc="whether samples are put to the model as a user's messages",
        ),
        Field(name="batch_size", letter="b", label="sequences", values=(8,), gpu_values=(32,), doc=_BATCH),
    )
    columns = (
        Column(name="score", type=float, doc="of the model on the task: its first metric"),
        Column(name="score_stderr", type=float, doc="standard error of the score over the samples, by the harness"),
        Column(
            name="score_low",
            type=float,
            doc="lower end of its 95 % interval over the samples: Wilson's of a share, else 1.96 standard errors",
        ),
        Column(name="score_high", type=float, doc="upper end of that interval"),
        Column(name="score_metric", type=str, doc="which metric it is, such as acc"),
        Column(name="score_filter", type=str, doc="filter of the answers that it judges, such as none"),
        Column(name="score_higher_is_better", type=bool, doc="the direction of the metric"),
        Column(name="scores", type=str, doc="JSON: all metrics of the task, with their standard errors"),
        Column(name="samples", type=int, doc="that were evaluated"),
        Column(name="samples_of_task", type=int, doc="that the task has"),
        Column(name="requests", type=int, doc="that the model answered; a choice among k texts is k of them"),
        Column(name="fewshot_examples", type=int, doc="before each sample"),
        Column(name="time_per_sample_s", type=float, doc="time_s / samples"),
        Column(name="energy_per_sample_j", type=float, doc="energy_j / samples"),
        Column(name="time_per_point_s", type=float, doc="time_s / (100 * score)"),
        Column(
            name="time_per_point_rel_error",
            type=float,
            doc="half width of its 95 % interval over it: half of the score's interval over the score",
        ),
        Column(name="energy_per_point_j", type=float, doc="energy_j / (100 * score)"),
        Column(
            name="energy_per_point_rel_error",
            type=float,
            doc="half width of its 95 % interval over it: of energy and score, in quadrature",
        ),
        Column(name="per_point_reason", type=str, doc="why a point has no cost"),
        Column(name="parameters", type=int, doc="weights of the model"),
        Column(name="model_commit", type=str, doc="of the model on the hub; missing for a folder"),
        Column(name="task_version", type=str, doc="that the task's description states"),
        Column(name="harness_version", type=str, doc="of lm-eval"),
    )
    phases = (EVALUATION,)
    default_phases = (EVALUATION,)
    gpu_precisions = ("bf16",)
    gpu_execution = ("eager", "as the harness runs it")
    as_a_whole: ClassVar[bool] = True
    figures: ClassVar[str] = "scores"
    examples = "`flopray evaluate --help` has the same with fewer words."

    def complete(
        self, axes: Mapping[str, tuple[Any, ...]]
    ) -> tuple[Mapping[str, tuple[Any, ...]], Mapping[str, Mapping[Any, Mapping[str, Any]]]]:
        """Find models and tasks, and load the tasks' data: what is missing is said before anything starts.

        Raises:
            InputError: naming what is missing and how to get it.
        """
        require_harness()
        for name, word in (("num_fewshot", OF_THE_TASK), ("limit", ALL)):
            least = 0 if name == "num_fewshot" else 1
            for value in axes[name]:
                _check_count(name, value, word, least)
        if len(axes["include_path"]) > 1:
            raise SettingError("<include_path>: name one folder")
        folder = check_folder(str(next(iter(axes["include_path"]))))
        models = tuple(dict.fromkeys(find_model(name) for name in axes["model"]))
        if len(models) < len(axes["model"]):
            raise InputError("two of the models are the same folder")
        tasks = find_tasks(tuple(axes["task"]), folder)
        return {**axes, "model": models, "task": tasks, "include_path": (folder,)}, {}

    def why_not(self, point: Point, capability: tuple[int, int] | None) -> str | None:
        """An evaluation runs as the harness runs it."""
        del capability
        if point.execution != "eager":
            return f"the harness runs models eagerly, not by {point.execution}: leave execution out"
        if point.precision not in PRECISIONS:
            return f"models are evaluated at {', '.join(PRECISIONS)}, not at {point.precision}"
        return None

    def build(self, point: Point, *, device: str, dtype: Any, seed: int) -> Built:
        """There is no single input: `flopray.workloads.evaluation.harness` loads and runs the model."""
        del device, dtype, seed
        raise InputError(f"{point.label()}: an evaluation is run by `flopray evaluate`, not phase by phase")

    def beside(self, point: Point, phase: str) -> Mapping[str, Any]:
        """Why there are no FLOPs."""
        del point, phase
        return {"model_flops_reason": _NO_FLOPS}

    def dispatched(self, point: Point) -> Mapping[str, int | str | None]:
        """There is nothing to count on the meta device."""
        del point
        return {EVALUATION: _NO_FLOPS}

    def parameters(self, point: Point) -> int:
        """Known when the model is loaded."""
        del point
        return 0

    def code_of(self, axes: Mapping[str, tuple[Any, ...]]) -> str | None:
        """Descriptions of tasks may call functions in files beside them."""
        folder = axes["include_path"][0]
        return None if folder == HARNESS else code_in(check_folder(folder))

    def loads_weights(self, point: Point) -> bool:
        """They are read from a disk."""
        del point
        return True


def count_of(word: str) -> int | None:
    """The number of a field that takes a word in its place; None for the word."""
    return None if word in (ALL, OF_THE_TASK) else int(word)


def _check_count(name: str, value: str, word: str, least: int) -> None:
    flag = "--" + name.replace("_", "-")
    if value == word:
        return
    if not (value.isascii() and value.isdecimal() and str(int(value)) == value):
        raise InputError(f"{flag}: {value!r:.40} is neither a whole number nor {word!r}")
    if int(value) < least:
        raise InputError(f"{flag}: {value} is below {least}")
