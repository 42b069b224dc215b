"""A sweep that only fails is stopped; one that fails here and there, or differently, is not."""

import pytest

from flopray.records import PhaseRecord
from flopray.sweep.circuit_breaker import CircuitBreaker


def ended(reason=None, status="failed"):
    status = "ok" if reason is None else status
    return [PhaseRecord.of(trial_id="0" * 16, phase="forward", status=status, status_reason=reason)]


def test_it_stops_once_every_device_failed_alike_often_enough():
    breaker = CircuitBreaker(3)
    breaker.begin("a")
    breaker.begin("b")
    answers = [breaker.take(device, ended(f"CUDA error 7{i}")) for i in range(3) for device in ("a", "b")]
    assert answers[:-1] == [None] * 5
    assert answers[-1] == "the last 3 points on every device failed alike: CUDA error 72"


def test_a_device_that_has_not_failed_yet_keeps_the_sweep_going():
    breaker = CircuitBreaker(2)
    breaker.begin("works")
    assert not any(breaker.take("broken", ended("no driver")) for _ in range(50))
    breaker.forget("works")
    assert breaker.take("broken", ended("no driver"))


@pytest.mark.parametrize("between", [ended(), ended("another reason"), ended("too big", "out_of_memory")])
def test_another_outcome_begins_the_count_anew(between):
    breaker = CircuitBreaker(3)
    outcomes = [ended("no driver"), ended("no driver"), between, ended("no driver"), ended("no driver")]
    assert not any(breaker.take("a", outcome) for outcome in outcomes)
    assert breaker.take("a", ended("no driver"))


def test_what_a_device_lacks_is_an_answer_and_no_failure():
    breaker = CircuitBreaker(1)
    for status in ("out_of_memory", "unsupported", "no_counter_permission", "no_energy_source"):
        assert breaker.take("a", ended("as it is", status)) is None


def test_zero_never_stops():
    breaker = CircuitBreaker(0)
    assert not any(breaker.take("a", ended("no driver")) for _ in range(100))
