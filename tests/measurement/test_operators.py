"""Operators of a phase: times, calls, FLOPs and memory, by named region, in the records and as a table of a run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from rich.console import Console
from torch._C._autograd import DeviceType
from torch.profiler import record_function

import flopray
from flopray.errors import SettingError
from flopray.measurement import operators
from flopray.measurement.operators import UNLINKED, operator_times
from flopray.report.operators import print_operators
from flopray.settings import MeasureSettings
from flopray.store import operator_table

pytestmark = pytest.mark.usefixtures("peak_measured_once")


def step_on(device, width=64, rows=32):
    layer = torch.nn.Linear(width, width, device=device)
    x = torch.randn(rows, width, device=device)

    def step():
        with record_function("forward"):
            y = layer(x)
        with record_function("both"), record_function("backward"):
            y.sum().backward()

    return step


def check(found, width=64, rows=32):
    by = {(one.region, one.name): one for one in found}
    product = 2 * rows * width * width
    forward, backward = by["forward", "aten::addmm"], by["both/backward", "aten::mm"]
    assert (forward.calls, forward.flops) == (1, product)
    assert (backward.calls, backward.flops) == (1, product)
    assert by["both/backward", "aten::sum"].flops == 0
    assert not any(one.name in ("forward", "backward", "both") for one in found)
    assert all(one.host_time_s >= 0 and one.device_time_s >= 0 for one in found)
    return forward


def test_operators_have_calls_flops_and_memory_by_region():
    forward = check(operator_times(step_on("cpu"), is_cuda=False))
    assert forward.host_time_s > 0
    assert forward.device_time_s == 0
    assert forward.host_memory_bytes == 32 * 64 * 4


def test_an_operator_without_a_formula_has_no_flops():
    x = torch.randn(8, 8)
    found = {one.name: one for one in operator_times(lambda: torch.linalg.svd(x), is_cuda=False)}
    assert found["aten::_linalg_svd"].flops is None


@pytest.mark.slow
def test_records_have_operators_only_if_they_are_asked_for():
    mlp = flopray.workloads.MLP(n_layers=2, width=64, tokens=16)
    how = {"phases": ["forward", "train_step"], "max_seconds": 0.1, "device": "cpu"}
    (plain, _) = flopray.profile(mlp, instruments=["time"], **how)
    assert (plain.operators, plain.operators_status) == ((), "not_requested")
    forward, train = flopray.profile(mlp, instruments=["time", "operators"], **how)
    assert forward.operators_status == train.operators_status == "ok"
    rows = list(operator_table.operator_rows([{**train.columns(), "energy_j": 2.0}]))
    assert sum(row["time_share"] for row in rows) == pytest.approx(1)
    assert sum(row["energy_estimate_j"] for row in rows) == pytest.approx(2.0)
    assert sum(row["flops"] or 0 for row in rows) == train.dispatched_flops
    assert any("AdamW" in row["region"] for row in rows)
    assert set(rows[0]) == set(operator_table.SCHEMA.names)


def test_operators_need_time():
    with pytest.raises(SettingError, match="operators needs time"):
        MeasureSettings(instruments=("operators",))


ONE = {
    **{"region": "", "name": "aten::mm", "calls": 2, "device_time_s": 3e-3, "host_time_s": 1e-3},
    **{"flops": 100, "device_memory_bytes": 0, "host_memory_bytes": 0},
}
KEYS = {"trial_id": "p1", "phase": "forward", "device_type": "H100", "precision": "fp32", "execution": "eager"}


def record(*operators, energy_j=4.0):
    return {**KEYS, "energy_j": energy_j, "operators": [json.dumps(one) for one in operators]}


def test_shares_are_of_device_time_where_there_is_a_device():
    other = {**ONE, "name": "aten::add", "device_time_s": 1e-3, "host_time_s": 9e-3, "flops": None}
    first, second = operator_table.operator_rows([record(ONE, other)])
    assert (first["time_share"], second["time_share"]) == (0.75, 0.25)
    assert (first["energy_estimate_j"], second["energy_estimate_j"]) == (3.0, 1.0)
    (alone,) = operator_table.operator_rows([record(ONE, energy_j=None)])
    assert alone["energy_estimate_j"] is None


@pytest.mark.parametrize(
    "line", ["", "[]", "{}", "null", json.dumps({**ONE, "calls": "x"}), json.dumps({**ONE, "device_time_s": -1.0})]
)
def test_text_that_is_no_operator_is_passed_over(line):
    hostile = {**record(ONE), "operators": [line, json.dumps(ONE)]}
    assert [row["operator"] for row in operator_table.operator_rows([hostile])] == ["aten::mm"]


def test_the_table_of_a_run(tmp_path):
    path = tmp_path / "operators.parquet"
    records = [record(ONE, {**ONE, "name": "aten::add", "device_time_s": 1e-3}), {**record(ONE), "trial_id": "p2"}]
    assert operator_table.write(path, records)
    assert len(pd.read_parquet(path)) == 3
    console = Console(width=160, record=True)
    print_operators(console, path)
    text = console.export_text()
    assert "aten::mm" in text
    assert "87.5%" in text  # of the mean point: 75 % and 100 %
    assert "an estimate" in text
    assert not operator_table.write(tmp_path / "none.parquet", [record()])
    print_operators(console, tmp_path / "none.parquet")


def event(name, device_us, *, on=DeviceType.CPU, **more):
    """An event as torch.profiler gives it; `device_us` of an operator's kernels, or of one kernel."""
    return SimpleNamespace(
        **{"name": name, "device_type": on, "is_user_annotation": False, "self_device_time_total": device_us},
        **{"self_cpu_time_total": 5.0, "self_device_memory_usage": 0, "self_cpu_memory_usage": 0},
        time_range=SimpleNamespace(start=0.0, end=device_us, elapsed_us=lambda: device_us),
        **more,
    )


@pytest.mark.parametrize(
    "overhead",
    [
        event("Command Buffer Full", 900.0),
        event("Activity Buffer Request", 6.0),
        event("New", 9.0, activity_type="overhead"),
    ],
)
def test_what_the_profiler_itself_costs_is_no_operator(overhead):
    events = [event("aten::mm", 300.0), event("gemm", 300.0, on=DeviceType.CUDA), overhead]
    (found,) = operators._add_up(events, {})
    assert (found.name, found.device_time_s) == ("aten::mm", pytest.approx(100e-6))


def test_kernels_that_two_operators_claim_are_told():
    events = [event("aten::mm", 300.0), event("aten::add", 300.0), event("gemm", 300.0, on=DeviceType.CUDA)]
    with pytest.raises(ValueError, match=r"0\.0006 s of device time, of kernels that took 0\.0003 s"):
        operators._add_up(events, {})
    (_, left) = operators._add_up([event("aten::mm", 300.0), event("gemm", 400.0, on=DeviceType.CUDA)], {})
    assert (left.name, left.device_time_s) == (UNLINKED, pytest.approx(100e-6 / 3))


@pytest.mark.gpu
def test_device_time_on_a_gpu_belongs_to_operators():
    found = operator_times(step_on("cuda", 2048, 2048), is_cuda=True)
    forward = check(found, 2048, 2048)
    assert forward.device_time_s > 1e-5
    assert forward.device_memory_bytes == 2048 * 2048 * 4
    assert found[0].name in ("aten::addmm", "aten::mm")
    total = sum(one.device_time_s for one in found)
    unlinked = sum(one.device_time_s for one in found if one.name == UNLINKED)
    assert unlinked < 0.05 * total
    mlp = flopray.workloads.MLP(n_layers=4, width=1024, tokens=512)
    (record,) = flopray.profile(
        mlp, phases=["forward"], execution="graph", instruments=["time", "energy", "operators"], max_seconds=1.0
    )
    assert record.operators_status == "ok", record.operators_reason
    rows = list(operator_table.operator_rows([record.columns()]))
    busy_s = sum(row["device_time_s"] for row in rows)
    assert busy_s == pytest.approx(record.time_s, rel=0.5)
    assert sum(row["energy_estimate_j"] for row in rows) == pytest.approx(record.energy_j)


@pytest.mark.gpu
def test_thousands_of_launches_leave_the_sum_that_of_the_kernels():
    """A queue that is full makes the driver report overheads, to which torch gives kernels of others once more."""
    x = torch.randn(4096, 4096, device="cuda")

    def step():
        y = x
        for _ in range(1000):
            y = y * 1.0001
        return y

    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    step()
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    found = operator_times(step, is_cuda=True)
    assert sum(one.device_time_s for one in found) == pytest.approx(start.elapsed_time(end) / 1e3, rel=0.1)


def test_names_are_whole_in_80_columns_and_no_markup(tmp_path):
    path = tmp_path / "operators.parquet"
    names = ["aten::sigmoid_backward", "autograd::engine::evaluate_function: MmBackward0", "aten::add [bold]x[/] y"]
    assert operator_table.write(path, [record(*({**ONE, "name": name} for name in names))])
    console = Console(width=80, record=True, markup=False)
    print_operators(console, path)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for name in ("aten::sigmoid_backward", "autograd: MmBackward0", "aten::add [bold]x[/] y"):
        assert name in text
