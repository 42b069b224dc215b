"""The workloads that can be measured, by name; each is a module with the same six functions.

    closed_form(spec, phase)    FLOPs of disjoint components; their sum is `model_flops`
    beside(spec, phase)         further columns of the record that follow from the specification
    dispatched(spec)            FLOPs at torch's dispatcher by phase, counted on the meta device
    build(spec, device, dtype, seed) -> Built
    least_bytes(spec, phase, element_bytes)   memory without which the phase cannot run
    least_moved_bytes(spec, phase, element_bytes)   bytes that one iteration reads and writes at least

and `CONVENTION`, one line on what the closed form counts.
"""

from __future__ import annotations

from types import ModuleType

from flopray.workloads import llama, mlp

MODELS: dict[str, ModuleType] = {"mlp": mlp, "llama": llama}
