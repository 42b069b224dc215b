"""Real counters of a real GPU, read by real ncu."""

import re

import pytest
import torch

from flopray.flops.executed.counts import PhaseCounts
from flopray.flops.executed.metrics import shared_runs
from flopray.flops.executed.overheads import reconstruct
from flopray.measurement.counting import chunk
from flopray.measurement.counting.ahead import CountedAhead
from flopray.measurement.counting.chunk import Chunks
from flopray.measurement.device import Device
from flopray.measurement.profiler import Profiler
from flopray.point import FP8_SCALING
from flopray.records import Status
from flopray.settings import MeasureSettings
from flopray.workloads.base import closed_columns
from flopray.workloads.capability import why_no_precision
from flopray.workloads.registry import make_point

pytestmark = [pytest.mark.gpu, pytest.mark.ncu]


def point(n=4, d=1024, m=128, **fields):
    fields = {"execution": "graph"} | fields
    return make_point(workload="mlp", device_type="GPU", n_layers=n, width=d, tokens=m, **fields)


def capability():
    return "{}.{}".format(*torch.cuda.get_device_capability())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_products_are_exact_where_tiles_divide_and_whole_tiles_where_not(precision):
    chunks = Chunks(("forward",), compute_capability=capability())
    ((_, outcome),) = chunks.count([point(n=1, precision=precision)])
    (gemm,) = [kernel for kernel in outcome["forward"].kernels if kernel.kind == "gemm"]
    # An H200 takes tiles of 64 x 24 in clusters of 2 x 4 here, so 96 columns at a time: 1056 are computed for 1024.
    steps = tile_steps(gemm.name)
    whole = {2 * 1024 * whole_tiles(m, steps[0]) * whole_tiles(n, steps[1]) for m, n in ((1024, 128), (128, 1024))}
    assert gemm.tensor_flops in whole, gemm.name
    assert gemm.tensor_flops >= 2 * 1024 * 1024 * 128 == 268_435_456
    if not any(length % step for length in (1024, 128) for step in steps):
        assert gemm.tensor_flops == 268_435_456


def test_a_sigmoid_in_fp32_is_its_arithmetic_and_no_constants_that_are_loaded_as_halves():
    chunks = Chunks(("forward",), compute_capability=capability())
    ((_, outcome),) = chunks.count([point(n=1)])
    (sigmoid,) = [kernel for kernel in outcome["forward"].kernels if kernel.kind == "elementwise"]
    assert sigmoid.cuda_flops == 16 * 1024 * 128


@pytest.mark.extras("torchao")
@pytest.mark.parametrize("precision", FP8_SCALING)
def test_the_counter_of_fp8_counts_the_products_of_linear_layers_and_that_of_bf16_none(precision, monkeypatch):
    """Each counter in a run of its own: a forward pass of two layers has two products, a backward pass three."""
    if reason := why_no_precision(precision, torch.cuda.get_device_capability()):
        pytest.skip(reason)
    spec = point(n=2, d=1024, m=1024, precision=precision, execution="compile")
    of_tensor_cores = [run for run in shared_runs([precision], capability()) if run.unit == "tensor"]
    names = ["fp8" if "fp8" in "".join(run.counters.weights) else "others" for run in of_tensor_cores]
    assert sorted(set(names)) == ["fp8", "others"]
    for name in ("fp8", "others"):
        kept = [run for run, its in zip(of_tensor_cores, names, strict=True) if its == name]
        monkeypatch.setattr(chunk, "shared_runs", lambda *_, kept=kept: kept)
        ((_, outcome),) = Chunks(("forward", "backward"), compute_capability=capability()).count([spec])
        for phase, products in (("forward", 2), ("backward", 3)):
            assert isinstance(outcome[phase], PhaseCounts), outcome[phase]
            busy = [kernel for kernel in outcome[phase].kernels if kernel.tensor_flops]
            if name == "others":
                assert busy == []
                continue
            assert sum(kernel.launches for kernel in busy) == products
            assert closed_columns(spec, phase)["gemm_flops"] == products * 2 * 1024**3
            for kernel in busy:
                rows, columns = (whole_tiles(1024, step) for step in tile_steps(kernel.name))
                assert kernel.tensor_flops == kernel.launches * 2 * 1024 * rows * columns, kernel.name


def tile_steps(name):
    """Rows and columns that a kernel of Hopper's cuBLAS computes together; 1 where the name does not tell.

    It says what it launches: rows x columns of a tile, and of tiles in a cluster.
    """
    tile = re.match(r"nvjet_sm90_\w+?_(\d+)x(\d+)_\d+x\d+_(\d+)x(\d+)_", name)
    return (int(tile[1]) * int(tile[3]), int(tile[2]) * int(tile[4])) if tile else (1, 1)


def whole_tiles(length, step):
    return -(-length // step) * step


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_of_equal_operations_tells_as_much_as_all_launches(precision):
    points = [point(n=5, d=384, m=48, precision=precision), point(n=3, d=1024, m=128, precision=precision)]
    phases = ("forward", "backward")
    once, all_of_them = (
        dict(Chunks(phases, compute_capability=capability(), every_launch=every).count(points))
        for every in (False, True)
    )
    for spec in points:
        for phase in phases:
            assert isinstance(once[spec][phase], PhaseCounts)
            assert once[spec][phase].kernels == all_of_them[spec][phase].kernels
            assert once[spec][phase].counted < all_of_them[spec][phase].counted == once[spec][phase].launches


def test_counters_stand_beside_time_and_every_row_reconstructs():
    settings = MeasureSettings(
        phases=("forward", "backward", "optimizer_step", "train_step"),
        instruments=("time", "counters"),
        max_seconds=0.3,
        sentinel_every_s=0,
    )
    profiler = Profiler(Device("GPU"), settings).open()
    profiler.count_ahead([point()])
    rows = profiler.measure_point(point())
    profiler.close()
    for row in rows:
        assert (row.status, row.counters_status) == (Status.OK, Status.OK), row.counters_reason
        assert row.time_s > 0
        assert reconstruct(row.columns()) == row.executed_flops > 0
        assert row.executed_other_flops == 0
    by_phase = {row.phase: row for row in rows}
    parts = sum(by_phase[phase].executed_flops for phase in ("forward", "backward", "optimizer_step"))
    assert by_phase["train_step"].executed_flops == pytest.approx(parts, rel=0.01)


def test_too_little_memory_is_a_typed_outcome_and_the_next_point_is_counted():
    ahead = CountedAhead(capability(), ("forward",), seed=0)
    points = [point(n=32, d=65536, m=16), point()]
    assert {counted.id for round_ in ahead.rounds(points) for counted in round_} == {spec.id for spec in points}
    rows = [
        ahead.columns(spec, {"workload": "mlp", "phase": "forward", **spec.shape(), **flops(spec)}) for spec in points
    ]
    assert [row["counters_status"] for row in rows] == ["out_of_memory", "ok"]


def flops(spec):
    return closed_columns(spec, "forward")
