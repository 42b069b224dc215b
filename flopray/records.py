"""What is measured: the record of each phase of a point.

Standard library only, so that records can be read, checked and compared where neither torch nor Ray is installed.
Measuring a point (`flopray.point.Point`) gives one `PhaseRecord` a phase. Names carry SI units as suffixes, FLOPs
are counts and FLOP/s rates. A value that was not measured is `None`, and a `*_status` or `*_reason` beside it says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from flopray.description import Column, Description, Field

#: Values by column. What a column may hold is known to the schema of a run (`flopray.store.schema`), which every row is
#: checked by, and not to a type checker: a workload brings columns of its own.
Row = dict[str, Any]

#: Version of the record's columns. History: 1, the first; 2, hardware counters by kernel class, overheads, kernels;
#: 3, errors of the sentinel's drift; 4, the columns of the MLP and of Llama (`FORMER`) are those of their runs alone,
#: and the measured rate of a CPU's products; 5, energy at a reference temperature, drift that temperature does not
#: explain, temperatures that were held, the factor of the board, the least bytes that are moved, operators, series
#: of ticks, and why there is no closed form; 6, part number and firmware of the board.
SCHEMA_VERSION = 6
#: On a GPU the same step takes another time where it is prepared again, captured or allocated anew: 60 points measured
#: twice on one H200 0.28 and 0.32 % RMS apart, 20 captures of a convolutional step 0.16 % RMS from the mean of 30 s. No
#: window sees that, and repeats do not average it, so that it is in `time_rel_error` and not in the stopping rule. Rows
#: of a GPU with a smaller `time_rel_error` were measured before it was added.
PREPARED_AGAIN_REL = 0.003
#: Versions that are read. A row keeps the version that it was written with.
READABLE_VERSIONS = (3, 4, 5, 6)

#: `inference` is a forward pass without gradients; `forward` is that of a training step. `prefill` and `decode` are the
#: two parts of generating text. A workload may have phases of its own beside them.
TRAINING_PHASES = ("inference", "forward", "backward", "forward_backward", "optimizer_step", "train_step")
PHASES = (*TRAINING_PHASES, "prefill", "decode")
#: Closed form and dispatcher's count are always there; these are measured.
INSTRUMENTS = ("time", "energy", "counters", "operators")
#: What a kernel does, as hardware counters are split; `other` are the kernels whose names tell nothing.
KERNEL_CLASSES = ("gemm", "reduction", "elementwise", "attention", "normalisation", "optimizer", "other")


class Status(StrEnum):
    """Whether a phase (or one of its instruments) gave a number, and if not, why."""

    OK = "ok"
    OUT_OF_MEMORY = "out_of_memory"
    UNSUPPORTED = "unsupported"
    NO_COUNTER_PERMISSION = "no_counter_permission"
    NO_ENERGY_SOURCE = "no_energy_source"
    NOT_REQUESTED = "not_requested"
    FAILED = "failed"


class _Former(Description):
    """Columns that every record had up to schema version 3, whatever its workload."""

    fields = (
        *(Field(name=name, type=str) for name in ("model", "model_config", "weights", "attention")),
        Field(name="checkpointing", type=bool),
        *(Field(name=name) for name in ("n_layers", "width", "tokens", "batch_size", "sequence_length")),
    )
    columns = tuple(
        Column(name=name, type=int)
        for name in (
            *("projection_flops", "attention_flops", "attention_causal_flops", "mlp_flops", "norm_flops"),
            *("elementwise_flops", "embedding_flops", "lm_head_flops", "loss_flops", "parameters"),
        )
    )


#: Read where the workload's columns are unknown: in version 3 a workload might fill these without naming them.
FORMER = _Former()
FORMER_NAMES = frozenset(part.name for part in (*FORMER.fields, *FORMER.columns))


def _column(doc: str, default: Any = None, *, since: int = 1) -> Any:
    """A field of the record with its description, which `docs/records.md` shows, and the version that brought it.

    Tables of an older version lack the column (`flopray.store.schema`); those before 3 are not read.
    """
    return field(default=default, metadata={"doc": doc, "since": since})


@dataclass(frozen=True, kw_only=True)
class PhaseRecord:
    """One row: what one phase of one point cost on one device. Field names are the column names.

    These are the columns that every record has. Those of its workload (the fields of the point and what the class
    states as `columns`) are in `extra`, and attributes too.
    """

    # identity
    run: str = _column("name of the run that measured the row", "")
    trial_id: str = _column(
        "the point: hash of its specification; in a merged run, further measurements of it end in -2, -3, ...", ""
    )
    phase: str = _column(", ".join(PHASES), "")
    schema_version: int = _column("version of the columns when the row was measured", SCHEMA_VERSION)
    attempt: int = _column("1 for the first try of the point", 1)
    order_index: int | None = _column("place of the point in the shuffled order of the sweep")
    seed: int | None = _column("seed of weights and inputs")
    started_unix_s: float | None = _column("when the phase began, seconds since 1970 UTC, clock of the node")
    ended_unix_s: float | None = _column("when the phase ended, same clock")
    # specification
    workload: str = _column("name of the workload, such as mlp or llama", "")
    device_type: str = _column("type of device as Ray names it (H100, A100, ...), or CPU", "")
    precision: str = _column("fp32, tf32, bf16, fp16, fp8 or fp8_rowwise", "")
    execution: str = _column(
        "eager, graph (CUDA graph), compile (torch.compile) or compile_graph (compiled, then captured)", ""
    )
    # device
    device_name: str | None = _column("full name of the device")
    device_uuid: str | None = _column("NVML's UUID of the GPU")
    node: str | None = _column("host name of the node")
    board_part_number: str | None = _column(
        "NVML's part number of the board: tells variants of one type apart", since=6
    )
    vbios_version: str | None = _column("firmware of the GPU", since=6)
    driver_version: str | None = _column("NVIDIA driver")
    compute_capability: str | None = _column("CUDA compute capability, such as 9.0")
    sm_count: int | None = _column("streaming multiprocessors of the GPU")
    max_sm_clock_hz: float | None = _column("highest SM clock NVML reports")
    power_limit_w: float | None = _column("enforced board power limit")
    memory_total_bytes: int | None = _column("memory of the device")
    cpu_threads: int | None = _column("threads torch computed with, on a CPU")
    # FLOPs of one iteration
    model_flops: int | None = _column("closed form")
    model_flops_convention: str | None = _column("what the closed form counts")
    model_flops_reason: str | None = _column("why model_flops is missing", since=5)
    gemm_flops: int | None = _column("closed form: matrix products")
    activation_flops: int | None = _column("closed form: activations, one FLOP an element")
    optimizer_flops: int | None = _column("closed form: optimizer update")
    recomputed_flops: int | None = _column("beyond model_flops: what checkpointing runs again")
    least_moved_bytes: int | None = _column(
        "closed form: bytes that an iteration reads and writes at least, each operand of a pass once", since=5
    )
    dispatched_flops: int | None = _column("what the framework was asked to do, by FlopCounterMode on the meta device")
    dispatched_reason: str | None = _column("why dispatched_flops is missing, or what it leaves out")
    dispatched_rel_difference: float | None = _column("dispatched_flops / model_flops - 1")
    # FLOPs of one iteration that the chip executed, by hardware counters
    executed_flops: int | None = _column("what the chip did: the sum of the classes below")
    executed_gemm_flops: int | None = _column("in matrix products")
    executed_reduction_flops: int | None = _column("in reductions: split-K sums and others")
    executed_elementwise_flops: int | None = _column("in elementwise kernels")
    executed_attention_flops: int | None = _column("in fused attention")
    executed_normalisation_flops: int | None = _column("in normalisation and softmax")
    executed_optimizer_flops: int | None = _column("in the optimizer")
    executed_other_flops: int | None = _column("in kernels whose names tell no class")
    executed_other_rel: float | None = _column("executed_other_flops / executed_flops")
    executed_tensor_flops: int | None = _column("of executed_flops, on tensor cores")
    executed_cuda_flops: int | None = _column("of executed_flops, on CUDA cores")
    executed_rel_difference: float | None = _column("executed_flops / model_flops - 1")
    gemm_overhead: float | None = _column("omega: executed_gemm_flops / gemm_flops - 1")
    splitk_per_element: float | None = _column("rho: executed_reduction_flops per number that layers write")
    activation_overhead: float | None = _column("kappa: executed_elementwise_flops / activation_flops - 1")
    kernel_launches: int | None = _column("kernels of one iteration")
    kernel_launches_counted: int | None = _column("kernels whose counters were read; the others repeat one of these")
    kernels: tuple[str, ...] = _column(
        "JSON, one for each kernel: name, class, launches, tensor and CUDA FLOPs; as rows in kernels.parquet", ()
    )
    counters_status: str = _column("ok, not_requested, unsupported, no_counter_permission or failed", "not_requested")
    counters_reason: str | None = _column("why there are no executed FLOPs, and what would give them")
    ncu_version: str | None = _column("Nsight Compute that read the counters")
    # operators of one iteration, by torch.profiler in a pass of its own
    operators: tuple[str, ...] = _column(
        "JSON, one for each operator and region: calls, times, FLOPs, memory; as rows in operators.parquet", (), since=5
    )
    operators_status: str = _column("ok, not_requested or failed", "not_requested", since=5)
    operators_reason: str | None = _column("why there are no operators", since=5)
    # ticks of the energy counter in the window, on request
    series: tuple[str, ...] = _column(
        "JSON: the window's ticks, power between them, temperature, clock, memory; as rows in series.parquet",
        (),
        since=5,
    )
    series_status: str = _column("ok, not_requested, no_energy_source or failed", "not_requested", since=5)
    series_reason: str | None = _column("why there is no series", since=5)
    # time
    time_s: float | None = _column("mean time of one iteration")
    time_rel_error: float | None = _column("half width of its 95 % interval / time_s, drift included")
    time_iterations: int | None = _column("iterations inside the measured window")
    time_clock: str | None = _column("cuda_events or perf_counter")
    time_converged: bool | None = _column("the window reached the target error, without the sentinel's drift")
    warmup_s: float | None = _column("time spent until time per iteration was stable")
    warmup_iterations: int | None = _column("iterations of the warm-up")
    window_s: float | None = _column("length of the measured window, host clock")
    target_error: float | None = _column("relative error that was asked for")
    max_seconds: float | None = _column("cap on the measured window")
    # energy
    energy_j: float | None = _column("energy of one iteration, whole device")
    energy_rel_error: float | None = _column(
        "half width of its 95 % interval / energy_j: of the window, with the drift that temperature does not explain"
    )
    energy_source: str | None = _column("nvml_counter, nvml_power, rapl or simulated")
    energy_status: str = _column("ok, no_energy_source, not_requested or failed", "not_requested")
    energy_reason: str | None = _column(
        "why there is no energy, or what puts it in doubt: a beat, a jump of the counter"
    )
    energy_converged: bool | None = _column("the window reached the target error, without the sentinel's drift")
    energy_window_s: float | None = _column("from the first to the last tick that was used")
    energy_ticks: int | None = _column("counter ticks that were used")
    energy_tick_period_s: float | None = _column("median distance of the ticks that were used")
    power_w: float | None = _column("mean power in the window")
    power_drift_rel: float | None = _column("change of power across the window / power_w")
    power_drift_significant: bool | None = _column("more drift than scatter explains; half is in the error")
    idle_power_w: float | None = _column("power of the same process before its first work: context open, clocks low")
    awake_idle_power_w: float | None = _column("idle power between points, clocks still up; last measured")
    energy_at_reference_j: float | None = _column(
        "energy of one iteration, were this board at reference_temperature_c", since=5
    )
    energy_at_reference_rel_error: float | None = _column(
        "half width of its 95 % interval / energy_at_reference_j: window, coefficient, temperature and drift", since=5
    )
    energy_at_reference_reason: str | None = _column("why there is no energy_at_reference_j", since=5)
    reference_temperature_c: float | None = _column("GPU temperature of energy_at_reference_j", since=5)
    temperature_coefficient: float | None = _column(
        "rise of power per kelvin / power at the reference temperature", since=5
    )
    temperature_coefficient_error: float | None = _column("half width of its 95 % interval, in the same unit", since=5)
    board_factor: float | None = _column(
        "energy of this board / energy of its type's typical board, for the same work, by standard loads",
        since=5,
    )
    board_factor_rel_error: float | None = _column(
        "half width of its 95 % interval for one work / board_factor: windows, loads, and how few boards were measured",
        since=5,
    )
    active_energy_j: float | None = _column("energy_j - idle_power_w * time_s")
    # efficiency
    flops_per_s: float | None = _column("model_flops / time_s; without a closed form dispatched_flops / time_s")
    flops_per_j: float | None = _column("model_flops / energy_j; without a closed form dispatched_flops / energy_j")
    mfu: float | None = _column(
        "flops_per_s / dense peak of the device at this precision; on a CPU / measured_peak_flops_per_s"
    )
    mfu_reason: str | None = _column("why mfu is missing")
    hfu: float | None = _column("as mfu, with recomputed_flops")
    measured_peak_flops_per_s: float | None = _column(
        "highest rate of square matrix products on this CPU, measured in a moment before its first point; no limit",
        since=4,
    )
    tokens_per_iteration: int | None = _column("tokens that an iteration processes (decode: makes)")
    energy_per_token_j: float | None = _column("energy_j / tokens_per_iteration")
    attention_backend: str | None = _column("attention that ran: flash, efficient, cudnn, math or cpu_flash")
    # state of the device at both ends of the window
    hold_temperature_c: float | None = _column(
        "GPU temperature at which the window was to begin, if one was set", since=5
    )
    hold_temperature_s: float | None = _column(
        "seconds of filler work and pauses before the window, those before the sentinel's included", since=5
    )
    hold_temperature_reason: str | None = _column("why the window did not begin at hold_temperature_c", since=5)
    temperature_start_c: float | None = _column("GPU temperature before")
    temperature_end_c: float | None = _column("GPU temperature after")
    temperature_mean_c: float | None = _column("GPU temperature, mean over the ticks that were used", since=5)
    sm_clock_start_hz: float | None = _column("SM clock before")
    sm_clock_end_hz: float | None = _column("SM clock after, under load")
    memory_clock_start_hz: float | None = _column("memory clock before")
    memory_clock_end_hz: float | None = _column("memory clock after")
    power_limit_start_w: float | None = _column("enforced board power limit before")
    power_limit_end_w: float | None = _column("enforced board power limit after")
    throttle_start: str | None = _column("throttle reasons before, joined with |")
    throttle_end: str | None = _column("throttle reasons after, joined with |")
    other_processes: int | None = _column("other processes that computed on the device")
    memory_peak_bytes: int | None = _column("peak memory torch allocated")
    # drift of the sentinel point
    sentinel_time_drift: float | None = _column("sentinel time / its first value - 1, last measured before the row")
    sentinel_time_drift_error: float | None = _column("half width of the 95 % interval of that drift")
    sentinel_energy_drift: float | None = _column("sentinel energy / its first value - 1")
    sentinel_energy_drift_error: float | None = _column("half width of the 95 % interval of that drift")
    sentinel_energy_drift_unexplained: float | None = _column(
        "sentinel_energy_drift less what the change of its temperature explains", since=5
    )
    sentinel_energy_drift_unexplained_error: float | None = _column("half width of its 95 % interval", since=5)
    sentinel_age_s: float | None = _column("seconds since the sentinel was measured")
    # outcome
    status: str = _column("ok, out_of_memory, unsupported or failed", "ok")
    status_reason: str | None = _column("one line")
    traceback: str | None = _column("of an unexpected exception")
    findings: tuple[str, ...] = _column("audit findings, severity:rule", ())
    device_wall_s: float | None = _column(
        "device time of the whole point since the previous one ended, waiting included"
    )
    # versions
    flopray_version: str | None = _column("version that measured")
    torch_version: str | None = _column("torch")
    cuda_version: str | None = _column("CUDA of torch")
    ray_version: str | None = _column("Ray")
    python_version: str | None = _column("Python")

    # of the workload
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, **columns: Any) -> PhaseRecord:
        """The record with these columns; the workload's own go into `extra`."""
        own = {name: value for name, value in columns.items() if name not in COLUMN_NAMES}
        return cls(**{name: value for name, value in columns.items() if name in COLUMN_NAMES}, extra=own)

    def columns(self) -> Row:
        """All columns by name, the workload's own among them."""
        row = {**vars(self), **self.extra}
        del row["extra"]
        return row

    def __eq__(self, other: object) -> bool:
        """Equal in every column; a column of the workload that is not there is None."""
        return isinstance(other, PhaseRecord) and self._present() == other._present()

    def _present(self) -> Row:
        return {name: value for name, value in self.columns().items() if value is not None}

    def __getattr__(self, name: str) -> Any:
        """A column of the workload."""
        try:
            return self.__dict__["extra"][name]
        except KeyError:
            raise AttributeError(f"a record has no column {name!r}") from None


COLUMN_NAMES = frozenset(f.name for f in dataclasses.fields(PhaseRecord)) - {"extra"}
#: Columns that are computed when a run is loaded as a data frame (`flopray.store.derived`), and what they are.
DERIVED = {
    "energy_typical_board_j": "energy_at_reference_j / board_factor: energy of one iteration on a typical board of the "
    "type, at reference_temperature_c",
    "energy_typical_board_rel_error": "half width of its 95 % interval / energy_typical_board_j: "
    "energy_at_reference_rel_error and board_factor_rel_error, root of the sum of squares",
    "energy_typical_board_reason": "why there is no energy_typical_board_j, where the row has an energy",
}


def label_of(record: PhaseRecord, workload: Description) -> str:
    """The label of a record's point, such as `n=8 d=1024 m=128 fp32 eager`."""
    return " ".join(filter(None, (workload.label(record.columns()), record.precision, record.execution)))
