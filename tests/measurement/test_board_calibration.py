"""The standard loads of a board, on a device whose power and temperature are simulated."""

import pytest
import torch

from flopray.energy.nvml import GpuState
from flopray.energy.thermal import BoardTemperature
from flopray.measurement import board_calibration
from flopray.measurement.board_calibration import calibrate
from flopray.measurement.device import Device
from flopray.measurement.standard_loads import STANDARD_LOADS, copy, launches, products
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import SimulatedMeter

POWER_W, CELSIUS = 400.0, 51.0


class SimulatedGpu(Device):
    """This CPU, which tells the identity and the state of a GPU."""

    name, throttle, others = "NVIDIA H100 80GB HBM3", "", 0

    def __init__(self) -> None:
        super().__init__("CPU", threads=1)

    def columns(self):
        return {"device_name": self.name, "device_uuid": "GPU-1", "driver_version": "580", "power_limit_w": 700.0}

    def state(self):
        return GpuState(CELSIUS, 1e9, 1e9, self.throttle, 700.0)

    def other_processes(self):
        return self.others


@pytest.fixture
def quick(monkeypatch):
    """Windows of a third of a second, of a meter that ticks every 10 ms."""
    for name, seconds in (("_WINDOW_S", 0.5), ("WAKE_S", 0.06), ("_IDLE_S", 0.15)):
        monkeypatch.setattr(board_calibration, name, seconds)
    monkeypatch.setattr("flopray.measurement.filler._PROBE_S", 0.01)
    return SimulatedMeter(
        ConstantPower(POWER_W), period_s=0.01, latency_s=0.0005, temperature=lambda _: CELSIUS, seed=1
    )


LOADS = {
    "products": lambda device: products(2, 32, 16, torch.float32, device),
    "copy": lambda device: copy(device, 2**16),
}


def test_each_load_is_told_at_the_reference_temperature(quick):
    board = BoardTemperature(SimulatedGpu.name)
    found = calibrate(SimulatedGpu(), quick, loads=LOADS, board=board)
    assert (found.device_uuid, found.driver_version, found.reference_temperature_c) == ("GPU-1", "580", 50.0)
    assert [load.load for load in found.loads] == ["products", "copy"]
    for load in found.loads:
        assert load.reason is None
        assert load.power_w == pytest.approx(POWER_W, rel=0.05)
        assert load.temperature_c == CELSIUS
        slope_w = board.slope.at(load.power_w)[0]  # one kelvin too warm
        assert load.power_at_reference_w == pytest.approx(load.power_w - slope_w, rel=1e-3)
        assert load.energy_at_reference_j == pytest.approx(load.power_at_reference_w * load.time_s)
        assert 0.004 < load.rel_error < 0.2
        assert len(load.windows) == 2


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("throttle", "sw_power_cap", "clocks were held down (sw_power_cap)"),
        ("others", 2, "2 other processes computed on the GPU"),
    ],
)
def test_what_is_no_power_of_this_board_is_missing_with_its_reason(quick, monkeypatch, attribute, value, reason):
    monkeypatch.setattr(SimulatedGpu, attribute, value)
    (load,) = calibrate(SimulatedGpu(), quick, loads={"copy": LOADS["copy"]}).loads
    assert load.reason is not None
    assert reason in load.reason
    assert (load.power_at_reference_w, load.energy_at_reference_j, load.rel_error) == (None, None, None)
    assert load.power_w is not None


def test_a_load_that_does_not_fit_leaves_the_others(quick):
    def too_large(_):
        raise torch.OutOfMemoryError("out of memory")

    first, second = calibrate(SimulatedGpu(), quick, loads={"large": too_large, "copy": LOADS["copy"]}).loads
    assert (first.reason, first.time_s) == ("out of memory", None)
    assert second.energy_at_reference_j is not None


def test_the_works_do_what_they_are_named_for():
    assert torch.isfinite(products(3, 64, 16, torch.float32, "cpu")()).all()
    assert launches("cpu", 3)().sum() == 1024
    target = copy("cpu", 4096)()
    assert target.numel() == 1024
    assert target.std() > 0.9  # not zeros, which take less power


@pytest.mark.gpu
def test_a_gpu_calibrates():
    device = Device("GPU")
    meter = device.open_meter()
    found = calibrate(device, meter)
    meter.close()
    assert [load.load for load in found.loads] == list(STANDARD_LOADS)
    assert sum(load.energy_at_reference_j is not None for load in found.loads) >= 3
