"""The recorder, without Ray: which points are measured, tried again or given up, and what the driver is told."""

from __future__ import annotations

import pytest

from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.sweep.limits import Limits
from flopray.sweep.recorder import Recorder
from flopray.workloads.registry import make_point

SETTINGS = MeasureSettings(phases=("forward", "backward"), instruments=("time", "energy"))
KILLED = "The actor is dead because its worker process has died."
NODE_DIED = "The actor died because its node has died. Node Id: 67147e41"
OUT_OF_MEMORY = "1 worker(s) were killed due to the node running low on memory."


class Watched:
    """What a recorder's metrics and processes see, and a clock that the test moves."""

    def __init__(self):
        self.now_s, self.ended, self.counted, self.gauges = 0.0, [], [], []

    def take(self, records):
        self.counted.append(records[0].trial_id)

    def refresh(self, running):
        self.gauges.append(dict(running))


@pytest.fixture
def watched():
    return Watched()


@pytest.fixture
def recorder(watched):
    return make(watched)


def make(watched, finished=(), **limits):
    about = {"metrics": watched, "end": watched.ended.append, "clock": lambda: watched.now_s}
    return Recorder("r", set(finished), SETTINGS, Limits(**limits), **about)


def point(width):
    return make_point(workload="mlp", device_type="CPU", n_layers=2, width=width, tokens=8)


def measured(spec, reason=None):
    outcome = {"status": "failed", "status_reason": reason} if reason else {}
    return [PhaseRecord.of(trial_id=spec.id, phase=phase, **spec.fields(), **outcome) for phase in SETTINGS.phases]


def test_a_point_goes_through_once(recorder, watched):
    assert recorder.begin("t1", point(16), "CPU@a:1") == 1
    recorder.push("t1", measured(point(16)))
    recorder.push("t2", measured(point(16)))  # a second copy, of a trial that was thought to be dead
    assert recorder.begin("t3", point(16), "CPU@a:2") is None
    events = recorder.take()
    assert [records[0].trial_id for records in events.points] == [point(16).id] == watched.counted
    assert events.working_on == {"CPU@a:1": point(16).label()}
    assert recorder.take().points == []
    assert recorder.unfinished([point(16).id, point(32).id]) == {point(32).id}


def test_a_point_that_comes_with_the_question_for_the_next_one_counts_before_it(watched):
    recorder = make(watched, stop_after=2)
    recorder.begin("t1", point(16), "CPU@a:1")
    assert recorder.begin("t1", point(24), "CPU@a:1", measured(point(16))) == 1
    assert recorder.unfinished([point(16).id, point(24).id]) == {point(24).id}
    recorder.died("t1", KILLED)
    assert [records[0].trial_id for records in recorder.take().points] == [point(16).id] == watched.counted
    assert recorder.begin("t1", point(16), "CPU@a:2") is None  # its process ended after it, in the next one
    assert recorder.begin("t1", point(24), "CPU@a:2") == 2
    assert recorder.begin("t1", point(32), "CPU@a:2", measured(point(24), "no driver")) == 1
    assert recorder.begin("t1", point(40), "CPU@a:2", measured(point(32), "no driver")) is None
    assert recorder.take().stop == "the last 2 points on every device failed alike: no driver"


def test_what_an_earlier_session_finished_is_not_begun(watched):
    recorder = make(watched, finished=[point(16).id])
    assert recorder.begin("t1", point(16), "CPU@a:1") is None
    assert recorder.begin("t1", point(32), "CPU@a:1") == 1


@pytest.mark.parametrize(
    ("text", "seconds", "attempts", "status", "reason"),
    [
        (KILLED, 1.0, 3, "failed", "its process ended without a message"),
        (NODE_DIED, 1.0, 3, "failed", "its node was lost"),
        (OUT_OF_MEMORY, 1.0, 1, "out_of_memory", "its node ran out of host memory"),
        (KILLED, 60.0, 2, "failed", "it took longer than 60 s (point_timeout_s)"),
    ],
)
def test_a_point_is_tried_again_as_often_as_its_cause_allows(watched, text, seconds, attempts, status, reason):
    recorder = make(watched, point_timeout_s=60.0, retries=2)
    for attempt in range(1, attempts + 1):
        assert recorder.begin("t", point(16), f"CPU@a:{attempt}") == attempt
        watched.now_s += seconds
        recorder.died("t", text)
    events = recorder.take()
    assert len(events.retries) == attempts - 1
    for attempt, line in enumerate(events.retries, 1):
        assert f" is tried again after attempt {attempt} of {attempts} on CPU@a:{attempt}: {reason}" in line
    ((forward, backward),) = events.points
    assert (forward.phase, backward.phase) == SETTINGS.phases
    assert (forward.status, forward.attempt, forward.energy_status) == (status, attempts, "failed")
    assert (forward.status_reason or "").startswith(reason)
    assert (forward.status_reason or "").endswith(f" while it was measured, in attempt {attempts} of {attempts}")
    assert recorder.begin("t", point(16), "CPU@a:9") is None


def test_a_death_costs_no_other_point(recorder):
    recorder.begin("t1", point(16), "CPU@a:1")
    recorder.begin("t2", point(32), "CPU@b:1")
    for _ in range(3):
        recorder.begin("t1", point(16), "CPU@a:1")
        recorder.died("t1", KILLED)
    assert recorder.begin("t1", point(24), "CPU@a:2") == 1
    assert recorder.unfinished([point(width).id for width in (16, 24, 32)]) == {point(24).id, point(32).id}


def test_a_death_between_points_or_after_the_last_word_is_none_of_a_point(recorder):
    recorder.died("t1", KILLED)  # it had not begun one
    recorder.begin("t1", point(16), "CPU@a:1")
    recorder.begin("t2", point(16), "CPU@b:1")
    recorder.push("t2", measured(point(16)))
    recorder.died("t1", KILLED)  # the other trial has finished its point
    events = recorder.take()
    assert len(events.points) == 1
    assert events.retries == []
    assert events.working_on["CPU@a:1"] == ""


@pytest.mark.parametrize("retries", [0, 2])
def test_a_device_of_a_lost_node_does_not_keep_a_sweep_going_that_only_fails(watched, retries):
    recorder = make(watched, stop_after=2, retries=retries)
    recorder.begin("lost", point(8), "CPU@b:1")
    for width in (16, 24):
        recorder.begin("t", point(width), "CPU@a:1")
        recorder.push("t", measured(point(width), "no driver 7"))
    assert recorder.take().stop is None  # the other device has not failed yet
    recorder.died("lost", NODE_DIED)
    recorder.begin("t", point(32), "CPU@a:2")
    recorder.push("t", measured(point(32), "no driver 8"))
    assert recorder.take().stop == "the last 2 points on every device failed alike: no driver 8"


def test_no_point_begins_once_the_sweep_stopped(watched):
    recorder = make(watched, stop_after=2)
    for width in (16, 24):
        recorder.begin("t", point(width), "CPU@a:1")
        recorder.push("t", measured(point(width), "no driver"))
    assert recorder.take().stop == "the last 2 points on every device failed alike: no driver"
    assert recorder.begin("t", point(32), "CPU@a:1") is None


def test_a_process_that_hangs_beyond_its_own_alarm_is_ended(watched):
    recorder = make(watched, point_timeout_s=60.0)
    recorder.started("CPU@a:1", "slow's handle")
    recorder.started("CPU@b:1", "quick's handle")
    recorder.begin("slow", point(16), "CPU@a:1")
    watched.now_s = 50.0
    recorder.begin("quick", point(32), "CPU@b:1")
    watched.now_s = 90.0
    recorder.take()
    assert watched.ended == []  # its own alarm has 30 s to do so
    watched.now_s = 91.5
    recorder.take()
    assert watched.ended == ["slow's handle"]


def test_a_process_that_ended_is_not_ended_again(watched):
    recorder = make(watched, point_timeout_s=60.0)
    recorder.started("CPU@a:1", "first handle")
    recorder.begin("t", point(16), "CPU@a:1")
    recorder.died("t", KILLED)
    recorder.started("CPU@a:2", "second handle")
    recorder.begin("t", point(16), "CPU@a:2")
    watched.now_s = 91.5
    recorder.take()
    assert watched.ended == ["second handle"]


def test_without_a_timeout_nothing_is_ended(watched):
    recorder = make(watched, point_timeout_s=0.0)
    recorder.started("CPU@a:1", "handle")
    recorder.begin("slow", point(16), "CPU@a:1")
    watched.now_s = 1e9
    recorder.take()
    assert watched.ended == []


def test_gauges_are_set_again_about_once_a_second_and_go_back_to_zero(recorder, watched):
    recorder.begin("t", point(16), "CPU@a:1")
    for watched.now_s in (0.0, 0.5, 1.0):
        recorder.take()
    recorder.push("t", measured(point(16)))
    watched.now_s = 2.0
    recorder.take()
    assert watched.gauges == [{"CPU": 1}, {"CPU": 1}, {"CPU": 0}]


def test_devices_that_cannot_be_opened_are_counted_by_type_until_one_can(recorder):
    assert [recorder.unopened("H100"), recorder.unopened("A100"), recorder.unopened("H100")] == [1, 1, 2]
    recorder.opened("H100")
    assert [recorder.unopened("H100"), recorder.unopened("A100")] == [1, 2]


def test_what_is_said_reaches_the_driver_with_who_said_it(recorder):
    for _ in range(2):
        recorder.notice("no energy on CPU")
    recorder.said("CPU@a:1", ["torch: a warning"])
    recorder.working("counting mlp", "CPU@a:1")
    events = recorder.take()
    assert events.notices == ["no energy on CPU"]
    assert events.said == ["CPU@a:1: torch: a warning"]
    assert events.working_on == {"CPU@a:1": "counting mlp"}
    assert repr(recorder) == "sweep r"
