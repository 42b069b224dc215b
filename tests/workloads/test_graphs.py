"""CUDA graphs do the right work, also on the hundredth replay."""

import gc

import pytest
import torch

from flopray.measurement.profiler import Profiler
from flopray.measurement.window import CudaLaps, run_window, warm_up
from flopray.records import TRAINING_PHASES, Status
from flopray.settings import MeasureSettings
from flopray.workloads import execution
from flopray.workloads.execution import TrainingStep, iterations_of, phase_work
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point

PHASES = TRAINING_PHASES

pytestmark = pytest.mark.gpu


def training_step(execution, dtype=torch.float32):
    spec = make_point(workload="mlp", device_type="GPU", n_layers=4, width=256, tokens=64)
    torch.set_float32_matmul_precision("highest")
    built = MLP().build(spec, device="cuda:0", dtype=dtype, seed=0)
    return TrainingStep(built.module, built.x, built.gradient, execution=execution)


def test_backward_graph_gives_the_same_gradients_on_every_replay():
    step = training_step("graph")
    expected = [g.clone() for g in step.backward(step.forward(), retain=False)]
    work = phase_work(step, "backward", "graph")
    gradients = work._kept[2]  # the buffers the graph writes
    for _ in range(5):
        for gradient in gradients:
            gradient.fill_(float("nan"))
        work()
        torch.cuda.synchronize()
        for got, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_points_leave_no_memory_behind():
    left = []
    for _ in range(5):
        step = training_step("graph")
        for phase in ("forward", "backward", "train_step"):
            work = phase_work(step, phase, "graph")
            work()
            torch.cuda.synchronize()
            del work
        del step
        gc.collect()
        torch.cuda.empty_cache()
        left.append(torch.cuda.memory_allocated())
    # The first points make the workspaces of cuBLAS, one for each stream and thread.
    assert left[-1] == left[1]


def test_train_step_graph_writes_gradients_and_leaves_the_weights():
    step = training_step("graph", torch.float16)
    expected = [g.clone() for g in step.backward(step.forward(), retain=False)]
    before = [p.detach().clone() for p in step.parameters]
    work = phase_work(step, "train_step", "graph")
    for _ in range(1000):
        work()
    torch.cuda.synchronize()
    for parameter, weight, gradient in zip(step.parameters, before, expected, strict=True):
        assert torch.equal(parameter, weight)
        torch.testing.assert_close(parameter.grad, gradient, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_every_phase_of_a_graph_is_measured_and_the_parts_add_up(precision):
    from flopray.measurement.device import Device

    settings = MeasureSettings(phases=PHASES, sentinel_every_s=0)
    profiler = Profiler(Device("GPU"), settings).open()
    spec = make_point(
        workload="mlp", device_type="GPU", execution="graph", precision=precision, n_layers=4, width=1024, tokens=128
    )
    rows = {row.phase: row for row in profiler.measure_point(spec)}
    profiler.close()
    assert [row.status for row in rows.values()] == [Status.OK] * len(PHASES)
    parts = sum(rows[phase].energy_j for phase in ("forward", "backward", "optimizer_step"))
    assert rows["train_step"].energy_j == pytest.approx(parts, rel=0.12)
    assert rows["forward_backward"].energy_j == pytest.approx(
        rows["forward"].energy_j + rows["backward"].energy_j, rel=0.12
    )
    for row in rows.values():
        assert row.idle_power_w < row.power_w < 1.05 * row.power_limit_w
        assert not [finding for finding in row.findings if finding.startswith("impossible")]


def test_short_iterations_share_a_replay_and_cost_the_same_as_one():
    step = training_step("graph")
    work = phase_work(step, "forward", "graph")
    each = iterations_of(work)
    assert each > 1
    laps = CudaLaps()
    warmup = warm_up(work, laps)
    window = run_window(
        work,
        laps,
        iteration_s=warmup.iteration_s,
        max_seconds=0.2,
        enough=lambda window: False,
        before_end=lambda: None,
    )
    assert window.iterations % each == 0
    single = execution._captured(step, "forward", execution._capture_stream(), 1)
    alone = execution._replay_seconds(single)
    shared = sum(window.iteration_times_s) / len(window.iteration_times_s)
    assert shared <= alone * 1.1
