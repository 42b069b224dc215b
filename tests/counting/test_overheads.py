"""omega, rho and kappa are those of flopmetrics, and reproduce the executed total."""

import dataclasses
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopray.flops.executed.counts import KernelCount, NotCounted, PhaseCounts
from flopray.flops.executed.overheads import elements, reconstruct
from flopray.measurement.counting.columns import counter_columns
from flopray.records import KERNEL_CLASSES, TRAINING_PHASES, PhaseRecord
from flopray.store.run import RunFolder
from flopray.workloads.base import closed_columns
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point

PHASES = TRAINING_PHASES


def row_of(spec, phase):
    return {"workload": "mlp", "phase": phase, **spec.shape(), **closed_columns(spec, phase)}


shapes = st.builds(
    lambda n, d, m: make_point(workload="mlp", device_type="GPU", n_layers=n, width=d, tokens=m),
    st.integers(1, 64),
    st.integers(1, 4096),
    st.integers(1, 4096),
)
kernels = st.lists(
    st.builds(
        KernelCount,
        st.text(max_size=5),
        st.sampled_from(KERNEL_CLASSES),
        st.integers(1, 99),
        st.integers(0, 2**46),
        st.integers(0, 2**46),
    ),
    min_size=1,
    max_size=12,
)


@given(shapes, kernels, st.sampled_from(PHASES))
def test_the_overheads_give_the_executed_total_back_exactly(spec, found, phase):
    row = row_of(spec, phase)
    columns = counter_columns(row, PhaseCounts(tuple(found), 1), "2025.3", MLP().reduction_elements(spec, phase))
    assert columns["executed_flops"] == sum(kernel.flops for kernel in found)
    assert columns["executed_flops"] == columns["executed_tensor_flops"] + columns["executed_cuda_flops"]
    assert reconstruct({**row, **columns}) == columns["executed_flops"]
    PhaseRecord.of(**{k: v for k, v in {**row, **columns}.items() if k != "workload"})
    assert [json.loads(text)["class"] for text in columns["kernels"]] == [kernel.kind for kernel in found]


def test_the_definitions_are_those_of_the_published_results(published):
    frame = pd.read_csv(published / "metrics" / "20250922-120007_n2-32_d128-2048_m16-256.csv")
    assert len(frame) == 1280
    for side, phase in (("fwd", "forward"), ("bwd", "backward")):
        for row in frame.sample(200, random_state=0).itertuples():
            spec = make_point(workload="mlp", device_type="GPU", n_layers=row.n, width=row.d, tokens=row.m)
            closed = closed_columns(spec, phase)
            assert closed["model_flops"] == getattr(row, f"theoretical_total_flops_{side}")
            total = (
                closed["gemm_flops"] * (1 + getattr(row, f"omega_{side}"))
                + getattr(row, f"rho_{side}") * elements(row.n, row.d, row.m, phase)
                + closed["activation_flops"] * (1 + getattr(row, f"kappa_{side}"))
            )
            assert total == pytest.approx(getattr(row, f"ncu_total_flops_{side}"), rel=2e-3)


def test_a_phase_without_counts_has_a_reason_and_no_zero():
    spec = make_point(workload="mlp", device_type="GPU", n_layers=2, width=8, tokens=8)
    columns = counter_columns(row_of(spec, "forward"), NotCounted("no_counter_permission", "why"), "2025.3")
    assert columns == {"counters_status": "no_counter_permission", "counters_reason": "why", "ncu_version": "2025.3"}


def test_a_run_has_its_kernels_as_a_table(tmp_path):
    folder = RunFolder.create(tmp_path, "r", {})
    assert folder.write_kernels() is None
    spec = make_point(workload="mlp", device_type="H100", n_layers=2, width=8, tokens=8)
    columns = counter_columns(
        row_of(spec, "forward"),
        PhaseCounts((KernelCount("sgemm", "gemm", 2, 0, 4096), KernelCount("k7", "other", 1, 8, 0)), 2),
        "2025.3",
    )
    record = PhaseRecord.of(trial_id=spec.id, phase="forward", **spec.fields(), **columns)
    broken = dataclasses.replace(record, phase="backward", kernels=("[1]", "no json", '{"name": "x"}'))
    with folder.writer() as journal:
        journal.append([[record, broken]])
    table = pd.read_parquet(folder.write_kernels())
    assert table[["phase", "kernel", "kernel_class", "launches", "tensor_flops", "cuda_flops"]].values.tolist() == [
        ["forward", "sgemm", "gemm", 2, 0, 4096],
        ["forward", "k7", "other", 1, 8, 0],
    ]
    assert set(table["trial_id"]) == {spec.id}
