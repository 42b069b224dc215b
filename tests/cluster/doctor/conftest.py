"""Nodes as the doctor finds them, made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flopray.cluster.doctor.cluster import Node
from flopray.cluster.doctor.machine import Energy, GpuReport, Machine
from flopray.cluster.doctor.software import Chip, Counters, Torch

COUNTERS = Counters("/usr/local/cuda/bin/ncu", "2025.3.1", None, (Chip("9.0", "gh100", None),), "0.2.13", None, None)


@pytest.fixture
def h100() -> Callable[..., GpuReport]:
    """An H100 with an index; other fields by name."""

    def make(index: int = 0, **changes: Any) -> GpuReport:
        tick = Energy("nvml_counter", None, 0.1 + index * 1e-4, 0.0968, 0.103)
        gpu = GpuReport(
            index=index,
            energy=tick,
            name="NVIDIA H100 80GB HBM3",
            uuid=f"GPU-{index}",
            driver_version="580.159.04",
            compute_capability="9.0",
            memory_free_bytes=79 * 2**30,
            memory_total_bytes=80 * 2**30,
            power_limit_w=700.0,
            mig=False,
            other_processes=0,
        )
        return replace(gpu, **changes)

    return make


@pytest.fixture
def gpu_node(h100: Callable[..., GpuReport]) -> Callable[..., Node]:
    """A node with one H100 and everything there; fields of its machine by name."""

    def make(name: str = "gpu-1", *, ray_gpus: dict[str, int] | None = None, **changes: Any) -> Node:
        machine = Machine(
            hostname=name,
            flopray="0.1.0",
            python="3.12.4",
            ray="2.60.0",
            torch=Torch("2.13.0+cu130", "13.0", 1, None),
            gpus=(h100(),),
            gpus_reason=None,
            cpu_energy=Energy("rapl", None, 0.001, 0.0009, 0.0011),
            counters=COUNTERS,
        )
        machine = replace(machine, **changes)
        return Node(name, machine, None, {"H100": len(machine.gpus)} if ray_gpus is None else ray_gpus)

    return make


@pytest.fixture
def cpu_node(gpu_node: Callable[..., Node]) -> Callable[..., Node]:
    """A node without a GPU."""

    def make(name: str = "head", **changes: Any) -> Node:
        absent = {
            "gpus": (),
            "gpus_reason": "no NVML library: this machine has no NVIDIA driver",
            "counters": None,
            "cpu_energy": Energy(None, "no RAPL package zone below /sys/class/powercap"),
            "torch": Torch("2.13.0+cu130", "13.0", 0, None),
        }
        return gpu_node(name, ray_gpus={}, **(absent | changes))

    return make
