"""`flopray.measure` of the phases of a step: each by itself, the whole, and whether they add up."""

from __future__ import annotations

import itertools

import pytest
import torch

import flopray
from flopray.errors import InputError
from flopray.measurement.step_phases import Phases, additivity
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import SimulatedMeter

QUICK = {"max_seconds": 0.3, "target_error": 0.5, "device": "cpu"}


class Step:
    """A linear layer, its loss and AdamW with a real learning rate."""

    def __init__(self, device="cpu", dtype=torch.float32, width=8, rows=4):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(width, width, device=device, dtype=dtype)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, capturable=device == "cuda")
        self.x = torch.randn(rows, width, device=device, dtype=dtype)

    def forward(self):
        self.optimizer.zero_grad(set_to_none=False)
        return self.model(self.x).square().mean()

    def backward(self, loss):
        loss.backward(retain_graph=True)


@pytest.mark.slow
def test_phases_have_their_own_flops_and_the_whole_has_all():
    step = Step()
    before = step.model.weight.clone()
    meter = SimulatedMeter(ConstantPower(50.0), seed=1)
    m = flopray.measure(
        forward=step.forward,
        backward=step.backward,
        optimizer=step.optimizer.step,
        meter=meter,
        max_seconds=1.0,
        target_error=0.3,
        device="cpu",
    )
    product = 2 * 4 * 8 * 8
    assert {name: one.flops.dispatched_flops for name, one in m.phases.items()} == {
        "forward": product,
        "backward": product,
        "optimizer": 0,
    }
    assert m["whole"].flops.dispatched_flops == 2 * product
    parts = sum(one.time.time_s for one in m.phases.values())
    assert m.time_additivity.rel == pytest.approx(parts / m.whole.time.time_s - 1)
    assert m.energy_additivity is not None
    assert m.energy_additivity.rel == pytest.approx(m.time_additivity.rel, abs=0.2)  # at a constant power
    assert not torch.equal(before, step.model.weight)
    lines = repr(m).splitlines()
    assert [line.split()[0] for line in lines] == ["Measurement", "forward", "backward", "optimizer", "whole", "sum"]


def test_additivity_has_the_errors_of_all_windows():
    whole = additivity([(1.0, 0.03), (3.0, 0.02)], (4.0, 0.01))
    assert whole.rel == pytest.approx(0.0)
    assert whole.rel_error == pytest.approx(((0.03**2 + 0.06**2) / 16 + 0.01**2) ** 0.5)
    assert whole.holds
    assert additivity([(1.2, 0.01)], (1.0, 0.01)).holds is False
    assert additivity([(1.0, None)], (1.0, 0.01)).holds is None
    assert "unknown" in str(additivity([(1.0, None)], (1.0, 0.01)))


def test_one_phase_alone_has_nothing_to_add_up():
    m = flopray.measure(forward=Step().forward, **QUICK)
    assert tuple(m.phases) == ("forward",)
    assert "sum of phases" not in repr(m)


def test_a_backward_pass_that_frees_its_graph_is_told_how_to_keep_it():
    step = Step()
    with pytest.raises(InputError, match="retain_graph=True") as error:
        flopray.measure(forward=step.forward, backward=lambda loss: loss.backward(), **QUICK)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_an_optimizer_that_clears_the_gradients_is_refused_since_it_would_then_do_nothing():
    step = Step()

    def clears():
        step.optimizer.step()
        step.optimizer.zero_grad()

    with pytest.raises(InputError, match="clear"):
        flopray.measure(forward=step.forward, backward=step.backward, optimizer=clears, **QUICK)
    Phases({"forward": step.forward, "backward": step.backward, "optimizer": step.optimizer.step}).alone("optimizer")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "give a step, or its phases"),
        ({"step": lambda: None, "forward": lambda: None}, "not both"),
        ({"forward": 3}, "forward must be a callable, got int"),
        ({"forward": lambda x: x}, "forward must be a callable without arguments"),
        ({"backward": lambda x: x}, "backward must be a callable without arguments"),
        ({"forward": lambda: 1, "backward": lambda x, y: x}, "with what forward returns"),
        ({"optimizer": lambda x: x}, "optimizer must be a callable without arguments"),
    ],
)
def test_wrong_phases_are_one_line(given, words):
    with pytest.raises(InputError, match=words):
        flopray.measure(**given, **QUICK)


def test_a_loader_may_go_on_and_one_that_ends_is_said_so():
    step, data = Step(), [torch.randn(4, 8) for _ in range(3)]

    def over(batches):
        def train():
            step.optimizer.zero_grad()
            step.model(next(batches)).square().mean().backward()
            step.optimizer.step()

        return train

    assert flopray.measure(over(itertools.cycle(data)), **QUICK).time.iterations > 3
    with pytest.raises(InputError, match="ran out of data"):
        flopray.measure(over(iter(data)), **QUICK)


@pytest.mark.slow
def test_compiled_phases():
    step = Step()
    m = flopray.measure(forward=step.forward, backward=step.backward, execution="compile", **QUICK)
    assert m.whole.execution == "compile"
    assert m.whole.flops.dispatched_flops == 2 * (2 * 4 * 8 * 8)


@pytest.mark.gpu
@pytest.mark.parametrize("execution", ["eager", "graph", "compile", "compile_graph"])
def test_phases_add_up_on_a_gpu(execution):
    # so large that no execution waits for launches, which phases and the whole step share differently
    step = Step("cuda", torch.bfloat16, width=4096, rows=16384)
    m = flopray.measure(
        forward=step.forward,
        backward=step.backward,
        optimizer=step.optimizer.step,
        execution=execution,
        precision="bf16",
    )
    assert m["forward"].flops.dispatched_flops == m["backward"].flops.dispatched_flops == 2 * 16384 * 4096**2
    assert m["optimizer"].flops.dispatched_flops == 0
    assert abs(m.time_additivity.rel) < 0.25
    assert m.energy_additivity is not None
    assert abs(m.energy_additivity.rel) < 0.25
    assert m["forward"].mfu is not None
    assert 0.05 < m["forward"].mfu < 1
