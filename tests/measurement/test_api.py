"""`flopray.measure`: any callable, each part with its interval or its reason."""

from __future__ import annotations

import itertools

import pytest
import torch

import flopray
from flopray.errors import InputError
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import SimulatedMeter


def step():
    x = torch.ones(128, 128)
    return x @ x


def test_time_flops_and_the_reason_for_no_energy():
    m = flopray.measure(step, max_seconds=0.4, target_error=0.2, device="cpu")
    assert m.time.time_s > 0
    assert m.time.iterations > 1
    assert m.flops.dispatched_flops == 2 * 128**3
    assert m.flops_per_s == pytest.approx(2 * 128**3 / m.time.time_s)
    if m.energy.energy_j is None:
        assert m.energy.status == "no_energy_source"
        assert m.energy.reason
    lines = repr(m).splitlines()
    assert [line.split()[0] for line in lines] == ["Measurement", "time", "energy", "FLOPs"]
    assert "4.19 MFLOP" in lines[3]


@pytest.mark.slow
def test_energy_of_a_meter_is_power_times_time():
    meter = SimulatedMeter(ConstantPower(50.0), seed=1)
    m = flopray.measure(step, max_seconds=1.5, target_error=0.2, device="cpu", meter=meter)
    assert m.energy.status == "ok"
    assert m.energy.power_w == pytest.approx(50.0, rel=0.05)
    assert m.energy.energy_j == pytest.approx(50.0 * m.time.time_s, rel=0.05)
    assert m.flops_per_j == pytest.approx(2 * 128**3 / m.energy.energy_j)
    assert "simulated" in repr(m)


def test_a_step_that_changes_its_own_state_is_fine():
    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    calls = []

    def train():
        calls.append(1)
        optimizer.zero_grad()
        model(torch.ones(4, 8)).sum().backward()
        optimizer.step()

    m = flopray.measure(train, max_seconds=0.3, target_error=0.5, device="cpu", instruments=("time", "flops"))
    assert len(calls) >= m.time.iterations
    assert m.energy.status == "not_requested"
    assert m.flops.dispatched_flops == 2 * (2 * 4 * 8 * 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device": "mps"}, "device"),
        ({"device": "cuda:99"}, "device"),
        ({"device": "nothing"}, "device"),
        ({"execution": "graph", "device": "cpu"}, "execution"),
        ({"execution": "fast"}, "execution"),
        ({"target_error": 0}, "target_error"),
        ({"max_seconds": float("nan")}, "max_seconds"),
        ({"instruments": ("watts",)}, "instruments"),
        ({"precision": "int3"}, "precision"),
    ],
)
def test_a_wrong_argument_is_one_line_with_its_name(arguments, words):
    with pytest.raises(InputError) as error:
        flopray.measure(step, **arguments)
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


def test_a_step_that_is_no_callable():
    with pytest.raises(InputError, match="callable"):
        flopray.measure(3)


def test_what_the_step_raises_reaches_the_caller():
    def broken():
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        flopray.measure(broken, device="cpu")


@pytest.mark.slow
def test_on_a_cpu_a_utilisation_is_of_the_products_that_were_measured():
    x = torch.ones(256, 256)
    m = flopray.measure(lambda: x @ x, precision="fp32", max_seconds=0.3, target_error=0.5, device="cpu")
    assert m.flops.peak_measured
    assert m.mfu == pytest.approx(2 * 256**3 / m.time.time_s / m.flops.peak_flops_per_s)
    assert "MFU" in repr(m)
    assert "FLOP/s measured" in repr(m)
    assert flopray.measure(lambda: x @ x, max_seconds=0.1, target_error=0.5, device="cpu").mfu is None


@pytest.mark.gpu
def test_eager_and_graph_on_a_gpu():
    x = torch.randn(2048, 2048, device="cuda", dtype=torch.bfloat16)
    eager = flopray.measure(lambda: x @ x, precision="bf16")
    graph = flopray.measure(lambda: x @ x, execution="graph", precision="bf16")
    for m in (eager, graph):
        assert m.flops.dispatched_flops == 2 * 2048**3
        assert m.mfu is not None
        assert 0.05 < m.mfu < 1
        assert m.energy.status == "ok"
        assert m.energy.rel_error is not None
    assert graph.time.time_s == pytest.approx(eager.time.time_s, rel=0.3)
    assert graph.energy.energy_j == pytest.approx(eager.energy.energy_j, rel=0.3)


def test_calls_that_differ_have_no_count_and_a_first_one_that_fills_a_cache_does_not_matter():
    """A count of one call beside the mean time of calls of all shapes would be a wrong rate."""
    layer, rows, cache = torch.nn.Linear(8, 8, bias=False), itertools.cycle([1, 2, 3]), []

    def varying() -> None:
        layer(torch.ones(next(rows), 8))

    m = flopray.measure(varying, instruments=("time", "flops"), max_seconds=0.05)
    assert m.flops.dispatched_flops is None
    assert m.flops.reason == "calls of the step differ (128 FLOP, 256 FLOP, 384 FLOP), and its time is the mean of all"
    assert "FLOP/s" not in repr(m)

    def caching() -> None:
        cache or cache.append(layer.weight @ layer.weight)
        layer(torch.ones(1, 8))

    m = flopray.measure(caching, instruments=("time", "flops"), max_seconds=0.05)
    assert m.flops.dispatched_flops == 2 * 8 * 8
