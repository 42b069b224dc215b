"""Steps from torch's own hooks of optimizers: plain PyTorch, and Accelerate with accumulated gradients."""

import time

import pytest
import torch
from torch.optim import optimizer as torch_optimizer

from flopray.errors import InputError
from flopray.integrations.pytorch import watch_optimizer
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import SimulatedMeter


def problem():
    net = torch.nn.Linear(8, 8)
    return net, torch.optim.SGD(net.parameters(), lr=0.1)


@pytest.mark.slow
def test_steps_of_an_untouched_loop_under_accumulation():
    net, sgd = problem()
    meter = SimulatedMeter(ConstantPower(50.0), period_s=0.01, latency_s=0.0002)
    with watch_optimizer(meter=meter, cpu=False, leave_out=0) as w:
        for batch in range(150):
            net(torch.ones(4, 8)).mean().backward()
            time.sleep(0.005)
            if batch % 3 == 2:
                sgd.step()
                sgd.zero_grad()
    s = w.summary()
    assert s.steps == 49
    assert s.time.time_s >= 0.015
    assert abs(s.energy_j / (50.0 * s.time.time_s) - 1) <= s.rel_error + 0.05


def test_a_region_interrupts_a_step():
    _, sgd = problem()
    with watch_optimizer(cpu=False, leave_out=0) as w:
        sgd.step()
        with w.region("eval"):
            time.sleep(0.2)
        sgd.step()
    s = w.summary()
    assert s.time.time_s < 0.1
    assert s.regions[0].time_s >= 0.2


def test_only_one_optimizer_makes_steps():
    (_, generator), (_, critic) = problem(), problem()
    with watch_optimizer(cpu=False) as first, watch_optimizer(generator, cpu=False) as named:
        for _ in range(4):
            critic.step()
            critic.step()
            generator.step()
    assert (first.summary().steps, named.summary().steps) == (7, 3)


def test_the_hook_is_gone_after_the_block():
    before = dict(torch_optimizer._global_optimizer_post_hooks)
    with pytest.raises(ZeroDivisionError), watch_optimizer(cpu=False):
        1 / 0
    assert dict(torch_optimizer._global_optimizer_post_hooks) == before


@pytest.mark.extras("accelerate")
def test_accelerate_steps_when_gradients_are_complete():
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    net, sgd = problem()
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(32, 8)), batch_size=2)
    net, sgd, data = accelerator.prepare(net, sgd, data)
    with watch_optimizer(sgd, cpu=False) as w:
        for (batch,) in data:
            with accelerator.accumulate(net):
                accelerator.backward(net(batch).mean())
                sgd.step()
                sgd.zero_grad()
    assert w.summary().steps == 3


def test_what_makes_no_steps_is_refused():
    said = "optimizer must be an optimizer of torch, or one in a wrapper, got Linear"
    with pytest.raises(InputError, match=said), watch_optimizer(torch.nn.Linear(2, 2)):
        pass
