"""Measures evaluations on one device: each is run once, under a watch, and not repeated in a window."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from flopray.energy.nvml import GpuState
from flopray.measurement.columns import failure_of
from flopray.measurement.profiler import Outcome, Profiler
from flopray.measurement.result import Energy, PhaseResult, State, Timing
from flopray.point import Point
from flopray.records import Status
from flopray.watching.api import watch
from flopray.watching.running import Watch
from flopray.watching.summary import RegionSummary
from flopray.workloads.evaluation.harness import Harness
from flopray.workloads.evaluation.scores import cost_columns
from flopray.workloads.evaluation.workload import EVALUATION

#: The region of the watch in which the model answers.
_ANSWERING = "answering"
#: Between two samples of temperature and memory.
_SAMPLE_S = 0.2


class Evaluator(Profiler):
    """The counterpart of `Profiler` for evaluations: it owns the device, its meter and the model.

    An evaluation takes minutes and runs every sample once, without a window: time and energy are those of all answers
        together, by `flopray.watch`. A single run has no scatter, and so its time has no error; that of its energy is
        the counter's. There is no sentinel.
    """

    _harness: Harness | None = None

    def outcomes(self, point: Point) -> list[Outcome]:
        """Evaluate the model of a point on its task; a failure is a row with its reason."""
        missing = dict.fromkeys(column.name for column in point.workload.columns)
        outcome = Outcome(EVALUATION, time.time(), None, further=missing)
        self.device.reset_peak_memory()
        failed = False
        try:
            self._evaluate(point, outcome)
        except Exception as error:
            outcome.failure, failed = failure_of(error), True
        if failed:  # outside of the handler, where the traceback no longer holds the memory that did not fit
            self._asker.forget()
            self._forget()
        outcome.awake_idle_power_w = self._power.awake_idle_power_w
        outcome.ended_unix_s = time.time()
        return [outcome]

    @property
    def _asker(self) -> Harness:
        if self._harness is None:
            self._harness = Harness(self.device.torch_name, self.settings.seed)
        return self._harness

    def _evaluate(self, point: Point, outcome: Outcome) -> None:
        evaluated = self._asker.prepare(point)
        states: list[GpuState | None] = []
        with self._watch() as watched:
            found = evaluated.run(lambda: self._answering(watched, states))
        region = next(part for part in watched.summary().regions if part.name == _ANSWERING)
        state = State(states[0], states[-1], self.device.other_processes(), self.device.peak_memory_bytes())
        energy = self._energy(region, watched)
        clock = "cuda_events" if self.device.is_cuda else "perf_counter"
        timing = Timing(region.time_s, None, 1, clock, None, region.time_s)
        outcome.result = PhaseResult(timing, energy, state)
        costs = {"time_s": region.time_s, "energy_j": energy.energy_j, "energy_rel_error": energy.rel_error}
        outcome.further |= found | cost_columns(found | costs)

    def _watch(self) -> Watch:
        """A watch over this device; without a meter it knows time alone."""
        if self.device.is_cuda:
            return watch(devices=[self.device.torch_name], cpu=False, every=_SAMPLE_S)
        if self._power.meter is None:
            return watch(devices=(), cpu=False, every=_SAMPLE_S)
        return watch(meter=self.device.open_meter(), cpu=False, every=_SAMPLE_S)

    @contextmanager
    def _answering(self, watched: Watch, states: list[GpuState | None]) -> Iterator[None]:
        """The model answers; the states of the device before and after are added to a list."""
        states.append(self.device.state())
        with watched.region(_ANSWERING):
            yield
        states.append(self.device.state())

    def _energy(self, region: RegionSummary, watched: Watch) -> Energy:
        """Energy of all answers, or why there is none."""
        if self._power.meter is None:
            return self._power.without
        source = self._power.meter.source
        if region.energy_j is None:
            return Energy(str(Status.FAILED), region.reason, source)
        error = region.energy_error_j
        rel_error = error / region.energy_j if error is not None and region.energy_j > 0 else None
        return Energy(
            str(Status.OK),
            source=source,
            energy_j=region.energy_j,
            rel_error=rel_error,
            power_w=region.energy_j / region.time_s,
            power_rel_error=rel_error,
            temperature_c=self._temperature_c(watched),
            window_s=region.time_s,
        )

    def _temperature_c(self, watched: Watch) -> float | None:
        """Mean temperature of the samples in which the model answered; None where the device reports none."""
        samples = watched.frame
        inside = np.asarray(samples["temperature_c"], dtype=float)[np.asarray(samples["region"]) == _ANSWERING]
        return float(np.nanmean(inside)) if np.isfinite(inside).any() else None
