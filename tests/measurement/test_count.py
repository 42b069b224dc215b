"""`flopray.count`: any function and any workload, in three ways, each with its reason where it is missing."""

from __future__ import annotations

import json
import sys

import pytest
import torch

import flopray
from flopray.cli.axes import default_of, values_of
from flopray.errors import InputError, Unsupported
from flopray.flops.comparison import ModuleCount
from flopray.measurement import count as count_module

STEP = """
import torch
import beside

def make_step(width, batch=8, *, device="cpu"):
    layer = torch.nn.Linear(width, width, device=device)
    x = torch.randn(batch, width, device=device)
    return lambda: layer(x).sum().backward()

def nothing(width):
    return None

def needs(width):
    return lambda batch: batch

def fails(width):
    raise ValueError("width must be\\neven")

def fails_later(width):
    def step():
        raise ValueError("later")
    return step

number = 3
"""


@pytest.fixture
def step_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "step.py").write_text(STEP)
    (tmp_path / "beside.py").write_text("")
    return tmp_path / "step.py"


def test_a_function_of_a_file(step_file):
    counts = flopray.count(f"{step_file}:make_step", width=16)
    assert counts.name == "step.py:make_step"
    assert counts.shape == {"width": 16}
    assert counts.dispatched.flops == 2 * (2 * 8 * 16 * 16)
    assert counts.closed.flops is None
    assert "no closed form" in counts.closed.reason
    if not torch.cuda.is_available():
        assert counts.executed.flops is None
        assert "NVIDIA GPU" in counts.executed.reason
    json.dumps(counts.to_dict())


@pytest.mark.slow
def test_shapes_give_a_table_whose_power_is_that_of_the_mathematics(step_file, tmp_path):
    shapes = count_module.shapes_of({"width": [16, 32, 64], "batch": [8, 16]})
    table = flopray.count(f"{step_file}:make_step", shapes=shapes, executed=False)
    assert [one.dispatched.flops for one in table] == [4 * s["batch"] * s["width"] ** 2 for s in shapes]
    assert table.axis() == "width"
    assert table.exponents() == {"dispatched": pytest.approx(2.0)}
    frame = table.frame()
    assert list(frame["batch"]) == [8, 16] * 3
    assert set(frame["executed_reason"]) == {"not requested"}
    path = table.plot(tmp_path / "new" / "flops.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="one number changes"):
        flopray.count(f"{step_file}:make_step", shapes=[{"width": 8}], executed=False).plot(tmp_path / "one.png")


def test_the_meta_device_needs_no_memory(step_file):
    counts = flopray.count(f"{step_file}:make_step", width=100_000, batch=100_000, device="meta")
    assert counts.dispatched.flops == 2 * 2 * 100_000**3
    assert "device is meta" in counts.executed.reason


def test_a_workload_has_a_closed_form_and_modules():
    counts = flopray.count("mlp", n_layers=4, width=64, tokens=16, phase="train_step", executed=False)
    assert counts.closed.flops == sum(counts.closed.components.values())
    assert counts.dispatched.flops == counts.closed.products == sum(one.flops for one in counts.dispatched.operators)
    (difference,) = counts.differences
    assert difference.flops == counts.dispatched.flops - counts.closed.flops
    one = flopray.count(flopray.workloads.MLP(n_layers=4, width=64, tokens=16), executed=False)
    assert one.phase == "forward_backward"
    assert flopray.count(flopray.workloads.MLP, n_layers=4, width=64, tokens=16, executed=False) == one


def test_the_count_of_a_llama_is_that_of_its_records():
    workload = flopray.workloads.Llama()
    shape = {
        field.name: values_of(field, list(default_of(field, on_gpu=False)))[0]
        for field in workload.fields
        if not field.implied
    }
    counts = flopray.count("llama", **shape, phase="forward", executed=False)
    assert counts.closed.products == counts.dispatched.flops


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("step.py:make_step", {}, "missing a required argument: 'width'; it takes width, batch=8, "),
        ("step.py:make_step", {"wdth": 3}, "no parameter 'wdth': did you mean width"),
        ("step.py:nothing", {"width": 3}, "returned a NoneType: it must return a callable"),
        ("step.py:needs", {"width": 3}, "needs the argument batch"),
        ("step.py:fails", {"width": 3}, r"fails\(width=3\) failed: ValueError: width must be"),
        ("step.py:fails_later", {"width": 3}, "the step of step.py:fails_later failed: ValueError: later"),
        ("step.py:number", {}, "is a int: name a function"),
        ("step.py:nobody", {}, "it has make_step, nothing"),
        ("step.py", {}, "name the function or class too"),
        ("none.py:make_step", {}, "there is no file"),
    ],
)
def test_wrong_functions_are_one_line(step_file, name, shape, words):
    with pytest.raises(InputError, match=words) as error:
        flopray.count(str(step_file.parent / name), **shape)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("target", "arguments", "words"),
    [
        ("mlp", {"n_layers": 2}, "mlp needs a value of width, tokens"),
        ("mlp", {"n_layers": 0, "width": 8, "tokens": 8}, "n_layers"),
        ("mlp", {"phase": "sleep", "n_layers": 2, "width": 8, "tokens": 8}, "mlp has no 'sleep'"),
        ("mlp", {"shapes": []}, "name at least one"),
        (len, {"phase": "forward", "obj": ()}, "has no phases"),
        (3, {}, "target must be"),
        ("mlp", {"precision": "int3"}, "precision: unknown"),
    ],
)
def test_wrong_arguments_are_one_line(target, arguments, words):
    with pytest.raises(InputError, match=words):
        flopray.count(target, executed=False, **arguments)


def test_which_cores_are_counted_follows_from_the_products(monkeypatch):
    def of(*types, flops=1):
        return count_module._precisions(None, ModuleCount(flops, None, product_types=types), "9.0")

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert of("float32") == ("fp32",)
    assert of("bfloat16", "float32") == ("bf16", "fp32")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert of("float32") == ("fp32", "tf32")
    assert of(flops=None) == ("fp32", "tf32", "bf16", "fp16", "fp8")  # a replayed graph: all that the chip has
    assert of("bfloat16", "float8_e4m3fn") == ("bf16", "fp8")
    with pytest.raises(Unsupported, match="float4_e2m1fn_x2"):
        of("float4_e2m1fn_x2")


@pytest.mark.gpu
@pytest.mark.ncu
def test_three_counts_on_a_gpu(step_file):
    counts = flopray.count(f"{step_file}:make_step", width=1024, batch=1024, device="cuda", precision="fp32")
    assert counts.dispatched.flops == 2 * 2 * 1024**3
    assert counts.executed.status == "ok", counts.executed.reason
    assert counts.dispatched.flops <= counts.executed.by_class["gemm"] <= 1.1 * counts.dispatched.flops
    total = sum(one.flops for one in counts.differences if one.between == "dispatched -> executed")
    assert total == counts.executed.flops - counts.dispatched.flops
    mlp = flopray.count("mlp", n_layers=2, width=1024, tokens=128, phase="forward", precision="bf16")
    assert mlp.executed.status == "ok", mlp.executed.reason
    assert mlp.closed.flops is not None
    assert mlp.executed.by_class["gemm"] >= mlp.dispatched.flops == 2 * 2 * 1024**2 * 128
