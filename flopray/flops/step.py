"""What can be a step: a callable of which one call, without arguments, is one iteration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from flopray.errors import InputError

_KINDS = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def needed_arguments(work: Callable[..., object]) -> list[str]:
    """Names of the parameters without a default; of a module those of its `forward`.

    >>> needed_arguments(lambda x, y, z=3: x)
    ['x', 'y']
    """
    work = getattr(work, "_orig_mod", work)  # what torch.compile wrapped
    stated: Any = getattr(work, "forward", work) if hasattr(work, "register_forward_hook") else work
    try:
        parameters = inspect.signature(stated).parameters.values()
    except (TypeError, ValueError):  # a built-in that states none
        return []
    return [one.name for one in parameters if one.default is one.empty and one.kind in _KINDS]


def check_callable(work: object, name: str) -> None:
    """Refuse what does no work when it is called: a class, a function that only makes a generator or a coroutine.

    Args:
        work: what was given.
        name: of the argument.

    Raises:
        InputError: with what to give instead.
    """
    if not callable(work):
        hint = f": give its step method, as {name}=adam.step" if callable(getattr(work, "step", None)) else ""
        raise InputError(f"{name} must be a callable, got {type(work).__name__}{hint}")
    if inspect.isclass(work):
        raise InputError(f"{name} is the class {work.__name__}: a call makes an object; give a function that runs it")
    plain = getattr(work, "func", work)  # of a functools.partial
    if inspect.iscoroutinefunction(plain):
        raise InputError(f"{name} is a coroutine function: a call runs nothing; give a plain function that runs it")
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise InputError(f"{name} is a generator function: a call runs nothing; {_NEXT}")


def check_step(work: object, name: str = "step") -> None:
    """The same, and refuse a callable that needs arguments.

    Args:
        work: what was given.
        name: of the argument.

    Raises:
        InputError: with what to give instead.
    """
    check_callable(work, name)
    if needed := needed_arguments(work):  # type: ignore[arg-type]
        which = f"the argument {needed[0]}" if len(needed) == 1 else f"the arguments {', '.join(needed)}"
        raise InputError(
            f"{name} must be a callable without arguments, and this one needs {which}: give it with its arguments, "
            f"as lambda: f({', '.join(needed)})"
        )


def check_returned(returned: object) -> None:
    """Refuse a step whose call did nothing yet: it returned a generator or a coroutine, which would have to be run.

    Raises:
        InputError: it returned one.
    """
    if inspect.iscoroutine(returned):
        returned.close()  # else Python warns that it was never awaited
        raise InputError("the step returned a coroutine, which nobody has run: give a plain function that runs it")
    if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
        raise InputError(f"the step returned a generator, which nobody has run: {_NEXT}")


_NEXT = "give a function that makes one iteration, such as lambda: next(iterator)"
