"""The NVML meters on a real GPU under a real load."""

import threading
import time

import numpy as np
import pytest
import torch

from flopray.energy.estimator import estimate_energy, estimate_power, measure_tick_period
from flopray.energy.idle import idle_power
from flopray.energy.load import LoadSpan
from flopray.energy.nvml import Gpu
from flopray.energy.nvml_errors import NvmlNotSupported
from flopray.energy.nvml_meter import NvmlCounterMeter, NvmlPowerMeter
from flopray.energy.poller import Poller
from flopray.energy.source import open_gpu_meter
from flopray.energy.ticks import find_ticks
from flopray.errors import MeterError, NoEnergySource

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]


class Load:
    """A chain of matrix products as one CUDA graph, a millisecond or so long; at most 0.1 s is ever queued.

    Small enough to stay below the board's power limit: at the limit the regulation makes power swing.
    """

    def __init__(self, size=512, repeats=64):
        a = torch.randn(size, size, device="cuda") / size**0.5
        b = torch.randn(size, size, device="cuda")
        for _ in range(3):
            a @ b
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            for _ in range(repeats):
                b = a @ b
        self.result = b
        self.run(0.3)

    def run(self, seconds):
        """Keeps the GPU busy; returns host start and end, and seconds per replay by events."""
        torch.cuda.synchronize()
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        marks = []
        start_s = time.perf_counter()
        first.record()
        while time.perf_counter() - start_s < seconds:
            for _ in range(20):
                self.graph.replay()
            marks.append(torch.cuda.Event())
            marks[-1].record()
            if len(marks) > 2:
                marks[-3].synchronize()
        last.record()
        torch.cuda.synchronize()
        replays = 20 * len(marks)
        return start_s, time.perf_counter(), first.elapsed_time(last) / 1e3 / replays


@pytest.fixture(scope="module")
def gpu():
    return Gpu.from_uuid(str(torch.cuda.get_device_properties(0).uuid))


@pytest.fixture(scope="module")
def meter(gpu):
    meter = open_gpu_meter(gpu.uuid)
    if meter.source != "nvml_counter":
        pytest.skip("this GPU has no energy counter")
    return meter


@pytest.fixture(scope="module")
def load():
    return Load()


def test_counter_ticks_regularly_and_the_poller_learns_it(meter):
    with Poller(meter) as poller:
        time.sleep(4.0)
        readings = poller.stop()
    period = measure_tick_period(readings)
    assert 0.01 < period.period_s < 0.3
    assert period.p5_s > 0.7 * period.period_s
    assert period.p95_s < 1.3 * period.period_s
    if "H100" in torch.cuda.get_device_name(0):
        assert period.period_s == pytest.approx(0.1, rel=0.02)
    assert poller.tick_period_s == pytest.approx(period.period_s, rel=0.05)
    widths_s = find_ticks(readings).width_s
    assert np.median(widths_s) < 0.25 * period.period_s


def test_power_of_a_busy_gpu_is_between_idle_and_limit(gpu, meter, load):
    time.sleep(3.0)
    idle = idle_power(meter, 2.0)
    with Poller(meter) as poller:
        start_s, end_s, time_s = load.run(2.0)
        readings = poller.stop()
    got = estimate_energy(
        readings,
        LoadSpan(start_s, end_s),
        time_per_iteration_s=time_s,
        time_rel_error=0.001,
        meter=meter.characteristics,
    )
    limit_w = gpu.info()["power_limit_w"] or float("inf")
    assert idle.power_w * 1.2 < got.power_w < limit_w * 1.08
    assert got.power_rel_error < 0.03
    assert got.energy_j == pytest.approx(got.power_w * time_s)
    # against a plain pair of readings well inside the load: the same counter, read differently
    inside = [r for r in readings if start_s + 0.3 < r.before_s and r.after_s < end_s]
    plain_w = (inside[-1].energy_j - inside[0].energy_j) / (inside[-1].before_s - inside[0].before_s)
    assert got.power_w == pytest.approx(plain_w, rel=0.15)


def test_repeated_windows_agree(meter, load):
    load.run(3.0)
    powers_w = []
    for _ in range(5):
        with Poller(meter, 0.1) as poller:
            start_s, end_s, _ = load.run(1.2)
            readings = poller.stop()
        powers_w.append(estimate_power(readings, LoadSpan(start_s, end_s), meter=meter.characteristics).power_w)
    assert np.std(powers_w) / np.mean(powers_w) < 0.03


def test_polling_does_not_slow_the_load(meter, load):
    load.run(1.0)
    plain_s, polled_s = [], []
    for _ in range(3):
        plain_s.append(load.run(0.5)[2])
        with Poller(meter, 0.1):
            polled_s.append(load.run(0.5)[2])
    assert np.median(polled_s) / np.median(plain_s) - 1 < 0.03


def test_power_meter_agrees_with_the_counter(gpu, meter, load):
    try:
        power_meter = NvmlPowerMeter(gpu)
    except NoEnergySource as error:
        pytest.skip(f"no power sensor: {error}")
    load.run(1.0)
    results = []
    counter, sampled = Poller(meter, 0.1).start(), Poller(power_meter).start()
    start_s, end_s, _ = load.run(3.5)
    for poller, used in ((counter, meter), (sampled, power_meter)):
        readings = poller.stop()
        results.append(estimate_power(readings, LoadSpan(start_s, end_s), meter=used.characteristics).power_w)
    assert results[1] == pytest.approx(results[0], rel=0.08)


def test_state_under_load(gpu, load):
    idle_state = gpu.state()
    thread = threading.Thread(target=load.run, args=(1.0,))
    thread.start()
    time.sleep(0.6)
    state = gpu.state()
    thread.join()
    assert state.sm_clock_hz >= idle_state.sm_clock_hz
    assert "gpu_idle" not in state.throttle
    assert state.temperature_c >= idle_state.temperature_c - 2


def test_mig_is_refused(gpu):
    if not gpu.is_mig():
        pytest.skip("this GPU is not split by MIG")
    with pytest.raises((NvmlNotSupported, MeterError)):
        NvmlCounterMeter(gpu)
