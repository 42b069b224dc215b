"""How a phase is executed: eagerly, as a replayed CUDA graph, through torch.compile, or both.

A workload states its phases as plain callables on one `TrainingStep`; this module wraps them so that one call is one
iteration (or, as a CUDA graph, several of them) with nothing else inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import Any

import torch

from flopray.errors import Unsupported
from flopray.point import is_captured, is_compiled
from flopray.workloads.compilation import LayerCall, compiled, compiled_work, repeated_layers

Work = Callable[[], object]

#: A replay that is shorter than this holds several iterations. A thread takes at least 10 us to launch a replay, and
#: sometimes waits for the interpreter that it shares with the meter's poller: on an H100 the time of a replay of 19 us
#: scattered by 3 %, and its power with it.
_REPLAY_S = 2e-4
_MOST_REPEATS = 64
#: Variants of one function that are compiled: more than any model has layers.
_MOST_COMPILED = 1000


class TrainingStep:
    """A module, its input and an upstream gradient, and the phases of one training step over them.

    Every iteration does the same work on the same numbers: the upstream gradient is fixed, and AdamW's learning rate is
        so small that the weights do not change. With an ordinary one a hundred thousand repeats would drive the
    activations into saturation, and chips draw less power on zeros. It is not zero, since AdamW's captured and compiled
    forms divide by it: compiled, weights whose second moment is 0 would become NaN.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        x: torch.Tensor,
        gradient: torch.Tensor,
        *,
        execution: str,
        others: Mapping[str, Work] | None = None,
        layer_call: LayerCall | None = None,
    ) -> None:
        compiles = is_compiled(execution)
        if compiles:
            # Drop code that was compiled for another shape: past a limit torch would fall back to dynamic shapes.
            torch._dynamo.reset()  # type: ignore[attr-defined]
        layers = repeated_layers(module) if compiles else []
        self.module = compiled(module, layers, layer_call) if compiles else module
        self.x, self.gradient = x, gradient
        self.parameters = trained_of(module)
        self._execution, self._layered = execution, bool(layers)
        self._others = dict(others or {})
        if compiles:
            # Layers that a cache does not tell apart serve every phase once they are compiled; else inference alone.
            served = set(self._others) if layer_call else {"inference"}
            self._others = {
                name: compiled_work(work, whole=not layers or name not in served) for name, work in self._others.items()
            }

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over the weights that are trained, made when a phase needs it (`phases.imported_by_optimizers`)."""
        # In fp16 a smaller epsilon lets the quotient overflow where the second moment rounds to zero. Compiling AdamW
        # over the weights of many layers takes longer than all else, and there is a fused kernel of it.
        return torch.optim.AdamW(
            self.parameters,
            lr=1e-20,
            eps=1e-3,
            capturable=is_captured(self._execution) and self.x.device.type == "cuda",
            fused=True if self._layered else None,
        )

    @cached_property
    def step(self) -> Work:
        """The optimizer's step, compiled where the model is compiled as a whole."""
        if is_compiled(self._execution) and not self._layered:
            return torch.compile(self.optimizer.step, dynamic=False)
        return self.optimizer.step

    def body(self, phase: str) -> Work:
        """One iteration of a phase that needs no preparation.

        Raises:
            Unsupported: the workload has no such phase.
        """
        own: dict[str, Work] = {
            **{"inference": self.inference, "forward": self.forward, "forward_backward": self.forward_backward},
            "train_step": self.train_step,
        }
        work = self._others.get(phase) or (self.step if phase == "optimizer_step" else own.get(phase))
        if work is None:
            raise Unsupported(f"this workload has no phase {phase}")
        return work

    def forget(self) -> None:
        """Free what only the optimizer keeps: its moments, and gradients."""
        for parameter in self.parameters:
            parameter.grad = None
        if "optimizer" in vars(self):
            self.optimizer.state.clear()

    def inference(self) -> torch.Tensor:
        """A forward pass that keeps no activations."""
        with torch.no_grad():
            return self.module(self.x)

    def forward(self) -> torch.Tensor:
        """The pass of a training step: with grad, so activations are kept."""
        return self.module(self.x)

    def backward(self, y: torch.Tensor, *, retain: bool = True) -> tuple[torch.Tensor, ...]:
        """Gradients of every parameter that is trained from a graph that is kept, with no accumulation into `.grad`."""
        return torch.autograd.grad(y, self.parameters, grad_outputs=self.gradient, retain_graph=retain)

    def forward_backward(self) -> None:
        """Both passes, the graph freed."""
        self.backward(self.forward(), retain=False)

    def fill_gradients(self) -> None:
        """Set `.grad` as a backward pass would, for a step of the optimizer alone."""
        for parameter, gradient in zip(self.parameters, self.backward(self.forward(), retain=False), strict=True):
            parameter.grad = gradient

    def train_step(self) -> None:
        """Zero the gradients, forward, backward into `.grad`, AdamW."""
        self.optimizer.zero_grad(set_to_none=True)
        self.forward().backward(self.gradient)
        self.step()


def trained_of(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The weights that are trained: those that are not frozen."""
    weights = list(module.parameters())
    return [weight for weight in weights if weight.requires_grad] or weights


def phase_work(step: TrainingStep, phase: str, execution: str) -> Work:
    """One iteration of a phase, ready to be repeated.

    Args:
        step: the training step.
        phase: one of `flopray.records.PHASES`.
        execution: one of `flopray.point.EXECUTIONS`.

    Returns:
        A callable without arguments, whose return value is to be ignored. One call is `iterations_of` iterations.

    Raises:
        Unsupported: CUDA graphs without CUDA, or work that cannot be captured or compiled.
    """
    if is_captured(execution) and step.x.device.type != "cuda":
        raise Unsupported(
            f"execution {execution} needs a CUDA device; use execution='eager' or execution='compile' on a CPU"
        )
    if is_compiled(execution):
        # A retained graph is walked again: its buffers must not be given away to the first backward pass.
        torch._functorch.config.donated_buffer = False  # type: ignore[attr-defined]
        # Past its limit torch would run layers that differ as they are written, without a word.
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = _MOST_COMPILED
    return _graphed(step, phase) if is_captured(execution) else _eager(step, phase)


def _eager(step: TrainingStep, phase: str) -> Work:
    if phase == "backward":
        y = step.forward()
        return lambda: step.backward(y)
    if phase == "optimizer_step":
        step.fill_gradients()
    return step.body(phase)


def iterations_of(work: Work) -> int:
    """Iterations of a phase in one call of its work."""
    return getattr(work, "iterations", 1)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the device ran out of memory, also where CUDA or cuBLAS say so in words, or during a capture."""
    if error is None:
        return False
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("out of memory", "ALLOC_FAILED", "can't allocate memory")
    return any(word in str(error) for word in words) or is_out_of_memory(error.__context__)


@cache
def _capture_stream() -> torch.cuda.Stream:
    """The one stream of all captures of this process.

    Autograd expects gradients on the stream it first saw a parameter on, so the phases of a point share it. All points
    do, because cuBLAS keeps a workspace of 32 MiB and more for every stream it ever ran on.
    """
    return torch.cuda.Stream()


def _graphed(step: TrainingStep, phase: str) -> Work:
    """Capture a phase into a CUDA graph, following https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs."""
    stream = _capture_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        if phase == "optimizer_step":
            step.fill_gradients()
        warm = _eager(step, phase)
        for _ in range(3):
            warm()
    torch.cuda.current_stream().wait_stream(stream)
    del warm
    return _sized(lambda repeats: _captured(step, phase, stream, repeats), f"phase {phase}")


#: Phases whose capture was invalidated, which leaves the allocator of this process broken.
_broken_captures: list[str] = []


def captures_are_broken() -> bool:
    """Whether a capture of this process was invalidated: from then on only a new process has a sound allocator."""
    return bool(_broken_captures)


def captured(work: Work) -> Work:
    """A CUDA graph of any callable: warmed up on the stream of captures, then captured; short ones several times.

    Raises:
        Unsupported: the work cannot be captured, such as one that copies to the host.
    """
    stream = _capture_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)

    def capture(repeats: int) -> _Replay:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(repeats):
                kept = work()
        return _Replay(graph, work, kept, repeats)

    return _sized(capture, "the step")


def captured_second(first: Callable[[], object], second: Callable[[Any], object]) -> Work:
    """A CUDA graph of what follows on another callable, such as a backward pass on its forward pass.

    Both are captured, since autograd runs a backward pass on the stream of its forward pass, which must be capturing.
    The second must be able to walk the same result repeatedly.

    Raises:
        Unsupported: one of them cannot be captured.
    """
    stream = _capture_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            second(first())
    torch.cuda.current_stream().wait_stream(stream)

    def capture(repeats: int) -> _Replay:
        first_graph, graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(first_graph, stream=stream):
            result = first()
        with torch.cuda.graph(graph, pool=first_graph.pool(), stream=stream):
            for _ in range(repeats):
                kept = second(result)
        first_graph.replay()  # fills the tensors that the second one reads
        torch.cuda.synchronize()
        return _Replay(graph, (first, second), (first_graph, result, kept), repeats)

    return _sized(capture, "the backward pass")


def _sized(capture: Callable[[int], _Replay], what: str) -> _Replay:
    """A replay of enough iterations to be launched ahead of the device.

    Raises:
        Unsupported: what is captured cannot be.
    """
    before = torch.cuda.current_stream()
    try:
        replay = capture(1)
        repeats = min(_MOST_REPEATS, math.ceil(_REPLAY_S / _replay_seconds(replay)))
        return replay if repeats == 1 else capture(repeats)
    except RuntimeError as error:
        # A capture that was invalidated fails a second time when it is ended, and leaves its stream current and its
        # memory pool open. (https://github.com/pytorch/pytorch/blob/main/torch/cuda/graphs.py)
        torch.cuda.set_stream(before)
        if error.__context__ is not None:
            _broken_captures.append(what)
        if is_out_of_memory(error):
            raise
        first = str(error.__context__ or error).splitlines()[0]
        raise Unsupported(f"{what} cannot be captured into a CUDA graph: {first}") from error


def _captured(step: TrainingStep, phase: str, stream: torch.cuda.Stream, repeats: int) -> _Replay:
    """A graph of this many iterations, one after the other."""
    graph = torch.cuda.CUDAGraph()
    if phase == "backward":
        return _captured_backward(step, graph, stream, repeats)
    if phase == "train_step":
        step.optimizer.zero_grad(set_to_none=True)
    body = step.body(phase)
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(repeats):
            kept = body()
    return _Replay(graph, step, kept, repeats)


def _captured_backward(
    step: TrainingStep, graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream, repeats: int
) -> _Replay:
    """Capture forward and backward apart: autograd runs backward on the stream of forward, which must be capturing."""
    forward_graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(forward_graph, stream=stream):
        y = step.forward()
    with torch.cuda.graph(graph, pool=forward_graph.pool(), stream=stream):
        for _ in range(repeats):
            # Retained: otherwise the capture would reuse freed activations for gradients, and every replay but the
            # first would compute on what the last one left there. (Power falls by a quarter on such numbers.)
            gradients = step.backward(y, retain=True)
    forward_graph.replay()  # fills the activations once; the backward graph only reads them
    torch.cuda.synchronize()
    return _Replay(graph, step, (forward_graph, y, gradients), repeats)


def _replay_seconds(replay: _Replay) -> float:
    """Time of a replay, launches included where they take longer than the device."""
    replay()
    seconds = float("inf")
    for count in (1, 5):  # for a long replay, one is enough
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            replay()
        end.record()
        end.synchronize()
        seconds = max(begin.elapsed_time(end) / 1e3 / count, 1e-6)
        if seconds > 5 * _REPLAY_S:
            break
    return seconds


class _Replay:
    """A captured graph; holds what its kernels read and write, such as weights and input."""

    def __init__(self, graph: torch.cuda.CUDAGraph, read: object, kept: object, iterations: int) -> None:
        self._graph, self._read, self._kept, self.iterations = graph, read, kept, iterations

    def __call__(self) -> None:
        self._graph.replay()
