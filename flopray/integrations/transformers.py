"""Energy per step in the Trainer of transformers: `Trainer(..., callbacks=[EnergyCallback()])`.

Needs transformers, version 5 or newer: https://huggingface.co/docs/transformers/main_classes/callback
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler

from flopray.energy.meter import Meter
from flopray.integrations.step_costs import StepCosts
from flopray.watching.summary import Summary


class EnergyCallback(TrainerCallback):
    """Logs joules, seconds, FLOPs and MFU of a training step into whatever the Trainer logs to.

    A step is one of the optimizer, with all batches that it accumulates. Logging, saving and evaluating are in no step.
    The metrics are `energy_per_step_j`, `energy_per_step_rel_error` (half width of the 95 % interval),
    `time_per_step_s`, `flops_per_step` and `mfu`, over the steps since the last log, and of at least 5 s; one that is
    not known is not logged, and a warning says why. With several ranks, energy and FLOPs are those of all of them, and
    rank 0 logs.

    Args:
        flops: see `flopray.integrations.step_costs.StepCosts`, as are all that follow.
        precision: see there; by default that of the Trainer's arguments.
        save: see there.
        meter: see there.

    Attributes:
        summary: of this rank, after the training.
    """

    def __init__(
        self,
        *,
        flops: bool | float = True,
        precision: str | None = None,
        save: str | Path | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._costs = StepCosts(flops=flops, precision=precision, save=save, meter=meter)
        self._evaluation: tuple[int, bool] | None = None

    @property
    def summary(self) -> Summary | None:
        """See the class."""
        return self._costs.summary

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begins to watch, and goes before the callbacks that log: they write what `on_log` finds."""
        del state, control, kwargs
        handler = sys._getframe(1).f_locals.get("self")
        if isinstance(handler, CallbackHandler):
            # A new list: the handler goes through the old one right now.
            handler.callbacks = [self, *(callback for callback in handler.callbacks if callback is not self)]
        self._costs.stop()
        self._costs.start(_precision(args))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step begins."""
        self._end_evaluation()
        self._costs.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step ends, before it is logged, saved or evaluated."""
        self._costs.end()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Adds the costs to a log of training, not to one of an evaluation or of the end."""
        if logs is None or "loss" not in logs:
            return
        metrics = self._costs.metrics()
        if state.is_world_process_zero:
            logs.update(metrics)
            if state.log_history:
                state.log_history[-1].update(metrics)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The first batch of an evaluation begins a region."""
        if self._evaluation is None and self._costs.watch is not None:
            self._evaluation = self._costs.watch.open_region("evaluation", interrupts=True)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The evaluation ends."""
        self._end_evaluation()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the watch."""
        self._end_evaluation()
        self._costs.stop()

    def _end_evaluation(self) -> None:
        if self._evaluation is not None and self._costs.watch is not None:
            self._costs.watch.close_region(self._evaluation)
        self._evaluation = None


def _precision(args: Any) -> str:
    for name in ("bf16", "fp16"):
        if getattr(args, name, False):
            return name
    return "tf32" if getattr(args, "tf32", False) else "fp32"
