"""What the ranks of a job exchange: a GPU is counted once, FLOPs are added, unknown values are missing."""

import logging
import multiprocessing
import os
import time

import pytest
import torch

from flopray.errors import InputError
from flopray.integrations.step_costs import RankCosts, StepCosts, _told
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import SimulatedMeter


def rank(energies, flops=100.0, peak=None, lacking=()):
    return RankCosts(energies, tuple(lacking), flops, peak)


def test_each_rank_has_its_own_gpu():
    ranks = [rank({"a GPU-1": (4.0, 0.2)}, peak=1000.0), rank({"a GPU-2": (6.0, 0.3)}, peak=1000.0)]
    assert _told(0.5, ranks) == {
        "time_per_step_s": 0.5,
        "energy_per_step_j": 10.0,
        "energy_per_step_rel_error": 0.05,
        "flops_per_step": 200.0,
        "mfu": 0.2,
    }


def test_a_gpu_of_two_ranks_is_counted_once_and_those_of_two_nodes_twice():
    shared = [rank({"a GPU-1": (4.0, 0.2)}), rank({"a GPU-1": (4.0, 0.2)})]
    assert _told(0.5, shared)["energy_per_step_j"] == 4.0
    apart = [rank({"a CPU": (4.0, 0.2)}), rank({"b CPU": (4.0, 0.2)})]
    assert _told(0.5, apart)["energy_per_step_j"] == 8.0


def test_what_one_rank_does_not_know_is_missing_and_never_a_part():
    ranks = [rank({"a GPU-1": (4.0, 0.2)}), rank({}, flops=None, lacking=["a GPU-2"])]
    assert _told(0.5, ranks) == {"time_per_step_s": 0.5}
    known_elsewhere = [rank({"a GPU-1": (4.0, 0.2)}), rank({}, lacking=["a GPU-1"])]
    assert _told(0.5, known_elsewhere)["energy_per_step_j"] == 4.0
    assert _told(None, ranks) == {}


def _rank_of_two(number, port, results):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=number, world_size=2)
    costs = StepCosts(meter=SimulatedMeter(ConstantPower(100.0), period_s=0.02, latency_s=0.0005), flops=1000.0)
    costs.start()
    for _ in range(100):
        costs.begin()
        time.sleep(0.01)
        costs.end()
    told = costs.metrics()
    costs.stop()
    torch.distributed.destroy_process_group()
    results.put((number, told))


@pytest.mark.slow
def test_two_ranks_that_share_a_gpu_do_not_count_it_twice():
    import socket

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
    assert told[0]["flops_per_step"] == 2000.0


def test_flops_of_the_first_steps_are_counted_and_a_reason_is_told_once(caplog):
    weight = torch.ones(8, 8, requires_grad=True)
    costs = StepCosts()
    costs.start()
    for _ in range(6):
        costs.begin()
        (weight @ weight).sum().backward()
        costs.end()
    with caplog.at_level(logging.WARNING, "flopray"):
        told = [costs.metrics(), costs.metrics()]
    summary = costs.stop()
    assert told[0]["flops_per_step"] == 3 * 2 * 8**3
    assert "energy_per_step_j" not in told[0]
    assert len([line for line in caplog.messages if "no energy yet" in line]) == 1
    assert summary.steps == 6
    assert costs.stop() is summary


@pytest.mark.parametrize(("rows", "flops"), [((8, 8, 32), 2 * 8 * 16 * 16), ((8, 32, 8), None)])
def test_flops_of_steps_whose_batches_differ_are_not_known(caplog, rows, flops):
    """Only the first two steps are counted; texts that are padded to the longest of a batch differ at once."""
    costs = StepCosts()
    costs.start()
    with caplog.at_level(logging.WARNING, "flopray"):
        for count in rows:
            costs.begin()
            torch.ones(count, 16) @ torch.ones(16, 16)
            costs.end()
    costs.stop()
    assert costs._flops == flops
    told = [line for line in caplog.messages if "no FLOPs: they are 4096 and 16384 in the first two steps" in line]
    assert len(told) == (flops is None)


@pytest.mark.parametrize("arguments", [{"precision": "fp31"}, {"flops": -1}, {"flops": "many"}])
def test_what_cannot_be_is_refused(arguments):
    with pytest.raises(InputError):
        StepCosts(**arguments)


def test_nothing_is_kept_of_an_earlier_training():
    costs = StepCosts()
    found = []
    for rows, precision in ((8, "bf16"), (32, "fp32")):
        costs.start(precision)
        for _ in range(3):
            costs.begin()
            torch.ones(rows, 16) @ torch.ones(16, 16)
            costs.end()
        found.append((costs._flops, costs.precision))
        costs.stop()
    assert found == [(2 * 8 * 16 * 16, "bf16"), (2 * 32 * 16 * 16, "fp32")]
    given = StepCosts(flops=5.0, precision="tf32")
    given.start("bf16")
    assert (given._flops, given.precision) == (5.0, "tf32")
    given.stop()


@pytest.mark.parametrize("flops", ["yes", None, 0.0, -1.0, [1]])
def test_flops_that_are_none_are_refused(flops):
    with pytest.raises(InputError, match="flops must be True, False or a number"):
        StepCosts(flops=flops)
