"""fp8 as a precision of linear layers, by torchao's float8 training.

Every linear layer takes its products in fp8: `y = x W^T` forward, and backward the gradients of `x` and of `W`. Weights
and activations stay in bf16 and are cast before each product, with a scale that is found anew (dynamic scaling): of the
largest number of the whole tensor (`fp8`, tensorwise) or of each row (`fp8_rowwise`). Inputs and weights are e4m3; the
upstream gradient is e5m2 with tensorwise scaling and e4m3 with rowwise
(https://github.com/pytorch/ao/tree/main/torchao/float8). This holds in every phase; an engine that serves a model would
keep its weights in fp8 and read half of the bytes.

What is not a linear layer is computed in bf16, and so are the output projection of a language model, as is usual
(https://github.com/pytorch/torchtitan/blob/main/docs/float8.md), and adapters. A module that multiplies by weights
outside of linear layers is refused, since `fp8` would then mean something else.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from flopray.errors import Unsupported
from flopray.point import FP8_SCALING, is_compiled

if TYPE_CHECKING:
    import torch

#: Tensor cores take fp8 in multiples of 16 numbers:
#: https://docs.nvidia.com/cuda/cublas/#tensor-core-usage
MULTIPLE = 16
_NO_PACKAGE = "fp8 needs torchao: pip install 'flopray[torchao]'"
#: Weights with more than one dimension that are not factors of a product.
_LOOK_UPS = ("Embedding",)


def why_not(precision: str, execution: str) -> str | None:
    """Why fp8 is not measured, whatever the workload and the device; None where it can be.

    Args:
        precision: one of `flopray.point.PRECISIONS`; any other than fp8 has nothing against it.
        execution: one of `flopray.point.EXECUTIONS`.
    """
    if precision not in FP8_SCALING:
        return None
    if not is_compiled(execution):
        return (
            f"{precision} is measured compiled, since uncompiled each scale and cast is a launch of its own: use "
            "execution='compile' or execution='compile_graph'"
        )
    return None if find_spec("torchao") else _NO_PACKAGE


def why_not_sizes(what: str, *sizes: int) -> str | None:
    """Why products of these sizes have no fp8; None where they have.

    Args:
        what: they are, such as `d and m`.
        *sizes: widths of layers, and rows of their input, since gradients of weights are sums over these.
    """
    return f"fp8 needs {what} in multiples of {MULTIPLE}" if any(size % MULTIPLE for size in sizes) else None


def why_not_module(module: torch.nn.Module) -> str | None:
    """Why a module has no fp8, naming the layer; None where its linear layers can be converted. It may be on `meta`."""
    kept = _kept(module)
    layers = dict(_layers(module, kept))
    if reason := _other_weights(module, {*map(id, layers.values()), *kept}):
        return reason
    if not layers:
        return f"fp8 is a precision of linear layers, and {type(module).__name__} has none"
    for name, layer in layers.items():
        if layer.in_features % MULTIPLE or layer.out_features % MULTIPLE:
            return (
                f"fp8 needs widths in multiples of {MULTIPLE}, and the linear layer {name} has {layer.in_features} x "
                f"{layer.out_features}"
            )
    return None


def converted(module: torch.nn.Module, scaling: str, *, emulate: bool = False) -> torch.nn.Module:
    """The module with linear layers in fp8; its layers are replaced in place, its weights stay the same tensors.

    Args:
        module: whose weights are bf16.
        scaling: a value of `flopray.point.FP8_SCALING`.
        emulate: compute the casts' numbers without units for fp8, on any device; this says nothing about speed.

    Raises:
        Unsupported: torchao is missing, or the module has products that would not be fp8.
    """
    if reason := _NO_PACKAGE if find_spec("torchao") is None else why_not_module(module):
        raise Unsupported(reason)
    float8 = _quietly("torchao.float8")
    config = dataclasses.replace(float8.Float8LinearConfig.from_recipe_name(scaling), emulate=emulate)
    chosen = {id(layer) for _, layer in _layers(module, _kept(module))}
    return float8.convert_to_float8_training(
        module, config=config, module_filter_fn=lambda layer, _: id(layer) in chosen
    )


@cache
def load_quietly() -> None:
    """Import the parts of torchao that transformers would import, where installed, without warnings of other chips."""
    if find_spec("torchao"):
        _quietly("transformers.quantizers")


def _quietly(module: str) -> Any:
    """Import a module without what it logs and warns of: other chips, and its own code."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    finally:
        logging.disable(before)


def _layers(module: torch.nn.Module, kept: set[int]) -> Iterator[tuple[str, torch.nn.Linear]]:
    """Linear layers that are converted, by name."""
    import torch

    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear) and id(layer) not in kept:
            yield name, layer


def _kept(module: torch.nn.Module) -> set[int]:
    """Layers that stay in bf16: output projections of language models, and adapters."""
    found = set()
    for name, layer in module.named_modules():
        if any(part.startswith("lora_") for part in name.split(".")):
            found.add(id(layer))
        head: Any = getattr(layer, "get_output_embeddings", None)
        if callable(head) and (projection := head()) is not None:
            found.add(id(projection))
    return found


def _other_weights(module: torch.nn.Module, known: set[int]) -> str | None:
    """Which layer multiplies by weights and is not linear; a vector of weights multiplies elements alone."""
    for name, layer in module.named_modules():
        if id(layer) in known or type(layer).__name__.endswith(_LOOK_UPS):
            continue
        for weight in layer.parameters(recurse=False):
            if sum(size > 1 for size in weight.shape) > 1:
                return (
                    f"fp8 is a precision of linear layers, and {name or 'the module'} ({type(layer).__name__}) has "
                    f"weights {tuple(weight.shape)} of another kind"
                )
    return None
