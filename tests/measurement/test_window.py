"""The warm-up waits for a stable pace; the window stops when told or at its cap and counts what it did."""

import time

import pytest

from flopray.measurement.window import CpuLaps, CudaLaps, run_window, warm_up


class Clock:
    """A clock that only work advances, instead of `time.perf_counter`."""

    def __init__(self, monkeypatch):
        self.now_s = 1000.0
        monkeypatch.setattr("flopray.measurement.window.time.perf_counter", lambda: self.now_s)

    def work(self, pace):
        """Work whose n-th iteration takes `pace(n)` seconds."""
        self.count = 0

        def iteration():
            self.now_s += pace(self.count)
            self.count += 1

        return iteration


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def window(work, *, iteration_s=0.001, max_seconds=1.0, enough=lambda window: False, before_end=lambda: None):
    return run_window(
        work, CpuLaps(), iteration_s=iteration_s, max_seconds=max_seconds, enough=enough, before_end=before_end
    )


def test_the_warm_up_outlasts_a_slow_beginning(clock):
    warm = warm_up(clock.work(lambda n: 0.020 / (n + 1) if n < 40 else 0.0005), CpuLaps())
    assert warm.iteration_s == pytest.approx(0.0005, rel=0.01)
    assert warm.iterations == clock.count > 40
    assert warm.seconds == pytest.approx(clock.now_s - 1000)


def test_the_warm_up_gives_up_on_a_pace_that_never_settles(clock):
    warm = warm_up(clock.work(lambda n: 0.004 * (1 + n % 7)), CpuLaps())
    assert 1.0 <= warm.seconds < 1.2


def test_the_warm_up_is_capped_where_windows_are_short(clock):
    assert 0.1 <= warm_up(clock.work(lambda n: 0.004 * (1 + n % 7)), CpuLaps(), cap_s=0.1).seconds < 0.2


def test_a_first_iteration_that_compiles_does_not_use_up_the_warm_up(clock):
    warm = warm_up(clock.work(lambda n: 30.0 if n == 0 else 0.001), CpuLaps())
    assert warm.iteration_s == pytest.approx(0.001)
    assert warm.seconds >= 31.0  # the device was idle meanwhile: it has to raise its clocks again


@pytest.mark.slow
def test_work_that_takes_no_time_ends_the_warm_up_at_last(monkeypatch):
    # A clock too coarse to see the work, which moves by itself.
    ticks = iter(range(10**9))
    monkeypatch.setattr("flopray.measurement.window.time.perf_counter", lambda: next(ticks) * 1e-3)
    assert warm_up(lambda: None, CpuLaps()).iteration_s > 0


def test_the_window_counts_every_iteration_it_ran(clock):
    result = window(clock.work(lambda n: 0.001))
    assert result.iterations == clock.count
    assert result.iterations_per_lap == 10
    assert sum(result.lap_times_s) == pytest.approx(result.end_s - result.start_s) == pytest.approx(1.0, abs=0.02)
    assert result.iteration_times_s == pytest.approx([0.001] * len(result.lap_times_s))


def test_the_cap_holds_whatever_is_enough(clock):
    result = window(clock.work(lambda n: 0.001), max_seconds=0.3)
    assert 0.3 <= result.end_s - result.start_s < 0.32


def test_the_window_stops_when_it_is_enough(clock):
    asked = []

    def enough(window):
        asked.append(len(window.lap_times_s))
        return len(window.lap_times_s) >= 7

    result = window(clock.work(lambda n: 0.001), enough=enough)
    assert asked == [1, 2, 3, 4, 5, 6, 7]
    assert len(result.lap_times_s) == 7


def test_the_time_of_the_question_is_nobodys(clock):
    def enough(window):
        clock.now_s += 0.004
        return len(window.lap_times_s) >= 20

    result = window(clock.work(lambda n: 0.001), enough=enough)
    assert result.iteration_times_s == pytest.approx([0.001] * 20)
    assert result.end_s - result.start_s == pytest.approx(20 * 0.010 + 19 * 0.004)


def test_the_warm_up_lasts_as_long_as_it_is_told(clock):
    warm = warm_up(clock.work(lambda n: 0.001), CpuLaps(), at_least_s=0.8)
    assert 0.8 <= warm.seconds < 0.9


def test_an_iteration_longer_than_the_cap_is_still_measured_once(clock):
    result = window(clock.work(lambda n: 5.0), iteration_s=5.0, max_seconds=0.1)
    assert (result.iterations, result.iteration_times_s) == (1, [5.0])


def test_the_state_is_read_once_and_before_the_window_is_closed(clock):
    at = []
    result = window(clock.work(lambda n: 0.001), max_seconds=0.1, before_end=lambda: at.append(clock.count))
    assert at == [result.iterations]


def test_what_the_work_raises_comes_through():
    def broken():
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        warm_up(broken, CpuLaps())
    with pytest.raises(RuntimeError, match="out of luck"):
        window(broken)


@pytest.mark.gpu
def test_laps_of_a_gpu_leave_out_what_lies_before_a_resume():
    import torch

    a = torch.randn(2048, 2048, device="cuda:0")

    def lap():
        for _ in range(20):
            a @ a
        laps.lap()

    laps = CudaLaps()
    laps.start()
    lap()  # the first products load their library
    torch.cuda.synchronize()
    laps.start()
    lap()
    torch.cuda.synchronize()
    time.sleep(0.2)
    laps.resume()
    lap()
    first, second = laps.finish()
    assert max(first, second) < 0.1
    assert laps.span_s() > 0.2


def test_laps_follow_the_real_clock():
    laps = CpuLaps()
    laps.start()
    time.sleep(0.02)
    laps.lap()
    time.sleep(0.04)
    laps.lap()
    first, second = laps.finish()
    assert first >= 0.02
    assert second >= 0.04
    assert laps.durations_s() == [first, second]


def test_a_call_of_several_iterations_counts_as_so_many(clock):
    work = clock.work(lambda n: 0.002)
    work.iterations = 8
    warm = warm_up(work, CpuLaps())
    assert warm.iteration_s == pytest.approx(0.00025)
    assert warm.iterations == 8 * clock.count
    before = clock.count
    seen = window(work, iteration_s=warm.iteration_s)
    assert seen.iterations == 8 * (clock.count - before)
    assert seen.iteration_times_s == pytest.approx([0.00025] * len(seen.lap_times_s))
