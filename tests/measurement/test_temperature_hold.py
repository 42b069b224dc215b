"""Holding a temperature, on simulated boards with a die and a heat sink."""

import time
import types

import pytest

from flopray.measurement import filler as filler_module
from flopray.measurement.filler import HeldTemperature, filler, hold_temperature
from flopray.measurement.temperature_hold import CAP_S, RETRY_CAP_S, TOLERANCE_K, Act, TemperatureHold

#: Seconds that the work runs before its temperature is read, as in `filler`.
PROBE_S = 0.8


class Board:
    """A die over a heat sink: time constants of 0.5 s and `sink_s`, and a number of kelvin per watt."""

    def __init__(self, *, ambient_c: float = 30.0, sink_s: float = 60.0, fill_w: float = 680.0) -> None:
        self.sink_c = self.die_c = self.ambient_c = ambient_c
        self.sink_s, self.fill_w, self.now_s = sink_s, fill_w, 0.0

    def run(self, power_w: float, seconds: float) -> None:
        for _ in range(round(seconds / 0.01)):
            self.sink_c += 0.01 / self.sink_s * (self.ambient_c + 0.045 * power_w - self.sink_c)
            self.die_c += 0.01 / 0.5 * (self.sink_c + 0.018 * power_w - self.die_c)
        self.now_s += seconds

    def hold(self, hold: TemperatureHold, power_w: float) -> tuple[float, str | None]:
        """Hold before a window of a work with this power; returns the seconds, and the reason for giving up."""
        begin_s = self.now_s
        hold.begin(begin_s)
        while True:
            self.run(power_w, PROBE_S)
            step = hold.next(self.now_s, float(round(self.die_c)))
            if step.act is Act.FILL:
                self.run(self.fill_w, step.seconds)
            elif step.act is Act.PAUSE:
                self.run(90.0, step.seconds)
            else:
                return self.now_s - begin_s, step.reason


@pytest.mark.parametrize("sink_s", [20.0, 60.0])
@pytest.mark.parametrize("start_c", [30.0, 58.0])
def test_a_board_is_brought_to_the_temperature_and_kept_there(start_c, sink_s):
    """Works of 250 to 650 W take turns: each window begins within the tolerance, and ends near it."""
    board, hold = Board(sink_s=sink_s), TemperatureHold(50.0)
    board.sink_c = board.die_c = start_c
    taken = []
    for number in range(40):
        power_w = (250.0, 650.0, 400.0, 520.0)[number % 4]
        seconds, reason = board.hold(hold, power_w)
        assert reason is None
        assert abs(board.die_c - 50.0) <= TOLERANCE_K + 0.5  # the sensor tells whole kelvin
        board.run(power_w, 1.0)
        assert abs(board.die_c - 50.0) <= TOLERANCE_K + 3.0
        taken.append(seconds)
    assert max(taken) < CAP_S
    assert sum(taken[4:]) / 36 < 12.0


@pytest.mark.parametrize(
    ("target_c", "board", "words"),
    [
        (90.0, Board(ambient_c=25.0, sink_s=4.0), "filler work without a change"),
        (90.0, Board(ambient_c=25.0, sink_s=300.0), "s of waiting for 90 °C"),
        (35.0, Board(ambient_c=45.0, sink_s=4.0), "pausing without a change"),
    ],
)
def test_a_temperature_that_cannot_be_reached_is_given_up_with_a_reason(target_c, board, words):
    hold = TemperatureHold(target_c)
    seconds, reason = board.hold(hold, 300.0)
    assert words in reason
    assert f"{target_c:g} °C" in reason
    assert seconds <= CAP_S + 6.0
    again, reason = board.hold(hold, 300.0)  # the next windows do not wait for a minute each
    assert reason is not None
    assert again <= RETRY_CAP_S + 6.0


def test_after_it_was_given_up_it_may_be_reached():
    board, hold = Board(ambient_c=25.0, sink_s=300.0), TemperatureHold(60.0, cap_s=5.0)
    assert board.hold(hold, 300.0)[1] is not None
    board.sink_c = 54.0
    assert board.hold(hold, 300.0)[1] is None


def test_without_a_sensor_the_reason_says_so():
    step = TemperatureHold(50.0).next(0.0, None)
    assert (step.act, step.reason) == (Act.GIVE_UP, "the device reports no temperature, so none can be held")


class Gpu:
    """Heats by filler work, and not by the work itself; tells its peak memory."""

    is_cuda, torch_name = True, "cpu"

    def __init__(self, temperature_c: float = 45.0) -> None:
        self.temperature_c, self.log, self.peak = temperature_c, [], 1000

    def state(self):
        return types.SimpleNamespace(temperature_c=self.temperature_c)

    def synchronize(self):
        pass

    def release(self):
        self.log.append("release")

    def peak_memory_bytes(self):
        return self.peak

    def reset_peak_memory(self):
        self.log.append("reset")


@pytest.fixture
def quick(monkeypatch):
    """The shortest steps, and filler work that heats up to 49 °C."""
    gpu = Gpu()

    def fill():
        gpu.temperature_c = min(49.0, gpu.temperature_c + 0.25)

    monkeypatch.setattr(filler_module, "_PROBE_S", 0.0)
    monkeypatch.setattr(filler_module, "filler", lambda _: fill)
    monkeypatch.setattr("flopray.measurement.temperature_hold._LONGEST_S", 0.002)
    monkeypatch.setattr("flopray.measurement.temperature_hold._SHORTEST_S", 0.001)
    return gpu


def test_filler_work_runs_until_the_temperature_is_there(quick):
    calls = []
    seconds, reason = hold_temperature(TemperatureHold(50.0), lambda: calls.append(1), quick)
    assert reason is None
    assert 48.0 <= quick.temperature_c <= 52.0
    assert seconds > 0
    assert calls


def test_what_it_took_stands_in_the_next_row_and_filler_work_in_no_peak(quick):
    held = HeldTemperature(quick, 50.0)
    assert held.before_window(lambda: None) == 1000
    assert quick.log[-1] == "reset"
    first, second = held.columns(), held.columns()
    assert first["hold_temperature_c"] == 50.0
    assert first["hold_temperature_s"] > 0
    assert first["hold_temperature_reason"] is None
    assert second["hold_temperature_s"] == 0.0


def test_a_work_that_fails_leaves_what_it_took(quick):
    def broken():
        raise RuntimeError("no")

    held = HeldTemperature(quick, 50.0)
    with pytest.raises(RuntimeError):
        held.before_window(broken)
    assert quick.log == ["reset"]
    assert held.columns()["hold_temperature_s"] > 0


def test_a_cpu_says_why_nothing_is_held():
    device = Gpu()
    device.is_cuda = False
    held = HeldTemperature(device, 50.0)
    assert held.before_window(lambda: None) is None
    assert held.columns()["hold_temperature_reason"] == "the temperature of a CPU cannot be held"


def test_filler_work_is_as_large_as_memory_allows():
    assert filler("cpu", lambda _: 0) is None
    assert filler("cpu", lambda _: 4 * 3 * 2 * 1024**2)().shape == (1024, 1024)


@pytest.mark.gpu
def test_a_gpu_is_held():
    """A board is brought back to a temperature that it had under the same work, after it cooled down.

    How warm a board gets differs by its cooler, so the temperature is one that this board was seen to reach.
    """
    import torch

    from flopray.measurement.device import Device

    device, x = Device("GPU"), torch.randn(4096, 4096, device="cuda")
    fill = filler(device.torch_name)
    assert fill is not None

    def under_load(work=lambda: x @ x, seconds: float = 1.0) -> float:
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            work()
            device.synchronize()
        return device.state().temperature_c

    under_load(fill, 15.0)
    target_c = under_load() - 1
    time.sleep(5)
    _, reason = hold_temperature(TemperatureHold(target_c), lambda: x @ x, device)
    assert reason is None
    assert abs(under_load() - target_c) <= TOLERANCE_K + 3
    seconds, reason = hold_temperature(TemperatureHold(target_c + 40, cap_s=8), lambda: x @ x, device)
    assert reason is not None
    assert f"{target_c + 40:.0f} °C" in reason
    assert seconds < 20
