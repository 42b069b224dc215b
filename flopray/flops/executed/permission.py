"""Whether this process may read the hardware counters of a GPU, from files of the kernel and without ncu.

NVIDIA's driver lets only administrators profile unless it was loaded otherwise
(https://developer.nvidia.com/ERR_NVGPUCTRPERM). To the driver, an administrator is a process with CAP_SYS_ADMIN or
CAP_PERFMON (https://man7.org/linux/man-pages/man7/capabilities.7.html) in the machine's own user namespace. Root in a
container has them only if the container was given them, and in a rootless container not even then.

The answer is a forecast: a virtual machine or a sandbox may forbid what these files allow, which shows only when ncu
runs.
"""

from __future__ import annotations

import re
from pathlib import Path

#: Parameters that the NVIDIA driver was loaded with.
PARAMS = Path("/proc/driver/nvidia/params")
#: The process's capabilities, and how its users map to those of the machine.
STATUS = Path("/proc/self/status")
UID_MAP = Path("/proc/self/uid_map")

#: Bits of the sets of capabilities in `/proc/self/status` (include/uapi/linux/capability.h).
_CAP_SYS_ADMIN = 1 << 21
_CAP_PERFMON = 1 << 38
#: How many users there are; a map of all of them to themselves is that of the machine's own user namespace.
_ALL_USERS = 2**32 - 1

REMEDY = (
    "(1) run as root (a container: with --cap-add SYS_ADMIN), or (2) put the line "
    "`options nvidia NVreg_RestrictProfilingToAdminUsers=0` into /etc/modprobe.d/nvidia-profiling.conf and reload the "
    "driver or reboot; see https://developer.nvidia.com/ERR_NVGPUCTRPERM"
)


def admin_only(params_text: str) -> bool:
    """Whether the driver reserves the counters for administrators.

    Args:
        params_text: of `/proc/driver/nvidia/params`.

    Returns:
        What it says; True, the driver's default, where it does not say.
    """
    found = re.search(r"^RmProfilingAdminOnly:\s*(\d+)\s*$", params_text, re.MULTILINE)
    return found is None or int(found[1]) != 0


def may_profile(status_text: str) -> bool:
    """Whether a process has a capability that makes it an administrator to the driver.

    Args:
        status_text: of `/proc/self/status`.

    Returns:
        True with CAP_SYS_ADMIN or CAP_PERFMON in its effective set; False where the text has no such set.
    """
    found = re.search(r"^CapEff:\s*([0-9a-fA-F]+)\s*$", status_text, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) & (_CAP_SYS_ADMIN | _CAP_PERFMON))


def in_user_namespace(uid_map_text: str) -> bool:
    """Whether a process runs in a user namespace of its own, where capabilities say nothing about the machine.

    Args:
        uid_map_text: of `/proc/self/uid_map`.
    """
    return uid_map_text.split() not in ([], ["0", "0", str(_ALL_USERS)])


def counter_permission(
    params: Path = PARAMS, status: Path = STATUS, uid_map: Path = UID_MAP
) -> tuple[bool, str | None]:
    """Whether this process may read hardware counters, as far as the files tell.

    Args:
        params: parameters of the NVIDIA driver.
        status: of the process.
        uid_map: of the process.

    Returns:
        The answer, and where it is no, one line with the reason and what would mend it.
    """
    try:
        restricted = admin_only(params.read_text())
    except OSError as error:
        return False, f"{params} cannot be read ({error.strerror}): the NVIDIA driver is not loaded or hidden here"
    if not restricted:
        return True, None
    if not may_profile(_text(status)):
        return False, f"only administrators may read counters here: {REMEDY}"
    if in_user_namespace(_text(uid_map)):
        who = "only administrators may read counters here, and root of a rootless container is not one"
        return False, f"{who}: {REMEDY}"
    return True, None


def _text(path: Path) -> str:
    """Contents of a file; empty where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
