"""A user's own Tuner: the trainable that measures points of a workload, and the run that is written meanwhile.

    trainable = flopray.sweep.trainable("mlp", phases=["train_step"], journal="results/x")
    space = {"n_layers": tune.grid_search([2, 4]), "width": 512, "tokens": 64}
    results = tune.Tuner(trainable, param_space=space).fit()

The run's recorder and the thread that writes its journal run until the user's process ends, or until
`trainable.close()`.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

import flopray
from flopray.cluster.connection import NAMESPACE, connected
from flopray.cluster.devices import Cluster, check_cores, inspect_cluster
from flopray.cluster.ray_internals import take_memory_kills_as_process_failures
from flopray.errors import InputError, RunError, StorageError
from flopray.mappings import Values
from flopray.point import Point, point_of
from flopray.records import PhaseRecord, Status
from flopray.settings import CPU_DEFAULTS, MeasureSettings, refuse_on_a_cpu, settings_of
from flopray.store.location import check_new, create_run, open_run
from flopray.store.run import RunFolder
from flopray.store.uri import is_uri
from flopray.sweep.definition import Sweep
from flopray.sweep.driver import placed_by_type
from flopray.sweep.free_devices import RECORDER_PREFIX
from flopray.sweep.journal_writer import JournalWriterThread, explained
from flopray.sweep.limits import Limits
from flopray.sweep.manifest import described, difference
from flopray.sweep.recorder_actor import ResultRecorderActor, start_recorder
from flopray.sweep.result_recorder import lines_of
from flopray.sweep.space import small_point
from flopray.sweep.summary import summarise, summary_columns
from flopray.sweep.trial import bound
from flopray.sweep.tuner_trial import TunerTrial
from flopray.workloads.base import Workload
from flopray.workloads.registry import loadable, reference_of

_MEASURING = (
    *("target_error", "max_seconds", "seed", "sentinel_every_s", "reference_temperature_c", "cooldown_c"),
    *("hold_temperature_c", "calibrate"),
)
_OTHERS = ("point_timeout_s", "cpus_per_trial", "gpu_type", "retry_failed")
#: A trial waits for the journal, and its device with it.
_DRAIN_EVERY_S = 0.05
_GO_ON = "running your script again"


class OwnTunerTrial(TunerTrial):
    """Base of the classes that `trainable` returns."""

    @classmethod
    def close(cls) -> None:
        """Close the run: its tables and summary are written, and a Ray that was started for it is left.

        Also done when the process ends. Does nothing the second time.

        Raises:
            FloprayError: the journal could not be written, or the tables could not be made.
        """
        if measuring := _OPEN.pop(cls.shared["address"], None):
            measuring.close()


def trainable(
    workload: str | Workload,
    *,
    journal: str | PathLike[str],
    phases: str | Iterable[str] | None = None,
    instruments: str | Iterable[str] | None = None,
    **settings: Any,
) -> type[OwnTunerTrial]:
    """The trainable of a `tune.Tuner` of your own: a trial measures the point of its configuration.

    Each finished point is a result with the metrics of a sweep, such as `train_step/energy_j`. It is in the journal
    before Tune sees it. A point that the journal has is not measured again: its trial returns at once.

    Args:
        workload: `mlp`, `llama`, the name of an installed one, `path/to/file.py:ClassName`, or a `Workload`.
        journal: folder or URI of the run, which is made or continued.
        phases: of the workload; by default its default phases.
        instruments: of `time`, `energy` and `counters`; by default time and energy.
        **settings: `target_error`, `max_seconds`, `seed`, `sentinel_every_s` (here by default 0),
            `reference_temperature_c`, `cooldown_c`, `hold_temperature_c`, `calibrate`, `point_timeout_s`,
            `cpus_per_trial` (by default all of a node for a CPU, 1 beside a GPU), `gpu_type` (where
            Ray does not know it), `retry_failed` (measure points again that crashed).

    Returns:
        A class for `tune.Tuner`. Its `param_space` has the workload's fields, and may have `precision`, `execution` and
        `device_type`. A trial holds a whole GPU, or CPU cores. `close()` closes the run before the process ends.

    Raises:
        InputError: an unknown workload, phase or setting; a run of something else, or one that another process writes.
        ClusterError: Ray cannot be reached or started.
    """
    known = (*_MEASURING, *_OTHERS)
    found = loadable(workload)
    for name in settings:
        if name not in known:
            where = f": {field} goes into param_space" if (field := found.field_meant(name)) else ""
            raise InputError(f"unknown setting {name!r:.60}: choose from {', '.join(sorted(known))}{where}")
    if (cpus := settings.get("cpus_per_trial")) is not None:
        settings_of(Sweep)["cpus_per_trial"].check(cpus)
    given = _given(phases, instruments, settings)
    _made_of(found, given, on_gpu=True)  # checked before Ray starts
    limits = Limits(point_timeout_s=settings.get("point_timeout_s", Limits.point_timeout_s), stop_after=0)
    there = _opened(journal, found, given, cpus)
    if before := _OPEN.pop(_address(journal), None):  # a notebook's cell that runs again
        before.close()
    if there is not None:
        there.check_unlocked()
    with ExitStack() as stack:
        cluster = _cluster(stack, str(journal), found).with_gpu_type(settings.get("gpu_type"))
        cores = _cores(there, cluster, cpus)
        folder = there or _made(journal, found, _made_of(found, given, on_gpu=bool(cluster.slots)), cores)
        measuring = MeasureSettings.from_dict(folder.manifest["tuner"]["settings"])
        session = _Measuring(stack, folder, measuring, limits, retry_failed=bool(settings.get("retry_failed")))
        shared = {
            "address": _address(journal),
            "run": folder.name,
            "recorder": session.recorder_name,
            "namespace": NAMESPACE,
            "settings": measuring.to_dict(),
            "point_timeout_s": limits.point_timeout_s,
            "workload": reference_of(found),
            **_devices(cluster, cores),
        }
        session.keep(stack.pop_all())
    _OPEN[shared["address"]] = session
    return bound(OwnTunerTrial, shared, f"flopray_{found.name}")


class _Measuring:
    """A run that is being written: its lock, its recorder, and the thread between them."""

    def __init__(
        self, stack: ExitStack, folder: RunFolder, settings: MeasureSettings, limits: Limits, *, retry_failed: bool
    ) -> None:
        self._folder = folder
        journal = stack.enter_context(folder.writer())
        finished = {i: status for i, status in folder.finished().items() if i == point_of(i)}
        if retry_failed:
            finished = {i: status for i, status in finished.items() if status != Status.FAILED}
        self.recorder_name = f"{RECORDER_PREFIX}:{folder.name}:{uuid.uuid4().hex[:8]}"
        self._recorder = start_recorder(
            folder.name, set(finished), settings, limits, actor_name=self.recorder_name, actor=ResultRecorderActor
        )
        known = [records for records in folder.points() if records[0].trial_id in finished]
        self._take(known)
        self._writer = stack.enter_context(
            JournalWriterThread(
                self._recorder,
                journal,
                _Quiet(),
                supersede=retry_failed,
                resume=_GO_ON,
                journaled=self._take,
                failed=self._fail,
                every_s=_DRAIN_EVERY_S,
            )
        )
        take_memory_kills_as_process_failures()

    def keep(self, stack: ExitStack) -> None:
        """Take what has to be closed at the end."""
        self._stack = stack

    def close(self) -> None:
        """Close, and make the tables.

        Raises:
            FloprayError: the journal could not be written, or a table.
        """
        connected_yet = ray.is_initialized()
        self._stack.close()
        try:
            self._writer.raise_failure()
        except StorageError:
            raise
        except Exception:
            if connected_yet:  # else the script has left Ray, and no trial waits for the journal
                raise
        self._folder.compact()
        self._folder.write_kernels()
        self._folder.write_operators()
        self._folder.write_series()
        self._folder.write_summary(summarise(self._folder.load(summary_columns(self._folder)), None))
        self._folder.publish()

    def _take(self, points: Sequence[Sequence[PhaseRecord]]) -> None:
        if points:
            ray.get(self._recorder.keep.remote(lines_of(points, self._folder.schema)))

    def _fail(self, error: Exception) -> None:
        """Tell trials, which wait for the journal, and the user."""
        if not ray.is_initialized():
            return
        reason = str(explained(error, _GO_ON))
        _say(f"error: {reason}")
        self._recorder.fail.remote(reason)


class _Quiet:
    """Tune shows the progress; only what a person should read is printed."""

    def update(self, points: Any, working_on: Any) -> None:
        """Nothing."""

    def notice(self, line: str) -> None:
        """A line."""
        _say(line)

    waiting = retried = notice

    def said(self, line: str) -> None:
        """Nothing: it is in the trial's own log."""

    spent = said

    def __exit__(self, *_: object) -> None:
        """Nothing."""


#: Runs that are being written by this process, by address.
_OPEN: dict[str, _Measuring] = {}


@atexit.register
def _close_all() -> None:
    """Close all runs; a failure is one line, and every point is in its journal."""
    while _OPEN:
        address, measuring = _OPEN.popitem()
        try:
            measuring.close()
        except Exception as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            _say(f"error: {address}: {said}; every finished point is in the journal")


def _say(line: str) -> None:
    Console(stderr=True, markup=False, emoji=False).print(f"flopray: {line}", highlight=False, soft_wrap=True)


def _given(
    phases: str | Iterable[str] | None, instruments: str | Iterable[str] | None, settings: Mapping[str, Any]
) -> dict[str, object]:
    """Settings of measuring that were given."""
    given: dict[str, object] = {name: settings[name] for name in _MEASURING if name in settings}
    words = {"phases": phases, "instruments": instruments}
    return given | {
        name: (value,) if isinstance(value, str) else tuple(value) for name, value in words.items() if value is not None
    }


def _made_of(workload: Workload, given: Mapping[str, Any], *, on_gpu: bool) -> MeasureSettings:
    """How points are measured, with defaults for what was not given.

    A process that measures one point alone, as Tune's do by default, sees no drift: there is no sentinel.

    Raises:
        InputError: a value that cannot be.
    """
    defaults: Values = {"phases": workload.default_phases, "sentinel_every_s": 0.0}
    chosen: Values = defaults | ({} if on_gpu else dict(CPU_DEFAULTS)) | dict(given)
    made = MeasureSettings(**chosen)
    if not on_gpu:
        refuse_on_a_cpu(made)
    settings_of(MeasureSettings)["phases"].check(made.phases, choices=workload.phases)
    return made


def _address(journal: str | PathLike[str]) -> str:
    """Address of the run of a journal once it is open."""
    return str(journal).rstrip("/") if is_uri(str(journal)) else str(Path(journal).absolute())


def _place(journal: str | PathLike[str]) -> tuple[str, str]:
    """Storage and name of a run."""
    storage, slash, name = str(journal).rstrip("/").rpartition("/")
    return storage or slash or ".", name


def _opened(
    journal: str | PathLike[str], workload: Workload, given: Mapping[str, Any], cores: int | None
) -> RunFolder | None:
    """The run of a journal, if there is one that this script may go on with; checked before Ray starts.

    Raises:
        InputError: it is of something else.
    """
    storage, name = _place(journal)
    try:
        check_new(storage, name)
        return None
    except RunError as error:
        try:
            folder = open_run(journal)
        except RunError:
            raise error from None
    kept = folder.manifest.get("tuner")
    if not isinstance(kept, dict):
        raise RunError(f"{folder.address} is a sweep of flopray, with its own grid: name another journal")
    another = "name another journal, or measure as before"
    if part := difference(folder.workload, workload):
        raise RunError(f"{folder.address} measures {folder.workload.name}, whose {part} differs: name another journal")
    now = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    now |= {} if cores is None else {"cpus_per_trial": cores}
    before = {**_dict(kept.get("settings")), "cpus_per_trial": kept.get("cpus_per_trial")}
    for setting, value in now.items():
        if before.get(setting) != value:
            was, is_now = _shown(before.get(setting)), _shown(value)
            raise RunError(f"{folder.address} was measured with {setting} {was}, and now it is {is_now}: {another}")
    return folder


def _dict(value: Any) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cluster(stack: ExitStack, journal: str, workload: Workload) -> Cluster:
    """The cluster that this process is connected to, or that RAY_ADDRESS names, or one that is started here."""
    if ray.is_initialized():
        return inspect_cluster(dashboard_url=None, local=False)
    address = os.environ.get("RAY_ADDRESS") or None
    job = {"job_name": _place(journal)[1], "flopray_version": flopray.__version__, "workload": workload.name}
    return stack.enter_context(connected(None if address == "local" else address, job, own_tuner=True))


def _cores(there: RunFolder | None, cluster: Cluster, given: int | None) -> int:
    """CPU cores of a trial on the CPU: those that the run began with, which decide how fast it computes."""
    kept = _dict(there.manifest.get("tuner")).get("cpus_per_trial") if there else None
    cores = kept if isinstance(kept, int) else given if given is not None else cluster.cores
    check_cores(cluster, {"CPU": cores})
    return cores


def _made(journal: str | PathLike[str], workload: Workload, settings: MeasureSettings, cores: int) -> RunFolder:
    """A new run, whose manifest says that a Tuner of its own decides on its points."""
    storage, name = _place(journal)
    manifest = {
        "flopray_version": flopray.__version__,
        "created_unix_s": time.time(),
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in ("ray", "torch")}},
        "sweep": {"workload": workload.name},
        "tuner": {"settings": settings.to_dict(), "cpus_per_trial": cores, "script": sys.argv[0]},
    }
    return create_run(storage, name, manifest | described(workload))


def _devices(cluster: Cluster, cores: int) -> dict[str, object]:
    """What trials are told about devices: the types, the default type, cores."""
    types = [*cluster.slots, "CPU"]
    default = "CPU" if not cluster.slots else types[0] if len(cluster.slots) == 1 else None
    if cluster.untyped and not cluster.slots:
        default = None
        _say('the cluster has GPUs whose type Ray does not know: say it with gpu_type="H100"')
    elif cluster.unmeasured and not cluster.slots:
        there = ", ".join(cluster.unmeasured)
        _say(f"the cluster has {there}, which flopray does not measure: trials measure the processor")
    return {
        "device_types": types,
        "device_type": default,
        "cpus_per_trial": {name: cores if name == "CPU" else 1 for name in types},
        "placed_by_type": placed_by_type(types),
        "sentinels": {name: _sentinel(name).fields() for name in types},
    }


def _sentinel(device_type: str) -> Point:
    """As in a sweep, a CUDA graph on a GPU: it shows drift of the device and not of Python's launches."""
    return small_point(device_type, execution="eager" if device_type == "CPU" else "graph")
