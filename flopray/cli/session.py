"""The order of a run: check the input, reach the cluster, make or open the folder, sweep, summarise, draw."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

import flopray
from flopray.cli.objective import ENERGY_OBJECTIVES, refuse_mfu, refuse_objective
from flopray.cli.request import Request, default_name, sweep_from
from flopray.cli.terminal import LineConsole, renamed
from flopray.cli.trust import trust
from flopray.cluster.connection import connected
from flopray.cluster.devices import (
    Cluster,
    absent_types,
    check_cores,
    choose_devices,
    passed_over,
    wait_for,
)
from flopray.cluster.this_machine import this_machine
from flopray.errors import (
    EXIT_INTERRUPTED,
    EXIT_NOT_FINISHED,
    EXIT_SOME_FAILED,
    FloprayError,
    InputError,
    RunError,
    RunFinished,
    StorageError,
    resume_command,
)
from flopray.monitoring.progress import Progress
from flopray.monitoring.run_log import RunLog
from flopray.point import point_of
from flopray.records import Status
from flopray.store import atomic
from flopray.store.location import check_new, create_run, open_run
from flopray.store.manifests import not_resumable
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.sweep.metrics import linger_s
from flopray.sweep.plan import Target, print_plan, refuse_what_none_can, targets
from flopray.sweep.summary import COPY, FIGURES, RECORDS, TOTALS, print_summary, summarise, summary_columns
from flopray.workloads.base import Workload

if TYPE_CHECKING:
    import pandas as pd


def run(workload: Workload, request: Request, console: Console) -> int:
    """Carry out a command line; returns the exit code.

    Raises:
        FloprayError: with the one line that ends the command.
    """
    linger_s()
    if request.options.quiet or request.options.json:
        console = Console(quiet=True)  # errors have a console of their own
    if request.options.resume is not None:
        return _resume(workload, request, open_run(request.options.resume), console)
    name = request.options.name if request.options.name is not None else default_name(workload)
    _refuse_package_cache(request.options.storage)
    check_new(request.options.storage, name, write=not request.options.dry_run)
    # The flags are checked on a stand-in device before Ray starts; the real devices are known only after it did.
    named = request.device_types or ([request.options.gpu_type] if request.options.gpu_type else [])
    refuse_mfu(sweep_from(workload, request, named or ["CPU"], cores=1), types_known=bool(named))
    if request.options.wait_s is not None and not request.device_types and request.options.gpu_type is None:
        raise InputError("--wait needs --accelerators or --gpu-type to say what to wait for")
    if request.settings.get("search") == "optuna" and find_spec("optuna") is None:
        raise InputError("--search optuna needs the extra: pip install 'flopray[optuna]'")
    known = None
    if request.options.address is None and not request.options.wait_s:  # Ray would find here what we do, in seconds
        known, _, _ = _check(workload, request, this_machine().with_gpu_type(request.options.gpu_type))
    with _reach(request, name, workload, console) as cluster:
        cluster = _awaited(cluster, request, request.device_types, console)
        sweep, slots, found = _check(workload, request, cluster, known)
        if line := passed_over(cluster, request.device_types):
            console.print(f"warning: {line}", highlight=False, soft_wrap=True)
        if request.options.dry_run:
            _plan(request, sweep, slots, found)
            return 0
        _say_where(console, cluster)
        notes = _preflight(request, console, sweep, slots, cluster)
        head = {"script": sys.argv[0], "plots": request.options.plots}
        head |= {"gpu_type": request.options.gpu_type} if request.options.gpu_type in slots else {}
        trust(workload)
        folder = create_run(request.options.storage, name, sweep.to_manifest(name, _versions()) | head)
        console.print(f"run {name}: {folder.address}", highlight=False, soft_wrap=True)
        return _measure(workload, request, console, sweep, folder, slots, notes)


def _check(
    workload: Workload, request: Request, cluster: Cluster, known: Sweep | None = None
) -> tuple[Sweep, dict[str, int], dict[str, Target]]:
    """The sweep on these devices, how many there are by type, and what is known of them.

    Args:
        workload: what is measured.
        request: what is asked for.
        cluster: the devices.
        known: a sweep that may be the same, whose points need not be made again.

    Raises:
        FloprayError: the devices are missing, or can measure nothing of the sweep.
    """
    absent = absent_types(cluster, request.device_types) if request.options.dry_run else []
    cluster = cluster.with_types(absent)
    slots = choose_devices(cluster, request.device_types)
    sweep = sweep_from(workload, request, list(slots), cores=cluster.cores)
    sweep = known if known is not None and known == sweep else sweep
    if sweep.samples is not None and sweep.samples > sweep.grid_size:
        raise InputError(f"--samples {sweep.samples}: the grid has only {sweep.grid_size} points")
    check_cores(cluster, sweep.cpus_per_trial)
    if sweep.size == 0:
        raise InputError(f"--shard {sweep.shards[0]}: none of the {sweep.grid_size} points of the grid falls into it")
    found = targets(slots, local=cluster.local, absent=absent)
    refuse_what_none_can(sweep, found)
    needs_energy = cluster.local and sweep.objective in ENERGY_OBJECTIVES
    refuse_objective(sweep, _no_energy(slots, absent) if needs_energy else None)
    return sweep, slots, found


def _no_energy(slots: Mapping[str, int], absent: Sequence[str]) -> str | None:
    """Why no device of this machine has an energy source; None if one has, or if the devices are elsewhere."""
    from flopray.cluster.doctor.preflight import check_nodes

    return None if absent else check_nodes(list(slots), ("energy",), local=True).no_energy


def _refuse_package_cache(storage: str) -> None:
    """Refuse to write into the copy of its folder that a submitted job runs in: Ray deletes it sooner or later.

    Raises:
        InputError: results would be written there.
    """
    if "://" not in storage and "runtime_resources" in Path(storage).absolute().parts:
        raise InputError(
            f"results would go into Ray's copy of the job's folder ({Path(storage).absolute()}), which Ray deletes: "
            "give --storage with a path of your own that starts with / or a URI"
        )


def _reach(request: Request, name: str, workload: Workload, console: Console) -> AbstractContextManager[Cluster]:
    """The cluster to run on; a plan for this machine starts no Ray."""
    if request.options.dry_run and request.options.address is None:
        return nullcontext(this_machine())
    if request.options.address is None:
        console.print("starting Ray on this machine ...", highlight=False)
    job = {"job_name": name, "flopray_run": name, "flopray_version": flopray.__version__, "workload": workload.name}
    return connected(request.options.address, job)


def _awaited(cluster: Cluster, request: Request, wanted: list[str] | None, console: Console) -> Cluster:
    """The cluster once it has what is wanted, or when `--wait` is over; a plan waits for nothing."""
    seconds = 0.0 if request.options.dry_run else request.options.wait_s or 0.0
    say = partial(console.print, highlight=False, soft_wrap=True)
    return wait_for(cluster, wanted, seconds, say, request.options.gpu_type)


def _resume(workload: Workload, request: Request, folder: RunFolder, console: Console) -> int:
    if reason := not_resumable(folder.manifest):
        raise RunError(f"run {folder.address} cannot be resumed: {reason}; resume the sources and merge again")
    plots = request.options.plots and folder.manifest.get("plots") is not False
    request = _with(request, plots=plots)
    sweep = Sweep.from_manifest(folder.manifest)
    if sweep.workload.name != workload.name:
        which = f"{sweep.workload.name}, not of {workload.name}"
        raise InputError(
            f"run {folder.address} is a sweep of {which}: {resume_command(folder.address)} goes on with it"
        )
    sweep = sweep.with_code(workload)
    finished = _finished(folder, retry_failed=request.options.retry_failed)
    left = sweep.size - len(finished)
    if left <= 0 and not request.options.dry_run and not folder.has_results():
        folder.check_unlocked()
        return _finish(
            workload,
            request,
            console,
            folder,
            Progress(console, total=sweep.size, workload=sweep.workload, events=request.options.json),
        )
    if left <= 0:
        raise RunFinished(f"run {folder.address} is finished: all of its {len(finished)} points are measured")
    if not request.options.dry_run:
        folder.check_unlocked()
    with _reach(request, folder.name, workload, console) as cluster:
        if request.options.gpu_type is None and not cluster.slots:  # where Ray knows types by now, they hold
            request = _with(request, gpu_type=_gpu_type_of(folder))
        cluster = _awaited(cluster, request, list(sweep.axes["device_type"]), console)
        slots = choose_devices(cluster, list(sweep.axes["device_type"]), resumed=True)
        check_cores(cluster, sweep.cpus_per_trial)
        if request.options.dry_run:
            _plan(request, sweep, slots, targets(slots, local=cluster.local), finished)
            return 0
        _say_where(console, cluster)
        notes = _preflight(request, console, sweep, slots, cluster)
        console.print(f"resuming {folder.address}: {left} points are left", highlight=False, soft_wrap=True)
        return _measure(workload, request, console, sweep, folder, slots, notes)


def _with(request: Request, **options: Any) -> Request:
    """The request with other options."""
    return dataclasses.replace(request, options=dataclasses.replace(request.options, **options))


def _gpu_type_of(folder: RunFolder) -> str | None:
    """The `--gpu-type` that the run was started with."""
    name = folder.manifest.get("gpu_type")
    return name if isinstance(name, str) else None


def _plan(
    request: Request,
    sweep: Sweep,
    slots: Mapping[str, int],
    found: Mapping[str, Target],
    finished: Mapping[str, str] | None = None,
) -> None:
    """Print the plan; the rates of this machine's CPU are measured for it."""
    found = dict(found)
    if "CPU" in found and request.options.address is None:
        from flopray.sweep.calibration import calibrated  # imports torch

        rates, has_energy = calibrated(sweep.axes["precision"], cores=sweep.cpus_per_trial["CPU"])
        found["CPU"] = dataclasses.replace(found["CPU"], rates=rates, has_energy=has_energy)
    start, figures = request.options.address is None, request.options.plots
    print_plan(_output(), sweep, slots, finished=finished, found=found, figures=figures, start=start)


def _finished(folder: RunFolder, *, retry_failed: bool) -> dict[str, str]:
    finished = {k: v for k, v in folder.finished().items() if k == point_of(k)}
    return {k: v for k, v in finished.items() if v != Status.FAILED} if retry_failed else finished


def _measure(
    workload: Workload,
    request: Request,
    console: Console,
    sweep: Sweep,
    folder: RunFolder,
    slots: Mapping[str, int],
    notes: Sequence[str] = (),
) -> int:
    finished = _finished(folder, retry_failed=request.options.retry_failed)
    try:
        from flopray.sweep.driver import run_sweep  # takes seconds, in which an interrupt may come too

        with (
            RunLog(folder.log_path, sweep.workload) as log,
            Progress(
                console,
                total=sweep.size,
                workload=sweep.workload,
                finished=len(finished),
                types=_by_type(sweep, finished),
                log=log,
                events=request.options.json,
            ) as progress,
        ):
            log.say(f"{shlex.join(sys.argv)}: {sweep.size - len(finished)} of {sweep.size} points on {dict(slots)}")
            for note in notes:
                log.say(note)
            progress.event("preflight", notes=list(notes))
            outcome = {"finished": finished, "supersede": request.options.retry_failed, "limits": request.limits}
            outcome["resume"] = _goes_on(request, folder)
            try:
                run_sweep(sweep, folder, slots, progress, **outcome)
            except FloprayError as error:
                log.say(str(error), level=logging.ERROR)
                raise
        return _finish(workload, request, console, folder, progress)
    except KeyboardInterrupt:
        Console(stderr=True).print(
            f"interrupted; every finished point is in the journal. Go on with:\n  {_goes_on(request, folder)}",
            highlight=False,
            soft_wrap=True,  # a command that is wrapped cannot be copied
        )
        with suppress(StorageError):
            folder.publish(results=False)
        return EXIT_INTERRUPTED


def _goes_on(request: Request, folder: RunFolder) -> str:
    """The command that goes on with a run on the same cluster."""
    address = f" --address {shlex.quote(request.options.address)}" if request.options.address else ""
    return resume_command(folder.address) + address


def _finish(workload: Workload, request: Request, console: Console, folder: RunFolder, progress: Progress) -> int:
    """Make the tables and figures of a run whose points are all there; returns the exit code.

    Whatever fails here loses no point: the rest is made all the same, and the exit code is one of its own.
    """
    totals: list[tuple[pd.DataFrame, dict[str, Any]]] = []

    def total() -> None:
        frame = folder.load(summary_columns(folder))
        totals.append((frame, summarise(frame, progress.measured_fraction)))

    steps: list[tuple[str, Callable[[], object]]] = [
        (TOTALS, total),
        (RECORDS, folder.compact),
        ("table of kernels", folder.write_kernels),
        ("summary", lambda: folder.write_summary(totals[0][1])),
    ]
    if request.options.plots:
        steps.append((FIGURES, lambda: _draw(workload, console, folder)))
    steps.append((COPY, folder.publish))
    failed: list[str] = []
    for what, step in steps:
        if what == "summary" and failed:
            continue  # it marks the tables as made: without it `--resume` makes them again
        if not _made(what, step, workload, folder):
            failed.append(what)
    for frame, summary in totals:
        progress.event("summary", run=folder.address, **summary)
        if request.options.summary and not console.quiet:
            print_summary(_output(), folder, frame, summary, failed)
        if not failed:
            return 0 if summary["points_not_ok"] == 0 else EXIT_SOME_FAILED
    return EXIT_NOT_FINISHED


def _draw(workload: Workload, console: Console, folder: RunFolder) -> None:
    with renamed(console, str(folder.path), folder.place()):
        from flopray.cli.run_figures import draw  # matplotlib would make the start wait

        draw(workload, folder.path, console)


def _made(what: str, step: Callable[[], object], workload: Workload, folder: RunFolder) -> bool:
    """Carry out a step after the measuring; if it fails, print one line with the command that repeats it."""
    try:
        step()
    except Exception as error:
        said = atomic.reason(error) if isinstance(error, OSError) else str(error)
        first = (said.splitlines() or [type(error).__name__])[0]
        if not isinstance(error, FloprayError | OSError):
            first = f"{type(error).__name__}: {first}"
        draws = "flopray compare-gpus" if workload.figures == "comparison" else "flopray surfaces"
        command = f"{draws} {shlex.quote(folder.address)}" if what == FIGURES else resume_command(folder.address)
        line = f"error: no {what} ({first}); every point is safe in the journal, {command} makes it again"
        Console(stderr=True, markup=False).print(line, highlight=False, soft_wrap=True)
        return False
    return True


def _preflight(
    request: Request, console: Console, sweep: Sweep, slots: Mapping[str, int], cluster: Cluster
) -> list[str]:
    """Look at the nodes before anything is written; on a Ray started here, what is missing is told later."""
    from flopray.cluster.doctor.preflight import check_nodes, tell

    found = check_nodes(list(slots), sweep.settings.instruments, local=cluster.local)
    refuse_objective(sweep, found.no_energy)
    silent = cluster.local and not request.options.strict
    return tell(Console(quiet=True) if silent else console, found, strict=request.options.strict)


def _by_type(sweep: Sweep, finished: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Points of each device type: all, and those that are finished. With a searcher this is not known beforehand."""
    if sweep.search == "optuna":
        return {}
    points = sweep.points()
    done = Counter(point.device_type for point in points if point.id in finished)
    return {name: (count, done[name]) for name, count in Counter(point.device_type for point in points).items()}


def _say_where(console: Console, cluster: Cluster) -> None:
    if not cluster.dashboard_url:
        return
    login = " (log in with the token that `ray get-auth-token` prints)" if cluster.local else ""
    console.print(f"Ray dashboard: http://{cluster.dashboard_url}{login}", highlight=False, soft_wrap=True)


def _output() -> Console:
    """Where results go, apart from the messages on standard error."""
    return LineConsole(markup=False)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"python": sys.version.split()[0], **{name: version(name) for name in ("ray", "torch")}}
