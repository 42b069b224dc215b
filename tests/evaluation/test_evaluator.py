"""A point of an evaluation, measured on a CPU without Ray: score, time, and energy by a meter whose truth is known."""

from __future__ import annotations

import os
import time

import pytest
from tiny_models import TASKS, save_model

from flopray.measurement.device import Device
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import RealClock, SimulatedMeter
from flopray.workloads.registry import make_point

pytestmark = pytest.mark.extras("evaluate")
CHOICES = {"include_path": str(TASKS), "num_fewshot": "task", "limit": "all", "chat_template": False}


def point(model, **fields):
    return make_point("evaluation", **{"model": str(model), "task": "kinds", "batch_size": 4, **CHOICES, **fields})


def evaluated(*points, device=None, instruments=("time", "energy")) -> list[PhaseRecord]:
    from flopray.watching.evaluator import Evaluator

    settings = MeasureSettings(phases=("evaluation",), sentinel_every_s=0.0, instruments=instruments)
    with Evaluator(device or Device("CPU"), settings, run="r") as evaluator:
        return [record for one in points for record in evaluator.measure_point(one)]


def test_a_model_that_knows_and_one_that_guesses(knowing, guessing):
    best, worst = evaluated(point(knowing), point(guessing))
    assert (best.status, worst.status) == ("ok", "ok"), (best.status_reason, worst.status_reason)
    assert (best.score, best.score_stderr, best.score_metric) == (1.0, 0.0, "acc")
    assert best.score_low == pytest.approx(0.839, abs=1e-3)
    assert 0.2 <= worst.score <= 0.8
    assert (best.samples, best.samples_of_task, best.requests, best.fewshot_examples) == (20, 20, 40, 0)
    assert best.time_s > 0
    assert best.time_per_sample_s == pytest.approx(best.time_s / 20)
    assert best.time_per_point_s == pytest.approx(best.time_s / 100)
    assert best.parameters == worst.parameters > 1000
    assert best.model_flops is None
    assert "not counted" in best.model_flops_reason
    assert best.time_rel_error is None  # one run has no scatter
    assert best.target_error is None


def test_limit_and_examples(knowing):
    few, shown = evaluated(point(knowing, limit="6"), point(knowing, num_fewshot="2"))
    assert (few.samples, few.samples_of_task, few.requests) == (6, 20, 12)
    assert shown.fewshot_examples == 2


def test_an_error_without_a_formula_is_drawn_in_this_process(guessing, monkeypatch):
    from flopray.workloads.evaluation import harness

    def fork(*_, **__):
        raise AssertionError("processes were forked from one that owns a device")

    monkeypatch.setattr("multiprocessing.Pool", fork)
    monkeypatch.setattr(harness, "_BOOTSTRAP", 50)
    (record,) = evaluated(point(guessing, task="kinds_f1"))
    assert (record.status, record.score_metric) == ("ok", "f1"), record.status_reason
    assert 0 < record.score_stderr < 0.5
    assert "DISABLE_MULTIPROC" not in os.environ


def test_a_model_that_writes_its_answers(knowing, guessing):
    best, worst = evaluated(point(knowing, task="kinds_said"), point(guessing, task="kinds_said"))
    assert (best.status, best.score, best.score_metric) == ("ok", 1.0, "exact_match"), best.status_reason
    assert worst.score < 1.0
    assert (best.samples, best.requests) == (20, 20)


def test_a_perplexity_has_no_points(knowing, guessing):
    best, worst = evaluated(point(knowing, task="kinds_read"), point(guessing, task="kinds_read"))
    assert (best.status, best.score_metric, best.score_higher_is_better) == ("ok", "word_perplexity", False)
    assert 1 < best.score < worst.score
    assert "not a share of 1" in best.per_point_reason
    assert best.time_per_point_s is None
    assert best.time_per_sample_s > 0


def test_without_a_meter_the_reason_stands_in_place_of_joules(knowing, monkeypatch):
    from flopray.errors import NoEnergySource

    def none(self):
        raise NoEnergySource("no counter here")

    monkeypatch.setattr(Device, "open_meter", none)
    (record,) = evaluated(point(knowing))
    assert (record.status, record.energy_status, record.energy_reason) == ("ok", "no_energy_source", "no counter here")
    assert (record.energy_j, record.energy_per_sample_j, record.energy_per_point_j) == (None, None, None)


@pytest.mark.slow
def test_joules_are_those_of_the_answers_alone(knowing, monkeypatch):
    """A meter of 50 W, and answers that take at least a second: loading and scoring are not included."""
    from flopray.workloads.evaluation import harness

    watched = harness._watched_model()

    class Slow(watched):
        def _answer(self, how, requests):
            return super()._answer(lambda *a, **k: (time.sleep(1.0), how(*a, **k))[1], requests)

    monkeypatch.setattr(harness, "_watched_model", lambda: Slow)
    meter = {"clock": RealClock(), "period_s": 0.02, "latency_s": 0.001}
    monkeypatch.setattr(Device, "open_meter", lambda self: SimulatedMeter(ConstantPower(50.0), **meter))
    (record,) = evaluated(point(knowing))
    assert record.energy_status == "ok", record.energy_reason
    assert record.time_s > 1.0
    assert record.energy_j == pytest.approx(50.0 * record.time_s, rel=0.05)
    assert abs(record.energy_j - 50.0 * record.time_s) <= record.energy_rel_error * record.energy_j + 0.1
    assert record.energy_per_sample_j == pytest.approx(record.energy_j / 20)
    assert record.energy_per_point_j == pytest.approx(record.energy_j / 100)
    assert record.energy_per_point_rel_error > record.energy_rel_error
    assert record.device_wall_s > record.time_s


@pytest.mark.slow
def test_what_is_not_here_is_a_row_with_its_reason_and_the_next_point_goes_on(knowing, own_tasks_alone):
    missing, there = evaluated(point(knowing, task="nothing"), point(knowing, limit="4"))
    assert (missing.status, there.status) == ("failed", "ok")
    assert "no task 'nothing'" in missing.status_reason
    assert missing.score is None
    assert missing.energy_j is None


def test_time_alone(knowing):
    (record,) = evaluated(point(knowing, limit="4"), instruments=("time",))
    assert (record.energy_status, record.status) == ("not_requested", "ok")


@pytest.mark.gpu
def test_on_a_gpu_the_counter_tells_the_joules_of_the_answers(tmp_path):
    """One sample at a time and wide layers, so that the answers outlast some ticks of the counter."""
    model = save_model(tmp_path / "wide", width=2048)
    (record,) = evaluated(point(model, device_type="GPU", precision="bf16", batch_size=1), device=Device("GPU"))
    assert (record.status, record.time_clock) == ("ok", "cuda_events"), record.status_reason
    if record.energy_status == "ok":
        assert 0 < record.energy_j < 1.2 * record.power_limit_w * record.time_s
        assert record.energy_per_sample_j == pytest.approx(record.energy_j / 20)
        assert record.temperature_start_c > 0
    else:
        assert record.energy_j is None
        assert record.energy_reason
