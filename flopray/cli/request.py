"""A request for a sweep, by flags or by a program, and the `Sweep` that it makes on known devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flopray.cli.axes import default_of, flag_of, values_of
from flopray.errors import InputError, SpecError
from flopray.mappings import Values
from flopray.point import FP8_SCALING
from flopray.settings import CPU_DEFAULTS, MeasureSettings, Setting, check_settings, setting, settings_of
from flopray.store.manifests import DEFAULT_STORAGE
from flopray.store.schema import RecordSchema
from flopray.sweep.definition import Sweep
from flopray.sweep.limits import Limits
from flopray.sweep.space import COMMON
from flopray.workloads.base import Workload

#: A word for the two parts of generating text.
GENERATE: Mapping[str, tuple[str, ...]] = {"generate": ("prefill", "decode")}
#: Settings that a resume may not change: another folder.
_OF_NEW_RUNS = ("name", "storage")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep is carried out: on which cluster, into which run, and what is shown; each field says what it is.

    Raises:
        SettingError: a value that cannot be.
    """

    gpu_type: str | None = setting(
        None,
        doc="type of the GPUs, on a cluster that does not know it (such as one started with `ray start --num-gpus`)",
        metavar="TYPE",
    )
    wait_s: float | None = setting(
        None,
        doc="wait this many seconds for the --accelerators to join the cluster (default not at all)",
        kind=float,
        must="be 0 or more seconds",
        holds=lambda value: value >= 0,
        flag="--wait",
        metavar="S",
    )
    address: str | None = setting(
        None, doc="Ray cluster to join: auto, host:port or ray://host:port (default: start Ray here)"
    )
    strict: bool = setting(False, doc="refuse to begin where nodes differ or lack what the sweep asks for")
    name: str | None = setting(None, doc="of the run and its folder (default: made from the time)")
    storage: str = setting(
        DEFAULT_STORAGE,
        doc="where all runs are: a folder (default {default}), or s3://bucket/prefix; a run in a bucket has a working "
        "copy in ~/.cache/flopray, or in $FLOPRAY_CACHE",
        metavar="DIR",
    )
    resume: str | None = setting(
        None, doc="folder or URI of an interrupted run: measure what is missing, no other flag needed", metavar="RUN"
    )
    retry_failed: bool = setting(False, doc="with --resume: also measure points again that crashed (failed)")
    quiet: bool = setting(False, doc="no progress and no summary; errors are still shown")
    json: bool = setting(False, doc="one JSON line an event on standard output, in place of progress and summary")
    plots: bool = setting(True, doc="draw nothing at the end", flag="--no-plots")
    dry_run: bool = setting(
        False, doc="plan points, trials, time, disk and what will be refused, also for types not here; start nothing"
    )
    #: No flag: a program prints the run instead.
    summary: bool = True

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request; what is left out has its default, which may follow from the workload and the devices.

    Attributes:
        axes: by axis: a list of words, as on a command line, or a tuple of values.
        settings: of `MeasureSettings` and `Sweep`, by field.
        limits: when a point or the sweep is abandoned.
        given_limits: those of them that were named; a resume has the others from its run.
        options: how the sweep is carried out.
    """

    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    given_limits: Mapping[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=Options)

    @property
    def device_types(self) -> list[str] | None:
        """Types of devices that were named; None for every GPU, or the CPU."""
        types = self.axes.get("device_type")
        return None if types is None else list(types)


def check_columns(workload: Workload) -> None:
    """Refuse a workload that has a field that cannot be a column, before Ray starts and a run is made.

    Raises:
        InputError: naming it.
    """
    try:
        RecordSchema(workload)
    except SpecError as error:
        raise InputError(f"workload {workload.name}: {error}") from error


def request_of(workload: Workload, axes: Mapping[str, Sequence[Any]], given: Mapping[str, Any]) -> Request:
    """The request that these values make.

    Args:
        workload: whose axes they are.
        axes: see `Request`.
        given: further settings by name.

    Raises:
        InputError: a value that cannot be, or one that a resume takes from its run.
    """
    for name in set(COMMON) & set(axes):
        COMMON[name].check(axes[name])

    def of(cls: type) -> Values:
        return {name: _value(s, given[s.name]) for name, s in settings_of(cls).items() if s.name in given}

    options, given_limits = Options(**of(Options)), of(Limits)
    limits = Limits(**given_limits)
    settings = of(MeasureSettings) | of(Sweep)
    if options.resume is not None:
        flags = {f.name: flag_of(f) for f in workload.fields} | {name: s.option for name, s in COMMON.items()}
        named = {name: s.option for cls in (MeasureSettings, Sweep, Options) for name, s in settings_of(cls).items()}
        fixed = [flags[name] for name in axes] + [named[name] for name in settings]
        fixed += [named[name] for name in _OF_NEW_RUNS if name in given]
        if fixed:  # the run would be of two kinds
            raise InputError(f"--resume takes {fixed[0]} from the run's manifest; leave it out, or start a new run")
    elif options.retry_failed:
        raise InputError("--retry-failed goes with --resume RUN")
    return Request(axes=axes, settings=settings, limits=limits, given_limits=given_limits, options=options)


def _value(known: Setting, value: Any) -> Any:
    """A program may give a single word as a text."""
    if not known.many:
        return value
    return (value,) if isinstance(value, str) else tuple(value)


def sweep_from(workload: Workload, request: Request, device_types: Sequence[str], cores: int) -> Sweep:
    """The requested sweep, on known devices.

    Args:
        workload: what is measured.
        request: what is asked for.
        device_types: types of the devices.
        cores: of a node, which a CPU is measured with.

    Raises:
        InputError: an impossible request.
    """
    on_gpu = any(device_type != "CPU" for device_type in device_types)
    axes: dict[str, tuple[Any, ...]] = {"device_type": tuple(device_types)}
    for name in ("precision", "execution"):
        axes[name] = tuple(request.axes.get(name, common_default(workload, name, on_gpu=on_gpu)))
    if "execution" not in request.axes and not FP8_SCALING.keys().isdisjoint(axes["precision"]):
        axes["execution"] = ("compile",)  # of all precisions, so that they can be compared
    for field_ in workload.fields:
        if field_.implied:
            continue
        given = request.axes.get(field_.name)
        if given is None and not field_.values:
            raise InputError(f"{flag_of(field_)} has no default in {workload.name}: name its values")
        axes[field_.name] = values_of(field_, list(default_of(field_, on_gpu=on_gpu)) if given is None else given)
    completed, implied = workload.complete(axes)
    settings = dict(request.settings)
    measuring: Values = {} if on_gpu else dict(CPU_DEFAULTS)
    measuring |= {name: settings.pop(name) for name in settings_of(MeasureSettings) if name in settings}
    phases = measuring.get("phases", workload.default_phases)
    measuring["phases"] = tuple(phase for word in phases for phase in GENERATE.get(word, (word,)))
    # One core launches the work of a GPU; a CPU is measured whole, since its energy counter is one for all cores.
    settings["cpus_per_trial"] = {t: settings.get("cpus_per_trial", cores if t == "CPU" else 1) for t in device_types}
    settings["shards"] = (settings["shards"],) if "shards" in settings else ()
    return Sweep(workload=workload, axes=completed, settings=MeasureSettings(**measuring), implied=implied, **settings)


def common_default(workload: Workload, axis: str, *, on_gpu: bool) -> tuple[str, ...]:
    """Default values of an axis that every workload has."""
    if axis == "precision":
        return workload.gpu_precisions if on_gpu else ("fp32",)
    return (workload.gpu_execution[0],) if on_gpu else ("eager",)


def default_name(workload: Workload) -> str:
    """A name for a run, which sorts by time."""
    return f"{workload.run_name or workload.name}-{datetime.now():%Y%m%d-%H%M%S}"
