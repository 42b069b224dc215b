"""The phases of a step, measured apart and as a whole, and whether they add up."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from flopray.errors import InputError
from flopray.flops.dispatched import count_dispatched
from flopray.flops.step import check_callable, check_step, needed_arguments
from flopray.measurement.result import Measurement, at_reference_line, with_error
from flopray.point import is_captured, is_compiled
from flopray.units import prefixed
from flopray.workloads.execution import Work, captured, captured_second

#: In the order of a step.
NAMES = ("forward", "backward", "optimizer")
_KEEPS = "backward=lambda loss: loss.backward(retain_graph=True)"


@dataclass(frozen=True)
class Additivity:
    """How far the sum of the phases lies from the whole step.

    Attributes:
        rel: sum of the phases over the whole, minus 1.
        rel_error: half width of its 95 % interval, from those of all windows; None where one of them is unknown.
    """

    rel: float
    rel_error: float | None

    @property
    def holds(self) -> bool | None:
        """Whether the interval holds 0; None where it is unknown."""
        return None if self.rel_error is None else abs(self.rel) <= self.rel_error

    def __str__(self) -> str:
        error = "error unknown" if self.rel_error is None else f"± {self.rel_error:.1%}"
        return f"{self.rel:+.1%} {error}"


@dataclass(frozen=True, repr=False)
class StepMeasurement:
    """The phases of a step, each measured by itself, and the whole step.

    Attributes:
        phases: by name: `forward`, `backward`, `optimizer`.
        whole: all of them, in order, in one iteration.
    """

    phases: Mapping[str, Measurement]
    whole: Measurement

    def __getitem__(self, name: str) -> Measurement:
        """A phase, or the `whole`."""
        return self.whole if name == "whole" else self.phases[name]

    @property
    def time_additivity(self) -> Additivity:
        """Of times. The sum is larger where phases overlap in the whole, or leave data in a cache for each other."""
        return additivity(
            [(one.time.time_s, one.time.rel_error) for one in self.phases.values()],
            (self.whole.time.time_s, self.whole.time.rel_error),
        )

    @property
    def energy_additivity(self) -> Additivity | None:
        """Of energies; None where one of them is missing."""
        parts = [(one.energy.energy_j, one.energy.rel_error) for one in (*self.phases.values(), self.whole)]
        known = [(value, error) for value, error in parts if value is not None]
        return additivity(known[:-1], known[-1]) if len(known) == len(parts) else None

    def __repr__(self) -> str:
        """A line for each phase and the whole, one for their additivity, and one of the whole at the reference."""
        every = {**self.phases, "whole": self.whole}
        width = max(map(len, every))
        lines = [f"Measurement on {self.whole.device_name}, {self.whole.execution}"]
        lines += [f"  {name:<{width}}  {_values(one)}" for name, one in every.items()]
        if len(self.phases) > 1:
            energy = self.energy_additivity
            said = f"time {self.time_additivity}" + (f", energy {energy}" if energy else "")
            lines.append(f"  sum of phases over the whole - 1: {said}")
        if self.whole.at_reference:
            lines.append(f"  whole, {at_reference_line(self.whole.at_reference)}")
        if self.whole.energy.energy_j is None:
            reason = self.whole.energy.reason or self.whole.energy.status.replace("_", " ")
            lines.append(f"  no energy: {reason}")
        return "\n".join(lines)


def additivity(parts: list[tuple[float, float | None]], whole: tuple[float, float | None]) -> Additivity:
    """Sum over whole - 1, with independent relative errors.

    >>> print(additivity([(1.0, 0.01), (2.0, 0.01)], (3.0, 0.02)))
    +0.0% ± 2.1%
    """
    total = sum(value for value, _ in parts)
    errors = [error for _, error in (*parts, whole)]
    ratio = total / whole[0]
    if any(error is None for error in errors):
        return Additivity(ratio - 1, None)
    of_sum = math.hypot(*(value * (error or 0.0) for value, error in parts)) / total
    return Additivity(ratio - 1, ratio * math.hypot(of_sum, whole[1] or 0.0))


def _values(one: Measurement) -> str:
    parts = [with_error(one.time.time_s, "s", one.time.rel_error)]
    if one.energy.energy_j is not None:
        parts.append(with_error(one.energy.energy_j, "J", one.energy.rel_error))
    if one.flops.dispatched_flops is None:
        parts.append(f"FLOPs none: {one.flops.reason}")
    else:
        parts.append(prefixed(one.flops.dispatched_flops, "FLOP"))
    if one.mfu is not None:
        parts.append(f"MFU {one.mfu:.1%}")
    return "  ".join(parts)


class Phases:
    """The callables of a step by phase, and how each is run by itself.

    Args:
        given: by name, of `NAMES`. `backward` may take what `forward` returns.

    Raises:
        InputError: one is not a callable, or needs arguments that it will not get.
    """

    def __init__(self, given: Mapping[str, Callable[..., object]]) -> None:
        self._given = {name: given[name] for name in NAMES if name in given}
        self._takes_output = False
        for name, work in self._given.items():
            check_callable(work, name)
            needed = len(needed_arguments(work))
            self._takes_output |= name == "backward" and needed == 1 and "forward" in given
            if needed and not (name == "backward" and self._takes_output):
                if name == "backward":
                    raise InputError("backward must be a callable without arguments, or with what forward returns")
                check_step(work, name)

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of a step."""
        return tuple(self._given)

    def whole(self, execution: str = "eager") -> Work:
        """All phases, in order."""
        works = {name: self._compiled(name) if is_compiled(execution) else work for name, work in self._given.items()}

        def step() -> None:
            output = works["forward"]() if "forward" in works else None
            if "backward" in works:
                works["backward"](output) if self._takes_output else works["backward"]()
            if "optimizer" in works:
                works["optimizer"]()

        return captured(step) if is_captured(execution) else step

    def alone(self, name: str, execution: str = "eager") -> Work:
        """One phase, ready to be repeated.

        Raises:
            InputError: it cannot be repeated by itself.
        """
        if name == "backward" and self._takes_output:
            return self._backward(execution)
        if name == "optimizer":
            self._check_optimizer()
        work = self._compiled(name) if is_compiled(execution) else self._given[name]
        return captured(work) if is_captured(execution) else work

    def _backward(self, execution: str) -> Work:
        """Walks one graph again and again."""
        backward = self._given["backward"]
        forward = self._compiled("forward") if is_compiled(execution) else self._given["forward"]
        output = forward()
        try:
            backward(output)
            backward(output)
        except RuntimeError as error:
            if "second time" in str(error):
                raise InputError(f"backward frees the graph that it walks: keep it, as in {_KEEPS}") from error
            raise
        if is_captured(execution):
            # The walked graph has the nodes that accumulate gradients, bound to this stream: a capture on another one
            # would depend on it, so the graph goes before the capture makes its own.
            del output
            gc.collect()
            return captured_second(forward, backward)
        return lambda: backward(output)

    def _compiled(self, name: str) -> Callable[..., object]:
        if name == "backward":  # what it walks was compiled with the forward pass
            return self._given[name]
        # A graph is walked again: its buffers must not be given away to the first backward pass.
        torch._functorch.config.donated_buffer = False  # type: ignore[attr-defined]
        return torch.compile(self._given[name], dynamic=False)

    def _check_optimizer(self) -> None:
        """Refuse an optimizer that finds no gradients at its second call: its idleness would be measured.

        Raises:
            InputError: the second call does much less.
        """
        optimizer, others = self._given["optimizer"], {k: v for k, v in self._given.items() if k != "optimizer"}
        for _ in range(2):  # the first step makes the state
            if others:
                Phases(others).whole()()
            first = _operations(optimizer)
        second = _operations(optimizer)
        if second < first / 2:
            raise InputError(
                f"optimizer: its second call dispatches {second} operations and its first {first}: it seems to clear "
                "the gradients, so that it cannot be repeated by itself; clear them in forward"
            )


def _operations(work: Work) -> int:
    """Operations that a call dispatches."""
    seen: list[object] = []
    count_dispatched(work, seen.append)
    return len(seen)
