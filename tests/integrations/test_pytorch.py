"""Steps from torch's own hooks of optimizers: plain PyTorch, and Accelerate with accumulated gradients."""

import logging
import multiprocessing
import os
import socket
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


def test_two_watches_count_one_after_the_other_and_torch_compiles_again_afterwards():
    """Counts that overlap would end in the order in which they began, and leave torch launching eagerly."""
    (net, sgd), (other, second) = problem(), problem()
    with watch_optimizer(sgd, cpu=False, leave_out=0) as w, watch_optimizer(second, cpu=False, leave_out=0) as v:
        for _ in range(8):
            net(torch.ones(4, 8)).mean().backward()
            sgd.step()
            other(torch.ones(4, 8)).mean().backward()
            second.step()
        found = [watched.metrics()["flops_per_step"] for watched in (w, v)]
    assert found == [2 * BATCH_FLOPS] * 2  # a step of one optimizer lasts until its next one
    graphs = []
    torch.compile(lambda x: x + 1, backend=lambda graph, _: graphs.append(graph) or graph.forward)(torch.ones(2))
    assert len(graphs) == 1


def test_the_hook_is_gone_after_the_block():
    before = dict(torch_optimizer._global_optimizer_post_hooks)
    with pytest.raises(ZeroDivisionError), watch_optimizer(cpu=False):
        1 / 0
    assert dict(torch_optimizer._global_optimizer_post_hooks) == before


#: FLOPs of a batch of `problem`: 4 rows by 8 x 8 weights in each pass; the input needs no gradient.
BATCH_FLOPS = 2 * 2 * 4 * 8 * 8


@pytest.mark.parametrize("accumulated", [1, 3])
def test_flops_of_a_step_are_those_of_all_accumulated_batches(accumulated):
    net, sgd = problem()
    with watch_optimizer(cpu=False) as w:
        for batch in range(8 * accumulated):
            net(torch.ones(4, 8)).mean().backward()
            if (batch + 1) % accumulated == 0:
                sgd.step()
                sgd.zero_grad()
        told = w.metrics()
    assert w.summary().steps == 7
    assert told["flops_per_step"] == accumulated * BATCH_FLOPS
    assert told["time_per_step_s"] > 0
    assert "mfu" not in told
    assert w.metrics() == {}  # the watch has ended


def test_flops_of_a_region_and_of_a_step_that_never_ended_are_in_no_step():
    net, sgd = problem()
    with watch_optimizer(cpu=False, leave_out=0) as w:
        for number in range(6):
            net(torch.ones(4, 8)).mean().backward()
            sgd.step()
            if number == 1:
                with w.region("eval"):
                    net(torch.ones(400, 8))
        told = w.metrics()
        net(torch.ones(40, 8))
    assert told["flops_per_step"] == BATCH_FLOPS
    with watch_optimizer(cpu=False, leave_out=0) as short:
        for rows in (4, 4, 40):
            net(torch.ones(rows, 8)).mean().backward()
            if rows == 4:
                sgd.step()
        assert short.metrics()["flops_per_step"] == BATCH_FLOPS


def test_flops_that_are_not_known_are_missing_with_one_warning(caplog):
    net, sgd = problem()
    with caplog.at_level(logging.WARNING, "flopray"), watch_optimizer(cpu=False) as w:
        for _ in range(5):
            torch.ones(4, 4).to_sparse_csr().matmul(net(torch.ones(4, 8)).detach())
            net(torch.ones(4, 8)).mean().backward()
            sgd.step()
        assert "flops_per_step" not in w.metrics()
        assert "flops_per_step" not in w.metrics()
    assert len([line for line in caplog.messages if "no FLOPs" in line]) == 1
    with watch_optimizer(cpu=False, flops=12.0, leave_out=0) as given:
        sgd.step()
        sgd.step()
        assert given.metrics()["flops_per_step"] == 12.0


def _rank_of_two(number, port, results):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=number, world_size=2)
    net, sgd = problem()
    meter = SimulatedMeter(ConstantPower(100.0), period_s=0.02, latency_s=0.0005)
    with watch_optimizer(meter=meter, cpu=False) as w:
        for _ in range(100):
            net(torch.ones(4, 8)).mean().backward()
            time.sleep(0.01)
            sgd.step()
        told = w.metrics()
    torch.distributed.destroy_process_group()
    results.put((number, told))


@pytest.mark.slow
def test_two_ranks_count_a_gpu_once_and_add_their_flops():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    ranks = [context.Process(target=_rank_of_two, args=(number, port, results)) for number in range(2)]
    for process in ranks:
        process.start()
    told = dict(results.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join(timeout=20)
    assert told[0]["energy_per_step_j"] == told[1]["energy_per_step_j"]
    assert told[0]["energy_per_step_j"] == pytest.approx(100.0 * told[0]["time_per_step_s"], rel=0.5)
    assert told[0]["flops_per_step"] == told[1]["flops_per_step"] == 2 * BATCH_FLOPS


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
        told = w.metrics()
    assert w.summary().steps == 3
    assert w.precision == "fp32"
    assert "flops_per_step" not in told  # the means leave out as many steps as this loop has


def test_what_makes_no_steps_is_refused():
    said = "optimizer must be an optimizer of torch, or one in a wrapper, got Linear"
    with pytest.raises(InputError, match=said), watch_optimizer(torch.nn.Linear(2, 2)):
        pass
