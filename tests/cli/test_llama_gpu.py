"""Llama on a real GPU: every phase in every execution that supports it, and a model of real size."""

import pytest
import torch

from flopray.measurement.device import Device
from flopray.measurement.profiler import Profiler
from flopray.records import PHASES, Status
from flopray.settings import MeasureSettings
from flopray.workloads.registry import make_point

pytestmark = pytest.mark.gpu


def spec(model, batch, tokens, **fields):
    choices = {"weights": "random", "attention": "auto", "checkpointing": False, "precision": "bf16"}
    shape = {"batch_size": batch, "sequence_length": tokens}
    return make_point(**{"workload": "llama", "device_type": "GPU", "model": model, **choices, **shape, **fields})


def measured(point, phases=PHASES, **settings):
    settings = {"max_seconds": 0.5, "target_error": 0.1, "sentinel_every_s": 0, **settings}
    profiler = Profiler(Device("GPU"), MeasureSettings(phases=phases, **settings)).open()
    rows = {row.phase: row for row in profiler.measure_point(point)}
    profiler.close()
    return rows


@pytest.mark.parametrize("execution", ["eager", "graph"])
def test_every_phase_of_the_tiny_model_runs(execution):
    rows = measured(spec("llama-tiny", 4, 64, execution=execution), instruments=("time",))
    assert {phase: row.status for phase, row in rows.items()} == dict.fromkeys(PHASES, Status.OK), [
        row.status_reason for row in rows.values()
    ]
    assert rows["forward"].attention_backend in ("flash", "cudnn", "efficient")


def test_a_captured_model_runs_the_attention_that_was_asked_for():
    # With a mask, which it would get if transformers took the capture for a trace, flash attention has no kernel.
    phases = ("inference", "forward", "backward", "train_step", "prefill", "decode")
    rows = measured(spec("llama-tiny", 4, 64, execution="graph", attention="flash"), phases, instruments=("time",))
    assert {row.status for row in rows.values()} == {Status.OK}, [row.status_reason for row in rows.values()]
    assert {row.attention_backend for row in rows.values()} == {"flash"}


def test_generating_from_a_replayed_graph_gives_what_eager_gives():
    from flopray.workloads.phases import BuiltPoint

    eager, graph = (
        BuiltPoint(spec("llama-tiny", 2, 32, precision="fp32", execution=execution), device="cuda:0", seed=0)
        for execution in ("eager", "graph")
    )
    for phase in ("inference", "prefill", "decode"):
        wanted = eager.phase(phase)()
        work = graph.phase(phase)
        work()
        torch.cuda.synchronize()
        torch.testing.assert_close(work._kept, wanted, rtol=1e-3, atol=1e-3)


def test_a_model_of_real_size_stays_below_the_chips_limits():
    rows = measured(spec("llama-3.2-1b", 8, 256), phases=("inference", "decode"), max_seconds=1.0)
    for row in rows.values():
        assert row.status == Status.OK, row.status_reason
        assert not [finding for finding in row.findings if finding.startswith("impossible")]
        assert row.energy_per_token_j * row.tokens_per_iteration == pytest.approx(row.energy_j)
    # Reading a prompt fills the chip; making one token for each of eight sequences waits for memory.
    assert 1 > rows["inference"].mfu > 5 * rows["decode"].mfu > 0


def test_too_large_a_model_is_predicted_and_the_next_point_is_measured():
    profiler = Profiler(
        Device("GPU"), MeasureSettings(phases=("inference",), max_seconds=0.3, sentinel_every_s=0)
    ).open()
    (row,) = profiler.measure_point(spec("llama-3.1-70b", 64, 4096))
    assert row.status == Status.OUT_OF_MEMORY
    assert row.status_reason.startswith("predicted: ")
    (row,) = profiler.measure_point(spec("llama-tiny", 2, 32))
    profiler.close()
    assert row.status == Status.OK, row.status_reason
