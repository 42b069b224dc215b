"""Time, calls, FLOPs and memory of each operator, by torch.profiler in a pass of its own.

The profiler costs the host several microseconds an operator, so nothing of this pass enters the measured time or
energy. What it says is how a phase's time divides. A region is a named stretch of code:
`torch.profiler.record_function("eval")`, and what torch itself names, such as the step of an optimizer. An operator
belongs to the regions that were open when it began, whichever thread ran it, since a backward pass runs in threads of
autograd.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from flopray.flops.dispatched import Operation, count_dispatched
from flopray.measurement.columns import failure_of
from flopray.records import Row, Status

#: Iterations that are profiled; the one before them fills caches that a process fills once.
_ITERATIONS = 3
_ENTER, _EXIT = "profiler._record_function_enter_new", "profiler._record_function_exit"
#: Kernels that no operator of torch launched, such as Triton's.
UNLINKED = "(kernels outside of operators)"
#: Costs of the profiler and the driver that CUPTI reports beside operators (CUpti_ActivityOverheadKind in
#: https://docs.nvidia.com/cupti/api/group__CUPTI__ACTIVITY__API.html). Their numbers are those of other operators, so
#: that torch gives them the kernels of these once more: of a train step of 0.21 s, 0.76 s of device time.
_OVERHEADS = {
    *("Unknown", "Driver Compiler", "Buffer Flush", "Instrumentation", "Resource"),
    *("Runtime Triggered Module Loading", "Lazy Function Loading", "Command Buffer Full", "Activity Buffer Request"),
    *("UVM Activity Init",),
}
#: Operators may have this much more device time than all kernels took, for rounding.
_MORE_REL = 0.01


@dataclass(frozen=True)
class OperatorTime:
    """What one operator takes in one iteration, apart from the operators that it calls.

    Attributes:
        region: names of the regions around it, joined by `/`; empty outside of regions.
        name: such as `aten::addmm`.
        calls: in one iteration.
        device_time_s: of its kernels.
        host_time_s: on the CPU; under the profiler, which makes it longer.
        flops: at the dispatcher; None where it has no formula, 0 of one that works on elements.
        device_memory_bytes: that it allocates on the device, less what it frees.
        host_memory_bytes: the same on the host.
    """

    region: str
    name: str
    calls: int
    device_time_s: float
    host_time_s: float
    flops: int | None
    device_memory_bytes: int
    host_memory_bytes: int


def operator_times(work: Callable[[], object], *, is_cuda: bool) -> list[OperatorTime]:
    """Profile work for some iterations.

    Args:
        work: one iteration.
        is_cuda: whether it runs on a GPU.

    Returns:
        Operators by region, most time first: of the device, or on a CPU of the host.

    Raises:
        ValueError: the profiler gave operators more device time than the kernels took.
        Exception: whatever the work or the profiler raises.
    """
    flops = _flops_by_region(work)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if is_cuda else [])
    work()
    with profile(activities=activities, profile_memory=True, acc_events=True) as seen:
        for _ in range(_ITERATIONS):
            work()
        if is_cuda:
            torch.cuda.synchronize()
    found = _add_up(seen.events() or [], flops)
    return sorted(found, key=lambda one: (-one.device_time_s, -one.host_time_s))


def operator_columns(launched: Callable[[], Callable[[], object]], *, is_cuda: bool) -> Row:
    """The columns of a phase's operators; a failure costs no measured number.

    Args:
        launched: gives the work, launched operator by operator.
        is_cuda: whether kernels of a GPU are timed.
    """
    try:
        found = operator_times(launched(), is_cuda=is_cuda)
    except Exception as error:
        return {"operators_status": str(Status.FAILED), "operators_reason": failure_of(error).reason}
    return {"operators_status": str(Status.OK), "operators": tuple(json.dumps(asdict(one)) for one in found)}


def _add_up(events: Sequence[Any], flops: dict[tuple[str, str], int | None]) -> list[OperatorTime]:
    marks = [one for one in events if one.is_user_annotation and one.device_type == DeviceType.CPU]
    sums: dict[tuple[str, str], dict[str, float]] = {}
    linked_us = device_us = 0.0
    for event in events:
        if event.is_user_annotation or event.name.startswith("[") or _is_overhead(event):
            continue
        if event.device_type != DeviceType.CPU:
            device_us += event.time_range.elapsed_us()
            continue
        linked_us += event.self_device_time_total
        of = sums.setdefault((_region(event, marks), event.name), defaultdict(float))
        of["calls"] += 1
        of["device_us"] += event.self_device_time_total
        of["host_us"] += event.self_cpu_time_total
        of["device_bytes"] += event.self_device_memory_usage
        of["host_bytes"] += event.self_cpu_memory_usage
    if linked_us > (1 + _MORE_REL) * device_us:
        raise ValueError(
            f"torch.profiler gave operators {linked_us * 1e-6:.3g} s of device time, of kernels that took "
            f"{device_us * 1e-6:.3g} s: how they divide is not known"
        )
    if device_us - linked_us > 1e-3 * device_us:
        sums["", UNLINKED] = defaultdict(float, device_us=device_us - linked_us)
    return [
        OperatorTime(
            region=region,
            name=name,
            calls=round(of["calls"] / _ITERATIONS),
            device_time_s=of["device_us"] / _ITERATIONS * 1e-6,
            host_time_s=of["host_us"] / _ITERATIONS * 1e-6,
            flops=None if name == UNLINKED else flops.get((region, name), 0),
            device_memory_bytes=round(of["device_bytes"] / _ITERATIONS),
            host_memory_bytes=round(of["host_bytes"] / _ITERATIONS),
        )
        for (region, name), of in sums.items()
    ]


def _is_overhead(event: Any) -> bool:
    """Whether an event is a cost of profiling; older versions of torch tell only by the name."""
    return getattr(event, "activity_type", None) == "overhead" or event.name in _OVERHEADS


def _region(event: Any, marks: Sequence[Any]) -> str:
    """Names of the regions that were open when an event began, the outermost first."""
    at = event.time_range.start
    around = [one for one in marks if one.time_range.start <= at < one.time_range.end]
    return "/".join(one.name for one in sorted(around, key=lambda one: one.time_range.start))


def _flops_by_region(work: Callable[[], object]) -> dict[tuple[str, str], int | None]:
    """FLOPs of an iteration by region and the profiler's name of the operator; None where one has no formula."""
    stack: list[str] = []
    found: dict[tuple[str, str], int | None] = {}

    def see(operation: Operation) -> None:
        if operation.name == _ENTER:
            stack.append(str(operation.args[0]))
        elif operation.name == _EXIT:
            if stack:
                stack.pop()
        else:
            key = "/".join(stack), operation.name.replace(".", "::", 1)
            before = found.get(key, 0)
            found[key] = None if operation.flops is None or before is None else before + operation.flops

    count_dispatched(work, see)
    return found
