"""The standard loads of a board, on a simulated one whose power follows its temperature."""

import functools
import types

import pytest
import torch

from flopray.energy.nvml import GpuState
from flopray.energy.thermal import BoardTemperature, prior_of
from flopray.energy.type_reference import reference_from
from flopray.errors import InputError, MeterError
from flopray.measurement import board_calibration
from flopray.measurement.board_calibration import calibrate, known_factor
from flopray.measurement.device import Device
from flopray.measurement.result import Energy, PhaseResult, State, Timing
from flopray.measurement.standard_loads import STANDARD_LOADS, copy, launches, products
from flopray.settings import MeasureSettings
from flopray.store.calibrations import kept

H100 = "NVIDIA H100 80GB HBM3"
#: Power of each load at 50 °C, on this board.
AT_REFERENCE_W = {"products": 600.0, "copy": 400.0}
TIME_S, ERROR = 1e-3, 0.008


class SimulatedBoard(Device):
    """This CPU, which tells the identity and the state of a GPU; a window takes the power of its load."""

    def __init__(self, name: str = H100, celsius: float = 53.0, throttle: str = "", others: int = 0) -> None:
        super().__init__("CPU", threads=1)
        self.name, self.celsius, self.throttle, self.others = name, celsius, throttle, others
        self.uuid: str | None = "GPU-1"
        self.held: list[str] = []

    def columns(self):
        known = {"device_name": self.name, "device_uuid": self.uuid, "driver_version": "580", "power_limit_w": 700.0}
        return {key: value for key, value in known.items() if value is not None}

    def state(self):
        return GpuState(self.celsius, 1e9, 1e9, self.throttle, 700.0)

    def slope(self, power_w: float) -> float:
        return prior_of(H100).slope.at(power_w)[0]

    def measure(self, work, *_, **__) -> PhaseResult:
        at_w = AT_REFERENCE_W[work()]
        power_w = at_w + self.slope(at_w) * (self.celsius - 50.0)
        timing = Timing(TIME_S, 0.001, 1000, "cuda_events", True, 1.5, 0.5, 100, 1e-6, 1.5)
        energy = Energy("ok", power_w=power_w, power_rel_error=ERROR, temperature_c=self.celsius)
        return PhaseResult(timing, energy, State(self.state(), self.state(), self.others, None))

    def hold(self, _, work, __):
        self.held.append(work())
        self.celsius = 49.0 if len(self.held) % 2 else 52.0
        return 1.0, None


LOADS = {name: lambda _, name=name: lambda: name for name in AT_REFERENCE_W}


@pytest.fixture
def simulated(monkeypatch):
    """Makes boards, and simulates the windows of the calibration on them."""

    def make(**how) -> SimulatedBoard:
        board = SimulatedBoard(**how)
        monkeypatch.setattr(board_calibration, "measure_phase", board.measure)
        monkeypatch.setattr(board_calibration, "hold_temperature", board.hold)
        return board

    monkeypatch.setattr(board_calibration, "idle_power", lambda *_: types.SimpleNamespace(tick_period_s=0.1))
    return make


@pytest.mark.parametrize("name", [H100, "NVIDIA H200"])
def test_each_load_is_told_at_the_reference_temperature(simulated, name):
    """Also for a type without a measured coefficient: it is held near the reference, after a range of temperatures."""
    board = simulated(name=name)
    found = calibrate(board, None, loads=LOADS)
    assert (found.device_uuid, found.driver_version, found.reference_temperature_c) == ("GPU-1", "580", 50.0)
    assert board.held == ["products", "copy"] * 2
    assert [load.load for load in found.loads] == list(LOADS)
    for load in found.loads:
        assert load.reason is None
        assert load.power_at_reference_w == pytest.approx(AT_REFERENCE_W[load.load], rel=0.002)
        assert load.power_at_reference_w == pytest.approx(AT_REFERENCE_W[load.load], rel=load.rel_error)
        assert load.energy_at_reference_j == pytest.approx(load.power_at_reference_w * TIME_S)
        assert len(load.windows) == 2
        assert ERROR / 2**0.5 < load.rel_error < 2 * ERROR


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"throttle": "sw_power_cap"}, "clocks were held down (sw_power_cap)"),
        ({"others": 2}, "2 other processes computed on the GPU"),
    ],
)
def test_what_is_no_power_of_this_board_is_missing_with_its_reason(simulated, how, reason):
    for load in calibrate(simulated(**how), None, loads=LOADS).loads:
        assert load.reason is not None
        assert reason in load.reason
        assert (load.power_at_reference_w, load.energy_at_reference_j, load.rel_error) == (None, None, None)
        assert load.power_w is not None  # what was measured stays


def test_a_sweep_uses_the_calibration_that_was_kept_or_makes_one_where_it_is_asked_to(simulated, monkeypatch, tmp_path):
    monkeypatch.setenv("FLOPRAY_CACHE", str(tmp_path))
    monkeypatch.setattr(board_calibration, "calibrate", functools.partial(calibrate, loads=LOADS))
    gpu, temperature = simulated(), BoardTemperature(H100)
    ask = functools.partial(known_factor, gpu, None, board=temperature)
    assert ask(settings=MeasureSettings()).reason.startswith("this board was not calibrated")
    assert gpu.held == []
    made = ask(settings=MeasureSettings(calibrate=True))
    assert "no reference" in made.reason
    assert len(gpu.held) == 4
    assert ask(settings=MeasureSettings(calibrate=True)) == made  # another process of the same sweep
    assert len(gpu.held) == 4
    (found,), _ = kept("GPU-1")
    monkeypatch.setattr(board_calibration, "reference_for", lambda _: reference_from([found], "itself"))
    assert ask(settings=MeasureSettings()).factor == pytest.approx(1.0)
    other = MeasureSettings(reference_temperature_c=60.0)
    assert ask(settings=other).reason.startswith("this board was not calibrated")


def test_a_meter_that_breaks_costs_the_factor_and_not_the_sweep(simulated, monkeypatch, tmp_path):
    def broken(*_, **__):
        raise MeterError("the counter is frozen")

    monkeypatch.setenv("FLOPRAY_CACHE", str(tmp_path))
    monkeypatch.setattr(board_calibration, "calibrate", broken)
    found = known_factor(simulated(), None, MeasureSettings(calibrate=True), BoardTemperature(H100))
    assert (found.factor, found.reason) == (None, "this board could not be calibrated: the counter is frozen")


def test_a_load_that_does_not_fit_leaves_the_others(simulated):
    def too_large(_):
        raise torch.OutOfMemoryError("out of memory")

    first, second = calibrate(simulated(), None, loads={"large": too_large, "copy": LOADS["copy"]}).loads
    assert (first.reason, first.time_s) == ("out of memory", None)
    assert second.energy_at_reference_j is not None


def test_a_board_without_a_name_of_its_own_is_refused(simulated):
    board = simulated()
    board.uuid = None
    with pytest.raises(InputError, match="UUID"):
        calibrate(board, None, loads=LOADS)


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
