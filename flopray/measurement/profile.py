"""`profile`: the phases of one point of a workload, measured in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from flopray.errors import InputError, several
from flopray.measurement.api import checked_reference, device_of
from flopray.measurement.host import cores_here, cpu_threads
from flopray.measurement.profiler import Profiler
from flopray.measurement.result import with_error
from flopray.point import Point
from flopray.records import PhaseRecord, Status
from flopray.settings import MeasureSettings
from flopray.store.schema import RecordSchema
from flopray.units import prefixed
from flopray.workloads.base import Workload

if TYPE_CHECKING:
    import pandas as pd


class Profile(list[PhaseRecord]):
    """The records of one point, one a phase; `print` shows them as lines.

    Attributes:
        point: that was measured.
    """

    def __init__(self, point: Point, records: Sequence[PhaseRecord]) -> None:
        super().__init__(records)
        self.point = point

    def frame(self) -> pd.DataFrame:
        """The records as `flopray.load_run` gives those of a run: a row for each phase."""
        from flopray.store import table

        schema = RecordSchema(self.point.workload)
        rows = [schema.defaults | record.columns() for record in self]
        return table.to_frame(table.from_batches(table.batches([rows], schema), schema=schema))

    def __repr__(self) -> str:
        """A line for each phase, as in a lab book, and one for each reason why there is no energy."""
        where = self[0].device_name if self else "no phase"
        width = max((len(record.phase) for record in self), default=0)
        lines = [f"{record.phase:<{width}}  {_values(record)}" for record in self]
        without = [record for record in self if record.energy_status == Status.NO_ENERGY_SOURCE]
        lines += [f"no energy: {reason}" for reason in dict.fromkeys(record.energy_reason for record in without)]
        return "\n".join([f"{self.point.label()} on {where}", *(f"  {line}" for line in lines)])


def profile(
    workload: Workload,
    *,
    precision: str = "fp32",
    execution: str = "eager",
    phases: Sequence[str] | None = None,
    instruments: Sequence[str] = MeasureSettings.instruments,
    target_error: float = MeasureSettings.target_error,
    max_seconds: float = MeasureSettings.max_seconds,
    seed: int = MeasureSettings.seed,
    reference_temperature: float = MeasureSettings.reference_temperature_c,
    device: str | None = None,
    threads: int | None = None,
) -> Profile:
    """Measure every phase of one shape of a workload, here and without Ray, as a sweep would.

    Args:
        workload: with its values, such as `MLP(n_layers=8, width=1024, tokens=128)`.
        precision: one of `flopray.point.PRECISIONS`.
        execution: `eager`, `graph` (CUDA graph) or `compile`.
        phases: of the workload; by default its usual ones.
        instruments: of `time`, `energy` and `counters`.
        target_error: relative half width of the 95 % interval that ends a window.
        max_seconds: cap on a window.
        seed: of weights and inputs.
        reference_temperature: in Celsius; that of `energy_at_reference_j` of a GPU.
        device: a torch device such as `cuda:1` or `cpu`; by default the current GPU, or the CPU where there is none.
        threads: that compute on a CPU; by default as in a sweep, one fewer than there are cores. The process's own
            number is restored afterwards.

    Returns:
        One record a phase. A phase that cannot be measured has a `status` and a `status_reason`; what the device lacks
        (an energy source, counters) is missing with its reason.

    Raises:
        InputError: an impossible argument.

    Example:
        >>> from flopray.workloads import MLP
        >>> mlp = MLP(n_layers=2, width=64, tokens=16)
        >>> records = profile(mlp, phases=["forward"], max_seconds=0.3, device="cpu")
        >>> records[0].model_flops  # 2 n d^2 m + n d m
        264192
        >>> records[0].time_s > 0
        True
    """
    if not isinstance(workload, Workload) or not workload.values:
        got = workload.__name__ if isinstance(workload, type) else f"{workload!r:.60}"
        raise InputError(f"workload: give one with its values, such as MLP(n_layers=8, ...), got {got}")
    RecordSchema(workload)  # refuses a field that cannot be a column, before anything is measured
    phases = several("phases", workload.default_phases if phases is None else phases, one_word=True)
    if unknown := [phase for phase in phases if phase not in workload.phases]:
        raise InputError(f"phases: unknown {unknown[0]!r:.60}, choose from {', '.join(workload.phases)}")
    settings = MeasureSettings(
        phases=phases,
        instruments=several("instruments", instruments, one_word=True),
        target_error=target_error,
        max_seconds=max_seconds,
        seed=seed,
        reference_temperature_c=checked_reference(reference_temperature),
        sentinel_every_s=0.0,
    )
    if threads is not None and (type(threads) is not int or threads < 1):
        raise InputError(f"threads must be a whole number of at least 1, got {threads!r:.60}")
    own, before = device_of(device), torch.get_num_threads()
    point = workload.point(device_type=own.device_type, precision=precision, execution=execution)
    try:
        if not own.is_cuda:
            torch.set_num_threads(threads or cpu_threads(int(cores_here())))
        with Profiler(own, settings) as profiler:
            return Profile(point, profiler.measure_point(point))
    finally:
        torch.set_num_threads(before)


def _values(record: PhaseRecord) -> str:
    if record.status != Status.OK:
        return f"{record.status}: {record.status_reason}"
    if record.time_s is None:
        return f"{prefixed(record.executed_flops, 'FLOP')} executed"
    parts = [with_error(record.time_s, "s", record.time_rel_error)]
    if record.energy_j is not None:
        parts.append(with_error(record.energy_j, "J", record.energy_rel_error))
    parts += [prefixed(record.flops_per_s, "FLOP/s")] if record.flops_per_s is not None else []
    parts += [prefixed(record.flops_per_j, "FLOP/J")] if record.flops_per_j is not None else []
    return "  ".join(parts)
