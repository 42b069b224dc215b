"""Energy per step in Lightning: `Trainer(callbacks=[EnergyMonitor()])`.

Needs lightning, version 2 or newer: https://lightning.ai/docs/pytorch/stable/extensions/callbacks.html. Nothing is
synchronised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from flopray.energy.meter import Meter
from flopray.integrations.step_costs import StepCosts
from flopray.watching.summary import Summary

#: Lightning's names of precisions, and this package's.
_PRECISIONS = {"32": "fp32", "bf16": "bf16", "16": "fp16"}


class EnergyMonitor(Callback):
    """Logs joules, seconds, FLOPs and MFU of a training step into the loggers of the trainer.

    A step ends with the batch in which an optimizer makes one, so it has all batches that are accumulated. Validation,
    checkpoints and logging are in no step. The metrics have the names of
    `flopray.integrations.transformers.EnergyCallback`, and are logged every `log_every_n_steps`.

    Args:
        flops: see `flopray.integrations.step_costs.StepCosts`, as are all that follow.
        precision: see there; by default that of the trainer.
        save: see there.
        meter: see there.

    Attributes:
        summary: of this rank, after the fit.
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
        self._in_step, self._steps_before = False, 0
        self._validation: tuple[int, bool] | None = None

    @property
    def summary(self) -> Summary | None:
        """See the class."""
        return self._costs.summary

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begins to watch."""
        self._costs.stop()
        self._costs.start(_PRECISIONS.get(str(trainer.precision).partition("-")[0]))
        self._in_step = False

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A step begins, unless this batch is one more of a step that has begun."""
        if not self._in_step:
            self._in_step, self._steps_before = True, trainer.global_step
            self._costs.begin()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The step ends if an optimizer has made one."""
        if trainer.global_step == self._steps_before:
            return
        self._costs.end()
        self._in_step = False
        every = trainer.log_every_n_steps
        if every and trainer.global_step // every > self._steps_before // every and (told := self._costs.metrics()):
            pl_module.log_dict(told, rank_zero_only=True)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """A region, which interrupts a step that has begun."""
        self._costs.interrupt()
        if self._costs.watch is not None:
            self._validation = self._costs.watch.open_region("validation", interrupts=True)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """The region ends."""
        if self._validation is not None and self._costs.watch is not None:
            self._costs.watch.close_region(self._validation)
        self._validation = None

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Ends the watch."""
        self._costs.stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Ends the watch; what was measured is kept."""
        self._costs.stop()
