"""fp8 as a precision of linear layers: what is converted, counted alike, and refused by name before it is run."""

import copy
import itertools
import math
import re

import pytest
import torch

from flopray.audit.findings import precision_of
from flopray.cli.request import request_of, sweep_from
from flopray.cli.session import _versions
from flopray.errors import InputError, Unsupported
from flopray.flops.by_module import count_by_module
from flopray.flops.dispatched import count_dispatched
from flopray.point import FP8_SCALING
from flopray.sweep.plan import refuse_what_none_can, targets
from flopray.workloads import float8
from flopray.workloads.base import Built, Field, Workload
from flopray.workloads.capability import why_no_precision, why_not
from flopray.workloads.causal_lm import configuration, models
from flopray.workloads.causal_lm.workload import CausalLM
from flopray.workloads.mlp import MLP
from flopray.workloads.phases import BuiltPoint

torchao = pytest.mark.extras("torchao")
bf16 = torch.bfloat16


def mlp(precision="fp8", *, device_type="H100", execution="compile", d=64, m=32):
    workload = MLP(n_layers=2, width=d, tokens=m)
    return workload.point(device_type=device_type, precision=precision, execution=execution)


def lm(model, *, batch=2, tokens=16, **fields):
    choices = {"weights": "random", "attention": "auto", "routing": "uniform", "checkpointing": False}
    shape = {"batch_size": batch, "sequence_length": tokens}
    heads = {"device_type": "H100", "precision": "fp8", "execution": "compile"}
    return CausalLM().point(**{"model": model, **choices, **shape, **heads, **fields})


def linear(*widths, dtype=bf16, device="cpu", **other):
    layers = [torch.nn.Linear(a, b, dtype=dtype, device=device) for a, b in itertools.pairwise(widths)]
    return torch.nn.Sequential(*layers, *other.values())


# -- what is refused


@pytest.mark.parametrize("precision", FP8_SCALING)
@pytest.mark.parametrize(
    ("device_type", "said"),
    [
        ("CPU", "{} exists only on NVIDIA GPUs of compute capability 8.9 and newer"),
        ("A100", "{} needs compute capability 8.9, this GPU has 8.0"),
        ("T4", "{} needs compute capability 8.9, this GPU has 7.5"),
    ],
)
def test_a_device_without_fp8_is_said_so_before_anything_starts(precision, device_type, said):
    assert why_not(mlp(precision, device_type=device_type)) == said.format(precision)


def test_a_device_with_fp8_is_let_through():
    assert [why_no_precision("fp8", capability) for capability in ((8, 9), (9, 0), (10, 0))] == [None] * 3


@pytest.mark.parametrize("execution", ["eager", "graph"])
def test_uncompiled_fp8_is_refused_since_it_measures_launches(execution):
    reason = why_not(mlp(execution=execution))
    assert reason == (
        "fp8 is measured compiled, since uncompiled each scale and cast is a launch of its own: use "
        "execution='compile' or execution='compile_graph'"
    )


def test_without_torchao_one_line_says_what_installs_it(monkeypatch):
    monkeypatch.setattr(float8, "find_spec", lambda name: None)
    assert why_not(mlp()) == "fp8 needs torchao: pip install 'flopray[torchao]'"
    with pytest.raises(Unsupported, match=r"pip install 'flopray\[torchao\]'"):
        float8.converted(linear(16, 16), "tensorwise")


def test_a_cpu_refuses_at_the_device_too():
    with pytest.raises(Unsupported, match="exists only on NVIDIA GPUs"):
        BuiltPoint(mlp(device_type="CPU"), device="cpu", seed=0)


@pytest.mark.parametrize(("d", "m"), [(72, 32), (64, 24)])
def test_a_mlp_whose_sizes_are_no_multiples_of_16_is_refused_by_name(d, m, monkeypatch):
    monkeypatch.setattr(float8, "find_spec", lambda name: name)
    assert why_not(mlp(d=d, m=m)) == "fp8 needs d and m in multiples of 16"
    assert why_not(mlp()) is None
    assert why_not(mlp("bf16", d=d, m=m)) is None


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("gpt2", r"transformer\.h\.0\.attn\.c_attn \(Conv1D\) has weights \(768, 2304\) of another kind"),
        ("mixtral-tiny", r"model\.layers\.0\.mlp\.\w+ \(Mixtral\w+\) has weights .* of another kind"),
        ("llama-tiny", None),
    ],
)
def test_layers_that_are_not_linear_are_refused_by_name(model, said, monkeypatch):
    monkeypatch.setattr(float8, "find_spec", lambda name: name if name == "torchao" else None)
    monkeypatch.setattr(float8, "load_quietly", lambda: None)
    reason = why_not(lm(model))
    if said is None:
        assert reason is None
        assert why_not(lm(model, batch=1, tokens=24)) == "fp8 needs sequences x tokens in multiples of 16"
    else:
        assert re.fullmatch(f"fp8 is a precision of linear layers, and {said}", reason or ""), reason


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (lambda: linear(16, 24, 16), "fp8 needs widths in multiples of 16, and the linear layer 0 has 16 x 24"),
        (lambda: torch.nn.Sequential(torch.nn.ReLU()), "fp8 is a precision of linear layers, and Sequential has none"),
        (
            lambda: linear(16, 16, conv=torch.nn.Conv1d(16, 16, 3)),
            "fp8 is a precision of linear layers, and 1 (Conv1d) has weights (16, 16, 3) of another kind",
        ),
        (lambda: linear(16, 32, norm=torch.nn.LayerNorm(32)), None),
        (lambda: torch.nn.Sequential(torch.nn.Embedding(8, 16), torch.nn.Linear(16, 16)), None),
        (lambda: torch.nn.Linear(32, 16), None),
    ],
)
def test_a_module_is_taken_whole_or_refused(module, said):
    assert float8.why_not_module(module()) == said


class Convolutions(Workload):
    """A head behind a convolution."""

    name = "convolutions"
    fields = (Field(name="width", letter="d", values=(16,)),)

    def build(self, point, *, device, dtype, seed):
        made = {"device": device, "dtype": dtype}
        layers = torch.nn.Conv1d(point.width, point.width, 1, **made), torch.nn.Linear(16, point.width, **made)
        return Built(torch.nn.Sequential(*layers), torch.empty(2, point.width, 16, **made))


def test_a_workload_of_a_user_is_looked_at_on_the_meta_device(monkeypatch):
    monkeypatch.setattr(float8, "find_spec", lambda name: name)
    point = Convolutions(width=16).point(device_type="H100", precision="fp8", execution="compile")
    assert why_not(point) == (
        "fp8 is a precision of linear layers, and 0 (Conv1d) has weights (16, 16, 1) of another kind"
    )


# -- what a sweep does


def plan(precisions, *, types=("H100",), **axes):
    request = request_of(MLP(), {"precision": precisions, **axes}, {})
    return sweep_from(MLP(), request, types, cores=1)


def test_fp8_is_compiled_unless_something_else_is_asked_for():
    assert plan(["bf16", "fp8"]).axes["execution"] == ("compile",)
    assert plan(["bf16"]).axes["execution"] == ("graph",)
    assert plan(["fp8"], execution=["eager"]).axes["execution"] == ("eager",)


def test_a_sweep_of_which_nothing_has_fp8_is_refused_before_it_begins():
    for types, said in ((("CPU",), "CPU: fp8 exists only"), (("A100",), "A100: fp8 needs compute capability 8.9")):
        sweep = plan(["fp8"], types=types)
        with pytest.raises(InputError, match=f"nothing of this sweep can be measured. {said}"):
            refuse_what_none_can(sweep, targets(dict.fromkeys(types, 1), local=True))


def test_each_scaling_is_a_precision_of_its_own_and_old_ids_stay():
    points = [mlp(precision) for precision in ("bf16", "fp8", "fp8_rowwise")]
    assert len({point.id for point in points}) == 3
    assert points[1].label() == "n=2 d=64 m=32 fp8 compile"
    assert points[0].id == "4ef07f69f9778cfc"


@torchao
def test_the_manifest_says_how_fp8_is_scaled():
    assert _versions(plan(["bf16"])).keys() == {"python", "ray", "torch"}
    told = _versions(plan(["bf16", "fp8", "fp8_rowwise"]))
    assert told.keys() >= {"torchao", "fp8 scaling", "fp8_rowwise scaling"}
    assert (told["fp8 scaling"], told["fp8_rowwise scaling"]) == ("tensorwise, dynamic", "rowwise, dynamic")


@pytest.mark.parametrize("name", ["fp8", "float8", "torch.float8_e4m3fn", "torch.float8_e5m2"])
def test_a_table_names_fp8_in_several_ways(name):
    assert precision_of({"precision": name}) == "fp8"


# -- what is converted


@torchao
@pytest.mark.parametrize("scaling", FP8_SCALING.values())
def test_a_converted_module_computes_what_it_computed_within_fp8(scaling):
    torch.manual_seed(0)
    module, x = linear(32, 64, 32), torch.randn(16, 32, dtype=bf16)
    made = float8.converted(copy.deepcopy(module), scaling, emulate=True)
    assert [type(layer).__name__ for layer in made] == ["Float8Linear"] * 2
    exact, rounded = module(x), made(x)
    error = float((rounded - exact).detach().norm() / exact.detach().norm())
    assert 0.005 < error < 0.12  # 3 bits of mantissa: 2^-4 a number at most, and more than bf16's 2^-9
    for weights in zip(
        torch.autograd.grad(exact.sum(), list(module.parameters())),
        torch.autograd.grad(rounded.sum(), list(made.parameters())),
        strict=True,
    ):
        assert torch.nn.functional.cosine_similarity(*(w.float().flatten() for w in weights), dim=0) > 0.98


@torchao
def test_scaling_is_what_the_precision_says():
    said = {name: str(float8.converted(linear(16, 16), scaling)[0]) for name, scaling in FP8_SCALING.items()}
    assert "i:dyn_ten_e4m3,w:dyn_ten_e4m3,go:dyn_ten_e5m2" in said["fp8"]
    assert "i:dyn_axs_e4m3,w:dyn_axs_e4m3,go:dyn_axs_e4m3" in said["fp8_rowwise"]


@torchao
def test_the_mlp_in_fp8_is_the_feature_first_one():
    point = mlp("bf16", d=32, m=16)
    plain = point.workload.build(point, device="cpu", dtype=bf16, seed=1)
    point = mlp("fp8", d=32, m=16)
    built = point.workload.build(point, device="cpu", dtype=bf16, seed=1)
    torch.testing.assert_close(built.module(built.x), plain.module(plain.x))  # before the conversion: the same numbers
    made = float8.converted(built.module, "tensorwise", emulate=True)
    exact = plain.module(plain.x)
    assert float((made(built.x) - exact).detach().norm() / exact.detach().norm()) < 0.05
    gradients = torch.autograd.grad(made(built.x), list(made.parameters()), built.gradient)
    assert [tuple(one.shape) for one in gradients] == [(32, 32)] * 2


@torchao
def test_a_language_model_keeps_its_output_projection():
    config = configuration.completed(models.content_of("llama-tiny", None))
    from flopray.workloads.causal_lm.transformer import loss_module, random_model

    model = random_model(config, device="meta", dtype=bf16, attention="eager")
    module = loss_module()(model, lambda: None)
    float8.converted(module, "tensorwise")
    kinds = {name: type(layer).__name__ for name, layer in module.named_modules() if "Linear" in type(layer).__name__}
    assert kinds.pop("model.lm_head") == "Linear"
    assert len(kinds) == 7 * config.num_hidden_layers
    assert set(kinds.values()) == {"Float8Linear"}


@torchao
@pytest.mark.parametrize("scaling", FP8_SCALING.values())
def test_flops_in_fp8_are_those_of_the_closed_form(scaling):
    point = mlp(d=64, m=32)
    built = point.workload.build(point, device="meta", dtype=bf16, seed=0)
    made = float8.converted(built.module, scaling)
    forward = count_dispatched(lambda: made(built.x))
    assert forward.flops == MLP().closed_form(point, "forward")["gemm_flops"] == 2 * 2 * 64 * 64 * 32
    y = made(built.x)
    backward = count_dispatched(lambda: torch.autograd.grad(y, list(made.parameters()), built.gradient))
    # Uncompiled, torchao also forms the gradient of the input, which nobody asked for; compiled code leaves it out.
    assert backward.flops == MLP().closed_form(point, "backward")["gemm_flops"] + 2 * 64 * 64 * 32


def test_torch_s_own_product_in_fp8_is_counted():
    a = torch.empty(32, 64, device="meta", dtype=torch.float8_e4m3fn)
    b = torch.empty(128, 64, device="meta", dtype=torch.float8_e4m3fn).t()
    one = torch.empty((), device="meta")
    step = lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=bf16)  # noqa: E731
    assert count_dispatched(step).flops == 2 * 32 * 64 * 128
    assert count_by_module(step).product_types == ("float8_e4m3fn",)


@torchao
def test_operands_of_products_are_told_as_fp8():
    made = float8.converted(linear(16, 16, device="meta"), "tensorwise")
    x = torch.empty(16, 16, device="meta", dtype=bf16)
    assert count_by_module(lambda: made(x)).product_types == ("float8_e4m3fn",)


# -- on a GPU


@pytest.mark.gpu
@torchao
class TestOnAGpu:
    def built(self, point):
        if reason := why_no_precision("fp8", torch.cuda.get_device_capability()):
            pytest.skip(reason)
        return BuiltPoint(point, device="cuda:0", seed=0)

    @pytest.mark.parametrize("precision", FP8_SCALING)
    def test_every_phase_of_a_mlp_runs_in_fp8(self, precision):
        built = self.built(mlp(precision, d=256, m=64))
        exact = self.built(mlp("bf16", d=256, m=64)).phase("inference")()
        got = built.phase("inference")()
        assert float((got - exact).norm() / exact.norm()) < 0.05
        for phase in ("forward", "backward", "forward_backward", "optimizer_step", "train_step"):
            built.phase(phase)()
        torch.cuda.synchronize()

    @pytest.mark.parametrize("precision", FP8_SCALING)
    def test_every_phase_of_a_language_model_runs_in_fp8(self, precision):
        built = self.built(lm("llama-tiny", precision=precision))
        for phase in CausalLM.phases:
            built.phase(phase)()
        assert math.isfinite(float(built.phase("forward")()))

    def test_one_sequence_is_decoded_in_fp8(self):
        built = self.built(lm("llama-tiny", batch=1))
        assert built.phase("decode")().isfinite().all()


def test_what_a_package_logs_and_warns_of_at_its_import_is_not_shown(tmp_path, monkeypatch, caplog, recwarn):
    lines = ["import logging, warnings", "pattern = '\\.'", "warnings.warn('old')", "logging.error('no such chip')"]
    (tmp_path / "talkative_package.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    assert float8._quietly("talkative_package").pattern == "\\."
    assert [str(one.message) for one in recwarn] == []
    assert caplog.records == []
