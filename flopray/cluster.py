"""Reach a Ray cluster, or start one on this machine, and see which devices it has."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import flopray
from flopray.errors import ClusterError

NAMESPACE = "flopray"
#: A sweep keeps records, not tensors, in Ray; its default of 30 % of the memory would be taken from the workloads.
_OBJECT_STORE_BYTES = 256 * 2**20
_CONNECT_TIMEOUT_S = 5.0
_CLIENT_TRIES = 3
_NO_CLIENT_PROCESS = "Initialization failure from server"
#: What Ray says where a client cannot join, and what helps.
_JOIN_HINTS = {
    "timeout": "; if the cluster asks for a token, set RAY_AUTH_TOKEN to it (`ray get-auth-token` on its head node)",
    _NO_CLIENT_PROCESS: "; its client server started no process for us: try again, see its ray_client_server.err",
}


@dataclass(frozen=True)
class Cluster:
    """What a sweep can run on.

    Attributes:
        slots: whole GPUs by type, such as `{"H100": 8}`.
        cores: CPU cores of the smallest node, which is what a trial on the CPU holds.
        most_cores: by device type, `CPU` included, the most CPU cores that a node with it has.
        dashboard_url: where a browser finds the dashboard; None when there is none.
        local: whether this process started it.
    """

    slots: dict[str, int]
    cores: int
    most_cores: dict[str, int]
    dashboard_url: str | None
    local: bool


@contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """Join the cluster at an address, or start one here, and leave it again.

    Args:
        address: None starts a local cluster; `auto` joins the one this machine belongs to; `host:port` and
            `ray://host:port` join that one.

    Raises:
        ClusterError: there is no cluster at the address, or it cannot be started.
    """
    quiet_ray()
    if address is not None:
        _check_reachable(address)
        _use_token(address)
    import ray

    try:
        with _own_sigterm():
            context = _init(address)
    except Exception as error:
        raise ClusterError(_explain(address, error)) from error
    try:
        yield inspect_cluster(dashboard_url=context.dashboard_url or None, local=address is None)
    finally:
        ray.shutdown()


def _init(address: str | None) -> Any:
    """`ray.init`, repeated where a head node's client server fails to start a process for this client.

    Its fork races with its own gRPC threads; on two cores one connection in ten or so was lost to that.
    """
    import ray

    for _ in range(_CLIENT_TRIES - 1):
        try:
            return ray.init(**_init_arguments(address))
        except ConnectionAbortedError as error:
            if _NO_CLIENT_PROCESS not in str(error):
                raise
    return ray.init(**_init_arguments(address))


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's SIGTERM handler: `ray.init` puts its own there, which ends the process without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, own)


def quiet_ray() -> None:
    """Keep Ray's and Tune's chatter out of the terminal; must run before Tune is imported."""
    for name, value in {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # otherwise five files a trial
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the sweep handles Ctrl-C itself, so that the journal closes first
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_worker_niceness": "0",  # Ray's 15 lets anything else on the machine push a measured process aside
    }.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _init_arguments(address: str | None) -> dict[str, Any]:
    common: dict[str, Any] = {"namespace": NAMESPACE, "logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        # "local" never joins a cluster that happens to run here or has left its address behind.
        return common | {
            "address": "local",
            "dashboard_host": "127.0.0.1",
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    # Send this very version along: a cluster's nodes need torch and Ray, not flopray.
    package = str(Path(flopray.__file__).parent)
    return common | {"address": address, "runtime_env": {"py_modules": [package]}}


def _check_reachable(address: str) -> None:
    """Fail in seconds where Ray would try for minutes."""
    if address == "auto":
        return
    parsed = urlparse(address if "://" in address else f"//{address}")
    try:
        host, port = parsed.hostname, parsed.port
    except ValueError:
        host, port = None, None
    if parsed.scheme not in ("", "ray") or not host or port is None:
        raise ClusterError(f"--address {address}: write auto, host:port or ray://host:port")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(
            f"--address {address}: nothing answers at {host}:{port} ({error.strerror or error})"
        ) from error
    if os.environ.get("RAY_USE_TLS", "0") == "0" and not _speaks_grpc(host, port):
        raise ClusterError(
            f"--address {address}: what answers at {host}:{port} is no Ray head node: is the port right?"
        )


def _speaks_grpc(host: str, port: int) -> bool:
    """Ray's head node and its client server both speak gRPC; Ray itself would go on asking a stranger for minutes."""
    import grpc

    with grpc.insecure_channel(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_TIMEOUT_S)
        except grpc.FutureTimeoutError:
            return False
    return True


def _use_token(address: str) -> None:
    """Let a `ray://` connection use the token of this user, as Ray does by itself for every other kind of address.

    Where tokens are looked for: https://docs.ray.io/en/latest/ray-security/token-auth.html
    """
    if not address.startswith("ray://") or "RAY_AUTH_MODE" in os.environ:
        return
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or file.is_file():
        os.environ["RAY_AUTH_MODE"] = "token"


def _explain(address: str | None, error: Exception) -> str:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    if address == "auto":
        return (
            f"--address auto: this machine belongs to no running Ray cluster; `ray start --head` starts one ({first})"
        )
    if address is None:
        return f"cannot start Ray on this machine: {first}"
    hint = next((text for part, text in _JOIN_HINTS.items() if part in first), "")
    return f"--address {address}: cannot join the cluster: {first.rstrip(': ')}{hint}"


def this_machine() -> Cluster:
    """What a Ray started here would have, without starting one: for `--dry-run`."""
    quiet_ray()
    from ray._private.accelerators import NvidiaGPUAcceleratorManager as Nvidia
    from ray._private.utils import get_num_cpus

    visible = Nvidia.get_current_process_visible_accelerator_ids()
    count = Nvidia.get_current_node_num_accelerators()
    count = count if visible is None else min(count, len(visible))
    device_type = Nvidia.get_current_node_accelerator_type() if count else None
    slots = {device_type: count} if device_type else {}
    cores = max(1, int(get_num_cpus()))
    return Cluster(slots, cores, dict.fromkeys([*slots, "CPU"], cores), None, True)


def inspect_cluster(*, dashboard_url: str | None, local: bool) -> Cluster:
    """Count the whole devices of the connected cluster."""
    import ray

    slots: dict[str, int] = {}
    most_cores: dict[str, int] = {"CPU": 1}
    fewest: int | None = None
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        resources = node["Resources"]
        cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        types = [name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")]
        for device_type in types if gpus else []:
            slots[device_type] = slots.get(device_type, 0) + gpus
        for device_type in ["CPU", *(types if gpus else [])]:
            most_cores[device_type] = max(most_cores.get(device_type, 0), cores)
        fewest = min(fewest or cores, cores) if cores else fewest
    return Cluster(slots, fewest or 1, most_cores, dashboard_url, local)


def choose_devices(cluster: Cluster, wanted: list[str] | None) -> dict[str, int]:
    """The device types to sweep, with how many trials of each fit at once.

    Args:
        cluster: the connected cluster.
        wanted: types by name; None takes every type of GPU, or the CPU when there is no GPU.

    Raises:
        ClusterError: a type that no node has (a trial for it would wait for ever).
    """
    available = {**cluster.slots, "CPU": 1}
    if wanted is None:
        return dict(cluster.slots) or {"CPU": 1}
    for name in wanted:
        if name not in available:
            raise ClusterError(f"--accelerators {name}: no node has it; the cluster has {', '.join(available)}")
    return {name: available[name] for name in wanted}


def check_cores(cluster: Cluster, cpus_per_trial: Mapping[str, int]) -> None:
    """Refuse what Ray would wait for without a word: more cores beside a device than any node with it has.

    Args:
        cluster: the connected cluster.
        cpus_per_trial: cores that a trial holds, by device type.

    Raises:
        ClusterError: naming what there is.
    """
    for device_type, cores in cpus_per_trial.items():
        most = cluster.most_cores.get(device_type, 0)
        if cores > most:
            raise ClusterError(
                f"a trial on {device_type} holds {cores} CPU cores, and no node with it has more than {most}: "
                f"use another cluster, or start a new run with --cpus-per-trial {max(1, most)} or less"
            )
