"""What `count` counts: a workload, or a function that makes a step, such as `step.py:make_step`.

    def make_step(width, batch=8):
        layer, x = torch.nn.Linear(width, width), torch.randn(batch, width)
        return lambda: layer(x).sum().backward()

Its parameters are the shape, and what it returns is one iteration.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flopray.errors import InputError, brief
from flopray.flops.step import check_returned, check_step
from flopray.workloads.base import Workload
from flopray.workloads.registry import BUILT_IN, find_workload, module_of_file

#: Parameter of a function that gets the device.
_DEVICE = "device"


@dataclass(frozen=True)
class StepFactory:
    """A function that makes a step.

    Attributes:
        function: its parameters are the shape; it returns a callable without arguments.
        name: such as `step.py:make_step`.
        path: absolute path of its file; None where no other process can load it.
        attribute: its name in the file.
    """

    function: Callable[..., Any]
    name: str
    path: str | None = None
    attribute: str | None = None

    def check(self, shape: Mapping[str, Any]) -> None:
        """Refuse a shape that the function does not take.

        Raises:
            InputError: a parameter that it does not have, or one that is missing.
        """
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):
            return
        takes = f"it takes {_parameters(signature)}"
        anything = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
        for name in shape:
            if name not in signature.parameters and not anything:
                near = difflib.get_close_matches(name, signature.parameters, n=1)
                meant = f": did you mean {near[0]}?" if near else f": {takes}"
                raise InputError(f"{self.name} has no parameter {name!r:.60}{meant}")
        try:
            signature.bind(**shape)
        except TypeError as error:
            raise InputError(f"{self.name}: {error}; {takes}") from None

    def make(self, shape: Mapping[str, Any], device: str | None = None) -> Callable[[], object]:
        """The step of a shape.

        Args:
            shape: by parameter.
            device: where tensors without a device are made; also given to a parameter `device`. None changes nothing.

        Raises:
            InputError: the function fails, or does not return a callable without arguments.
        """
        shape = dict(shape)
        if device is not None and _DEVICE not in shape and self._has_device():
            shape[_DEVICE] = device
        said = ", ".join(f"{name}={value!r:.40}" for name, value in shape.items())
        try:
            with torch.device(device) if device is not None else contextlib.nullcontext():
                step = self.function(**shape)
        except Exception as error:
            raise InputError(f"{self.name}({said}) failed: {brief(error)}") from error
        if not callable(step):
            check_returned(step)
            kind = type(step).__name__
            raise InputError(
                f"{self.name}({said}) returned a {kind}: it must return a callable, one call of which is one iteration"
            )
        check_step(step, f"what {self.name}({said}) returned")
        return step

    def _has_device(self) -> bool:
        try:
            return _DEVICE in inspect.signature(self.function).parameters
        except (TypeError, ValueError):
            return False


def find_target(target: object) -> Workload | StepFactory:
    """A workload or a function that makes a step, given by name or directly.

    Args:
        target: a workload's name, class or instance, a function, or `FILE.py:NAME` of a class or a function.

    Raises:
        InputError: it is not found; the message says what there is.
    """
    if isinstance(target, str):
        return _named(target)
    if isinstance(target, type) and issubclass(target, Workload):
        return target()
    if isinstance(target, Workload):
        return target
    if not callable(target):
        raise InputError(
            f"target must be a workload, a function that makes a step, or FILE.py:NAME, got {type(target).__name__}"
        )
    name = getattr(target, "__qualname__", type(target).__name__)
    module = sys.modules.get(getattr(target, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    importable = file and module is not None and module.__name__ != "__main__" and getattr(module, name, None) is target
    return StepFactory(target, name, str(Path(file).absolute()) if importable and file else None, name)


def _named(name: str) -> Workload | StepFactory:
    if name in BUILT_IN or not (":" in name or name.endswith(".py")):
        return find_workload(name)
    path_text, _, attribute = name.rpartition(":")
    path = Path(path_text or name).expanduser().absolute()
    if not path_text or not attribute:
        raise InputError(f"{name!r:.120}: name the function or class too, as {Path(name).name}:make_step")
    if not path.is_file():
        raise InputError(f"{name!r:.120}: there is no file {path}")
    with _beside(path):
        module = module_of_file(path)
    found = getattr(module, attribute, None)
    if found is None:
        own = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__ and not key.startswith("_")
        ]
        raise InputError(f"{path} has no {attribute!r:.60}: it has {', '.join(own[:12]) or 'no function'}")
    if isinstance(found, type) and issubclass(found, Workload):
        return find_workload(name)
    if not callable(found):
        raise InputError(f"{path.name}:{attribute} is a {type(found).__name__}: name a function that makes a step")
    return StepFactory(found, f"{path.name}:{attribute}", str(path), attribute)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Lets a file import the modules beside it, as a script does; also later, while its functions run."""
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    yield


def _parameters(signature: inspect.Signature) -> str:
    return ", ".join(
        str(one).split(":")[0].split(" =")[0] + _default(one) for one in signature.parameters.values()
    ) or ("no parameter")


def _default(one: inspect.Parameter) -> str:
    return "" if one.default is one.empty or "=" in str(one).split(":")[0] else f"={one.default!r:.40}"
