"""Seconds and joules of a plan by fitted models, compared with sweeps."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from flopray.settings import MeasureSettings
from flopray.sweep.planned_energy import planned_energy
from flopray.sweep.prediction import rates_of
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def make_prediction():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        return importlib.import_module("make_prediction")


@pytest.mark.parametrize(
    "run", ["boards/h100_7b5b", "boards/h100_d3fe", "boards/h200_4bc7", "reference/h200-lm/lm_97ae"]
)
def test_a_plan_has_the_joules_of_the_sweep_that_was_made(make_prediction, run):
    planned, span_s, spent_j = make_prediction.plan_of(DOCS / "results" / run)
    assert planned.energy_j == pytest.approx(spent_j, rel=0.2)
    assert planned.seconds == pytest.approx(span_s, rel=0.25)
    assert planned.outside == 0


@pytest.mark.parametrize("run", ["h200_llama", "reference/h200-mlp-odd/oddh_ab91"])
def test_a_run_whose_time_is_not_that_of_one_sweep_is_refused(make_prediction, run):
    with pytest.raises(SystemExit, match="several boards, or was interrupted"):
        make_prediction.plan_of(DOCS / "results" / run)


def test_what_no_model_knows_has_no_joules():
    settings, mlp = MeasureSettings(phases=("forward",)), MLP(n_layers=8, width=1024, tokens=128)
    on_a100 = mlp.point(device_type="A100", precision="bf16", execution="graph")
    assert planned_energy(settings, [on_a100], rates_of("A100")) is None
    llama = make_point(
        "llama", device_type="H100", precision="bf16", model="llama-3.2-3b", weights="random", attention="auto",
        checkpointing=False, batch_size=8, sequence_length=1024,
    )  # fmt: skip
    assert planned_energy(settings, [llama], rates_of("H100")) is None
    assert planned_energy(settings, [], rates_of("H100")) is None


def test_phases_and_shapes_that_were_not_measured_are_planned_and_said_to_be_outside():
    settings = MeasureSettings(phases=("forward", "inference"))
    point = MLP(n_layers=8, width=1024, tokens=128).point(device_type="H100", precision="bf16", execution="graph")
    planned = planned_energy(settings, [point], rates_of("H100"))
    assert planned.outside == 0.5
    assert planned.line("H100").endswith("; 50% of it lies outside what was measured")


@pytest.mark.slow
def test_of_many_points_some_stand_for_all(monkeypatch):
    settings = MeasureSettings(phases=("forward",))
    points = [
        MLP(n_layers=n, width=d, tokens=m).point(device_type="H100", precision="bf16", execution="graph")
        for n in (2, 8, 32) for d in range(128, 1025, 128) for m in range(16, 257, 16)
    ]  # fmt: skip
    rates = rates_of("H100")
    whole = planned_energy(settings, points, rates)
    monkeypatch.setattr("flopray.sweep.planned_energy._MOST_POINTS", len(points))
    exact = planned_energy(settings, points, rates)
    assert whole.energy_j == pytest.approx(exact.energy_j, rel=0.03)
    assert whole.energy_j != exact.energy_j
    assert "of the boards at 50 °C" in whole.line("H100")
