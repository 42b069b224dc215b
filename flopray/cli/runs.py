"""The run that a session measures: a new one, or one that was interrupted. A session treats both alike."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from flopray.cli.objective import refuse_mfu, refuse_objective
from flopray.cli.request import Request, default_name, sweep_from
from flopray.cli.run_loggers import loggers_of_new, loggers_of_run, mended_loggers
from flopray.cli.trust import trust
from flopray.cluster.devices import Cluster, absent_types, check_cores, choose_devices, passed_over
from flopray.cluster.this_machine import this_machine
from flopray.errors import InputError, MeterError, NoEnergySource, RunFinished, SettingError, resume_command
from flopray.point import point_of
from flopray.records import Status
from flopray.store.location import check_new, create_run, open_run
from flopray.store.manifests import check_resumable
from flopray.store.run import RunFolder
from flopray.store.uri import is_uri
from flopray.sweep.definition import Sweep
from flopray.sweep.plan import Target, refuse_what_none_can, targets
from flopray.workloads.base import Workload


class Placed(NamedTuple):
    """A sweep on devices that are there.

    Attributes:
        sweep: what is measured.
        slots: devices by type.
        targets: what is known of them.
        warning: a line about devices that are passed over.
    """

    sweep: Sweep
    slots: dict[str, int]
    targets: dict[str, Target]
    warning: str | None = None


class NewRun:
    """A run that does not exist yet. What can be checked without Ray is checked here.

    Attributes:
        name: of the run.
        address: its folder or URI.
        workload: with its code.
        options: how it is carried out.
        limits: when a point or the sweep is given up.
        device_types: which it waits for and takes; None takes every GPU, or the CPU.
        finished: status by point that needs no measuring.
        began_with_gpu_type: the `--gpu-type` that the run was started with.
        loggers: that are told of every result; None for none.

    Raises:
        FloprayError: what is asked for cannot be.
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
        _refuse_package_cache(self.options.storage)
        check_new(self.options.storage, self.name, write=not self.options.dry_run)
        # Checked on a stand-in before Ray starts; the real devices are known only after it did.
        named = self.device_types or ([gpu_type] if gpu_type else [])
        stand_in = sweep_from(workload, request, named or ["CPU"], cores=1)
        refuse_mfu(stand_in, types_known=bool(named))
        if waits is not None and not named:
            raise InputError("--wait needs --accelerators or --gpu-type to say what to wait for")
        if request.settings.get("search") == "optuna" and find_spec("optuna") is None:
            raise InputError("--search optuna needs the extra: pip install 'flopray[optuna]'")
        if self.options.address is None and not waits:  # Ray takes seconds to start, and would find what we do
            self._known = self.on(this_machine().with_gpu_type(gpu_type)).sweep
        self.loggers = loggers_of_new(stand_in.log_to, self.name, self.options)

    def on(self, cluster: Cluster) -> Placed:
        """The sweep on the devices of a cluster; a plan takes types that are not there, too.

        Raises:
            FloprayError: the devices are missing, or can measure nothing of it.
        """
        absent = absent_types(cluster, self.device_types) if self.options.dry_run else []
        warning, cluster = passed_over(cluster, self.device_types), cluster.with_types(absent)
        slots = choose_devices(cluster, self.device_types)
        sweep = sweep_from(self.workload, self._request, list(slots), cores=cluster.cores)
        if self._known is not None and self._known == sweep:
            sweep = self._known  # its points need not be made again
        if sweep.samples is not None and sweep.samples > sweep.grid_size:
            raise SettingError(f"<samples> {sweep.samples}: the grid has only {sweep.grid_size} points")
        check_cores(cluster, sweep.cpus_per_trial)
        if sweep.size == 0:
            empty = f"none of the {sweep.grid_size} points of the grid falls into it"
            raise SettingError(f"<shard> {sweep.shards[0]}: {empty}")
        found = targets(slots, local=cluster.local, absent=absent)
        refuse_what_none_can(sweep, found)
        if cluster.local and sweep.settings.hold_temperature_c is not None and not absent:
            _refuse_without_sensor()
        needs_energy = cluster.local and any(objective.metric.of_energy for objective in sweep.objectives)
        refuse_objective(sweep, _no_energy(slots, absent) if needs_energy else None)
        return Placed(sweep, slots, found, warning)

    def open(self, placed: Placed) -> tuple[RunFolder, str]:
        """Make its folder, with the manifest that a resume needs; also a line that says so."""
        gpu_type = self.options.gpu_type
        head = {"script": sys.argv[0], "plots": self.options.plots}
        head |= {"gpu_type": gpu_type} if gpu_type in placed.slots else {}
        head |= self.loggers.to_manifest() if self.loggers else {}
        trust(self.workload)
        folder = create_run(self.options.storage, self.name, placed.sweep.to_manifest(self.name, _versions()) | head)
        return folder, f"run {self.name}: {folder.address}"


class InterruptedRun:
    """A run that is there and lacks points, or only its tables. Its manifest says what it measures.

    It has what a `NewRun` has, and is carried out in the same way.

    Attributes:
        folder: of the run.
        sweep: of its manifest, with the code of the workload.
        mended: what its loggers lacked and now have, in a line, where all of its points are measured.

    Raises:
        FloprayError: it is no run, is one of another workload, or cannot be gone on with.
    """

    def __init__(self, workload: Workload, request: Request) -> None:
        self.workload, self.limits = workload, request.limits
        self.folder = open_run(str(request.options.resume))
        manifest, address = self.folder.manifest, self.folder.address
        check_resumable(manifest, address)
        plots = request.options.plots and manifest.get("plots") is not False
        self.options = dataclasses.replace(request.options, plots=plots)
        sweep = Sweep.from_manifest(manifest)
        if sweep.workload.name != workload.name:
            which = f"{sweep.workload.name}, not of {workload.name}"
            raise InputError(f"run {address} is a sweep of {which}: {resume_command(address)} goes on with it")
        self.sweep, self.name, self.address = sweep.with_code(workload), self.folder.name, address
        self.device_types = list(sweep.axes["device_type"])
        gpu_type = manifest.get("gpu_type")
        self.began_with_gpu_type = gpu_type if isinstance(gpu_type, str) else None
        self.loggers = loggers_of_run(self.folder, sweep.log_to, self.options)
        all_there = self.left <= 0 and not self.options.dry_run
        self.mended = mended_loggers(self.folder, self.sweep, self.loggers) if all_there else None
        if self.left <= 0 and not self.mended and (self.folder.has_results() or self.options.dry_run):
            raise RunFinished(f"run {address} is finished: all of its {len(self.finished)} points are measured")
        if not self.options.dry_run:
            self.folder.check_unlocked()

    @cached_property
    def finished(self) -> Mapping[str, str]:
        """Status by point that needs no measuring; with `--retry-failed` those that failed do."""
        finished = {k: v for k, v in self.folder.finished().items() if k == point_of(k)}
        return {k: v for k, v in finished.items() if v != Status.FAILED or not self.options.retry_failed}

    @property
    def left(self) -> int:
        """Points that it lacks; 0 where only its tables are missing."""
        return self.sweep.size - len(self.finished)

    def on(self, cluster: Cluster) -> Placed:
        """The sweep on the devices of a cluster.

        Raises:
            FloprayError: the devices are missing.
        """
        slots = choose_devices(cluster, self.device_types, resumed=True)
        check_cores(cluster, self.sweep.cpus_per_trial)
        return Placed(self.sweep, slots, targets(slots, local=cluster.local))

    def open(self, _: Placed) -> tuple[RunFolder, str]:
        """Its folder, and a line that says what is left."""
        return self.folder, f"resuming {self.folder.address}: {self.left} points are left"


#: What a session carries out.
Run = NewRun | InterruptedRun


def _refuse_without_sensor() -> None:
    """Refuse to hold a temperature that no GPU of this machine tells. One that fails is left to the sweep.

    Raises:
        SettingError: none tells its temperature.
    """
    from flopray.energy.nvml import list_gpus

    try:
        told = [gpu.temperature_c() for gpu in list_gpus()]
    except (MeterError, NoEnergySource):
        return
    if told and not any(temperature_c is not None for temperature_c in told):
        raise SettingError("<hold_temperature_c>: no GPU of this machine tells its temperature, so leave it out")


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


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"python": sys.version.split()[0], **{name: version(name) for name in ("ray", "torch")}}
