"""Errors in the code of a user's workload: one line before anything starts, and a row where single points fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

import flopray
from flopray.cli.main import main as flopray_main
from flopray.errors import InputError, OutOfMemory, WorkloadError, brief
from flopray.measurement.columns import failure_of, flop_columns
from flopray.settings import MeasureSettings
from flopray.sweep.definition import Sweep
from flopray.sweep.plan import print_plan, refuse_what_none_can, slabs_of, targets
from flopray.sweep.space import sentinel_of
from flopray.workloads.base import Workload
from flopray.workloads.registry import find_workload

pytestmark = pytest.mark.usefixtures("peak_measured_once")

#: Each test spoils one line of it.
NET = """
import torch
from flopray.workloads import Built, Column, Field, Workload

class Net(Workload):
    name = "net"
    fields = (Field(name="width", letter="d", values=(2, 3)), Field(name="rows", letter="m", values=(4, 5)))
    columns = (Column(name="cells", type=int), Column(name="product_flops", type=int))

    def build(self, point, *, device, dtype, seed):
        made = {"device": device, "dtype": dtype}
        x = torch.randn(point.rows, point.width, **made)
        layer = torch.nn.Linear(point.width, 2, **made)
        return Built(layer, x)

    def closed_form(self, point, phase):
        return {"gemm_flops": 4 * point.width * point.rows}

    def beside(self, point, phase):
        return {"cells": point.rows * point.width}
"""
BUILD = "net.py:Net.build failed for d=2 m=4: "
FORM = "net.py:Net.closed_form failed for d=2 m=4: "


def net(folder: Path, *changes: tuple[str, str]) -> Workload:
    text = NET
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "net.py").write_text(text)
    return find_workload(f"{folder / 'net.py'}:Net")


def sweep_of(workload: Workload, precision: str = "fp32") -> Sweep:
    axes = {"device_type": ("CPU",), "precision": (precision,), "execution": ("eager",)}
    axes |= {"width": (2, 3), "rows": (4, 5)}
    settings = MeasureSettings(phases=("forward", "train_step"))
    return Sweep(workload=workload, axes=axes, settings=settings, cpus_per_trial={"CPU": 1})


def refused(workload: Workload, precision: str = "fp32") -> str:
    with pytest.raises(InputError) as error:
        refuse_what_none_can(sweep_of(workload, precision), targets({"CPU": 1}, local=True))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("made = {", "raise ValueError('rows must be\\na multiple of 3')\n        made = {", None),
        ("torch.nn.Linear(point.width", "torch.nn.Linear(point.widht", None),
        (
            "return Built(layer, x)",
            "return layer, x",
            "it must return Built(module, x) of flopray.workloads, got a tuple",
        ),
        ("return Built(layer, x)", "pass", "it must return Built(module, x) of flopray.workloads, got None"),
        ("return Built(layer, x)", "return Built(x, layer)", "the module of Built must be a torch.nn.Module"),
        ("Built(layer, x)", "Built(layer, 3)", "the x of Built must be a tensor, got an int"),
        ("Built(layer, x)", "Built(layer, x, others={'more': 3})", "the others of Built must be callables by the name"),
        ("Built(layer, x)", "Built(torch.nn.ReLU(), x)", "the module has no parameters, and so no training step"),
        ("made = {", "raise SystemExit(3)\n        made = {", "SystemExit: 3"),
        (
            "point.width, **made)\n        layer",
            "point.width, device=device, dtype=torch.float64)\n        layer",
            None,
        ),
        ("torch.nn.Linear(point.width, 2, **made)", "torch.nn.Linear(point.width, 2, dtype=dtype)", None),
    ],
)
def test_a_build_that_fails_at_every_point_is_one_line_before_anything_starts(tmp_path, old, new, said):
    known = {
        "rows must be": "ValueError: rows must be a multiple of 3",
        "widht": "AttributeError: a point has no field 'widht': it has width, rows",
        "float64": "the input is float64, not float32: make it with dtype=dtype",
        "2, dtype": "the weight weight is on cpu, not on meta: make it with device=device",
    }
    said = said or next(value for key, value in known.items() if key in new)
    assert refused(net(tmp_path, (old, new))).startswith(BUILD + said)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (
            '{"conv_flops": 3}',
            "unknown column 'conv_flops': choose from gemm_flops, activation_flops, optimizer_flops, ",
        ),
        ('{"cell": 3}', "unknown column 'cell'"),
        ('{"model_flops": 3}', "unknown column 'model_flops'"),
        ('{"width": 3}', "unknown column 'width'"),
        ('{"time_iterations": 3}', "unknown column 'time_iterations'"),
        ('{"gemm_flops": 3.5}', "gemm_flops must be a whole number of FLOPs from 0, got 3.5"),
        ('{"gemm_flops": True}', "gemm_flops must be a whole number"),
        ('{"gemm_flops": -1}', "gemm_flops must be a whole number"),
        ('{"gemm_flops": None}', "gemm_flops must be a whole number"),
        ("12", "it must return FLOPs by column, such as {'gemm_flops': 12}, or None, got an int"),
        ("point.wide", "AttributeError: a point has no field 'wide'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_closed_form_that_is_none_is_refused_before_anything_starts(tmp_path, returned, said):
    workload = net(tmp_path, ('{"gemm_flops": 4 * point.width * point.rows}', returned))
    assert refused(workload).startswith(FORM + said)


def test_a_closed_form_is_held_to_the_same_everywhere(tmp_path, capsys):
    workload = net(tmp_path, ('{"gemm_flops": 4 * point.width * point.rows}', '{"gemm_flops": 3.5}'))
    said = "gemm_flops must be a whole number of FLOPs from 0, got 3.5"
    words = [f"{tmp_path / 'net.py'}:Net", "--width", "2", "--rows", "4", "--dry-run"]
    assert flopray_main(["sweep", *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {FORM}{said}")
    records = flopray.profile(type(workload)(width=2, rows=4), phases=["forward"], max_seconds=0.05, device="cpu")
    assert (records[0].status, records[0].time_s, records[0].model_flops) == ("failed", None, None)
    assert said in str(records[0].status_reason)


@pytest.mark.parametrize("value", ["4 * point.width * point.rows", "numpy.int64(4 * point.width * point.rows)"])
def test_a_closed_form_of_own_columns_is_whole_numbers(tmp_path, value):
    changes = (('"gemm_flops": 4', '"product_flops": 4'), ("4 * point.width * point.rows", value))
    workload = net(tmp_path, *changes, ("import torch\n", "import torch, numpy\n"))
    columns = flop_columns(workload.point(device_type="CPU", width=2, rows=4), "forward")
    assert (columns["model_flops"], columns["product_flops"], columns["cells"]) == (32, 32, 8)
    assert {type(columns[name]) for name in ("model_flops", "product_flops", "cells")} == {int}


@pytest.mark.parametrize(
    ("hook", "returned", "said"),
    [
        ("beside", '{"cell": 3}', "unknown column 'cell': add it to columns"),
        ("beside", '{"time_s": 3.0}', "unknown column 'time_s'"),
        ("beside", '{"width": 3}', "unknown column 'width'"),
        ("beside", '{"cells": "many"}', "cells must be an int or None, got 'many'"),
        ("beside", "None", "it must return values by column, got None"),
        ("least_bytes", "None", "it must return a number from 0, got None"),
        ("least_bytes", "-1", "it must return a number from 0, got -1"),
        ("least_moved_bytes", "'4 GB'", "it must return a number from 0, got '4 GB'"),
    ],
)
def test_what_else_a_workload_states_is_looked_at_where_it_is_stated(tmp_path, hook, returned, said):
    signature = "(self, point, phase)" if hook == "beside" else "(self, point, phase, element_bytes)"
    defined = f"    def {hook}{signature}:\n        return {returned}\n\n"
    workload = net(
        tmp_path, ("    def beside", f"{defined}    def other" if hook == "beside" else f"{defined}    def beside")
    )
    assert refused(workload).startswith(f"net.py:Net.{hook} failed for d=2 m=4: {said}")


def test_weights_of_another_type_than_the_precision_asks_for_are_an_error(tmp_path):
    workload = net(tmp_path, ('"dtype": dtype}', '"dtype": torch.float32}'))
    said = "the weight weight is float32, not bfloat16: make it with dtype=dtype"
    assert refused(workload, "bf16") == BUILD + said
    shape = type(workload)(width=2, rows=4)
    record = flopray.profile(shape, precision="bf16", phases=["forward"], max_seconds=0.05, device="cpu")[0]
    assert (record.status, record.status_reason, record.time_s) == ("failed", BUILD + said, None)
    assert flopray.profile(shape, phases=["forward"], max_seconds=0.05, device="cpu")[0].status == "ok"


def test_whole_numbers_are_an_input_at_every_precision(tmp_path):
    x = ("torch.randn(point.rows, point.width, **made)", "torch.zeros(point.rows, dtype=torch.long, device=device)")
    workload = net(tmp_path, x, ("torch.nn.Linear(point.width, 2", "torch.nn.Embedding(point.width, 2"))
    refuse_what_none_can(sweep_of(workload, "bf16"), targets({"CPU": 1}, local=True))


@pytest.mark.parametrize(
    "argument", ["seed", "dtype", "device", "*", "point"], ids=["seed", "dtype", "device", "keywords", "point"]
)
def test_a_method_that_cannot_be_called_as_it_is_called_is_refused_when_it_is_loaded(tmp_path, argument):
    words = [word for word in ("self", "point", "*", "device", "dtype", "seed") if word != argument]
    changed = f"({', '.join(words)})"
    if argument == "*":
        net(tmp_path, ("(self, point, *, device, dtype, seed)", changed))  # also by position, without an error
        return
    with pytest.raises(InputError, match="build must be defined as build"):
        net(tmp_path, ("(self, point, *, device, dtype, seed)", changed))


def test_a_forward_pass_that_fails_is_named_and_no_traceback(tmp_path):
    workload = net(tmp_path, ("torch.nn.Linear(point.width", "torch.nn.Linear(7"))
    assert refused(workload).startswith("the forward pass of net.py:Net failed for d=2 m=4: RuntimeError: ")


def test_a_module_that_reads_its_numbers_is_measured_and_not_counted(tmp_path):
    """The meta device has none, so nothing can be said beforehand."""
    module = "    def forward(self, x):\n        return super().forward(x) * (1.0 if x.sum().item() else 2.0)\n\n"
    reads = f"class Reads(torch.nn.Linear):\n{module}class Net(Workload)"
    workload = net(tmp_path, ("class Net(Workload)", reads), ("torch.nn.Linear(point.width, 2", "Reads(point.width, 2"))
    refuse_what_none_can(sweep_of(workload), targets({"CPU": 1}, local=True))
    record = flopray.profile(type(workload)(width=2, rows=4), phases=["forward"], max_seconds=0.05, device="cpu")[0]
    assert (record.status, record.model_flops, record.dispatched_flops) == ("ok", 32, None)
    assert str(record.dispatched_reason).startswith("counting failed: ")


SINGLE = "if point.width == 3:\n            raise ValueError('not 3')\n        "


@pytest.mark.parametrize("before", ["made = {", 'return {"gemm_flops"', 'return {"cells"'])
def test_where_single_points_fail_the_rest_is_planned_and_measured(tmp_path, before):
    workload = net(tmp_path, (before, SINGLE + before))
    sweep, found = sweep_of(workload), targets({"CPU": 1}, local=True)
    refuse_what_none_can(sweep, found)
    slabs = slabs_of(sweep, sweep.points(), {"CPU": 1}, has_energy=False)
    assert sum(map(len, slabs)) == 4
    assert set(sentinel_of(sweep.points())) == {"CPU"}
    status = {}
    for width in (2, 3):
        shape = type(workload)(width=width, rows=4)
        record = flopray.profile(shape, phases=["forward"], max_seconds=0.05, device="cpu")[0]
        status[width] = record.status
        assert width == 2 or str(record.status_reason).endswith("failed for d=3 m=4: ValueError: not 3")
        assert width == 2 or "in " in (record.traceback or "")  # of the user's own line
    assert status == {2: "ok", 3: "failed"}


def test_a_plan_says_how_many_points_will_fail(tmp_path, capsys):
    from rich.console import Console

    workload = net(tmp_path, ("made = {", SINGLE + "made = {"))
    print_plan(Console(width=200), sweep_of(workload), {"CPU": 1}, found=targets({"CPU": 1}, local=True))
    said = "CPU: 2 of 4 points will fail: net.py:Net.build failed for d=3 m=4: ValueError: not 3\n"
    assert said in capsys.readouterr().out


def test_a_sentinel_that_cannot_be_made_is_a_small_mlp(tmp_path):
    states = "    def sentinel(self, point):\n        return 3\n\n    def beside"
    points = sweep_of(net(tmp_path, ("    def beside", states))).points()
    assert sentinel_of(points)["CPU"].workload.name == "mlp"


def test_looking_up_values_fails_in_one_line(tmp_path, capsys):
    states = "    def complete(self, axes):\n        return 1 / 0\n\n    def beside"
    net(tmp_path, ("    def beside", states))
    assert flopray_main(["sweep", f"{tmp_path / 'net.py'}:Net", "--dry-run"]) == 2
    assert capsys.readouterr().err == "error: net.py:Net.complete failed: ZeroDivisionError: division by zero\n"


def test_too_little_memory_stays_what_it_is(tmp_path):
    workload = net(tmp_path, ("made = {", "raise torch.OutOfMemoryError('CUDA out of memory')\n        made = {"))
    point = workload.point(device_type="CPU", width=2, rows=4)
    with pytest.raises(torch.OutOfMemoryError) as error:
        workload.build(point, device="cpu", dtype=torch.float32, seed=0)
    assert failure_of(error.value).status == OutOfMemory.status


def test_a_changed_file_has_counts_of_its_own(tmp_path):
    """Both classes have one name and the same points."""
    found = []
    for outputs in (2, 3):
        workload = net(tmp_path, ("point.width, 2,", f"point.width, {outputs},"))
        point = workload.point(device_type="CPU", width=2, rows=4)
        found.append((workload.parameters(point), flop_columns(point, "forward")["dispatched_flops"]))
    assert found == [(6, 32), (9, 48)]


def test_a_file_of_the_same_size_and_time_is_compiled_again(tmp_path, monkeypatch):
    """A cache of bytecode knows nothing else of it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path, answers = tmp_path / "net.py", []
    for answer in (2, 3):
        path.write_text(NET + f"\n\nANSWER = {answer}\n")
        os.utime(path, (1e9, 1e9))
        found = find_workload(f"{path}:Net")
        answers.append(sys.modules[type(found).__module__].ANSWER)
    assert answers == [2, 3]


def test_messages_of_several_lines_are_told_whole():
    assert brief(ValueError("channels must be\n  a multiple of 3")) == "ValueError: channels must be a multiple of 3"
    assert brief(KeyError()) == "KeyError"
    assert brief(RuntimeError("short\n\nstack of C++")) == "RuntimeError: short"
    assert len(brief(RuntimeError("x" * 5000))) < 330
    error = WorkloadError("a.py:A.build", "d=2", "ValueError: \x1b[31m")
    assert str(error) == "a.py:A.build failed for d=2: ValueError: \\x1b[31m"
