"""Ray's message and the clock say why a process ended, which decides whether its point is tried again."""

import pytest

from flopray.errors import InputError
from flopray.settings import MeasureSettings
from flopray.sweep.failures import Cause, failed_records, process_failure_of
from flopray.sweep.limits import Limits, limits_of_run
from flopray.workloads.registry import make_point

#: The beginnings of what Ray 2.60 says, as it said it.
KILLED = (
    "The actor died unexpectedly before finishing this task.\nThe actor is dead because its worker process has died. "
    "Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error code 2. End "
    "of file. Some common causes include: (1) the process was killed by the OOM killer due to high memory usage, (2) "
    "ray stop --force was called, or (3) the worker crashed unexpectedly due to SIGSEGV or another unexpected error. "
    "If the process was killed by the kernel OOM killer (verifiable by checking for OOM in dmesg of the OOMing node), "
    "consider enabling resource isolation via --enable-resource-isolation to prevent node deaths by resource contention"
)
OUT_OF_MEMORY = "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2) was"
UNREACHABLE = (
    "ActorUnavailableError: The actor 7aec33942d489280a420afab01000000 is unavailable: The actor is temporarily "
    "unavailable: RpcError: RPC error: Socket closed rpc_code: 14."
)
NODE_DIED = (
    "The actor died because its node has died. Node Id: 67147e4100d501905b247e075ddf0f9ec53e0ea7dfa79f12a8705ac3"
)
LIMITS = Limits(point_timeout_s=60.0, retries=2)


@pytest.mark.parametrize(
    ("text", "cause", "attempts"),
    [
        (KILLED, Cause.PROCESS_DIED, 3),
        (OUT_OF_MEMORY, Cause.OUT_OF_MEMORY, 1),
        (UNREACHABLE, Cause.NODE_LOST, 3),
        (NODE_DIED, Cause.NODE_LOST, 3),
        ("", Cause.PROCESS_DIED, 3),
    ],
)
def test_ray_s_words_tell_the_cause(text, cause, attempts):
    failure = process_failure_of(text, 1.0, LIMITS)
    assert (failure.cause, failure.attempts(LIMITS)) == (cause, attempts)
    assert "\n" not in failure.reason
    assert failure.status == ("out_of_memory" if cause is Cause.OUT_OF_MEMORY else "failed")


def test_an_exception_is_told_as_it_is_and_not_as_a_sudden_death():
    text = "ray::PointTrial.train()\nTraceback (most recent call last):\n  ...\nMeterError: GPU is lost\n"
    failure = process_failure_of(text, 1.0, LIMITS)
    assert failure.cause is Cause.PROCESS_DIED
    assert failure.reason == "its process ended by MeterError: GPU is lost"


def test_the_clock_tells_a_hang_whatever_ray_says():
    failure = process_failure_of(KILLED, 60.0, LIMITS)
    assert failure.cause is Cause.TIMED_OUT
    assert "60 s (point_timeout_s)" in failure.reason
    assert failure.attempts(LIMITS) == 2
    assert failure.attempts(Limits(retries=0)) == 1
    assert process_failure_of(KILLED, 1e9, Limits(point_timeout_s=0.0)).cause is Cause.PROCESS_DIED


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"point_timeout_s": -1.0}, "point_timeout_s must be"),
        ({"point_timeout_s": float("nan")}, "point_timeout_s must be"),
        ({"retries": -1}, "retries must be"),
        ({"stop_after": -2}, "stop_after must be"),
    ],
)
def test_limits_that_make_no_sense_are_refused(values, said):
    with pytest.raises(InputError, match=said):
        Limits(**values)


def test_a_point_given_up_says_why_in_every_phase_and_instrument():
    spec = make_point(workload="mlp", device_type="CPU", n_layers=2, width=16, tokens=8)
    settings = MeasureSettings(phases=("forward", "backward"), instruments=("time", "energy", "counters"))
    rows = failed_records(spec, settings, "r", "its node was lost", attempt=3)
    assert [row.phase for row in rows] == ["forward", "backward"]
    assert {(row.status, row.status_reason, row.attempt) for row in rows} == {("failed", "its node was lost", 3)}
    assert {(row.energy_reason, row.counters_reason) for row in rows} == {("its node was lost",) * 2}


@pytest.mark.parametrize(
    ("written", "given", "limits"),
    [
        ({"point_timeout_s": 20_000.0, "retries": 0, "stop_after": 3}, {}, (20_000.0, 0, 3)),
        ({"point_timeout_s": 20_000, "retries": 0, "stop_after": 3}, {"retries": 5}, (20_000, 5, 3)),
        (None, {"stop_after": 0}, (3600.0, 2, 0)),
        ({"point_timeout_s": -1.0, "retries": 7}, {"stop_after": 1}, (3600.0, 2, 1)),
        ({"point_timeout_s": float("nan"), "retries": True, "stop_after": "4", "other": 1}, {}, (3600.0, 2, 20)),
        (["retries"], {}, (3600.0, 2, 20)),
    ],
)
def test_a_resume_keeps_the_limits_of_its_run_unless_others_are_given(written, given, limits):
    kept = limits_of_run({"limits": written}, given)
    assert (kept.point_timeout_s, kept.retries, kept.stop_after) == limits
    assert limits_of_run({"limits": kept.to_manifest()}, {}) == kept
