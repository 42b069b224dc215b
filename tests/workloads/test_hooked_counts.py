"""Closed forms against a count that no dispatcher makes: hooks on the modules of the model that transformers builds.

Linear layers count 2 x weights for each row that they are given, experts for each row that is sent to one of them, and
attention by the shapes of its queries, keys and values.
"""

import json

import pytest
import torch
from test_causal_lm import FAMILIES, canonical, config
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

from flopray.workloads.causal_lm import agreement
from flopray.workloads.causal_lm.flops import PRODUCTS, components

_BATCH, _TOKENS = 2, 16
#: Families that write their own attention; its products are taken from the closed form.
_OWN_ATTENTION = ("falcon", "bloom", "mpt", "gptj", "codegen")


def _rows(x: torch.Tensor) -> int:
    return x.numel() // x.shape[-1]


def _weights(module: torch.nn.Module, dimensions: int) -> int:
    return sum(weight.numel() for weight in module.parameters(recurse=False) if weight.dim() == dimensions)


def _hooked(content: dict) -> dict[str, int]:
    """FLOPs of a forward pass by kind of module; every module with a matrix must be of a known kind."""
    counts: dict[str, int] = {"products": 0, "experts": 0, "attention": 0}

    def attention(module, query, key, value, *_, **__):
        counts["attention"] += 2 * query[..., 0].numel() * key.shape[2] * (query.shape[-1] + value.shape[-1])
        return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[-1]), None

    AttentionInterface.register("hooked", attention)
    kind = content["model_type"]
    given = {key: value for key, value in content.items() if key != "model_type"}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, pad_token_id=0, **given),
        attn_implementation="eager" if kind in _OWN_ATTENTION else "hooked",
    )

    def product(module, args, kwargs, _):
        counts["products"] += 2 * _rows((*args, *kwargs.values())[0]) * _weights(module, 2)

    def experts(module, args, kwargs, _):
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
        choice = next(x for x in given if not x.is_floating_point())
        counts["experts"] += 2 * choice.numel() * _weights(module, 3) // module.num_experts

    for name, module in model.named_modules():
        hook = None
        if _weights(module, 3) and hasattr(module, "num_experts"):
            hook = experts
        elif not isinstance(module, torch.nn.Embedding) and hasattr(module, "weight") and _weights(module, 2):
            hook = product
        elif any(
            weight.dim() > 1 and "correction" not in key for key, weight in module.named_parameters(recurse=False)
        ):
            assert isinstance(module, torch.nn.Embedding), f"{name} is of no kind that is known here"
        if hook:
            module.register_forward_hook(hook, with_kwargs=True)
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.zeros(_BATCH, _TOKENS, dtype=torch.long), use_cache=False)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_what_modules_are_given_is_what_the_closed_form_counts(kind):
    content = config(kind)
    sizes = agreement.agreed_sizes("m", canonical(json.dumps(content), "m"))
    assert not isinstance(sizes, str), sizes
    closed = components(sizes, batch=_BATCH, tokens=_TOKENS, phase="forward")
    counted = _hooked(content)
    assert counted["experts"] == closed["expert_flops"]
    assert counted["products"] == sum(closed[name] for name in PRODUCTS if name != "expert_flops")
    if kind not in _OWN_ATTENTION:
        assert counted["attention"] == closed["attention_flops"]
