"""The devices that a Ray started on this machine would have, found without importing Ray, so that a plan is quick.

Tests compare each answer with Ray's own.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

from flopray.cluster.devices import Cluster
from flopray.energy.nvml import list_gpus, why_nvml_fails
from flopray.errors import MeterError, NoEnergySource
from flopray.measurement.host import cores_here


def this_machine() -> Cluster:
    """The whole devices of this machine, as those of a cluster of one node."""
    count, device_type = gpus_here()
    slots = {device_type: count} if device_type else {}
    cores = max(1, int(cores_here()))
    return Cluster(
        slots,
        cores,
        dict.fromkeys([*slots, "CPU", ""], cores),
        dashboard_url=None,
        local=True,
        untyped=0 if device_type else count,
        gpus_reason=None if count else why_nvml_fails(),
    )


def gpus_here() -> tuple[int, str | None]:
    """How many NVIDIA GPUs this process may use, and their type; Ray calls all GPUs of a node by the type of the first.

    If a driver, a library or a GPU fails, the plan leaves it out; the sweep itself says what is wrong.
    """
    names = _names()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(names) if visible is None else min(len(names), _named(visible))
    return count, accelerator_type(names[0]) if count and names[0] else None


def _names() -> list[str | None]:
    """Full names of the GPUs that answer; None for one that has no name."""
    names: list[str | None] = []
    with suppress(NoEnergySource, MeterError):
        for gpu in list_gpus():
            with suppress(NoEnergySource, MeterError):
                names.append(gpu.info()["device_name"])
    return names


def _named(visible: str) -> int:
    """Devices that CUDA_VISIBLE_DEVICES names."""
    return 0 if visible in ("", "NoDevFiles") else visible.count(",") + 1


def accelerator_type(name: str) -> str | None:
    """The type that Ray derives from a GPU's name: `H100` from `NVIDIA H100 80GB HBM3`, `GeForce-RTX-5090`.

    After the maker's word come words in capitals, up to the first with a digit; what follows a hyphen there is left
    out. A name of another form is taken as it is.
    https://docs.ray.io/en/latest/ray-core/accelerator-types.html

    Args:
        name: as NVML gives it.
    """
    maker, _, model = name.partition(" ")
    words: list[str] = []
    for word in model.split() if re.fullmatch(r"\w+", maker) else ():
        if head := re.match(r"[A-Z]*\d[A-Z\d]*", word):
            kept = "-".join([*words, head[0]])
            if len(kept) > 1:
                return kept
            break
        if not re.fullmatch("[A-Z]+", word):
            break
        words.append(word)
    return re.sub(r"^NVIDIA\s+", "", name).strip().replace(" ", "-") or None
