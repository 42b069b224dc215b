"""The bench that tells what part of a tick a sensor sees, on simulated counters of which it is known."""

import importlib
from pathlib import Path

import pytest

from flopray.testing.power_traces import SquarePower
from flopray.testing.simulated_meter import SimulatedMeter, VirtualClock, poll_simulated

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("seen_s", "share"), [(None, 1.0), (0.05, 0.5), (0.025, 0.25)])
@pytest.mark.parametrize("on", [0.1, 0.2])
def test_what_a_sensor_sees_of_a_tick_is_found(monkeypatch, seen_s, share, on):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    bench = importlib.import_module("sensor_share")
    trace = SquarePower(600.0, 100.0, 0.1 * bench.LONGER, 1 - on)
    meter = SimulatedMeter(trace, VirtualClock(), period_s=0.1, seen_s=seen_s, seed=1)
    powers_w = bench.powers_of(poll_simulated(meter, bench.SECONDS, 0.1, 1))
    assert bench.seen_share(powers_w, on, 600.0, 100.0) == pytest.approx(share, rel=0.15)
