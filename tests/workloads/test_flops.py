"""FLOPs two ways: closed form and dispatcher, against hand-computed and published numbers."""

import csv

import pytest

from flopray.records import TRAINING_PHASES
from flopray.workloads.base import closed_columns
from flopray.workloads.dispatch import dispatched_flops
from flopray.workloads.registry import make_point

PHASES = TRAINING_PHASES


def spec(n, d, m):
    return make_point(workload="mlp", device_type="CPU", n_layers=n, width=d, tokens=m)


def test_closed_form_by_hand():
    # n=2, d=3, m=5. One product of (3,3) by (3,5): 2*3*3*5 = 90; one activation: 3*5 = 15.
    # forward: 2 products, 2 activations. backward: layer 2 needs both gradients (2 products), layer 1 only its
    # weight's (1 product); each sigmoid gives one FLOP an element for its own gradient, and layer 2 one more.
    small = spec(2, 3, 5)
    forward = closed_columns(small, "forward")
    assert (forward["gemm_flops"], forward["activation_flops"]) == (180, 30)
    backward = closed_columns(small, "backward")
    assert (backward["gemm_flops"], backward["activation_flops"]) == (3 * 90, 15 + 30)
    assert closed_columns(small, "optimizer_step")["model_flops"] == 16 * 2 * 9


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (8, 64, 16)])
def test_phases_add_up(shape):
    flops = {phase: closed_columns(spec(*shape), phase)["model_flops"] for phase in PHASES}
    assert flops["forward_backward"] == flops["forward"] + flops["backward"]
    assert flops["train_step"] == flops["forward_backward"] + flops["optimizer_step"]


@pytest.mark.parametrize("phase", PHASES)
def test_components_add_up(phase):
    columns = closed_columns(spec(4, 32, 8), phase)
    parts = columns["gemm_flops"] + columns["activation_flops"] + columns["optimizer_flops"]
    assert columns["model_flops"] == parts


@pytest.mark.parametrize("shape", [(1, 8, 4), (2, 3, 5), (8, 64, 16), (32, 128, 16)])
@pytest.mark.parametrize("phase", ["forward", "backward", "forward_backward", "train_step"])
def test_dispatcher_counts_exactly_the_matrix_products(shape, phase):
    closed = closed_columns(spec(*shape), phase)
    counted = dispatched_flops(spec(*shape), phase, closed["model_flops"])
    assert counted["dispatched_flops"] == closed["gemm_flops"]
    expected = closed["gemm_flops"] / closed["model_flops"] - 1
    assert counted["dispatched_rel_difference"] == pytest.approx(expected, abs=1e-15)


def test_dispatcher_knows_nothing_of_the_optimizer_and_says_so():
    counted = dispatched_flops(spec(2, 8, 4), "optimizer_step", 2048)
    assert counted["dispatched_flops"] is None
    assert "elementwise" in counted["dispatched_reason"]


def test_published_comparison_exactly(published):
    """The published table has n = 32 layers and m = 128 tokens at every width."""
    with (published / "metrics" / "analytical_vs_pytorch_comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    for row in rows:
        point = spec(32, int(row["D"]), 128)
        for phase in ("forward", "backward"):
            closed = closed_columns(point, phase)["model_flops"]
            counted = dispatched_flops(point, phase, closed)
            assert closed == int(float(row[f"analytical_{phase}_flops"]))
            assert counted["dispatched_flops"] == int(float(row[f"pytorch_{phase}_flops"]))
            theirs = float(row[f"{phase}_error_pct"])
            assert -100 * counted["dispatched_rel_difference"] == pytest.approx(theirs, rel=1e-9)


def test_published_grid_has_the_same_closed_form(published):
    path = published / "metrics" / "20250922-120007_n2-32_d128-2048_m16-256.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1280
    for row in rows:
        point = spec(int(row["n"]), int(row["d"]), int(row["m"]))
        assert closed_columns(point, "forward")["model_flops"] == int(row["theoretical_total_flops_fwd"])
        assert closed_columns(point, "backward")["model_flops"] == int(row["theoretical_total_flops_bwd"])
