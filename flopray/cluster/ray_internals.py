"""Every undocumented name of Ray and Tune that flopray uses.

It is part of `cluster` because `sweep`, the room above, needs some of them too. `PRIVATE_NAMES` lists each name with
the version of Ray in which it was seen. `changes` says what another version has changed, and a test fails there.
Where one is missing, what needs it is left out or reported in one line; there is never a traceback.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from flopray.errors import ClusterError


@dataclass(frozen=True)
class PrivateName:
    """A name that Ray may change without notice.

    Attributes:
        module: where it is.
        name: attributes, with dots.
        parameters: those of the function that are relied upon, in order; None for what is not a Python function.
        used_for: what does not work without it.
        seen_in: version of Ray.
    """

    module: str
    name: str
    parameters: tuple[str, ...] | None
    used_for: str
    seen_in: str = "2.60.0"

    def found(self) -> Any:
        """The object itself.

        Raises:
            ImportError, AttributeError: this Ray does not have it.
        """
        found = importlib.import_module(self.module)
        for part in self.name.split("."):
            found = getattr(found, part)
        return found


_PRINT = PrivateName(
    "ray._private.worker",
    "print_to_stdstream",
    ("data", "ignore_prefix"),
    "keeping what raylets say out of standard output",
)
_FIND_ADDRESS = PrivateName(
    "ray._private.services", "get_ray_address_from_environment", ("addr", "temp_dir"), "address='auto'"
)
_SERVICES_LOGGER = PrivateName("ray._private.services", "logger", None, "one message where several clusters run here")
_CONFIG = PrivateName("ray._raylet", "Config.initialize", None, "sending a token though Ray was imported before")
_UV_RUN = PrivateName(
    "ray._private.ray_constants", "RAY_ENABLE_UV_RUN_RUNTIME_ENV", None, "workers as they are under `uv run`"
)
_CLUSTERS = PrivateName(
    "ray._private.ray_constants",
    "ENABLE_RAY_CLUSTER",
    None,
    "joining a Ray that listens on the loopback interface alone",
)
_NVIDIA = "ray._private.accelerators"
_VISIBLE_GPUS = PrivateName(
    _NVIDIA, "NvidiaGPUAcceleratorManager.get_current_process_visible_accelerator_ids", (), "what `doctor` says of GPUs"
)
_COUNT_GPUS = PrivateName(
    _NVIDIA, "NvidiaGPUAcceleratorManager.get_current_node_num_accelerators", (), "what `doctor` says of GPUs"
)
_GPU_TYPE = PrivateName(
    _NVIDIA, "NvidiaGPUAcceleratorManager.get_current_node_accelerator_type", (), "what `doctor` says of GPUs"
)
_TASK_FAILED = PrivateName(
    "ray.air.execution._internal.actor_manager",
    "RayActorManager._actor_task_failed",
    ("self", "tracked_actor_task", "exception"),
    "going on after Ray's memory monitor has ended a trial's process",
)
_ERROR_FILE = PrivateName("ray.tune.experiment", "Trial.error_file", None, "the reason why a trial's process died")
_STATISTICS = PrivateName(
    "ray.tune.trainable.metadata",
    "_TrainingRunMetadata.__init__",
    ("self", "n_steps"),
    "results of slabs without moving averages over their points",
)
_CLIENT = PrivateName("ray.util.client", "ray.is_connected", None, "keeping Tune's files on the cluster behind ray://")

_FREE = PrivateName(
    "ray._private.state", "available_resources_per_node", (), "saying on which node a trial has to wait for a device"
)
_CHANNEL = PrivateName(
    "ray._private.grpc_utils", "init_grpc_channel", None, "refusing a wrong token before Ray tries for half a minute"
)
_GCS_SERVICE = PrivateName(
    "ray.core.generated.gcs_service_pb2_grpc",
    "NodeInfoGcsServiceServicer.CheckAlive",
    None,
    "telling a head node from another server",
)
_CLIENT_SERVICE = PrivateName(
    "ray.core.generated.ray_client_pb2_grpc",
    "RayletDriverServicer.ClusterInfo",
    None,
    "telling a client server from another server",
)
#: Where Ray's names of accelerators are, below its own folder; seen in 2.60.0.
_ACCELERATORS = Path("util", "accelerators", "accelerators.py")

PRIVATE_NAMES = (
    _PRINT,
    _FIND_ADDRESS,
    _SERVICES_LOGGER,
    _CONFIG,
    _UV_RUN,
    _CLUSTERS,
    _VISIBLE_GPUS,
    _COUNT_GPUS,
    _GPU_TYPE,
    _TASK_FAILED,
    _ERROR_FILE,
    _STATISTICS,
    _CLIENT,
    _FREE,
    _CHANNEL,
    _GCS_SERVICE,
    _CLIENT_SERVICE,
)


def changes() -> list[str]:
    """What this Ray has changed of `PRIVATE_NAMES`, a line each."""
    import ray

    lines = []
    for one in PRIVATE_NAMES:
        where = f"Ray {ray.__version__}: {one.module}.{one.name} (seen in {one.seen_in}, for {one.used_for})"
        try:
            found = one.found()
        except (ImportError, AttributeError):
            lines.append(f"{where} is gone")
            continue
        if one.parameters is not None and (now := tuple(inspect.signature(found).parameters)) != one.parameters:
            lines.append(f"{where} takes ({', '.join(now)}) where it took ({', '.join(one.parameters)})")
    if not {"A100", "H100", "H200"} <= nvidia_types():
        lines.append(f"Ray {ray.__version__}: {_ACCELERATORS} does not name A100, H100 and H200 (for plans)")
    return lines


def log_raylet_messages() -> None:
    """Have the messages of raylets, such as that a worker died, logged: Ray prints them to standard output, where the
    events of `--json` are.
    """
    try:
        _PRINT.found()
    except (ImportError, AttributeError):
        return

    def log(data: Mapping[str, Any], **_: object) -> None:
        logging.getLogger("ray").warning("%s", " ".join(data["lines"]))

    worker: Any = importlib.import_module(_PRINT.module)
    worker.print_to_stdstream = log


def address_found_by_ray() -> str:
    """The address that Ray takes for `auto`: RAY_ADDRESS, a Ray that runs here, or the file of the last one.

    Raises:
        ClusterError: this Ray looks for it in another way.
        ConnectionError: there is none.
    """
    import ray

    try:
        # Importing Ray sets its own level: it would warn of several clusters in its own form, and take the latest.
        _SERVICES_LOGGER.found().setLevel(logging.ERROR)
        find = _FIND_ADDRESS.found()
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            f"<address> auto does not work with Ray {ray.__version__}: write host:port or ray://host:port"
        ) from error
    return find("auto", None)


def read_environment_again() -> None:
    """Make a Ray that is imported already, as in a notebook, read RAY_AUTH_MODE from the environment again."""
    if _CONFIG.module in sys.modules:
        with contextlib.suppress(AttributeError):
            _CONFIG.found()("")


def leave_workers_alone_under_uv_run() -> None:
    """Make a Ray that is imported already start plain workers, as RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 does."""
    if constants := sys.modules.get(_UV_RUN.module):
        constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False  # pyright: ignore[reportAttributeAccessIssue]


@contextlib.contextmanager
def own_address_is_loopback() -> Iterator[None]:
    """In the block this process's own address is 127.0.0.1 to Ray, as RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 makes it."""
    constants: Any = importlib.import_module(_CLUSTERS.module)
    before = getattr(constants, _CLUSTERS.name, None)
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def grpc_channel(address: str) -> Any:
    """A channel to a head node that sends the token of this user, over TLS where Ray uses it.

    Raises:
        ImportError, AttributeError: this Ray does not have it.
    """
    return _CHANNEL.found()(address)


def knows_services() -> bool:
    """Whether this Ray has the calls by which a head node and its client server are told from other servers."""
    try:
        return bool(_GCS_SERVICE.found() and _CLIENT_SERVICE.found())
    except (ImportError, AttributeError):
        return False


def gpus_found_by_ray() -> dict[str, int]:
    """GPUs by type that a Ray started here would have; empty where it finds none, or knows no type of them."""
    try:
        visible = _VISIBLE_GPUS.found()()
        count = _COUNT_GPUS.found()()
        count = count if visible is None else min(count, len(visible))
        device_type = _GPU_TYPE.found()() if count else None
    except Exception:  # NVML's errors are raised as Ray's own copy of them
        return {}
    return {device_type: count} if device_type else {}


@cache
def nvidia_types() -> frozenset[str]:
    """Names that Ray gives to NVIDIA's GPUs, read from its source without importing it, so that a plan is quick.

    The documented package `ray.util.accelerators` lacks some of them (H200 in 2.60.0).
    """
    spec = importlib.util.find_spec("ray")
    try:
        source = (Path(spec.origin).parent / _ACCELERATORS).read_text() if spec and spec.origin else ""
    except OSError:
        return frozenset()
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found |= {node.value.value for name in node.targets if ast.unparse(name).startswith("NVIDIA_")}
    return frozenset(found)


def behind_client() -> bool:
    """Whether this process is connected through `ray://`, and Tune runs on another machine."""
    try:
        return bool(_CLIENT.found()())
    except (ImportError, AttributeError):
        return False


def free_by_node() -> list[tuple[Mapping[str, float], Mapping[str, float]]]:
    """Resources of each node, and what is free; all nodes as one behind `ray://`, which does not tell them apart."""
    import ray

    try:
        free = {} if behind_client() else _FREE.found()()
    except (ImportError, AttributeError):
        free = {}
    if not free:
        return [(ray.cluster_resources(), ray.available_resources())]
    return [(node["Resources"], free.get(node["NodeID"], {})) for node in ray.nodes() if node["Alive"]]


#: How Tune begins each failure in the text that it keeps of a trial (`Trial.handle_error`).
FAILURE_MARK = "Failure # "


def last_failure(trial: Any) -> str:
    """What Tune noted about a trial's last failure, without earlier ones, which may have had other causes."""
    try:
        return Path(trial.error_file).read_text(errors="replace").rpartition(FAILURE_MARK)[2]
    except (AttributeError, OSError, TypeError):
        return ""


def keep_no_moving_averages(trial: Any) -> None:
    """Keep no averages over the last 5 and 10 results of a trial of Tune, before its first result.

    Tune keeps those of every number: with 340 numbers they are most of a trial's 700 kB in memory, and of what it
    writes of the trial's state.
    """
    metadata: Any = getattr(trial, "run_metadata", None)
    if hasattr(metadata, "_n_steps"):
        metadata._n_steps = ()


def take_memory_kills_as_process_failures() -> None:
    """Let Tune retry a trial whose process Ray's memory monitor has ended.

    Ray raises `OutOfMemoryError`, which is not a `RayActorError`; Tune knows only these and ends the whole experiment
    on any other error: `RayActorManager._actor_task_failed` raises "unexpected exception".
    """
    from ray.exceptions import OutOfMemoryError, RayActorError

    try:
        original: Callable[..., None] = _TASK_FAILED.found()
    except (ImportError, AttributeError):
        return
    if hasattr(original, "knows_memory_kills"):
        return

    def task_failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        original(self, tracked_actor_task=tracked_actor_task, exception=exception)

    task_failed.knows_memory_kills = True  # type: ignore[attr-defined]
    manager: Any = importlib.import_module(_TASK_FAILED.module).RayActorManager
    manager._actor_task_failed = task_failed
