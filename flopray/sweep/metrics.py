"""A sweep in numbers for Prometheus, through Ray: on the export port of the node where the recorder runs.

The recorder sets them from the records that trials hand over, in its own process. A trial publishes and reads nothing
for them, so nothing is added to a measured window. Names end in base units, as Prometheus asks; Ray prefixes `ray_`.
https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from flopray.errors import InputError
from flopray.records import PhaseRecord, Row
from flopray.sweep.outcome import status_of

_DEVICE: tuple[str, ...] = ("run", "device_type", "node", "gpu", "workload", "phase", "precision")
#: What a device did in the last window of each phase: metric, column of the record, description.
GAUGES = (
    ("flopray_device_power_watts", "power_w", "mean power in the last measured window"),
    ("flopray_device_temperature_celsius", "temperature_end_c", "GPU temperature at the end of the last window"),
    ("flopray_device_sm_clock_hertz", "sm_clock_end_hz", "SM clock at the end of the last window, under load"),
    ("flopray_device_model_flops_per_second", "flops_per_s", "model FLOPs a second in the last window"),
    ("flopray_device_model_flops_per_joule", "flops_per_j", "model FLOPs a joule in the last window"),
)
#: Variable with the seconds that the recorder runs on after a sweep, so that the last values are scraped: Ray exports
#: every ten seconds.
LINGER = "FLOPRAY_METRICS_LINGER_S"
_SECONDS = [0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


def linger_s() -> float:
    """The seconds in the environment variable that `LINGER` names, else 0.

    Raises:
        InputError: it is not a number of seconds.
    """
    text = os.environ.get(LINGER, "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{LINGER} must be 0 or more seconds, got {text[:40]!r}")
    return seconds


class SweepMetrics:
    """The metrics of one sweep, published by the process that makes this object.

    Args:
        run: name of the run, a tag of all of them.
    """

    def __init__(self, run: str) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._run = _tag(run)
        of_type = ("run", "device_type")
        points = ("run", "device_type", "workload", "precision", "status")
        self._points = Counter("flopray_points_total", "points that ended, by status", points)
        self._running = Gauge("flopray_points_running", "points that are being measured", of_type)
        self._seconds = Histogram("flopray_point_duration_seconds", "device time of a point", _SECONDS, of_type)
        self._ratio = Gauge("flopray_measured_window_ratio", "share of device time in measured windows", of_type)
        self._energy = Counter("flopray_device_energy_joules_total", "energy in measured windows", _DEVICE)
        self._gauges = {column: Gauge(name, text, _DEVICE) for name, column, text in GAUGES}
        self._last: dict[tuple[str, ...], dict[str, float]] = {}
        self._window_s: dict[str, float] = {}
        self._wall_s: dict[str, float] = {}

    def take(self, records: Sequence[PhaseRecord]) -> None:
        """Count a finished point and keep what its windows showed."""
        first = records[0]
        device_type, wall_s = _tag(first.device_type) or "unknown", first.device_wall_s
        tags = {"run": self._run, "device_type": device_type}
        more = {"workload": first.workload, "precision": first.precision or "", "status": status_of(records)}
        more = {name: _tag(value) for name, value in more.items()}
        self._points.inc(1.0, tags | more)
        if wall_s is not None:
            self._seconds.observe(wall_s, tags)
            self._wall_s[device_type] = self._wall_s.get(device_type, 0.0) + wall_s
            window_s = sum(record.window_s or 0.0 for record in records)
            self._window_s[device_type] = self._window_s.get(device_type, 0.0) + window_s
        for record in records:
            self._take_window(record)

    def refresh(self, running: Mapping[str, int]) -> None:
        """Set all gauges again: Ray's agent drops one that was not exported for two intervals.

        Args:
            running: points that are being measured, by device type.
        """
        for device_type, count in running.items():
            self._running.set(float(count), {"run": self._run, "device_type": _tag(device_type)})
        for device_type, wall_s in self._wall_s.items():
            if wall_s:
                self._ratio.set(self._window_s[device_type] / wall_s, {"run": self._run, "device_type": device_type})
        for key, values in self._last.items():
            tags = dict(zip(_DEVICE, key, strict=True))
            for column, value in values.items():
                self._gauges[column].set(value, tags)

    def _take_window(self, record: PhaseRecord) -> None:
        key = tuple(self._tags(record).values())
        values: Row = {column: getattr(record, column) for column in self._gauges}
        # A value that was not measured is absent, never 0; a value that the last window lacks is not kept from an older
        # one.
        self._last[key] = {column: float(value) for column, value in values.items() if value is not None}
        if record.power_w is not None and record.window_s is not None:
            self._energy.inc(record.power_w * record.window_s, self._tags(record))

    def _tags(self, record: PhaseRecord) -> dict[str, str]:
        values: dict[str, object] = {"run": self._run, "gpu": record.device_uuid}
        return {name: _tag(values.get(name, getattr(record, name, None))) for name in _DEVICE}


def _tag(value: object) -> str:
    r"""The value of a tag: Ray takes ASCII alone, so that anything else is escaped, such as `\xe4`."""
    return str(value or "").encode("ascii", "backslashreplace").decode("ascii")
