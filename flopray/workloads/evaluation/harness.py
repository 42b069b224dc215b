"""Runs all requests of a task on a model by the lm-evaluation-harness, and marks the part that is measured.

The measured part is the model answering: tokenising requests, computing, and returning results to the host. What comes
before (loading weights and data, writing requests) and after (scoring) is the harness's work, and takes the same time
for every model.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

from flopray.errors import InputError
from flopray.point import Point
from flopray.records import Row
from flopray.workloads.evaluation.scores import interval_of, score_of
from flopray.workloads.evaluation.tasks import silent, the_task
from flopray.workloads.evaluation.workload import count_of

#: A block around what is measured.
Region = Callable[[], AbstractContextManager[Any]]
#: Tokens of the sequences that warm the model up: kernels are chosen and memory is allocated before anything is
#: measured.
_WARM_UP_TOKENS = 64
#: Draws for the standard error of metrics that have no formula, such as f1: known to about 2 %. The harness's own
#: 100,000 take hours on a large task, in processes forked from this one with its threads and its GPU.
_BOOTSTRAP = 1000
_IN_THIS_PROCESS = "DISABLE_MULTIPROC"


class Harness:
    """A loaded model, which is kept for the next point if that has the same one.

    Args:
        device: torch device, such as `cuda:0` or `cpu`.
        seed: of examples that are drawn, and of generation that samples.
    """

    def __init__(self, device: str, seed: int) -> None:
        self._device, self._seed = device, seed
        self._loaded: tuple[tuple[str, str], Any] | None = None

    def prepare(self, point: Point) -> Evaluated:
        """Load the model, if it is another one, and the task's data; warm the model up.

        Raises:
            InputError: the task or its data is not here.
        """
        task = the_task(point.task, point.include_path)
        model = self._model(point)
        model.batch_size_per_gpu = point.batch_size
        self._warm_up(model, point.batch_size)
        return Evaluated(point, model, task, self._seed)

    def forget(self) -> None:
        """Free the model."""
        self._loaded = None

    def _model(self, point: Point) -> Any:
        from flopray.workloads.phases import DTYPES, check_precision, set_tf32

        check_precision(point.precision, self._device)
        set_tf32(point.precision == "tf32")
        which = (point.model, point.precision)
        if self._loaded is None or self._loaded[0] != which:
            self._loaded = None
            with silent():
                made = _watched_model()(
                    pretrained=point.model,
                    dtype=DTYPES[point.precision],
                    device=self._device,
                    batch_size=point.batch_size,
                    trust_remote_code=False,
                    use_safetensors=True,
                )
            self._loaded = (which, made)
        return self._loaded[1]

    def _warm_up(self, model: Any, batch_size: int) -> None:
        import torch

        length = min(_WARM_UP_TOKENS, model.max_length)
        tokens = torch.zeros((batch_size, length), dtype=torch.long, device=model.device)
        with torch.no_grad():
            model.model(tokens)


class Evaluated:
    """A model and a task, ready to run.

    Attributes:
        parameters: weights of the model.
    """

    def __init__(self, point: Point, model: Any, task: Any, seed: int) -> None:
        self._point, self._model, self._task, self._seed = point, model, task, seed
        self.parameters = sum(weight.numel() for weight in model.model.parameters())

    def run(self, region: Region) -> Row:
        """Have the task evaluated.

        Args:
            region: entered whenever the model answers.

        Returns:
            The columns of the score, of the samples, and of what was evaluated.

        Raises:
            InputError: the task gives no number.
        """
        import numpy as np
        import torch
        from lm_eval.evaluator import evaluate

        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(self._seed)
        point, task = self._point, self._task
        self._set_examples(count_of(point.num_fewshot))
        self._model.region, self._model.answered = region, 0
        with silent(), _set(_IN_THIS_PROCESS):
            results = evaluate(
                self._model,
                {"tasks": {point.task: task}},
                bootstrap_iters=_BOOTSTRAP,
                limit=count_of(point.limit),
                log_samples=False,
                apply_chat_template=point.chat_template,
                fewshot_as_multiturn=point.chat_template,
            )
        return self._columns(results or {})

    def _set_examples(self, wanted: int | None) -> None:
        """As the harness's own command does: a task that fixes the number of examples at 0 keeps it."""
        own = self._task.get_config("num_fewshot")
        if wanted is not None and own != 0:
            self._task.set_config(key="num_fewshot", value=wanted)
        elif own is None:
            self._task.set_config(key="num_fewshot", value=0)
        self._task.set_fewshot_seed(seed=self._seed)

    def _columns(self, results: Mapping[str, Any]) -> Row:
        from lm_eval import __version__

        task = self._point.task
        found = score_of(results["results"][task], results.get("higher_is_better", {}).get(task) or {})
        if found is None:
            raise InputError(f"the task {task} gives no metric that is a number")
        samples, version = results["n-samples"][task], results.get("versions", {}).get(task)
        low, high = interval_of(found.value, found.stderr, int(samples["effective"])) or (None, None)
        return found.columns() | {
            "score_low": low,
            "score_high": high,
            "samples": int(samples["effective"]),
            "samples_of_task": int(samples["original"]),
            "requests": self._model.answered,
            "fewshot_examples": int(results["n-shot"][task]),
            "parameters": self.parameters,
            "model_commit": getattr(self._model.model.config, "_commit_hash", None),
            "task_version": None if version is None else str(version),
            "harness_version": __version__,
        }


@contextmanager
def _set(variable: str) -> Iterator[None]:
    """Sets an environment variable to 1 inside the block, and restores it afterwards."""
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


@cache
def _watched_model() -> type[Any]:
    """The harness's model of transformers, which enters a region whenever it answers."""
    from lm_eval.models.huggingface import HFLM

    class Watched(HFLM):
        region: Region
        answered: int

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
            del disable_tqdm
            return self._answer(super().loglikelihood, requests)

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
            del disable_tqdm
            return self._answer(super().loglikelihood_rolling, requests)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
            del disable_tqdm
            return self._answer(super().generate_until, requests)

        def _answer(self, how: Callable[..., Any], requests: list[Any]) -> Any:
            self.answered += len(requests)
            with self.region():
                return how(requests, disable_tqdm=True)

    return Watched
