"""Energy per step from ticks and step numbers, against loops whose energy is known.

The whole table: bench/watch_coverage.py.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

from flopray.energy.curve import EnergyCurve
from flopray.energy.ticks import Ticks, find_ticks
from flopray.errors import WindowTooShort
from flopray.testing.loops import simulated_loop
from flopray.testing.power_traces import ConstantPower, StepPower
from flopray.testing.simulated_meter import Faults, SimulatedMeter, VirtualClock, poll_simulated
from flopray.watching.step_energy import MAX_SPANS, energy_per_step
from flopray.watching.summary import summarise
from flopray.watching.timeline import (
    BEGIN,
    EDGE,
    END,
    GIVE_UP,
    INTERRUPT,
    RESUME,
    SPAN_PAUSE_S,
    Region,
    Timeline,
    TimelineBuilder,
)


@pytest.fixture(scope="module")
def coverage():
    sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
    import watch_coverage

    return watch_coverage


def of_loop(loop, seconds, meter=None, seed=0, pauses=False):
    meter = meter or SimulatedMeter(loop.trace, VirtualClock(), seed=seed)
    readings = poll_simulated(meter, seconds, 0.1, seed)
    kept = loop.end_s < seconds
    timeline = Timeline(loop.start_s[kept], loop.end_s[kept], np.arange(kept.sum()))
    timeline = timeline.with_pauses() if pauses else timeline
    return energy_per_step(find_ticks(readings), timeline), float(np.mean(loop.energy_j[kept]))


@pytest.mark.parametrize(
    ("loop", "rms"),
    [
        ("even steps of 10 ms", 0.002),
        ("eager: 13 % in time, 2 % in power", 0.02),
        ("slow noise 2 %, 0.5 s", 0.015),
        ("1 s of evaluation every 100 steps", 0.01),
    ],
)
def test_intervals_of_five_seconds_hold_the_mean_of_forty(coverage, loop, rms):
    found = np.array([coverage.window(loop, "ideal", 5.0, seed) for seed in range(20)])
    assert np.sum(np.abs(found[:, 0]) <= found[:, 1]) >= 17
    assert np.sqrt(np.mean(found[:, 0] ** 2)) < rms


def test_an_interval_narrows_with_time(coverage):
    eager = "eager: 13 % in time, 2 % in power"
    stated = [np.median([coverage.window(eager, "ideal", s, seed)[1] for seed in range(6)]) for s in (1.0, 2.0, 5.0)]
    assert stated[0] > stated[1] > stated[2]


def test_what_an_evaluation_takes_is_not_in_a_step():
    loop = simulated_loop(work_s=0.01, high_w=500.0, low_w=400.0, pause_every=200, pause_s=2.0, length_s=20.0)
    found, truth_j = of_loop(loop, 19.0)
    assert truth_j == pytest.approx(5.0)
    assert found.energy_j == pytest.approx(5.0, rel=0.01)
    assert found.rel_error < 0.03
    assert found.outside_share == 0.0


def test_a_pause_that_each_step_has_belongs_to_it():
    """20 ms at 100 W after each step of 100 ms at 500 W: one more step costs 52 J."""
    loop = simulated_loop(work_s=0.1, high_w=500.0, low_w=100.0, pause_every=1, pause_s=0.02, length_s=12.0)
    found, _ = of_loop(loop, 10.0, pauses=True)
    assert found.energy_j == pytest.approx(52.0, rel=0.01)
    assert found.rel_error < 0.03
    assert found.outside_share == pytest.approx(0.0, abs=1e-6)


def test_a_pause_that_few_steps_have_belongs_to_none():
    """30 ms at 100 W, such as logging, after every tenth step of 50 ms at 500 W."""
    loop = simulated_loop(work_s=0.05, high_w=500.0, low_w=100.0, pause_every=10, pause_s=0.03, length_s=12.0)
    found, truth_j = of_loop(loop, 10.0, pauses=True)
    assert found.outside_share == pytest.approx(0.03 / 0.53, rel=0.1)
    assert abs(found.energy_j / truth_j - 1) <= found.rel_error


def test_pauses_that_no_counter_can_see_widen_the_interval():
    """20 ms after each step of 100 ms: ticks do not show their energy."""
    loop = simulated_loop(work_s=0.1, high_w=500.0, low_w=100.0, pause_every=1, pause_s=0.02, length_s=12.0)
    found, truth_j = of_loop(loop, 10.0)
    assert found.outside_share == pytest.approx(1 / 6, rel=0.02)
    assert abs(found.energy_j / truth_j - 1) <= found.rel_error
    assert found.rel_error > 0.05


def test_steps_that_are_each_followed_by_a_long_pause_still_have_an_energy():
    loop = simulated_loop(work_s=0.15, high_w=500.0, low_w=100.0, pause_every=1, pause_s=0.4, length_s=25.0)
    found, truth_j = of_loop(loop, 22.0)
    assert abs(found.energy_j / truth_j - 1) <= found.rel_error


def test_many_spans_are_values_of_a_series():
    loop = simulated_loop(work_s=0.01, pause_every=60, pause_s=0.5, length_s=40.0, power_rel=0.01)
    found, truth_j = of_loop(loop, 38.0)
    assert MAX_SPANS < 38.0 / 1.1
    assert found.energy_j == pytest.approx(truth_j, rel=0.01)
    assert abs(found.energy_j / truth_j - 1) <= found.rel_error < 0.05


def test_a_counter_that_is_reset_goes_on_in_another_segment():
    loop = simulated_loop(work_s=0.01, length_s=8.0)
    meter = SimulatedMeter(loop.trace, VirtualClock(), faults=Faults(reset_s=3.0), seed=1)
    found, truth_j = of_loop(loop, 6.0, meter)
    assert found.energy_j == pytest.approx(truth_j, rel=0.005)


@pytest.mark.parametrize(("seconds", "said"), [(0.005, "no step has ended yet"), (0.3, "counter ticks in 0.29 s")])
def test_too_few_ticks_are_said(seconds, said):
    with pytest.raises(WindowTooShort, match=said):
        of_loop(simulated_loop(work_s=0.01, length_s=1.0), seconds)


class TestTimeline:
    def timeline(self, *codes):
        builder = TimelineBuilder()
        for code in codes:
            builder.add(code)
        return builder.timeline(np.arange(len(codes), dtype=float))

    def test_a_step_with_a_region_in_it_has_two_pieces(self):
        timeline = self.timeline(BEGIN, INTERRUPT, RESUME, END, BEGIN, END)
        assert timeline.steps == 2
        assert timeline.step.tolist() == [0, 0, 1]
        assert timeline.step_times_s.tolist() == [2.0, 1.0]
        assert timeline.step_starts_s.tolist() == [0.0, 4.0]

    def test_a_step_that_was_given_up_or_has_not_ended_is_none(self):
        timeline = self.timeline(BEGIN, GIVE_UP, BEGIN, EDGE, EDGE, END, BEGIN, INTERRUPT)
        assert timeline.steps == 1
        assert (timeline.start_s.tolist(), timeline.end_s.tolist()) == ([2.0], [5.0])

    def test_marks_whose_time_is_not_known_yet_are_left_for_later(self):
        builder = TimelineBuilder()
        for code in (BEGIN, END, BEGIN, END):
            builder.add(code)
        assert builder.timeline(np.array([0.0, 1.0, 2.0])).steps == 1
        assert builder.timeline(np.zeros(0)).steps == 0

    def test_a_step_goes_on_to_the_next_one_but_not_through_a_region_or_a_longer_pause(self):
        start_s = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.5, 6.5])
        timeline = Timeline(start_s, start_s + 0.9, np.arange(7))
        times_s = timeline.with_pauses([Region("log", 2.92, 2.98)]).step_times_s
        assert times_s.round(3).tolist() == [1.0, 1.0, 0.92, 1.0, 1.0, 1.0, 0.9]

    def test_an_interruption_stays_one(self):
        inside = self.timeline(BEGIN, INTERRUPT, RESUME, END, BEGIN, END)
        assert inside.with_pauses().step_times_s.tolist() == inside.step_times_s.tolist()  # 1 s is above SPAN_PAUSE_S
        short = Timeline(inside.start_s / 10, inside.end_s / 10, inside.step)
        assert short.with_pauses().step_times_s.round(3).tolist() == [0.3, 0.1]

    def test_pauses_that_end_a_span_belong_to_no_step(self):
        start_s = np.arange(5) * 1.0
        timeline = Timeline(start_s, start_s + 0.9 - SPAN_PAUSE_S, np.arange(5))
        assert timeline.with_pauses() is timeline

    def test_the_summary_says_how_much_of_a_step_is_a_pause(self):
        start_s = np.arange(1000) * 0.01
        timeline = Timeline(start_s, start_s + 0.006, np.arange(1000))
        summary = summarise([], timeline, [], time_s=10.0, clock="perf_counter")
        assert summary.time.time_s == pytest.approx(0.01, rel=1e-3)
        assert summary.time.pause_share == pytest.approx(0.4, abs=1e-3)
        assert "40% of it between two steps" in repr(summary)

    def test_steps_done_and_seconds_outside_at_a_time(self):
        timeline = self.timeline(BEGIN, INTERRUPT, RESUME, END, BEGIN, END)
        at_s = np.array([-1.0, 0.5, 1.5, 3.0, 3.5, 4.5, 9.0])
        assert timeline.done(at_s).tolist() == [0.0, 0.25, 0.5, 1.0, 1.0, 1.5, 2.0]
        assert timeline.outside_s(at_s).tolist() == [0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.0]

    def test_regions_are_between_their_marks(self):
        builder = TimelineBuilder()
        outer = builder.begin_region("fit")
        builder.add(EDGE)
        inner = builder.begin_region("eval")
        builder.add(EDGE)
        for number in (inner, outer):
            builder.end_region(number)
            builder.add(EDGE)
        regions = builder.regions(np.array([0.0, 1.0, 2.0, 3.0]))
        assert [(r.name, r.start_s, r.end_s) for r in regions] == [("fit", 0.0, 3.0), ("eval", 1.0, 2.0)]
        assert [r.name for r in builder.regions(np.array([0.0, 1.0, 2.0]))] == ["eval"]


class TestCurve:
    def curve(self, trace, seconds=6.0, **options):
        meter = SimulatedMeter(trace, VirtualClock(), **options)
        return EnergyCurve(find_ticks(poll_simulated(meter, seconds, 0.1, 0))), meter

    def test_energy_between_two_times_is_within_its_interval(self):
        curve, meter = self.curve(StepPower(100.0, 500.0, 2.03))
        for start_s, end_s in ((1.0, 2.0), (1.95, 4.0), (2.1, 3.3)):
            energy_j, error_j = curve.between(start_s, end_s)
            assert abs(energy_j - meter.true_energy_j(start_s, end_s)) <= error_j
            assert error_j < 0.1 * 400.0 + 3.0

    def test_a_reset_does_not_take_energy_away(self):
        curve, _ = self.curve(ConstantPower(200.0), faults=Faults(reset_s=3.0))
        assert curve.between(1.0, 5.0)[0] == pytest.approx(800.0, rel=0.01)

    def test_the_peak_is_over_a_tenth_of_a_second(self):
        curve, _ = self.curve(ConstantPower(200.0), period_s=0.01, latency_s=0.004)
        assert curve.peak_power_w() == pytest.approx(200.0, rel=0.15)
        two = EnergyCurve(Ticks(np.array([0.0, 0.02]), np.array([0.0, 0.02]), np.array([0.0, 6.0]), np.zeros(2, int)))
        assert two.peak_power_w() == pytest.approx(300.0)
