"""An interrupted run: what it lacks, by its manifest and its journal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property

from flopray.cli.request import Request
from flopray.cli.run_loggers import loggers_of_run, mended_loggers
from flopray.cli.trust import check_code
from flopray.cluster.devices import Cluster, check_cores, choose_devices
from flopray.errors import InputError, RunFinished, resume_command
from flopray.point import point_of
from flopray.records import Status
from flopray.store.location import open_run
from flopray.store.resumption import check_resumable
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.sweep.limits import limits_of_run
from flopray.sweep.plan import Placed, targets
from flopray.units import counted
from flopray.workloads.base import Workload


class InterruptedRun:
    """An existing run that lacks points, or only its tables. Its manifest says what it measures.

    It has the attributes of a `NewRun`, and is carried out in the same way.

    Attributes:
        folder: of the run.
        sweep: of its manifest, with the code of the workload.
        mended: what was added to its loggers, in a line, where all of its points are measured.

    Raises:
        FloprayError: it is not a run, is one of another workload, or cannot be resumed.
    """

    def __init__(self, workload: Workload, request: Request) -> None:
        self.workload = workload
        self.folder = open_run(str(request.options.resume))
        manifest, address = self.folder.manifest, self.folder.address
        check_resumable(manifest, address)
        self.limits = limits_of_run(manifest, request.given_limits)
        plots = request.options.plots and manifest.get("plots") is not False
        self.options = dataclasses.replace(request.options, plots=plots)
        sweep = Sweep.from_manifest(manifest)
        if sweep.workload.name != workload.name:
            which = f"{sweep.workload.name}, not of {workload.name}"
            raise InputError(f"run {address} is a sweep of {which}: {resume_command(address)} goes on with it")
        self.sweep, self.name, self.address = sweep.with_code(workload), self.folder.name, address
        check_code(workload, sweep.axes, address)
        self.device_types = list(sweep.axes["device_type"])
        gpu_type = manifest.get("gpu_type")
        self.began_with_gpu_type = gpu_type if isinstance(gpu_type, str) else None
        self.loggers = loggers_of_run(self.folder, sweep.log_to, self.options)
        all_there = self.left <= 0 and not self.options.dry_run
        self.mended = mended_loggers(self.folder, self.sweep, self.loggers) if all_there else None
        if self.left <= 0 and not self.mended and (self.folder.has_results() or self.options.dry_run):
            points = counted(len(self.finished), "point is", "points are")
            raise RunFinished(f"run {address} is finished: all of its {points} measured")
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
        return self.folder, f"resuming {self.folder.address}: {counted(self.left, 'point is', 'points are')} left"
