"""Operations of language models: products as the closed form has them, other kernels about as transformers launches."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from flopray.workloads.causal_lm import models
from flopray.workloads.causal_lm.flops import PRODUCTS
from flopray.workloads.causal_lm.sizes import NoClosedForm
from flopray.workloads.operations import Bulk, Pass, Product, Update
from flopray.workloads.registry import make_point

BATCH, TOKENS = 2, 256
#: What changes no number, and products, which are compared one by one.
NO_PASS = {"_unsafe_view", "detach", "empty", "empty_like", "lift_fresh", "mm", "addmm", "bmm"}


def point_of(model: str, **given):
    fields = {
        "workload": "causal_lm", "device_type": "H100", "precision": "bf16", "model": model, "weights": "random",
        "attention": "auto", "routing": "uniform", "checkpointing": False, "adapter": None,
        "batch_size": BATCH, "sequence_length": TOKENS,
    }  # fmt: skip
    fields |= given
    return make_point(fields.pop("workload"), **fields)


def counts(point, phase: str) -> dict[str, int]:
    """FLOPs of the closed form that configurations state, without building a model."""
    from flopray.workloads.causal_lm.flops import components

    sizes = models.sizes_of(point.model, None)
    return components(sizes, batch=BATCH, tokens=TOKENS, phase=phase, checkpointing=bool(point.checkpointing))


def flops_of(operations, kind, **wanted) -> int:
    return sum(
        one.flops
        for one in operations
        if isinstance(one, kind) and all(getattr(one, name) == value for name, value in wanted.items())
    )


@pytest.mark.parametrize("model", models.built_in())
def test_products_have_the_flops_of_the_closed_form(model):
    point = point_of(model)
    try:
        models.sizes_of(model, None)
    except NoClosedForm as error:
        pytest.skip(str(error))
    for phase in ("forward", "train_step", "decode", "prefill"):
        known = counts(point, phase)
        operations = point.workload.operations(point, phase)
        assert operations is not None
        latent = point.model.startswith("deepseek")  # decode also expands the cache, which has no product of its own
        if not (latent and phase == "decode"):
            products = sum(known[name] for name in PRODUCTS if name != "expert_flops")
            assert flops_of(operations, Product) == products
        assert flops_of(operations, Bulk, attention=False) == known["expert_flops"]


def test_attention_is_what_a_causal_mask_leaves_and_all_of_it_under_a_window():
    whole = point_of("llama-3.2-1b")
    found = flops_of(whole.workload.operations(whole, "forward"), Bulk, attention=True)
    assert found == counts(whole, "forward")["attention_causal_flops"]
    decoded = flops_of(whole.workload.operations(whole, "decode"), Bulk, attention=True)
    assert decoded == 64 * counts(whole, "decode")["attention_flops"]
    step = flops_of(whole.workload.operations(whole, "train_step"), Bulk, attention=True)
    assert step == 3.5 * found
    sliding = point_of("gemma-3-1b", sequence_length=1024)
    layers = [one for one in sliding.workload.operations(sliding, "forward") if isinstance(one, Bulk)]
    per_layer = {one.flops / one.count for one in layers}
    assert len(per_layer) == 2
    assert max(per_layer) / min(per_layer) == pytest.approx(2, rel=0.01)


def test_checkpointing_runs_the_layers_again_and_adapters_have_no_operations():
    plain, again = point_of("llama-tiny"), point_of("llama-tiny", checkpointing=True)
    more = flops_of(again.workload.operations(again, "backward"), Product)
    less = flops_of(plain.workload.operations(plain, "backward"), Product)
    head = 2 * BATCH * TOKENS * models.sizes_of("llama-tiny", None).head.flops
    assert more == less + (less - head) // 2
    adapted = point_of("llama-tiny", adapter="lora:4")
    assert adapted.workload.operations(adapted, "train_step") is None


def test_the_llama_of_a_llama_sweep_is_the_same_work():
    one = point_of("llama-3.2-1b")
    fields = {"batch_size": BATCH, "sequence_length": TOKENS, "weights": "random", "attention": "auto"}
    other = make_point(
        "llama", device_type="H100", precision="bf16", model="llama-3.2-1b", checkpointing=False, **fields
    )
    for phase in ("forward", "train_step", "decode"):
        assert other.workload.operations(other, phase) == one.workload.operations(one, phase)


class Launched(TorchDispatchMode):
    """Counts kernels that are no products, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        made = [one for one in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(one, torch.Tensor)]
        if made and not func.is_view and name not in NO_PASS:
            self.kernels[name] += 1
            taken = [one for one in args if isinstance(one, torch.Tensor)]
            self.bytes += sum(one.numel() * one.element_size() for one in (*made, *taken))
        return out


@pytest.fixture(scope="module")
def no_attention():
    """Attention that only copies, since torch has no kernel for it on the meta device and would take it apart."""
    from transformers import AttentionInterface

    class Copied(torch.autograd.Function):
        """The queries; queries, keys and values all get a gradient, as from a kernel of attention."""

        @staticmethod
        def forward(ctx, query, key, value):
            ctx.others = key, value
            return query.transpose(1, 2).contiguous()

        @staticmethod
        def backward(ctx, *gradients):
            return gradients[0].transpose(1, 2), *(torch.empty_like(one) for one in ctx.others)

    def copied(module, query, key, value, *args, **kwargs):
        return Copied.apply(query, key, value), None

    AttentionInterface.register("flopray_test_copied", copied)
    return "flopray_test_copied"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["llama-tiny", "pythia-160m", "qwen3-0.6b", "gemma-3-1b", "olmo-2-1b"])
def test_other_kernels_are_about_as_many_as_transformers_launches(model, no_attention, monkeypatch):
    from flopray.workloads.causal_lm import transformer

    monkeypatch.setattr(transformer, "implementation", lambda *args, **kwargs: no_attention)
    point = point_of(model)
    built = point.workload.build(point, device="meta", dtype=torch.bfloat16, seed=0)
    weights = list(built.module.parameters())
    with Launched() as forward:
        loss = built.module(built.x)
    with Launched() as backward:
        torch.autograd.grad(loss, weights, grad_outputs=built.gradient)
    for phase, traced in (("forward", forward), ("backward", backward)):
        stated = [one for one in point.workload.operations(point, phase) if isinstance(one, Pass)]
        launches = sum(one.count for one in stated)
        moved = sum(2 * one.count * one.elements for one in stated)
        assert launches == pytest.approx(sum(traced.kernels.values()), rel=0.25), traced.kernels
        assert moved == pytest.approx(traced.bytes, rel=0.35)
    (update,) = point.workload.operations(point, "optimizer_step")
    assert isinstance(update, Update)
    assert update.elements == 7 * sum(weight.numel() for weight in weights)
    assert update.tensors == len(weights)


def test_compiled_code_has_fewer_kernels_that_move_less():
    eager, compiled = (point_of("qwen3-0.6b", execution=name) for name in ("graph", "compile_graph"))
    found = []
    for point in (eager, compiled):
        passes = [one for one in point.workload.operations(point, "train_step") if isinstance(one, Pass)]
        found.append((sum(one.count for one in passes), sum(one.count * one.elements for one in passes)))
    assert found[1][0] < found[0][0] / 3
    assert found[1][1] < found[0][1] / 2


def test_a_norm_of_embedded_tokens_is_run_trained_and_counted():
    """That of BLOOM: as one more norm outside of the layers."""
    from dataclasses import replace

    from flopray.workloads.causal_lm.kernels import Asked, operations
    from flopray.workloads.causal_lm.sizes import layer_norm

    plain = replace(models.sizes_of("pythia-160m", None), embedded_norm=None)
    more = replace(plain, embedded_norm=layer_norm(plain.width))
    asked = Asked(batch=BATCH, tokens=TOKENS, phase="train_step", element_bytes=2, fused=False, checkpointing=False)
    one, two = (operations(sizes, asked) for sizes in (plain, more))
    passes = [[op for op in ops if isinstance(op, Pass)] for ops in (one, two)]
    assert sum(op.count for op in passes[1]) == sum(op.count for op in passes[0]) + 3  # forward one, backward two
    assert two[-1].tensors == one[-1].tensors + 2
    assert more.parameters == plain.parameters + 2 * plain.width


def test_olmo_moves_more_in_half_precision_for_what_it_computes_in_fp32():
    from dataclasses import replace

    from flopray.workloads.causal_lm.kernels import Asked, operations

    wide = models.sizes_of("olmo-2-1b", None)
    plain = replace(wide, wide=False)

    def moved(sizes, phase, **given):
        asked = Asked(batch=BATCH, tokens=TOKENS, phase=phase, **{"element_bytes": 2, **given})
        return sum(one.count * one.elements for one in operations(sizes, asked) if isinstance(one, Pass))

    layers = len(wide.layers)
    rotated = 8 * wide.layers[0].attention.rotated  # 18 elements instead of 10
    norms = 2 * (4 * layers + 1) * wide.width  # two in a layer, those of queries and keys, the last one
    added = (moved(wide, "inference") - moved(plain, "inference")) / (BATCH * TOKENS)
    assert added == pytest.approx(rotated * layers + norms, rel=1e-3)
    assert moved(wide, "backward") > moved(plain, "backward")
    for same in ({"element_bytes": 4}, {"fused": True}):  # nothing to cast; nothing written in between
        assert moved(wide, "train_step", **same) == moved(plain, "train_step", **same)


def test_layers_in_fp8_cast_their_operands_and_the_output_projection_does_not():
    plain, cast = (point_of("qwen3-0.6b", precision=name, execution="compile_graph") for name in ("bf16", "fp8"))
    for phase in ("inference", "backward"):
        stated = Counter(plain.workload.operations(plain, phase))
        added = Counter(cast.workload.operations(cast, phase)) - stated
        products = {one: count for one, count in stated.items() if isinstance(one, Product)}
        head = max(max(one.rows, one.columns, one.inner) for one in products)
        inside = sum(
            count * one.count for one, count in products.items() if head not in (one.rows, one.columns, one.inner)
        )
        assert {type(one) for one in added} == {Pass}
        assert sum(count * one.count for one, count in added.items()) == 4 * inside
