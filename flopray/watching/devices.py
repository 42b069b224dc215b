"""Which GPUs a process uses, by the UUIDs that NVML knows them by, whatever `CUDA_VISIBLE_DEVICES` calls them."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from flopray.errors import InputError


def used_gpus() -> list[str]:
    """UUIDs of the GPUs on which torch holds memory in this process.

    A process may see more GPUs than it uses: each rank of a job sees all of its node. Asking initialises nothing.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return []
    indices = [index for index in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(index)]
    return [gpu_uuid(index) for index in indices]


def gpu_uuid(index: int) -> str:
    """UUID of a GPU of torch in this process, with NVML's prefix.

    Torch's index counts what `CUDA_VISIBLE_DEVICES` leaves, in its order, and NVML's counts all GPUs in that of the PCI
    bus; only the UUID is the same in both.
    """
    torch = sys.modules["torch"]
    uuid = str(torch.cuda.get_device_properties(index).uuid)
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def named_gpus(devices: Sequence[Any] | str | int) -> list[str]:
    """UUIDs of devices that were named: `cuda:1`, an index of torch, a torch device, or a UUID of NVML.

    Raises:
        InputError: one that is not a device, or is not here.
    """
    several = [devices] if isinstance(devices, str | int) or hasattr(devices, "type") else list(devices)
    return [_uuid_of(device) for device in several]


def _uuid_of(device: Any) -> str:
    text = str(device)
    if re.match(r"(GPU|MIG)-", text):
        return text
    match = re.fullmatch(r"(?:cuda:)?(\d+)|cuda", text)
    if not match:
        raise InputError(f"devices: {text!r} is not a GPU: give cuda:0, an index, or a UUID such as GPU-1234...")
    import torch

    count = torch.cuda.device_count()
    index = int(match[1]) if match[1] else (torch.cuda.current_device() if count else 0)
    if index >= count:
        raise InputError(f"devices: this process sees {count} CUDA devices, no {text}")
    return gpu_uuid(index)
