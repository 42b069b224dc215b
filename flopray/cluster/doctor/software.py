"""The software that measuring needs: torch, and what hardware counters need."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flopray.errors import FloprayError, Unsupported
from flopray.flops.executed.metrics import chip_of
from flopray.flops.executed.ncu import check_chip, find_ncu, ncu_version
from flopray.flops.executed.permission import counter_permission

#: Time limit for a process that hangs: importing torch from a busy network disk takes a minute.
_TORCH_S = 120.0


@dataclass(frozen=True)
class Torch:
    """torch, as a separate process finds it.

    Attributes:
        version: None where it cannot be imported.
        cuda: version of CUDA that it was built with; None for a build without.
        gpus: how many it can use; None where it could not be asked.
        reason: why it is missing or sees none, as far as known.
    """

    version: str | None
    cuda: str | None
    gpus: int | None
    reason: str | None


@dataclass(frozen=True)
class Chip:
    """A kind of GPU, and whether ncu can count on it.

    Attributes:
        compute_capability: such as `9.0`; None where the GPU does not say.
        name: ncu's name of the chip, such as `gh100`; None where it is not known.
        reason: why ncu cannot count on it; None where it can.
    """

    compute_capability: str | None
    name: str | None
    reason: str | None


@dataclass(frozen=True)
class Counters:
    """What executed FLOPs need, part by part; a reason is None where the part is there.

    Attributes:
        ncu: path of Nsight Compute's command line.
        ncu_version: its version.
        ncu_reason: why it cannot be used.
        chips: the kinds of GPU of this machine; empty without ncu or GPU.
        nvtx: version of the Python package.
        nvtx_reason: why it is missing.
        permission_reason: why this process may not read counters.
    """

    ncu: str | None
    ncu_version: str | None
    ncu_reason: str | None
    chips: tuple[Chip, ...]
    nvtx: str | None
    nvtx_reason: str | None
    permission_reason: str | None


def version_of(distribution: str) -> str | None:
    """Version of an installed distribution, without importing it; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def look_at_torch(*, whole_machine: bool) -> Torch:
    """Ask torch in a process of its own: a broken driver may hang it, and Ray hides GPUs from its tasks.

    Args:
        whole_machine: count the GPUs that CUDA_VISIBLE_DEVICES hides too.
    """
    environment = dict(os.environ)
    if whole_machine:
        environment.pop("CUDA_VISIBLE_DEVICES", None)
    # -P keeps this folder from torch's imports. As a file, since on a node flopray may not be installed.
    command = [sys.executable, "-P", str(Path(__file__).with_name("torch_probe.py"))]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TORCH_S)
        # Last line: libraries may print something of their own first.
        return Torch(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Torch(
            None, None, None, f"`import torch` did not end within {_TORCH_S:.0f} s: is the GPU's driver stuck?"
        )
    except (OSError, IndexError, ValueError):
        return Torch(None, None, None, "a process that imports torch ends without an answer: try `import torch`")


def look_at_counters(compute_capabilities: Iterable[str | None]) -> Counters:
    """Whether ncu, nvtx and permission are there.

    Args:
        compute_capabilities: of this machine's GPUs.
    """
    path = version = reason = None
    chips: tuple[Chip, ...] = ()
    try:
        path = find_ncu()
        version = ncu_version(path)
        chips = tuple(_chip(path, capability) for capability in dict.fromkeys(compute_capabilities))
    except FloprayError as error:
        reason = str(error)
    nvtx = version_of("nvtx") if importlib.util.find_spec("nvtx") else None
    return Counters(
        ncu=str(path) if path else None,
        ncu_version=version,
        ncu_reason=reason,
        chips=chips,
        nvtx=nvtx,
        nvtx_reason=None if nvtx else "the Python package nvtx marks the phases for ncu: pip install nvtx",
        permission_reason=counter_permission()[1],
    )


def _chip(path: Path, capability: str | None) -> Chip:
    name = chip_of(capability) if capability else None
    if name is None:
        return Chip(capability, None, f"flopray knows no counters for compute capability {capability or 'unknown'}")
    try:
        check_chip(path, name)
    except Unsupported as error:
        return Chip(capability, name, str(error))
    return Chip(capability, name, None)
