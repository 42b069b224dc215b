"""Launches that torch's dispatcher does not see, noticed where Python starts them.

A CUDA graph replays kernels without their operators, a Triton kernel that is called by itself has no operator, and a
model that AOTInductor compiled calls libraries from C++. While work is counted at the dispatcher, each of these is
noted, so that the count can be refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def unseen_launches() -> Iterator[list[str]]:
    """Within the block, notes launches that no dispatcher sees, each in words that follow `the step`.

    Example:
        >>> with unseen_launches() as unseen:
        ...     _ = torch.ones(2) + 1
        >>> unseen
        []
    """
    seen: list[str] = []
    with ExitStack() as stack:
        for owner, name, words in _starts():
            stack.enter_context(_noted(owner, name, words, seen))
        yield seen


def _starts() -> Iterator[tuple[type, str, Callable[[Any], str]]]:
    """Methods whose launches are not seen: their class, their name, and what to say of the object."""
    # The base class: a bound method that was taken before, as `step = graph.replay`, still calls its `replay`.
    yield torch.cuda.CUDAGraph.__mro__[1], "replay", lambda _: "replays a CUDA graph"
    triton = sys.modules.get("triton.runtime.jit")
    if triton is not None:
        yield triton.JITFunction, "run", lambda kernel: f"launches the Triton kernel {_name_of(kernel)}"
    loader = getattr(getattr(torch._C, "_aoti", None), "AOTIModelPackageLoader", None)
    for name in ("run", "boxed_run"):
        if loader is not None and hasattr(loader, name):
            yield loader, name, lambda _: "runs a model that AOTInductor compiled"


def _name_of(kernel: Any) -> str:
    return str(getattr(kernel, "__name__", None) or getattr(getattr(kernel, "fn", None), "__name__", "of no name"))


@contextmanager
def _noted(owner: type, name: str, words: Callable[[Any], str], seen: list[str]) -> Iterator[None]:
    """Replaces a method by one that notes its calls. A class that inherits the method does so again afterwards."""
    own, original = name in vars(owner), getattr(owner, name, None)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(words(self))
        if original is None:
            raise AttributeError(f"{owner.__name__} has no {name}")
        return original(self, *args, **kwargs)

    setattr(owner, name, call)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)
