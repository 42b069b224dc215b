"""Tells which implementation of attention torch chose, by the operators that it dispatched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

#: Parts of operators' names. Where scores are formed and normalised by themselves, it is the mathematical form.
_BACKENDS = (
    ("flash_attention_for_cpu", "cpu_flash"),
    ("scaled_dot_product_flash", "flash"),
    ("scaled_dot_product_efficient", "efficient"),
    ("scaled_dot_product_cudnn", "cudnn"),
    ("scaled_dot_product_attention_math", "math"),
    ("aten._softmax.", "math"),
    ("aten._safe_softmax.", "math"),
)


class AttentionSeen(TorchDispatchMode):
    """While it is active it watches for attention; `backend` is the first that was seen, None where there was none."""

    def __init__(self) -> None:
        super().__init__()
        self.backend: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and look at its name."""
        del types
        if self.backend is None:
            name = str(func)
            self.backend = next((backend for part, backend in _BACKENDS if part in name), None)
        return func(*args, **(kwargs or {}))
