"""The order of a run, new or resumed: check the input, reach the cluster, open the folder, sweep, make the results."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

import flopray
from flopray.cli.endings import raise_swallowed
from flopray.cli.flags import flags_of
from flopray.cli.interrupted_run import InterruptedRun
from flopray.cli.objective import refuse_mfu, refuse_objective, sought
from flopray.cli.request import Request, default_name, sweep_from
from flopray.cli.results import finish
from flopray.cli.run_loggers import loggers_of_new, told_places
from flopray.cli.terminal import LineConsole, said_if_slow
from flopray.cli.trust import trust, trust_code
from flopray.cluster.connection import connected
from flopray.cluster.devices import Cluster, absent_types, check_cores, choose_devices, passed_over, wait_for
from flopray.cluster.this_machine import this_machine
from flopray.errors import (
    EXIT_INTERRUPTED,
    FloprayError,
    InputError,
    MeterError,
    NoEnergySource,
    SettingError,
    StorageError,
    resume_command,
)
from flopray.measurement.start_up import StartUp, imported_meanwhile, importing
from flopray.monitoring.progress import Progress
from flopray.monitoring.run_log import RunLog
from flopray.point import FP8_SCALING
from flopray.store.location import check_new, create_run
from flopray.store.run import RunFolder
from flopray.store.uri import is_uri
from flopray.sweep.definition import Sweep
from flopray.sweep.metrics import linger_s
from flopray.sweep.plan import Placed, print_plan, refuse_what_none_can, targets
from flopray.units import counted
from flopray.workloads.base import Workload


class NewRun:
    """A run that does not exist yet. What can be checked without Ray is checked here.

    Attributes:
        name: of the run.
        address: its folder or URI.
        workload: with its code.
        options: how it is carried out.
        limits: when a point or the sweep is abandoned.
        device_types: that it waits for and uses; None takes every GPU, or the CPU.
        finished: status by point that needs no measuring.
        began_with_gpu_type: the `--gpu-type` that the run was started with.
        loggers: get every result; None where there are none.

    Raises:
        FloprayError: the request is impossible.
    """

    def __init__(self, workload: Workload, request: Request) -> None:
        self.workload, self._request = workload, request
        self.options, self.limits = request.options, request.limits
        self.name = default_name(workload) if self.options.name is None else self.options.name
        storage = self.options.storage.rstrip("/")
        self.address = f"{storage if is_uri(storage) else Path(storage).absolute()}/{self.name}"
        self.device_types = request.device_types
        self.finished: Mapping[str, str] = {}
        self.began_with_gpu_type: str | None = None
        self._known: Sweep | None = None
        gpu_type, waits = self.options.gpu_type, self.options.wait_s
        check_new(self.options.storage, self.name, write=not self.options.dry_run)
        # Checked on a stand-in before Ray starts; the real devices are known only after it did.
        named = self.device_types or ([gpu_type] if gpu_type else [])
        stand_in = sweep_from(workload, request, named or ["CPU"], cores=1)
        refuse_mfu(stand_in, types_known=bool(named))
        if waits is not None and not named:
            raise InputError("--wait needs --accelerators or --gpu-type to say what to wait for")
        search = str(request.settings.get("search"))
        module, extra = {"optuna": ("optuna", "optuna"), "active": ("sklearn", "active")}.get(search, ("", ""))
        if module and find_spec(module) is None:
            raise InputError(f"--search {search} needs the extra: pip install 'flopray[{extra}]'")
        if self.options.address is None and not waits:  # Ray takes seconds to start
            self._known = self.on(this_machine().with_gpu_type(gpu_type)).sweep
        self.loggers = loggers_of_new(stand_in.log_to, self.name, self.options)

    def on(self, cluster: Cluster) -> Placed:
        """The sweep on the devices of a cluster; a plan takes missing types too.

        Raises:
            FloprayError: the devices are missing, or can measure nothing of it.
        """
        absent = absent_types(cluster, self.device_types) if self.options.dry_run else []
        warning, cluster = passed_over(cluster, self.device_types), cluster.with_types(absent)
        slots = choose_devices(cluster, self.device_types, planned=absent if self.options.dry_run else None)
        sweep = sweep_from(self.workload, self._request, list(slots), cores=cluster.cores)
        if self._known is not None and self._known == sweep:
            sweep = self._known  # its points need not be made again
        if sweep.samples is not None and sweep.samples > sweep.grid_size:
            raise SettingError(
                f"<samples> {sweep.samples}: the grid has {sweep.grid_size} point{'s' * (sweep.grid_size != 1)}"
            )
        check_cores(cluster, sweep.cpus_per_trial)
        if sweep.size == 0:
            empty = f"none of the {counted(sweep.grid_size, 'point')} of the grid falls into it"
            raise SettingError(f"<shard> {sweep.shards[0]}: {empty}")
        found = targets(slots, local=cluster.local, absent=absent)
        refuse_what_none_can(sweep, found)
        if cluster.local and sweep.settings.hold_temperature_c is not None and not absent:
            _refuse_without_sensor()
        needs_energy = cluster.local and any(objective.metric.of_energy for objective in sweep.objectives)
        refuse_objective(sweep, _no_energy(slots, absent) if needs_energy else None)
        return Placed(sweep, slots, found, warning)

    def open(self, placed: Placed) -> tuple[RunFolder, str]:
        """Make its folder, with the manifest that a resume needs; returns a line that says so."""
        gpu_type = self.options.gpu_type
        head = {"script": _script(), "plots": self.options.plots, "limits": self.limits.to_manifest()}
        head |= {"gpu_type": gpu_type} if gpu_type in placed.slots else {}
        head |= self.loggers.to_manifest() if self.loggers else {}
        trust(self.workload)
        trust_code(self.workload, placed.sweep.axes)
        manifest = placed.sweep.to_manifest(self.name, _versions(placed.sweep)) | head
        folder = create_run(self.options.storage, self.name, manifest)
        return folder, f"run {self.name}: {folder.address}"


def _script() -> str:
    """The script that was started; with `python -m`, not the file of the package."""
    started = Path(sys.argv[0])
    return started.parent.name if started.name == "__main__.py" else sys.argv[0]


#: Ray starts in 6 to 8 s, and within these without a word.
_SILENT_S = 12.0
#: A new or an existing run.
Run = NewRun | InterruptedRun


def run(workload: Workload, request: Request, console: Console) -> int:
    """Carry out a request; returns the exit code.

    Raises:
        FloprayError: with the one line that ends the command.
    """
    start_up = StartUp()
    linger_s()
    if request.options.quiet or request.options.json:
        console = Console(quiet=True)  # errors go to another console
    with said_if_slow(console, "checking the sweep, models included, before anything starts ..."):
        of: Run = (NewRun if request.options.resume is None else InterruptedRun)(workload, request)
    if isinstance(of, NewRun) or of.left > 0:
        return _carry_out(of, console, start_up)
    if of.mended:
        console.print(of.mended, highlight=False, soft_wrap=True)
        if of.folder.has_results():
            return 0
    progress = Progress(console, total=of.sweep.size, workload=workload, events=of.options.json)
    return finish(workload, of.options, console, of.folder, progress, sought(of.sweep))


def _carry_out(of: Run, console: Console, start_up: StartUp) -> int:
    """The one path of new and interrupted runs; returns the exit code."""
    start_up.mark("checks")
    say = partial(console.print, highlight=False, soft_wrap=True)
    with _reach(of, console) as cluster:
        raise_swallowed()  # Ray's start runs code of many libraries
        start_up.mark("Ray")
        placed = of.on(_awaited(of, cluster, say))
        start_up.mark("devices")
        if placed.warning:
            say(f"warning: {placed.warning}")
        if of.options.dry_run:
            _plan(of, placed)
            return 0
        _say_where(console, cluster)
        notes = _preflight(of, placed, cluster, console)
        raise_swallowed()
        start_up.mark("pre-flight")
        folder, line = of.open(placed)
        for said in (line, *told_places(of.loggers, folder, of.options)):
            say(said)
        return _measure(of, placed, folder, console, notes, start_up)


@contextmanager
def _reach(of: Run, console: Console) -> Iterator[Cluster]:
    """The cluster to run on, with a line where it is slow to come; a plan for this machine starts no Ray."""
    address = of.options.address
    if of.options.dry_run and address is None:
        yield this_machine()
        return
    if address is None:
        console.print("starting Ray on this machine ...", highlight=False)
    job = {"job_name": of.name, "flopray_run": of.name, "flopray_version": flopray.__version__}
    job |= {"workload": of.workload.name, "results": of.address}
    what = "starting, as it does on a busy machine" if address is None else "letting this process in"
    said = f"Ray is still {what}; run {of.name} will be in {of.address}"
    # What runs the sweep takes seconds to import; a plan does not need it.
    driver = imported_meanwhile(None if of.options.dry_run else "flopray.sweep.driver")
    with ExitStack() as waiting:
        waiting.enter_context(said_if_slow(console, said, _SILENT_S))
        with connected(address, job, meanwhile=driver) as cluster:
            waiting.close()
            yield cluster


def _awaited(of: Run, cluster: Cluster, say: Callable[[str], object]) -> Cluster:
    """The cluster once it has the wanted devices, or when `--wait` is over; a plan does not wait."""
    seconds = 0.0 if of.options.dry_run else of.options.wait_s or 0.0
    gpu_type = of.options.gpu_type
    if gpu_type is None and not cluster.slots:  # types that Ray knows by now take precedence
        gpu_type = of.began_with_gpu_type
    return wait_for(cluster, of.device_types, seconds, say, gpu_type)


def _plan(of: Run, placed: Placed) -> None:
    """Print the plan; the rates of this machine's CPU are measured for it."""
    sweep, slots, found = placed.sweep, placed.slots, placed.targets
    start = of.options.address is None
    if "CPU" in found and start and not of.workload.as_a_whole:
        from flopray.sweep.calibration import calibrated  # imports torch

        rates, has_energy = calibrated(sweep.axes["precision"], cores=sweep.cpus_per_trial["CPU"])
        found = found | {"CPU": dataclasses.replace(found["CPU"], rates=rates, has_energy=has_energy)}
    output = LineConsole(markup=False)  # results go to standard output, and messages to standard error
    names = flags_of(of.workload)
    plots = of.options.plots
    print_plan(output, sweep, slots, finished=of.finished, found=found, figures=plots, start=start, names=names)


def _say_where(console: Console, cluster: Cluster) -> None:
    if not cluster.dashboard_url:
        return
    login = " (log in with the token that `ray get-auth-token` prints)" if cluster.local else ""
    console.print(f"Ray dashboard: http://{cluster.dashboard_url}{login}", highlight=False, soft_wrap=True)


def _preflight(of: Run, placed: Placed, cluster: Cluster, console: Console) -> list[str]:
    """Look at the nodes before anything is written; on a Ray started here, what is missing is reported later."""
    from flopray.cluster.doctor.preflight import check_nodes, tell

    strict = of.options.strict
    found = check_nodes(list(placed.slots), placed.sweep.settings.instruments, local=cluster.local)
    refuse_objective(placed.sweep, found.no_energy)
    return tell(Console(quiet=True) if cluster.local and not strict else console, found, strict=strict)


def _measure(
    of: Run, placed: Placed, folder: RunFolder, console: Console, notes: Sequence[str], start_up: StartUp
) -> int:
    """Measure the points that the run lacks, and make its results; returns the exit code."""
    sweep, goes_on = placed.sweep, _goes_on(of, folder)
    try:
        start_up.mark("folder")
        with importing():  # takes seconds, in which an interrupt may come too
            from flopray.sweep.driver import run_sweep

        raise_swallowed()
        start_up.mark("imports")
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
            left = f"{sweep.size - len(of.finished)} of {counted(sweep.size, 'point')} on {placed.slots}"
            for line in (f"{shlex.join(sys.argv)}: {left}", *notes):
                log.say(line)
            progress.event("preflight", notes=list(notes))
            how = {"finished": of.finished, "supersede": of.options.retry_failed, "limits": of.limits}
            how |= {"resume": goes_on, "loggers": of.loggers, "start_up": start_up}
            try:
                run_sweep(sweep, folder, placed.slots, progress, **how)
            except FloprayError as error:
                log.say(str(error), level=logging.ERROR)
                raise
        return finish(of.workload, of.options, console, folder, progress, sought(sweep))
    except KeyboardInterrupt:
        _say_interrupted(goes_on)
        with suppress(StorageError):
            folder.publish(results=False)
        return EXIT_INTERRUPTED


def _say_interrupted(goes_on: str) -> None:
    """Says how to go on. A command that is wrapped, or whose [brackets] are taken for markup, cannot be copied."""
    said = f"interrupted; every finished point is in the journal. Go on with:\n  {goes_on}"
    LineConsole(stderr=True, markup=False).print(said, highlight=False, soft_wrap=True)


def _goes_on(of: Run, folder: RunFolder) -> str:
    """The command that goes on with a run on the same cluster."""
    address = f" --address {shlex.quote(of.options.address)}" if of.options.address else ""
    return resume_command(folder.address) + address


def _by_type(sweep: Sweep, finished: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Points of each device type: all, and those that are finished. With a searcher this is not known beforehand."""
    if sweep.is_drawn:
        return {}
    points = sweep.points()
    done = Counter(point.device_type for point in points if point.id in finished)
    return {name: (count, done[name]) for name, count in Counter(point.device_type for point in points).items()}


def _refuse_without_sensor() -> None:
    """Refuse to hold a temperature if no GPU of this machine reports one. GPUs that fail are left to the sweep.

    Raises:
        SettingError: none reports its temperature.
    """
    from flopray.energy.nvml import list_gpus

    try:
        told = [gpu.temperature_c() for gpu in list_gpus()]
    except (MeterError, NoEnergySource):
        return
    if told and not any(temperature_c is not None for temperature_c in told):
        raise SettingError("<hold_temperature_c>: no GPU of this machine reports its temperature, so leave it out")


def _no_energy(slots: Mapping[str, int], absent: Sequence[str]) -> str | None:
    """Why no device of this machine has an energy source; None if one has, or if the devices are elsewhere."""
    from flopray.cluster.doctor.preflight import check_nodes

    return None if absent else check_nodes(list(slots), ("energy",), local=True).no_energy


def _versions(sweep: Sweep) -> dict[str, str]:
    """Versions of the measuring software, and how fp8 is scaled."""
    from importlib.metadata import version

    scaling = {name: FP8_SCALING[name] for name in sweep.axes["precision"] if name in FP8_SCALING}
    adapted = any(adapter is not None for adapter in sweep.axes.get("adapter", ()))
    packages = ["ray", "torch", *(["torchao"] if scaling else []), *(["peft"] if adapted else [])]
    told = {f"{name} scaling": f"{how}, dynamic" for name, how in scaling.items()}
    return {"python": sys.version.split()[0], **{name: version(name) for name in packages}, **told}
