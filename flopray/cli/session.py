"""The order of a run, new or resumed: check the input, reach the cluster, open the folder, sweep, make the results."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial

from rich.console import Console

import flopray
from flopray.cli.objective import refuse_objective
from flopray.cli.request import Request
from flopray.cli.results import finish
from flopray.cli.run_loggers import told_places
from flopray.cli.runs import InterruptedRun, NewRun, Placed, Run
from flopray.cli.terminal import LineConsole
from flopray.cluster.connection import connected
from flopray.cluster.devices import Cluster, wait_for
from flopray.cluster.this_machine import this_machine
from flopray.errors import EXIT_INTERRUPTED, FloprayError, StorageError, resume_command
from flopray.monitoring.progress import Progress
from flopray.monitoring.run_log import RunLog
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.sweep.metrics import linger_s
from flopray.sweep.plan import print_plan
from flopray.workloads.base import Workload


def run(workload: Workload, request: Request, console: Console) -> int:
    """Carry out what is asked for; returns the exit code.

    Raises:
        FloprayError: with the one line that ends the command.
    """
    linger_s()
    if request.options.quiet or request.options.json:
        console = Console(quiet=True)  # errors have a console of their own
    if request.options.resume is None:
        return _carry_out(NewRun(workload, request), console)
    interrupted = InterruptedRun(workload, request)
    if interrupted.left > 0:
        return _carry_out(interrupted, console)
    if interrupted.mended:
        console.print(interrupted.mended, highlight=False, soft_wrap=True)
        if interrupted.folder.has_results():
            return 0
    options, size = interrupted.options, interrupted.sweep.size
    progress = Progress(console, total=size, workload=workload, events=options.json)
    return finish(workload, options, console, interrupted.folder, progress, interrupted.sweep.objectives)


def _carry_out(of: Run, console: Console) -> int:
    """The one path of new and interrupted runs; returns the exit code."""
    say = partial(console.print, highlight=False, soft_wrap=True)
    with _reach(of, console) as cluster:
        placed = of.on(_awaited(of, cluster, say))
        if placed.warning:
            say(f"warning: {placed.warning}")
        if of.options.dry_run:
            _plan(of, placed)
            return 0
        _say_where(console, cluster)
        notes = _preflight(of, placed, cluster, console)
        folder, line = of.open(placed)
        for said in (line, *told_places(of.loggers, folder, of.options)):
            say(said)
        return _measure(of, placed, folder, console, notes)


def _reach(of: Run, console: Console) -> AbstractContextManager[Cluster]:
    """The cluster to run on; a plan for this machine starts no Ray."""
    address = of.options.address
    if of.options.dry_run and address is None:
        return nullcontext(this_machine())
    if address is None:
        console.print("starting Ray on this machine ...", highlight=False)
    job = {"job_name": of.name, "flopray_run": of.name, "flopray_version": flopray.__version__}
    return connected(address, job | {"workload": of.workload.name, "results": of.address})


def _awaited(of: Run, cluster: Cluster, say: Callable[[str], object]) -> Cluster:
    """The cluster once it has what is wanted, or when `--wait` is over; a plan waits for nothing."""
    seconds = 0.0 if of.options.dry_run else of.options.wait_s or 0.0
    gpu_type = of.options.gpu_type
    if gpu_type is None and not cluster.slots:  # where Ray knows types by now, they hold
        gpu_type = of.began_with_gpu_type
    return wait_for(cluster, of.device_types, seconds, say, gpu_type)


def _plan(of: Run, placed: Placed) -> None:
    """Print the plan; the rates of this machine's CPU are measured for it."""
    sweep, slots, found = placed.sweep, placed.slots, placed.targets
    start = of.options.address is None
    if "CPU" in found and start:
        from flopray.sweep.calibration import calibrated  # imports torch

        rates, has_energy = calibrated(sweep.axes["precision"], cores=sweep.cpus_per_trial["CPU"])
        found = found | {"CPU": dataclasses.replace(found["CPU"], rates=rates, has_energy=has_energy)}
    output = LineConsole(markup=False)  # results go to standard output, and messages to standard error
    print_plan(output, sweep, slots, finished=of.finished, found=found, figures=of.options.plots, start=start)


def _say_where(console: Console, cluster: Cluster) -> None:
    if not cluster.dashboard_url:
        return
    login = " (log in with the token that `ray get-auth-token` prints)" if cluster.local else ""
    console.print(f"Ray dashboard: http://{cluster.dashboard_url}{login}", highlight=False, soft_wrap=True)


def _preflight(of: Run, placed: Placed, cluster: Cluster, console: Console) -> list[str]:
    """Look at the nodes before anything is written; on a Ray started here, what is missing is told later."""
    from flopray.cluster.doctor.preflight import check_nodes, tell

    strict = of.options.strict
    found = check_nodes(list(placed.slots), placed.sweep.settings.instruments, local=cluster.local)
    refuse_objective(placed.sweep, found.no_energy)
    return tell(Console(quiet=True) if cluster.local and not strict else console, found, strict=strict)


def _measure(of: Run, placed: Placed, folder: RunFolder, console: Console, notes: Sequence[str] = ()) -> int:
    """Measure what the run lacks, and make its results; returns the exit code."""
    sweep, goes_on = placed.sweep, _goes_on(of, folder)
    try:
        from flopray.sweep.driver import run_sweep  # takes seconds, in which an interrupt may come too

        with (
            RunLog(folder.log_path, sweep.workload) as log,
            Progress(
                console,
                total=sweep.size,
                workload=sweep.workload,
                finished=len(of.finished),
                types=_by_type(sweep, of.finished),
                log=log,
                events=of.options.json,
            ) as progress,
        ):
            left = f"{sweep.size - len(of.finished)} of {sweep.size} points on {placed.slots}"
            for line in (f"{shlex.join(sys.argv)}: {left}", *notes):
                log.say(line)
            progress.event("preflight", notes=list(notes))
            how = {"finished": of.finished, "supersede": of.options.retry_failed, "limits": of.limits}
            how |= {"resume": goes_on, "loggers": of.loggers}
            try:
                run_sweep(sweep, folder, placed.slots, progress, **how)
            except FloprayError as error:
                log.say(str(error), level=logging.ERROR)
                raise
        return finish(of.workload, of.options, console, folder, progress, sweep.objectives)
    except KeyboardInterrupt:
        Console(stderr=True).print(
            f"interrupted; every finished point is in the journal. Go on with:\n  {goes_on}",
            highlight=False,
            soft_wrap=True,  # a command that is wrapped cannot be copied
        )
        with suppress(StorageError):
            folder.publish(results=False)
        return EXIT_INTERRUPTED


def _goes_on(of: Run, folder: RunFolder) -> str:
    """The command that goes on with a run on the same cluster."""
    address = f" --address {shlex.quote(of.options.address)}" if of.options.address else ""
    return resume_command(folder.address) + address


def _by_type(sweep: Sweep, finished: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Points of each device type: all, and those that are finished. With a searcher this is not known beforehand."""
    if sweep.search == "optuna":
        return {}
    points = sweep.points()
    done = Counter(point.device_type for point in points if point.id in finished)
    return {name: (count, done[name]) for name, count in Counter(point.device_type for point in points).items()}
