"""One layer's part of a cache of keys and values, so that equal layers are compiled once.

A layer of transformers gets the cache of all layers, and its place among them. Compiled code depends on that place, so
that each layer would be compiled by itself. A layer that gets its own part alone does not need its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class LayerCache:
    """A cache as one layer sees it: what the layer adds goes to its own part, all else is asked of the whole.

    Args:
        whole: a cache of transformers.
        place: of the layer in it.
    """

    def __init__(self, whole: Any, place: int) -> None:
        self._whole, self._own = whole, whole.layers[place]

    def update(self, keys: torch.Tensor, values: torch.Tensor, place: int, *further: Any, **named: Any) -> Any:
        """All keys and values of the layer, these included; `place` is the layer's, and is not looked at."""
        del place
        return self._own.update(keys, values, *further, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


def with_own_cache(layer: torch.nn.Module, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call of a layer, in which a cache of all layers is replaced by the layer's part of it.

    Args:
        layer: of a stack; where its modules do not state one place, it keeps the whole cache.
        call: its compiled forward pass.
    """
    stated = (getattr(module, "layer_idx", None) for module in layer.modules())
    places = {place for place in stated if isinstance(place, int)}
    if len(places) != 1:
        return call
    place = min(places)

    def own(argument: Any) -> Any:
        if not hasattr(argument, "get_seq_length") or place >= len(getattr(argument, "layers", ())):
            return argument
        return LayerCache(argument, place)

    def called(*args: Any, **kwargs: Any) -> Any:
        return call(*map(own, args), **{name: own(value) for name, value in kwargs.items()})

    return called
