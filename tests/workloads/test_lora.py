"""LoRA: what is frozen, what is trained, and a closed form that equals the dispatcher's count."""

import json

import pandas as pd
import pytest
import torch
from test_causal_lm import FAMILIES, config, point

import flopray
from flopray.cli.request import request_of, sweep_from
from flopray.description import Description
from flopray.errors import InputError, SpecError, Unsupported
from flopray.flops.dispatched import count_dispatched
from flopray.sweep.definition import Sweep
from flopray.sweep.summary import point_label
from flopray.sweep.trial import slab_config
from flopray.workloads import float8
from flopray.workloads.base import Built, Field, Workload, closed_columns
from flopray.workloads.causal_lm import agreement, configuration, finetuning, models
from flopray.workloads.causal_lm.adapter import Lora, rank_of
from flopray.workloads.causal_lm.flops import COMPONENTS, components
from flopray.workloads.causal_lm.workload import CausalLM
from flopray.workloads.dispatch import dispatched_flops
from flopray.workloads.execution import TrainingStep
from flopray.workloads.meta import count_phases
from flopray.workloads.phases import BuiltPoint

peft = pytest.mark.extras("peft")


def llama(adapter=None, **fields):
    return point(config("llama", attention_bias=False, mlp_bias=False), adapter=adapter, **fields)


# -- closed form and dispatcher


@peft
@pytest.mark.parametrize("kind", FAMILIES)
def test_products_of_each_family_with_adapters_are_what_the_dispatcher_counts(kind):
    where = point(config(kind), adapter="lora:4")
    for phase in CausalLM.phases:
        closed = closed_columns(where, phase)
        assert closed["model_flops"] == sum(closed[name] for name in COMPONENTS), closed.get("model_flops_reason")
        if phase != "optimizer_step":
            counted = dispatched_flops(where, phase, closed["model_flops"])
            assert counted["dispatched_flops"] == closed["gemm_flops"] + closed["attention_flops"], phase
    assert closed["trained_parameters"] < closed["parameters"]
    assert closed["parameters"] == closed_columns(point(config(kind)), "forward")["parameters"]


#: Kinds of layers that adapters stand on: plain, fused, `Conv1D`, beside experts, latent attention; windows.
LAYERS = ("llama", "phi3", "gpt2", "qwen2_moe", "gpt_oss", "deepseek_v3", "gemma3_text", "gpt_neox")


@peft
@pytest.mark.parametrize("kind", LAYERS)
def test_checkpointing_with_adapters_recomputes_what_the_dispatcher_sees_twice(kind):
    plain, again = (point(config(kind), adapter="lora:4", checkpointing=flag) for flag in (False, True))
    seen = [CausalLM().dispatched(where)["backward"] for where in (again, plain)]
    stated = closed_columns(again, "backward")["recomputed_flops"]
    once = closed_columns(plain, "forward")
    elements = once["norm_flops"] + once["elementwise_flops"]  # which the dispatcher does not see
    assert seen[0] - seen[1] <= stated <= seen[0] - seen[1] + elements


@peft
@pytest.mark.parametrize("kind", LAYERS)
def test_a_training_step_that_checkpoints_gives_no_gradient_that_no_adapter_needs(kind):
    """Of the step that is run, not of a backward pass that asks for the adapters' gradients alone."""
    built = BuiltPoint(point(config(kind), adapter="lora:4", checkpointing=True), device="cpu", seed=0)
    asked, step = (count_dispatched(built.phase(phase)).flops for phase in ("forward_backward", "train_step"))
    assert step == asked is not None


def test_what_adapters_cost_by_hand():
    """Two layers of width 64 with 4 heads of 24 (2 for keys), MLPs of 96, on 2 x 16 tokens; rank 4."""
    sizes = models.sizes_of("m", models.canonical(config("llama", attention_bias=False, mlp_bias=False), "m"))
    shape = {"batch": 2, "tokens": 16}
    full, lora = (
        {phase: components(sizes, **shape, phase=phase, lora=one) for phase in ("forward", "backward", "train_step")}
        for one in (None, Lora(4))
    )
    tokens, qkv, out, mlp = 32, (96, 48, 48), 96, ((64, 96), (64, 96), (96, 64))
    each = [(64, width) for width in qkv] + [(out, 64)] + list(mlp)
    weights = 2 * 4 * sum(a + b for a, b in each)
    assert Lora(4).parameters(sizes) == weights
    assert lora["forward"]["adapter_flops"] == 2 * tokens * weights
    assert lora["train_step"]["optimizer_flops"] == 16 * weights
    # Frozen products have a gradient of their input alone, and in the first layer queries, keys and values not even it.
    forward, first = full["forward"], 2 * tokens * 64 * sum(qkv)
    assert full["backward"]["projection_flops"] == 2 * forward["projection_flops"]
    assert lora["backward"]["projection_flops"] == forward["projection_flops"] - first
    assert lora["backward"]["mlp_flops"] == forward["mlp_flops"]
    assert lora["backward"]["lm_head_flops"] == forward["lm_head_flops"]
    assert lora["backward"]["attention_flops"] == full["backward"]["attention_flops"]
    assert lora["backward"]["adapter_flops"] == 2 * (2 * tokens * weights) - 2 * tokens * 4 * 3 * 64
    assert lora["backward"]["embedding_flops"] == 0


@pytest.mark.slow
@peft
def test_full_size_models_agree_too():
    """Llama 3.2 1B: rank 16 trains 11,272,192 weights of 1,235,814,400, as the adapter on all linear layers has."""
    where = CausalLM().point(
        **{"device_type": "H100", "precision": "bf16", "model": "llama-3.2-1b", "weights": "random"},
        **{"attention": "auto", "routing": "uniform", "checkpointing": False, "adapter": "lora:16"},
        **{"batch_size": 8, "sequence_length": 1024},
    )
    closed = closed_columns(where, "train_step")
    assert (closed["trained_parameters"], closed["parameters"]) == (11_272_192, 1_235_814_400)
    products = closed["gemm_flops"] + closed["attention_flops"]
    assert products == dispatched_flops(where, "train_step", 1)["dispatched_flops"] == 44_240_847_503_360


@peft
def test_adapters_that_disagree_with_the_model_have_no_closed_form(monkeypatch):
    where = llama("lora:8")
    monkeypatch.setattr(Lora, "of", classmethod(lambda cls, word, config: cls(rank_of(word), fused_mlp=True)))
    agreement.agreed_lora.cache_clear()
    closed = closed_columns(where, "forward")
    assert "model_flops" not in closed
    assert closed["model_flops_reason"].startswith("no closed form with lora:8: it trains ")
    agreement.agreed_lora.cache_clear()


# -- the model


@peft
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "phi3"])
def test_only_adapters_are_trained_and_none_is_zero(kind):
    built = BuiltPoint(point(config(kind), adapter="lora:4"), device="cpu", seed=0)
    step = built._step
    names = [name for name, weight in step.module.named_parameters() if weight.requires_grad]
    assert all("lora_A" in name or "lora_B" in name for name in names)
    assert len(step.parameters) == len(names)
    before = [weight.clone() for weight in step.module.parameters()]
    for phase in CausalLM.phases:
        built.phase(phase)()
    assert all(weight.norm() > 0 for weight in step.parameters)
    gradients = step.backward(step.forward())
    assert all(one.norm() > 0 for one in gradients)
    step.train_step()
    assert set(step.optimizer.state) == set(step.parameters)  # moments of the adapters alone
    for weight, old in zip(step.module.parameters(), before, strict=True):
        assert weight.requires_grad or torch.equal(weight, old)


@peft
def test_adapters_stand_on_attention_and_mlps_and_not_on_what_chooses_experts():
    built, _ = agreement._on_meta(configuration.completed(config("qwen2_moe")))
    kinds = {name.rpartition(".")[2] for name in finetuning.adapted_layers(built)}
    assert kinds == {*("q_proj", "k_proj", "v_proj", "o_proj"), *("gate_proj", "up_proj", "down_proj")}
    finetuning.add_adapters(built, "lora:2")
    assert not any("lora" in name and ("experts." in name or ".gate." in name) for name, _ in built.named_modules())


@peft
def test_adapters_need_less_memory_and_move_fewer_bytes():
    full, lora = llama(), llama("lora:4")
    workload, sizes = CausalLM(), models.sizes_of(full.model, full.model_config)
    weights, trained = workload.parameters(full), Lora(4).parameters(sizes)
    assert workload.least_bytes(lora, "weights", 2) == 2 * (weights + trained)
    assert workload.least_bytes(lora, "optimizer_step", 2) == 2 * (weights + 4 * trained)
    assert workload.least_bytes(full, "optimizer_step", 2) == 2 * 4 * weights
    assert workload.least_moved_bytes(lora, "optimizer_step", 2) == 2 * 7 * trained
    for phase in CausalLM.phases:
        if phase in ("inference", "forward", "prefill", "decode"):
            more = workload.least_moved_bytes(lora, phase, 2) - workload.least_moved_bytes(full, phase, 2)
            assert more == 2 * trained
        else:
            assert workload.least_moved_bytes(lora, phase, 2) < workload.least_moved_bytes(full, phase, 2)


# -- points and words


def test_points_without_an_adapter_keep_their_ids():
    made = {"device_type": "H100", "precision": "bf16", "model": "llama-tiny", "weights": "random"}
    made |= {"attention": "auto", "routing": "uniform", "checkpointing": False, "batch_size": 2, "sequence_length": 16}
    plain = CausalLM().point(**made)
    same = [CausalLM().point(**made, adapter=word).id for word in (None, "none")]
    assert [plain.id, *same] == ["d3d917e3e577954e"] * 3
    adapted = CausalLM().point(**made, adapter="lora:16")
    assert adapted.id != plain.id
    assert plain.label() == "llama-tiny b=2 t=16 bf16 eager"
    assert adapted.label() == "llama-tiny lora:16 b=2 t=16 bf16 eager"


@pytest.mark.parametrize("word", ["lora", "lora:", "lora:0", "lora:-1", "lora:4.5", "LoRA:4", "lora:04", "qlora:4", ""])
def test_what_is_no_adapter_is_said_in_one_line(word, monkeypatch):
    if word:
        with pytest.raises(SpecError, match=r"unknown adapter .*: write none or lora:RANK, such as lora:16"):
            rank_of(word)
    with pytest.raises(SpecError, match="adapter"):
        llama(word)
    monkeypatch.setattr(finetuning, "has_peft", lambda: True)
    with pytest.raises(InputError, match=r"^adapter: unknown adapter"):
        finetuning.checked_adapters([None, word])


def test_without_peft_one_line_says_what_installs_it(monkeypatch):
    monkeypatch.setattr(finetuning, "has_peft", lambda: False)
    assert finetuning.checked_adapters(["none"]) == finetuning.checked_adapters([None]) == (None,)
    said = r"adapter lora:16 needs peft: pip install 'flopray\[peft\]'"
    with pytest.raises(InputError, match=f"^{said}$"):
        finetuning.checked_adapters([None, "lora:16"])
    with pytest.raises(Unsupported, match=said):
        finetuning.add_adapters(None, "lora:16")


def test_an_adapter_is_an_axis_of_a_sweep(monkeypatch):
    monkeypatch.setattr(finetuning, "has_peft", lambda: True)
    for given in (["none", "lora:16"], (None, "lora:16"), ("none", "lora:16")):
        request = request_of(CausalLM(), {"model": ["llama-tiny"], "adapter": given}, {})
        sweep = sweep_from(CausalLM(), request, ["CPU"], cores=1)
        assert sweep.axes["adapter"] == (None, "lora:16")
        again = Sweep.from_manifest(json.loads(json.dumps(sweep.to_manifest("run", {}))))
        assert [point.id for point in again.points()] == [point.id for point in sweep.points()]
        told = slab_config(0, list(enumerate(sweep.points())), list(sweep.axes))
        assert told["adapter"] == "none lora:16"
    for twice in (["none", "none"], (None, "none"), ("lora:8", "lora:8")):
        with pytest.raises(InputError, match="named twice"):
            sweep_from(CausalLM(), request_of(CausalLM(), {"adapter": twice}, {}), ["CPU"], cores=1)


def test_an_optional_field_is_kept_in_the_description():
    description = Description.from_dict(CausalLM().to_dict())
    values = llama().values
    assert description.checked({**values, "adapter": None})["adapter"] is None
    assert [f.name for f in description.fields if f.optional] == ["adapter"]
    with pytest.raises(SpecError, match="routing is missing"):
        description.checked({**values, "routing": None})


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_a_row_without_an_adapter_is_told_so_whatever_stands_for_a_missing_text(missing):
    row = {"model": "llama-tiny", "batch_size": 2, "sequence_length": 32, "adapter": missing}
    assert CausalLM().label(row) == "llama-tiny b=2 t=32"
    assert point_label(row, CausalLM(), ["adapter"]) == "b=2 t=32 no adapter"
    assert point_label({**row, "adapter": "lora:4"}, CausalLM(), ["adapter"]) == "b=2 t=32 lora:4"


@peft
def test_count_takes_an_adapter():
    shape = {"model": "llama-tiny", "sequence_length": 32, "batch_size": 1}
    made = [flopray.count("causal_lm", phase="train_step", **shape, **one) for one in ({}, {"adapter": "lora:16"})]
    plain, adapted = made
    assert "adapter" not in plain.shape
    assert adapted.shape["adapter"] == "lora:16"
    assert adapted.closed.flops < plain.closed.flops


# -- frozen weights of any workload


class Frozen(Workload):
    """A frozen layer below one that is trained."""

    name = "frozen"
    fields = (Field(name="width", letter="d", values=(16,)),)

    def build(self, point, *, device, dtype, seed):
        layers = [torch.nn.Linear(point.width, point.width, device=device, dtype=dtype) for _ in range(2)]
        layers[0].requires_grad_(False)
        return Built(torch.nn.Sequential(*layers), torch.randn(4, point.width, device=device, dtype=dtype))


def test_frozen_weights_of_a_user_s_module_have_no_gradients_and_no_moments():
    where = Frozen(width=16).point(device_type="CPU")
    built = BuiltPoint(where, device="cpu", seed=0)
    for phase in ("backward", "optimizer_step", "train_step"):
        built.phase(phase)()
    assert isinstance(built._step, TrainingStep)
    assert len(built._step.parameters) == 2
    one = 16 * 16 + 16
    assert Frozen().least_bytes(where, "train_step", 4) == 4 * (2 * one + 3 * one)
    assert Frozen().least_moved_bytes(where, "optimizer_step", 4) == 4 * 7 * one
    on_meta = Frozen().build(where, device="meta", dtype=torch.float32, seed=0)
    counts = count_phases(on_meta.module, on_meta.x, {})
    assert counts["backward"] == counts["forward"] / 2 == 2 * 4 * 16 * 16


@pytest.mark.extras("peft", "torchao")
def test_frozen_layers_become_fp8_and_adapters_do_not():
    """The forward pass has the same products in either precision."""
    built, _ = agreement._on_meta(configuration.completed(config("llama", head_dim=16)))
    finetuning.add_adapters(built, "lora:4")
    x = torch.empty(2, 16, device="meta", dtype=torch.long)
    counts = [count_dispatched(lambda: built(x, use_cache=False)).flops]
    float8.converted(built, "tensorwise")
    counts.append(count_dispatched(lambda: built(x, use_cache=False)).flops)
    assert counts[0] == counts[1] > 0
    kinds = {name.rpartition(".")[2]: type(layer).__name__ for name, layer in built.named_modules()}
    assert (kinds["base_layer"], kinds["default"], kinds["lm_head"]) == ("Float8Linear", "Linear", "Linear")


# -- on a GPU


@pytest.mark.gpu
@peft
@pytest.mark.parametrize("execution", ["eager", "graph", "compile"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_phase_runs_with_adapters_on_a_gpu(execution, checkpointing):
    where = point(
        config("llama"),
        adapter="lora:16",
        precision="bf16",
        execution=execution,
        checkpointing=checkpointing,
        device_type="GPU",
    )
    built = BuiltPoint(where, device="cuda:0", seed=0)
    for phase in CausalLM.phases:
        built.phase(phase)()
    torch.cuda.synchronize()


@pytest.mark.gpu
@pytest.mark.extras("peft", "torchao")
def test_frozen_layers_in_fp8_have_adapters_in_bf16():
    from flopray.workloads.capability import why_no_precision

    if reason := why_no_precision("fp8", torch.cuda.get_device_capability()):
        pytest.skip(reason)
    content = config("llama", head_dim=16)
    where = point(content, adapter="lora:8", precision="fp8", execution="compile", device_type="H100")
    built = BuiltPoint(where, device="cuda:0", seed=0)
    kinds = {name.rpartition(".")[2]: type(layer).__name__ for name, layer in built._module.named_modules()}
    assert kinds["base_layer"] == "Float8Linear"
    assert kinds["default"] == "Linear"
    for phase in CausalLM.phases:
        built.phase(phase)()
    torch.cuda.synchronize()
