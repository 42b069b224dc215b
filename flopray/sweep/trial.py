"""The Tune trainable: one actor that owns one whole device, measures points, and reports each as a result of Tune."""

from __future__ import annotations

import base64
import contextlib
import faulthandler
import json
import os
import platform
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import ray
from ray import tune

from flopray.measurement.start_up import StartUp, importing
from flopray.point import Point
from flopray.records import PhaseRecord, Status
from flopray.settings import MeasureSettings
from flopray.store.schema import RecordSchema
from flopray.store.tune_results import Result, ResultFormat
from flopray.sweep.count_ahead import CountAhead
from flopray.sweep.failures import failed_records
from flopray.sweep.recorder import MAX_UNOPENED
from flopray.sweep.worker_log import WorkerLog
from flopray.workloads.registry import load, point_from

if TYPE_CHECKING:  # these import torch, which takes seconds: imported only where points are measured, not in the driver
    from flopray.measurement.device import Device
    from flopray.measurement.profiler import Profiler
    from flopray.workloads.base import Workload

#: A point that takes as long as this is a result of Tune, and the recorder has it at once. Shorter ones, such as those
#: whose FLOPs are only counted, cost less than the calls about them.
SHORT_S = 0.2
#: Of short points, a process reports this many at once, and then one in this many seconds, besides the last one of each
#: trial. A result says which points it stands for.
_RESULTS_AT_ONCE, _RESULT_EVERY_S = 20, 1.0
#: In the configuration of a point's trial: the place of the point in the sweep's order.
ORDER_INDEX = "order_index"
#: What Tune hands to a trial, by name: values that Tune or a searcher drew, which `point_from` checks.
Config = dict[str, Any]


class BrokenDevice(RuntimeError):
    """The CUDA context is broken; only a new process can go on."""


class PointTrial(tune.Trainable):
    """Measures points on the device Ray gave this actor. Reused for trial after trial while the device type fits.

    A trial is a slab of neighbouring points (its configuration has `slab`, see `slab_config`), or one point, whose
    fields are the configuration. What all trials of a sweep share is an attribute of a class of its own (`bound`).

    Attributes:
        shared: of the sweep, see `driver.sweep_config`.
    """

    shared: ClassVar[Mapping[str, Any]] = {}
    #: Of a device that is open, until its first window was told.
    _start_up: StartUp | None = None
    #: What hands out the points of a trial that are counted first.
    _counting: CountAhead | None = None

    def setup(self, config: Config) -> None:
        """Find the recorder; the device is opened at the first point."""
        self._begun = StartUp()
        self._sweep = self.shared
        self._recorder = ray.get_actor(self._sweep["recorder"], namespace=self._sweep["namespace"])
        self._device_type = self.device_type_in(config)
        self._own_name = self._actor_name()
        self._recorder.started.remote(self._own_name, ray.get_runtime_context().current_actor)
        self._worker_log = WorkerLog()
        self._profiler: Profiler | None = None
        self._workload = load(self._sweep["workload"])
        self._format = ResultFormat(RecordSchema(self._workload), self._settings().phases)
        self._results = ResultAllowance()
        self._unsent: list[PhaseRecord] | None = None
        self._take(config)

    def reset_config(self, new_config: Config) -> bool:
        """Take another slab in the same process, if it is for the same type of device."""
        if self.device_type_in(new_config) != self._device_type:
            return False
        self._take(new_config)
        return True

    def step(self) -> Result:
        """Measure a point, or several where results are thinned; the metrics are `store.tune_results`'s."""
        if not self._counted:
            self._count_ahead()
        elif not self._left and self._counting:
            self._left = self._counting.take()
        measured: list[list[PhaseRecord]] = []
        while self._left:
            index, spec = self._left.pop(0)
            begin_s = time.monotonic()
            if records := self._measure(spec, index):
                measured.append(records)
                if self._results.take(time.monotonic() - begin_s):
                    break
        self._hand_over()
        left = len(self._left) + (self._counting.left if self._counting else 0)
        return {"points_left": left, "done": not left, **self._format.flat(measured)}

    def cleanup(self) -> None:
        """Close the meter, and end what counts."""
        if self._counting:
            self._counting.close()
        if self._profiler:
            self._profiler.close()

    @classmethod
    def default_resource_request(cls, config: Config) -> tune.PlacementGroupFactory:
        """One whole GPU of the slab's type and a core to launch from, or the CPU cores of a CPU trial."""
        device_type = cls.device_type_in(config)
        cores = float(cls.shared["cpus_per_trial"][device_type])
        if device_type == "CPU":
            return tune.PlacementGroupFactory([{"CPU": cores}])
        of_type = {f"accelerator_type:{device_type}": 0.001} if device_type in cls.shared["placed_by_type"] else {}
        return tune.PlacementGroupFactory([{"CPU": cores, "GPU": 1.0, **of_type}])

    @classmethod
    def device_type_in(cls, config: Mapping[str, Any]) -> str:
        """The one device type of a configuration's points."""
        return device_type_of(config, cls.shared)

    def _points_in(self, config: Mapping[str, Any]) -> list[tuple[int | None, Point]]:
        """The points of a configuration, each with its place in the sweep's order."""
        return [(index, point_from(fields, self._workload)) for index, fields in points_of(config, self.shared)]

    def __repr__(self) -> str:
        """Name in the dashboard and in logs."""
        if not hasattr(self, "_device_type"):
            return "flopray"
        return f"flopray {self._device_type} {platform.node()}{_gpu_word()}"

    def _take(self, config: Config) -> None:
        self._device_type = self.device_type_in(config)
        self._left, self._counting = self._points_in(config), None
        self.config = readable(config)  # which Tune sends along with every result
        self._counted = "counters" not in self._sweep["settings"]["instruments"]

    def _count_ahead(self) -> None:
        """Read the hardware counters of the slab, all or a first chunk; see `sweep.count_ahead`."""
        self._counted = True
        profiler = self._profiler or self._open_profiler()
        if profiler is None or profiler.counting is None:
            return
        self._counting = CountAhead(profiler, self._recorder, self.trial_id, self._own_name, self._left)
        self._left = self._counting.take()
        if profiler.counters_reason:
            what = f"no hardware counters on {self._device_type}: {profiler.counters_reason}"
            ray.get(self._recorder.notice.remote(what))

    def _measure(self, spec: Point, index: int | None) -> list[PhaseRecord]:
        """Measure a point; the recorder has its records once this returns, or after `_hand_over`."""
        profiler = (
            self._profiler or self._open_profiler()
        )  # first: if a device cannot be opened, it is not the point's fault
        before, self._unsent = self._unsent, None
        attempt: Any = ray.get(self._recorder.begin.remote(self.trial_id, spec, self._own_name, before))
        if attempt is None:
            return []
        begin_s = time.monotonic()
        if profiler is None:
            records = failed_records(spec, self._settings(), self._sweep["run"], self._unopened, attempt=attempt)
        else:
            with alarm(self._sweep["point_timeout_s"]):
                records = profiler.measure_point(spec, order_index=index, attempt=attempt)
        self._unsent = records
        if time.monotonic() - begin_s >= SHORT_S or any(record.status != Status.OK for record in records):
            self._hand_over()
        self._tell_first_window()
        if said := self._worker_log.take():
            self._recorder.said.remote(self._own_name, said)
        _tell_log(spec, records)
        if profiler and not profiler.healthy():
            self._hand_over()
            raise BrokenDevice(f"the device of {spec.label()} stopped computing; a new process takes over")
        return records

    def _hand_over(self) -> None:
        """Give the recorder a short point that would go along with the question for the next one."""
        if self._unsent is not None:
            ray.get(self._recorder.push.remote(self.trial_id, self._unsent))
            self._unsent = None

    def _open_profiler(self) -> Profiler | None:
        """Open the device. If that fails, this process ends, so that Tune tries again, maybe elsewhere.

        Returns:
            The profiler, or None where that was tried often enough; `_unopened` then says why.
        """
        start_up = self._start_up = self._begun
        start_up.mark("Tune")
        with importing():
            profiler = _profiler_of(self._workload)
        start_up.mark("imports")
        sentinel = self._sweep["sentinels"].get(self._device_type)
        try:
            opening = profiler(
                self._device(),
                self._settings(),
                run=self._sweep["run"],
                sentinel=point_from(sentinel, self._workload) if sentinel else None,
                versions={"ray_version": ray.__version__},
                start_up=start_up,
            )
            start_up.mark("device")
            self._profiler = opening.open()
        except Exception as error:
            self._unopened = f"the device could not be opened: {(str(error).splitlines() or [repr(error)])[0]}"
            in_a_row: Any = ray.get(self._recorder.unopened.remote(self._device_type))
            if in_a_row < MAX_UNOPENED:
                raise
            return None
        self._recorder.spent.remote(self._own_name, [start_up.line("ready")])
        ray.get(self._recorder.opened.remote(self._device_type))
        if self._profiler.energy_reason:
            what = f"no energy on {self._device_type}, only time and FLOPs: {self._profiler.energy_reason}"
            ray.get(self._recorder.notice.remote(what))
        if self._profiler.factor_reason:
            what = f"no factor of a board of {self._device_type}: {self._profiler.factor_reason}"
            ray.get(self._recorder.notice.remote(what))
        return self._profiler

    def _tell_first_window(self) -> None:
        """Once in a process: how long after the device was open its first window began."""
        after_s = self._profiler.first_window_after_s if self._profiler and self._start_up else None
        if after_s is not None:
            self._start_up = None
            line = f"first window {after_s:.1f} s later (its point: built, captured or compiled, warmed up)"
            self._recorder.spent.remote(self._own_name, [line])

    def _device(self) -> Device:
        from flopray.measurement.device import Device
        from flopray.measurement.host import cpu_threads

        cores = self._sweep["cpus_per_trial"][self._device_type]
        node = ray.get_runtime_context().get_node_id()
        here = next((n["Resources"].get("CPU", 0) for n in ray.nodes() if n["NodeID"] == node), float("inf"))
        return Device(self._device_type, threads=cpu_threads(cores), whole=cores >= here)

    def _settings(self) -> MeasureSettings:
        return MeasureSettings.from_dict(self._sweep["settings"])

    def _actor_name(self) -> str:
        return f"{self._device_type}@{ray.util.get_node_ip_address()}{_gpu_word()}:{os.getpid()}"


def _profiler_of(workload: Workload) -> type[Profiler]:
    """What measures the points of a workload: in windows, or as a whole."""
    if workload.as_a_whole:
        from flopray.watching.evaluator import Evaluator

        return Evaluator
    from flopray.measurement.profiler import Profiler

    return Profiler


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer: it may hang in a driver's call that no exception reaches.

    The standard library's watchdog needs no interpreter lock, and writes the stack of every thread to this actor's log
    before it ends the process. https://docs.python.org/3/library/faulthandler.html

    Args:
        seconds: 0 sets no alarm.
    """
    if not seconds:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _gpu_word() -> str:
    """Ray's number of this actor's GPU, for its name; empty on a CPU."""
    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return f" GPU {','.join(gpus)}" if gpus else ""


def _tell_log(spec: Point, records: list[PhaseRecord]) -> None:
    """A line in this actor's own log, which the dashboard opens at standard error; between points, in no window."""
    parts = [f"{r.phase} {r.status}" + (f" {r.time_s:.4g} s" if r.time_s is not None else "") for r in records]
    print(f"{time.strftime('%H:%M:%S')} {spec.label()}: {', '.join(parts)}", file=sys.stderr, flush=True)


_Trial = TypeVar("_Trial", bound=PointTrial)


class ResultAllowance:
    """Which points a process reports: each long one, and of short ones some at once, and then one in some seconds."""

    def __init__(self) -> None:
        self._left, self._since = float(_RESULTS_AT_ONCE), time.monotonic()

    def take(self, seconds: float) -> bool:
        """Whether a point is to be reported now; else the next result stands for it too (a token bucket).

        Args:
            seconds: that the point took.
        """
        now = time.monotonic()
        self._left = min(_RESULTS_AT_ONCE, self._left + (now - self._since) / _RESULT_EVERY_S)
        self._since = now
        if seconds >= SHORT_S:
            return True
        if self._left < 1:
            return False
        self._left -= 1
        return True


def bound(trainable: type[_Trial], shared: Mapping[str, Any], name: str = "") -> type[_Trial]:
    """The trainable of one sweep: Tune sends a class to its workers once, and a configuration with every result.

    Args:
        trainable: base of the class.
        shared: what all trials of the sweep share.
        name: of the class, which Tune shows; empty takes that of the trainable.
    """
    made: Any = type(name or trainable.__name__, (trainable,), {"shared": shared, "__doc__": trainable.__doc__})
    return made


def slab_config(number: int, slab: Sequence[tuple[int, Point]], axes: Sequence[str]) -> Config:
    """The configuration of a slab's trial.

    The points are one compressed text: Tune copies and walks every trial's configuration, and a text has nothing to
        walk. As plain lists, 9,900 points took 15 s to begin (docs/results/orchestration.md).

    Args:
        number: of the slab.
        slab: points with their places in the sweep's order.
        axes: whose values in the slab people see.
    """
    content = [{"order_index": index, "spec": point.fields()} for index, point in slab]
    text = base64.b85encode(zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 1)).decode()
    values = {name: dict.fromkeys(point.fields()[name] for _, point in slab) for name in axes}
    told = {name: " ".join(map(_told, sorted(found, key=_order))) for name, found in values.items()}
    return {"number": number, "count": len(slab), **told, "points": text}


def _told(value: Any) -> str:
    return "none" if value is None else str(value)


def _order(value: Any) -> tuple[bool, Any]:
    """A missing value of an optional field comes first."""
    return value is not None, value


def readable(config: Mapping[str, Any]) -> Config:
    """A trial's configuration without the compressed text."""
    if "slab" not in config:
        return dict(config)
    return {"slab": {name: value for name, value in config["slab"].items() if name != "points"}}


def points_of(config: Mapping[str, Any], shared: Mapping[str, Any]) -> list[tuple[int | None, Config]]:
    """The points of a trial's configuration, each with its place in the sweep's order (None under a searcher)."""
    if "slab" in config:
        content = json.loads(zlib.decompress(base64.b85decode(config["slab"]["points"])))
        return [(point["order_index"], point["spec"]) for point in content]
    fields = {"workload": shared["workload"]["name"], **config}
    index = fields.pop(ORDER_INDEX, None)
    for axis, by_value in shared["implied"].items():
        fields |= by_value.get(fields.get(axis), {})
    return [(index, fields)]


def device_type_of(config: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    """The one device type of a trial's points."""
    if "slab" in config:
        return config["slab"]["device_type"]
    return points_of(config, shared)[0][1]["device_type"]
