"""The series of a window: which ticks it keeps, the power between them, and how it gets into a run's side file."""

import json
import time
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from flopray.energy.estimator import estimate_power
from flopray.energy.load import LoadSpan
from flopray.energy.meter import Characteristics, Reading, Temperature
from flopray.errors import MeterError, NoEnergySource, SettingError
from flopray.measurement.device import Device
from flopray.measurement.phase import measure_phase
from flopray.measurement.profiler import Profiler
from flopray.measurement.window_series import MOST_TICKS, DeviceSample, window_series
from flopray.settings import MeasureSettings
from flopray.store import series_table
from flopray.store.window_series import series_in
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import SimulatedMeter, VirtualClock, poll_simulated
from flopray.workloads.registry import make_point

pytestmark = pytest.mark.usefixtures("peak_measured_once")

POWER_W = 40.0
METER = Characteristics(settle_s=0.15)


def readings(count, *, power_w=POWER_W, period_s=0.1, reset_at=None):
    """Two readings around each of some ticks; the counter starts again at a reset."""
    found = []
    for k in range(count + 1):
        energy_j = power_w * period_s * (k if reset_at is None or k < reset_at else k - reset_at)
        found += [Reading(k * period_s + 0.001, k * period_s + 0.002, energy_j)]
        found += [Reading((k + 1) * period_s - 0.003, (k + 1) * period_s - 0.002, energy_j)]
    return found


def test_ticks_power_and_what_was_used():
    found = window_series(
        readings(10),
        start_s=0.05,
        end_s=0.95,
        meter=METER,
        temperatures=[Temperature(0.0, 40.0), Temperature(1.0, 50.0)],
        samples=[DeviceSample(0.1 * k + 0.01, 1.5e9, 1000 + k) for k in range(11)],
    )
    assert found is not None
    assert found.ticks == len(found.time_s) == 10
    assert found.window_s == pytest.approx(0.9)
    assert found.time_s[0] == pytest.approx(0.05, abs=0.003)
    assert found.energy_j[0] == 0.0
    assert found.power_w[0] is None
    assert found.power_w[1:] == pytest.approx([POWER_W] * 9, rel=1e-3)
    assert found.temperature_c[0] == pytest.approx(41.0, abs=0.1)
    assert found.memory_used_bytes == [1000 + k for k in range(1, 11)]
    # Those that the estimate uses: none within settle_s of the start, none after the end.
    assert sum(found.used) == estimate_power(readings(10), LoadSpan(0.05, 0.95), meter=METER).ticks == 7
    assert found.used == [False, False, *[True] * 7, False]


def test_power_is_not_told_across_a_reset():
    found = window_series(readings(10, reset_at=5), start_s=0.0, end_s=1.1, meter=METER)
    assert found is not None
    assert found.power_w.count(None) == 2  # the first tick, and the first one after the reset
    assert [power for power in found.power_w if power] == pytest.approx([POWER_W] * 7, rel=1e-3)
    assert found.energy_j.count(0.0) == 2


def test_a_fast_counter_is_thinned_and_its_energy_stays():
    found = window_series(readings(1000, period_s=0.01), start_s=0.0, end_s=11.0, meter=METER)
    assert found is not None
    assert (found.ticks, len(found.time_s)) == (1000, MOST_TICKS)
    assert found.energy_j[-1] == pytest.approx(POWER_W * 0.01 * 999)
    energy_j = sum(power * gap for power, gap in zip(found.power_w[1:], np.diff(found.time_s), strict=True))
    assert energy_j == pytest.approx(found.energy_j[-1], rel=1e-4)
    assert len(found.to_json()) < 16_000


def test_without_a_tick_there_is_no_series():
    assert window_series([], start_s=0.0, end_s=1.0, meter=METER) is None
    assert window_series(readings(0), start_s=0.0, end_s=1.0, meter=METER) is None


def test_what_is_not_known_is_missing():
    clock = VirtualClock()
    meter = SimulatedMeter(ConstantPower(POWER_W), clock, period_s=0.1)
    found = window_series(poll_simulated(meter, 2.0), start_s=0.0, end_s=2.0, meter=meter.characteristics)
    assert found is not None
    assert set(found.temperature_c) == set(found.sm_clock_hz) == set(found.memory_used_bytes) == {None}
    assert np.nanmean([power for power in found.power_w if power]) == pytest.approx(POWER_W, rel=0.01)


def test_a_series_needs_energy():
    with pytest.raises(SettingError, match="keep_series needs instruments energy"):
        MeasureSettings(keep_series=True, instruments=("time",))


@pytest.fixture
def measured(monkeypatch):
    """Records of a small point, measured with a meter or without a source."""
    point = make_point(workload="mlp", device_type="CPU", n_layers=2, width=32, tokens=16)

    def measure(meter=None, **fields):
        def open_meter(self):
            if meter is None:
                raise NoEnergySource("this machine counts no joules: buy one that does")
            return meter

        monkeypatch.setattr(Device, "open_meter", open_meter)
        settings = MeasureSettings(
            **{"phases": ("forward", "backward"), "target_error": 0.3, "max_seconds": 0.3, "sentinel_every_s": 0.0}
            | fields
        )
        with Profiler(Device("CPU", threads=1), settings) as profiler:
            return profiler.measure_point(point, order_index=0)

    return measure


def simulated(**options):
    options = {"temperature": lambda _: 45.0} | options
    return SimulatedMeter(ConstantPower(POWER_W), period_s=0.02, latency_s=0.0005, **options)


@pytest.mark.slow
def test_records_keep_series_only_if_they_are_asked_for(measured, tmp_path):
    (plain,) = measured(instruments=("time",), phases=("forward",))
    assert (plain.series, plain.series_status) == ((), "not_requested")
    records = measured(simulated(), keep_series=True)
    for record in records:
        assert (record.series_status, record.series_reason) == ("ok", None)
        (series,) = series_in(record.series)
        assert json.loads(record.series[0]).keys() == set(series.__struct_fields__)
        assert sum(series.used) == record.energy_ticks
        assert series.window_s == pytest.approx(record.window_s, abs=1e-5)
        assert record.started_unix_s < series.start_unix_s < record.ended_unix_s
        assert set(series.temperature_c) == {45.0}
    path = tmp_path / "series.parquet"
    assert series_table.write(path, [record.columns() for record in records])
    frame = pd.read_parquet(path)
    assert list(frame) == series_table.SCHEMA.names
    assert frame.groupby("phase")["used"].sum().to_dict() == {one.phase: one.energy_ticks for one in records}
    assert not series_table.write(tmp_path / "none.parquet", [{**records[0].columns(), "series": ()}])


@pytest.mark.slow
def test_why_there_is_no_series(measured):
    reasons = {(one.series, one.series_status, one.series_reason) for one in measured(keep_series=True)}
    assert reasons == {((), "no_energy_source", "this machine counts no joules: buy one that does")}


def test_the_series_of_a_meter_that_failed_keeps_what_it_had_seen():
    class Failing(SimulatedMeter):
        values: ClassVar[set[float]] = set()

        def read(self):
            reading = super().read()
            self.values.add(reading.energy_j)
            if len(self.values) > 6:
                raise MeterError("the counter is gone")
            return reading

    meter = Failing(ConstantPower(POWER_W), period_s=0.02, latency_s=0.0005)
    settings = MeasureSettings(keep_series=True, target_error=0.3, max_seconds=0.6)
    result = measure_phase(lambda: time.sleep(0.002), Device("CPU", threads=1), meter, settings, tick_period_s=0.02)
    assert (result.energy.status, result.energy.reason) == ("failed", "the counter is gone")
    assert result.series is not None
    assert len(result.series.time_s) >= 3


GOOD = {
    **{"start_unix_s": 1.0, "window_s": 1.0, "ticks": 1, "time_s": [0.1], "energy_j": [0.0], "power_w": [None]},
    **{"temperature_c": [40.0], "sm_clock_hz": [None], "memory_used_bytes": [None], "used": [True]},
}


@pytest.mark.parametrize(
    "line",
    [
        *("", "[]", "{}", "null", "[" * 9999, "\ud800", json.dumps(GOOD).replace("40.0", "1e999")),
        *(json.dumps({**GOOD, "time_s": value}) for value in ([], [0.1, 0.2], ["x"], None)),
        *(json.dumps({**GOOD, "ticks": value}) for value in (-1, 2**63, 0.5)),
        json.dumps({**GOOD, "memory_used_bytes": [2**64]}),
    ],
)
def test_text_that_is_no_series_is_passed_over(line):
    record = SimpleNamespace(**dict.fromkeys(series_table.KEYS, "x"), series=[line, json.dumps(GOOD)]).__dict__
    assert len(list(series_table.series_rows([record]))) == 1
