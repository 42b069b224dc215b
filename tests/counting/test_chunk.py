"""A chunk is counted by real processes; a point that kills its process costs only itself."""

import pytest
from warm_python import ADDRESS

from flopray.errors import MeasurementError, NoCounterPermission, Unsupported
from flopray.flops.executed import ncu
from flopray.flops.executed.counts import NotCounted, PhaseCounts
from flopray.flops.executed.metrics import passes_for, shared_runs
from flopray.measurement.counting import chunk, processes
from flopray.measurement.counting.chunk import Chunks
from flopray.workloads.registry import make_point

PHASES = ("forward", "backward")


def point(width, n=3, precision="fp32"):
    return make_point(workload="mlp", device_type="GPU", n_layers=n, width=width, tokens=8, precision=precision)


def count(points, phases=PHASES, **options):
    chunks = Chunks(phases, compute_capability="9.0", device="cpu", **options)
    return {spec.width: outcome for spec, outcome in chunks.count(points)}


@pytest.mark.slow
def test_every_layer_is_counted_though_equal_operations_are_read_once(stand_in, monkeypatch):
    monkeypatch.delenv(ADDRESS)  # here and in one test of functions, workers import everything themselves
    outcome = count([point(16, n=6)])[16]
    forward = {kernel.kind: kernel for kernel in outcome["forward"].kernels}
    assert forward["gemm"].launches == 6
    assert forward["elementwise"].launches == 6
    # 1000 of each counter: an add, a multiply and two FLOPs of an fma in fp32 and fp64
    assert forward["gemm"].cuda_flops == 6 * 1000 * (4 + 4)
    assert outcome["forward"].launches == 12
    assert outcome["forward"].counted < 12
    # every layer has two products but the first, whose input needs no gradient
    assert {k.kind: k.launches for k in outcome["backward"].kernels} == {"gemm": 11, "elementwise": 6}


def test_tensor_cores_have_a_run_of_their_own_and_cuda_cores_one_for_all_precisions(stand_in):
    chunks = Chunks(PHASES, compute_capability="9.0", device="cpu")
    outcomes = dict(chunks.count([point(16), point(16, precision="bf16"), point(32, precision="bf16")]))
    assert [(one.unit, one.points) for one in chunks.seconds] == [("cuda", 3), ("tensor", 2)]
    for spec, outcome in outcomes.items():
        gemm = next(kernel for kernel in outcome["forward"].kernels if kernel.kind == "gemm")
        halves = spec.precision == "bf16"
        assert gemm.tensor_flops == (3 * 1000 if halves else 0)
        # Twice as many in half2, which an fp32 product does not count though the run reads them.
        assert gemm.cuda_flops == 3 * 1000 * (4 + 4 + (8 if halves else 0))


def test_a_precision_that_the_chip_cannot_count_takes_no_other_along(stand_in):
    stand_in("chips:gv100")
    chunks = Chunks(("forward",), compute_capability="7.0", device="cpu")
    outcomes = {
        spec.precision: found["forward"] for spec, found in chunks.count([point(16, precision="tf32"), point(16)])
    }
    assert outcomes["tf32"].status == "unsupported"
    assert isinstance(outcomes["fp32"], PhaseCounts)


@pytest.mark.parametrize("capability", ["8.0", "9.0"])
def test_a_run_for_all_precisions_reads_what_each_of_them_counts(capability):
    precisions = ("fp32", "tf32", "bf16", "fp16")
    shared = shared_runs(precisions, capability)
    assert [one.unit for one in shared] == ["cuda", *["tensor"] * 4]  # fp16 has two
    for precision in precisions:
        assert [one.passes[precision] for one in shared if precision in one.passes] == list(
            passes_for(precision, capability)
        )
    # As many counters as the widest precision reads alone, so as many passes of a kernel.
    assert shared[0].counters == passes_for("bf16", capability)[0]


def test_a_point_that_kills_its_process_costs_only_itself(stand_in):
    stand_in("kill:32")
    # deep, so that its end cannot come before the stand-in has seen its beginning
    outcomes = count([point(16), point(32, n=400), point(48), point(64)])
    assert set(outcomes) == {16, 32, 48, 64}
    for width in (16, 48, 64):
        assert all(isinstance(counts, PhaseCounts) for counts in outcomes[width].values())
    for counts in outcomes[32].values():
        assert isinstance(counts, NotCounted)
        assert counts.status == "failed"
        assert "its process ended early" in counts.reason


def test_a_point_that_dies_in_the_first_run_has_no_half_counts(stand_in):
    # Its forward pass is told as finished, but nothing has counted the tensor cores.
    stand_in("kill:32")
    outcomes = count([point(32, n=400, precision="bf16")], phases=("forward", "backward"))
    assert all(isinstance(counts, NotCounted) for counts in outcomes[32].values())


def test_points_are_told_as_they_begin(stand_in):
    told = []
    count([point(16), point(32)], tell=lambda now: told.append(now.point.width))
    assert told[-1:] == [32]


@pytest.mark.slow
def test_what_went_down_with_the_table_is_counted_again(stand_in):
    stand_in("lose:32")
    outcomes = count([point(16), point(32, n=400), point(48)])
    for width in (16, 48):
        assert {counts.launches for counts in outcomes[width].values()} == {6, 8}
    assert all(isinstance(counts, NotCounted) for counts in outcomes[32].values())


@pytest.mark.parametrize(
    ("says", "error", "remedy"),
    [
        ("ERR_NVGPUCTRPERM - The user does not have permission", NoCounterPermission, "NVreg_RestrictProfiling"),
        ("Cuda driver is not compatible with Nsight Compute.", Unsupported, "driver"),
        ("Profiling failed because a driver resource was unavailable.", MeasurementError, "dcgmi profile --pause"),
        ("Failed to find metric sm__ops_path_tensor_src_fp16.sum", Unsupported, "newer ncu"),
    ],
)
def test_what_no_repetition_would_mend_is_a_typed_error_of_one_line(stand_in, says, error, remedy):
    stand_in(f"error:{says}")
    with pytest.raises(error, match=remedy) as caught:
        count([point(16)])
    assert "\n" not in str(caught.value)


def test_a_chip_that_ncu_does_not_know_is_refused_before_anything_runs(stand_in):
    stand_in("chips:tu102, ga100")
    with pytest.raises(Unsupported, match="does not know the chip gh100: install a newer ncu"):
        count([point(16)])


@pytest.mark.slow
def test_a_hanging_process_is_ended(stand_in, monkeypatch):
    stand_in("hang")
    monkeypatch.setattr(chunk, "_QUIET_FOR_S", 1.0)
    with pytest.raises(MeasurementError, match="nothing moved for 1 s"):
        count([point(16)])


def test_no_ncu_is_said_with_what_gives_one(monkeypatch, tmp_path):
    monkeypatch.delenv("FLOPRAY_NCU", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(ncu, "_FOLDERS", ())
    with pytest.raises(Unsupported, match="install Nsight Compute"):
        count([point(16)])
    monkeypatch.setenv("FLOPRAY_NCU", str(tmp_path / "none"))
    with pytest.raises(Unsupported, match="FLOPRAY_NCU names"):
        count([point(16)])


def test_a_phase_that_cannot_run_is_typed_and_the_others_are_counted(stand_in):
    # The CPU has no tf32, and the worker says so of each phase without ending.
    outcome = count([point(16, precision="tf32")])[16]
    assert {counts.status for counts in outcome.values()} == {"unsupported"}


@pytest.mark.slow
def test_points_come_chunk_by_chunk_and_later_processes_count_new_operations_only(stand_in, monkeypatch):
    points = [point(16, precision="bf16"), point(16, n=5, precision="bf16"), point(32, n=2, precision="bf16")]
    whole = dict(Chunks(PHASES, compute_capability="9.0", device="cpu").count(points))
    monkeypatch.setattr(processes, "_FIRST_S", 0.0)
    monkeypatch.setattr(processes.Processes, "_learn", lambda *_: None)
    told = []
    chunks = Chunks(PHASES, compute_capability="9.0", device="cpu", tell=told.append)
    rounds = list(chunks.rounds(points))
    assert [[spec for spec, _ in found] for found in rounds] == [[spec] for spec in points]
    for found in rounds:
        for spec, outcome in found:
            for phase in PHASES:
                assert outcome[phase].kernels == whole[spec][phase].kernels
    assert [one.unit for one in chunks.seconds] == ["cuda", "tensor"] * 3
    assert {now.points for now in told} == {3}
    assert told[-1].counted >= 2


def test_a_round_that_is_not_waited_for_leaves_no_process(stand_in, monkeypatch):
    monkeypatch.setattr(processes, "_FIRST_S", 0.0)
    rounds = Chunks(PHASES, compute_capability="9.0", device="cpu").rounds([point(16), point(32)])
    assert len(next(rounds)) == 1
    rounds.close()
    assert next(rounds, None) is None
