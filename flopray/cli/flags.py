"""The flags that all sweeps share, grouped, and the sweep that they describe."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from flopray import __version__
from flopray.cli.axes import default_of, described, dest_of, flag_of, values_of
from flopray.cli.parser import OneLineParser
from flopray.description import Field
from flopray.errors import FloprayError, InputError, SettingError, SpecError
from flopray.point import EXECUTIONS, PRECISIONS
from flopray.records import INSTRUMENTS
from flopray.settings import MeasureSettings
from flopray.store.schema import RecordSchema
from flopray.sweep.definition import OBJECTIVES, SEARCHES, Sweep
from flopray.sweep.limits import Limits
from flopray.workloads.base import Workload

#: A word for the two parts of generating text.
_GENERATE = {"generate": ("prefill", "decode")}

_STORAGE = (
    "where all runs are: a folder (default results), or s3://bucket/prefix; a run in a bucket has a working copy in "
    "~/.cache/flopray, or in $FLOPRAY_CACHE"
)


def build_parser(workload: Workload) -> argparse.ArgumentParser:
    """The flags of a sweep, grouped. Defaults are None where a resume takes the value from the manifest.

    Raises:
        InputError: the workload has a field that cannot be a flag or a column.
    """
    try:
        RecordSchema(workload)  # before Ray starts and a run is made
    except SpecError as error:
        raise InputError(f"workload {workload.name}: {error}") from error
    first = (type(workload).__doc__ or "").strip().split("\n\n")[0]
    started = Path(sys.argv[0]).name
    parser = OneLineParser(
        prog=started if started.endswith(".py") and started != "__main__.py" else f"flopray sweep {workload.name}",
        description=first,
        epilog=workload.examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"flopray {__version__}")
    space, measuring = parser.add_argument_group("search space"), parser.add_argument_group("measuring")
    _add_searching(parser.add_argument_group("searching instead of a full grid"))
    _add_running(parser.add_argument_group("where it runs"))
    _add_limits(parser.add_argument_group("when something fails"))
    _add_results(parser.add_argument_group("run and results"))
    parser.set_defaults(summary=True)  # a program prints the run instead
    _add_measuring(measuring, workload)
    _add_space(space, workload)  # last, so that a field that takes the flag of something else is the one to be named
    return parser


def _add_space(group: Any, workload: Workload) -> None:
    for field in _axes_of(workload):
        try:
            group.add_argument(flag_of(field), dest=dest_of(field), nargs="*", metavar="VALUE", help=described(field))
        except argparse.ArgumentError:
            taken = f"the flag {flag_of(field)} is taken: give the field another flag"
            raise InputError(f"workload {workload.name}, field {field.name}: {taken}") from None
        for old in field.old_flags:
            group.add_argument(old, dest=dest_of(field), nargs="*", help=argparse.SUPPRESS)
    default = " ".join(workload.gpu_precisions)
    default += " with a GPU, fp32 without" if workload.gpu_precisions != ("fp32",) else ""
    group.add_argument("--precision", nargs="*", metavar="P", help=f"{', '.join(PRECISIONS)} (default {default})")
    group.add_argument(
        "--execution",
        nargs="*",
        metavar="E",
        help=f"{', '.join(EXECUTIONS)} (default {workload.gpu_execution[0]} with a GPU, {workload.gpu_execution[1]}; "
        "eager without)",
    )
    group.add_argument(
        "--accelerators",
        nargs="*",
        metavar="TYPE",
        help="device types to sweep, such as H100 or CPU (default every GPU type, CPU if there is none)",
    )
    group.add_argument(
        "--gpu-type",
        metavar="TYPE",
        help="type of the GPUs, on a cluster that does not know it (such as one started with `ray start --num-gpus`)",
    )
    group.add_argument(
        "--wait",
        type=float,
        metavar="S",
        help="wait so many seconds for the --accelerators to join the cluster (default not at all)",
    )


def _add_measuring(group: Any, workload: Workload) -> None:
    known = ", ".join(workload.phases)
    both = "; generate stands for prefill and decode" if "decode" in known else ""
    group.add_argument(
        "--phases", nargs="*", metavar="PHASE", help=f"{known}{both} (default {' '.join(workload.default_phases)})"
    )
    group.add_argument(
        "--instruments",
        nargs="*",
        metavar="I",
        help=f"{', '.join(INSTRUMENTS)} (default time energy; counters needs Nsight Compute and a GPU)",
    )
    group.add_argument(
        "--target-error", type=float, metavar="REL", help="stop a window at this relative 95%% error (default 0.01)"
    )
    group.add_argument(
        "--max-seconds", type=float, metavar="S", help="but after this many seconds at the latest (default 3)"
    )
    group.add_argument("--seed", type=int, help="of weights, inputs and the order of the points (default 0)")
    group.add_argument(
        "--sentinel-every",
        type=float,
        metavar="S",
        help="re-measure one point at this interval to see drift; 0 never (default 60)",
    )
    group.add_argument(
        "--cooldown-to",
        type=float,
        metavar="CELSIUS",
        help="before each point wait until the GPU is this cool (default off)",
    )


def _add_searching(group: Any) -> None:
    group.add_argument("--search", metavar="HOW", help=f"{', '.join(SEARCHES)} (default grid)")
    group.add_argument("--samples", type=int, metavar="N", help="points to draw with random or optuna")
    group.add_argument(
        "--objective", metavar="COLUMN", help=f"what optuna optimises in the first phase: {', '.join(OBJECTIVES)}"
    )
    group.add_argument(
        "--shard", metavar="I/N", help="measure only part I of N of the grid, such as 3/8; `flopray merge` unites them"
    )


def _add_running(group: Any) -> None:
    group.add_argument(
        "--address", help="Ray cluster to join: auto, host:port or ray://host:port (default: start Ray here)"
    )
    group.add_argument(
        "--cpus-per-trial",
        type=int,
        metavar="N",
        help="CPU cores a trial holds (default 1 beside a GPU; all of a node on a CPU)",
    )
    group.add_argument(
        "--points-per-trial", type=int, metavar="N", help="points in one Tune trial (default: sized by predicted time)"
    )
    group.add_argument(
        "--trial",
        metavar="WHAT",
        help="what a trial of Ray Tune is: slab (neighbouring points, one result each) or point (one run of a logger "
        "for each point); default slab, with optuna point",
    )
    group.add_argument(
        "--strict", action="store_true", help="refuse to begin where nodes differ or lack what the sweep asks for"
    )


def _add_limits(group: Any) -> None:
    group.add_argument(
        "--trial-timeout",
        type=float,
        metavar="S",
        help="end a process that measures one point for longer than this; 0 never (default 3600)",
    )
    group.add_argument(
        "--retries",
        type=int,
        metavar="N",
        help="measure a point again so often if its process died or its node was lost (default 2)",
    )
    group.add_argument(
        "--stop-after",
        type=int,
        metavar="N",
        help="stop, resumable, once the last N points on every device failed alike; 0 never (default 20)",
    )


#: Flags whose names are not those of their settings.
_FLAGS = {
    **{"device_type": "--accelerators", "point_timeout_s": "--trial-timeout", "cooldown_c": "--cooldown-to"},
    "sentinel_every_s": "--sentinel-every",
}


def told(error: FloprayError) -> str:
    """The message of an error for a command line: settings are called by their flags."""
    if not isinstance(error, SettingError):
        return str(error)
    names = [*(f.name for f in dataclasses.fields(MeasureSettings)), *(f.name for f in dataclasses.fields(Limits))]
    names += [
        "precision",
        "execution",
        "search",
        "samples",
        "objective",
        "shard",
        "cpus_per_trial",
        "points_per_trial",
        "trial",
    ]
    return error.told({name: "--" + name.replace("_", "-") for name in names} | _FLAGS)


def limits_from(args: argparse.Namespace) -> Limits:
    """When a point or the sweep is given up; a resume may set it anew.

    Raises:
        InputError: a value that cannot be.
    """
    given = {"point_timeout_s": args.trial_timeout, "retries": args.retries, "stop_after": args.stop_after}
    return Limits(**{name: value for name, value in given.items() if value is not None})


def _add_results(group: Any) -> None:
    group.add_argument("--name", help="of the run and its folder (default: made from the time)")
    group.add_argument("--storage", metavar="DIR", help=_STORAGE)
    group.add_argument(
        "--resume",
        metavar="RUN",
        help="folder or URI of an interrupted run: measure what is missing, no other flag needed",
    )
    group.add_argument(
        "--retry-failed", action="store_true", help="with --resume: also measure points again that crashed (failed)"
    )
    group.add_argument("--quiet", action="store_true", help="no progress and no summary; errors are still shown")
    group.add_argument(
        "--json",
        action="store_true",
        help="one JSON line an event on standard output, in place of progress and summary",
    )
    group.add_argument("--no-plots", action="store_true", help="draw nothing at the end")
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="plan points, trials, time, disk and what will be refused, also for types not here; start nothing",
    )


def _axes_of(workload: Workload) -> list[Field]:
    return [field for field in workload.fields if not field.implied]


def sweep_from(workload: Workload, args: argparse.Namespace, device_types: Sequence[str], cores: int) -> Sweep:
    """The sweep that the flags describe, on devices that are known.

    Raises:
        InputError: a flag that makes no sense.
    """
    on_gpu = any(device_type != "CPU" for device_type in device_types)
    axes: dict[str, tuple[Any, ...]] = {"device_type": tuple(device_types)}
    axes["precision"] = _words("--precision", args.precision, workload.gpu_precisions if on_gpu else ("fp32",))
    axes["execution"] = _words("--execution", args.execution, (workload.gpu_execution[0],) if on_gpu else ("eager",))
    for field in _axes_of(workload):
        given = getattr(args, dest_of(field))
        if given is None and not field.values:
            raise InputError(f"{flag_of(field)} has no default in {workload.name}: name its values")
        axes[field.name] = values_of(field, given if given is not None else list(default_of(field, on_gpu=on_gpu)))
    completed, implied = workload.complete(axes)
    return Sweep(
        workload=workload,
        axes=completed,
        settings=_settings(workload, args),
        implied=implied,
        search=args.search or "grid",
        samples=args.samples,
        objective=args.objective,
        cpus_per_trial={t: _cores_beside(t, args.cpus_per_trial, cores) for t in device_types},
        points_per_trial=args.points_per_trial,
        trial=args.trial,
        shards=() if args.shard is None else (args.shard,),
    )


def _cores_beside(device_type: str, given: int | None, cores: int) -> int:
    """One core launches the work of a GPU; a CPU is measured whole, since its energy counter is one for all cores."""
    if given is not None:
        return given
    return cores if device_type == "CPU" else 1


def _settings(workload: Workload, args: argparse.Namespace) -> MeasureSettings:
    asked = workload.default_phases if args.phases is None else args.phases
    given = {
        "phases": tuple(phase for word in asked for phase in _GENERATE.get(word, (word,))),
        "instruments": None if args.instruments is None else tuple(args.instruments),
        "target_error": args.target_error,
        "max_seconds": args.max_seconds,
        "seed": args.seed,
        "sentinel_every_s": args.sentinel_every,
        "cooldown_c": args.cooldown_to,
    }
    return MeasureSettings(**{name: value for name, value in given.items() if value is not None})


def _words(flag: str, given: Sequence[str] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if given is not None and not given:
        raise InputError(f"{flag} needs at least one value")
    return default if given is None else tuple(given)


def refuse_with_resume(workload: Workload, args: argparse.Namespace) -> None:
    """A resume takes everything from the manifest; a flag that contradicts it would make a run of two kinds.

    Raises:
        InputError: naming the first such flag.
    """
    free = {"summary", "address", "wait", "resume", "retry_failed", "no_plots", "dry_run", "quiet", "json", "strict"}
    free |= {"trial_timeout", "retries", "stop_after", "gpu_type"}
    fields = {dest_of(field): flag_of(field) for field in workload.fields}
    for name, value in vars(args).items():
        if name not in free and value is not None and value is not False:
            flag = fields.get(name, "--" + name.replace("_", "-"))
            raise InputError(f"--resume takes {flag} from the run's manifest; leave it out, or start a new run")


def default_name(workload: Workload) -> str:
    """A name for a run, which sorts by time."""
    return f"{workload.run_name or workload.name}-{datetime.now():%Y%m%d-%H%M%S}"
