"""Join a Ray cluster, or start one on this machine, and leave it again."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlparse

import flopray
from flopray.cluster import head_node, ray_internals
from flopray.cluster.authentication import agree_on_token, own_mode
from flopray.cluster.devices import Cluster, inspect_cluster
from flopray.cluster.quiet import HOOK, quiet_ray
from flopray.errors import ENDING_SIGNALS, ClusterError, brief
from flopray.mappings import Arguments

NAMESPACE = "flopray"
#: A sweep keeps records, not tensors, in Ray; its default of 30 % of the memory would be taken from the workloads.
_OBJECT_STORE_BYTES = 256 * 2**20
_CONNECT_TIMEOUT_S = 5.0
_CLIENT_TRIES = 3
#: Joining takes 2 to 20 s; a cluster that first has to install what its jobs need takes longer.
_JOIN_S = 120.0
#: In it a submitted job has the files and environment of its cluster; `ray.init` takes them for every cluster.
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_NO_CLIENT_PROCESS = "Initialization failure from server"
_NO_ENVIRONMENT = "Failed to set up runtime environment"
#: Messages of Ray where a client cannot join, and what helps.
_JOIN_HINTS = {
    "Failed to connect to Ray cluster": "; if the cluster asks for a token, set RAY_AUTH_MODE=token, and on another "
    "machine RAY_AUTH_TOKEN to it (`ray get-auth-token` on its head node)",
    "timeout": "; if the cluster asks for a token, set RAY_AUTH_TOKEN to it (`ray get-auth-token` on its head node)",
    "did not let this process in": f": its head node hangs or is overloaded; {head_node.WHERE_TO_LOOK}",
    # Of a head node that has ended, the client server may outlive it.
    _NO_ENVIRONMENT: " (a client server answers; if no node behind it does, the head node is gone)",
    _NO_CLIENT_PROCESS: "; its client server started no process for us: try again, see its ray_client_server.err",
}


@contextmanager
def connected(
    address: str | None,
    job: Mapping[str, str] | None = None,
    *,
    own_tuner: bool = False,
    meanwhile: AbstractContextManager[object] | None = None,
) -> Iterator[Cluster]:
    """Join the cluster at an address, or start one here, and leave it again.

    Args:
        address: None starts a local cluster; `auto` joins the one this machine belongs to; `host:port` and
            `ray://host:port` join that one.
        job: metadata of the Ray job, shown by `ray list jobs` and the dashboard.
        own_tuner: as `quiet_ray`.
        meanwhile: entered while Ray starts or is joined, which is mostly waiting for other processes.

    Raises:
        ClusterError: there is no cluster at the address, or it cannot be started.
    """
    _check_free(address)
    quiet_ray(own_tuner=own_tuner)
    _check_hook()
    with own_mode(), ExitStack() as stack:
        if address is None:
            _stay_on_this_machine()
        else:
            asked, address = address, resolved(address)
            _check_reachable(address, _said(asked, address))
            stack.enter_context(_as_reached(address))
        yield from _joined(address, job or {}, meanwhile or nullcontext())


def _check_free(address: str | None) -> None:
    """Refuse what Ray would say in the words of its own interface, or not at all.

    Raises:
        ClusterError: this process has joined a cluster, or is a job of one and would start another inside it.
    """
    if (ray := sys.modules.get("ray")) and ray.is_initialized():  # not imported yet: `quiet_ray` comes first
        raise ClusterError(
            'this process has joined a Ray cluster already: call ray.shutdown() first; <address> "auto" joins it again'
        )
    if address is None and _JOB in os.environ:
        raise ClusterError(
            "this is a job that was submitted to a Ray cluster, in which none of its own can be started: "
            "<address> auto measures on the cluster"
        )


def _check_hook() -> None:
    """Refuse a hook for runtime environments that cannot be loaded; Ray would name the module, and not the variable.

    Raises:
        ClusterError: naming the variable.
    """
    hook = os.environ.get(HOOK)
    if not hook:
        return
    module, _, name = hook.rpartition(".")
    try:
        getattr(importlib.import_module(module), name)
    except Exception as error:  # of any kind: it is other people's code
        raise ClusterError(f"{HOOK}={hook} cannot be loaded ({brief(error)}): unset it, or mend it") from error


def _joined(
    address: str | None, job: Mapping[str, str], meanwhile: AbstractContextManager[object]
) -> Iterator[Cluster]:
    try:
        with meanwhile, _own_sigterm(), _at_most(_JOIN_S if address else None):
            context = _init(address, job)
    except Exception as error:
        raise ClusterError(_explain(address, error)) from error
    except KeyboardInterrupt:
        _leave_cluster()
        raise
    ray_internals.log_raylet_messages()
    try:
        yield inspect_cluster(dashboard_url=context.dashboard_url or None, local=address is None)
    finally:
        _leave_cluster()


def _leave_cluster() -> None:
    """`ray.shutdown`, during which a second Ctrl-C or another signal would end the process with Ray's exit code."""
    ray = sys.modules.get("ray")
    if ray is None:  # an interrupt came while it was imported, which cannot be done again
        return
    if threading.current_thread() is not threading.main_thread():
        ray.shutdown()
        return
    own = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING_SIGNALS}
    try:
        ray.shutdown()
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)


def _stay_on_this_machine() -> None:
    """Make Ray's servers listen on the loopback interface, unless the environment says otherwise.

    Ray takes a node's address for a public one on Linux and then binds most of its servers to every interface; on macOS
    and Windows the address is 127.0.0.1 unless this variable is set, and so the variable sets it here too. Ray reads it
    when it is first imported. `ray.init(_node_ip_address="127.0.0.1")` does not work: Ray replaces that address.
    https://github.com/ray-project/ray/issues/18730, `get_node_ip_address` in ray/_private/services.py
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def _init(address: str | None, job: Mapping[str, str]) -> Any:
    """`ray.init`, repeated where a head node's client server fails to start a process for this client.

    Probably its fork races with its own gRPC threads; on two cores two connections of some fifty were lost to that.
    """
    import ray

    for _ in range(_CLIENT_TRIES - 1):
        try:
            return ray.init(**_init_arguments(address, job))
        except ConnectionAbortedError as error:
            if _NO_CLIENT_PROCESS not in str(error):
                raise
    return ray.init(**_init_arguments(address, job))


@contextmanager
def _at_most(seconds: float | None) -> Iterator[None]:
    """End a block of this process's main thread that takes longer; another thread cannot be interrupted.

    Ray's client would wait for ever for a head node that hangs behind its client server. A signal wakes what waits in
    Python; the handler that was there before gets every other alarm.

    Args:
        seconds: None for any time.

    Raises:
        TimeoutError: it took longer.
    """
    main = threading.current_thread()
    if seconds is None or main is not threading.main_thread():
        yield
        return
    expired, said = threading.Event(), f"it did not let this process in within {seconds:g} s"

    def ring() -> None:
        expired.set()
        signal.pthread_kill(main.ident or 0, signal.SIGALRM)

    def alarmed(number: int, frame: FrameType | None) -> None:
        if expired.is_set():
            raise TimeoutError(said)
        if callable(before):
            before(number, frame)

    before = signal.signal(signal.SIGALRM, alarmed)
    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if expired.is_set():  # Ray makes errors of its own of what is raised in it
            raise TimeoutError(said) from error
        raise
    finally:
        timer.cancel()
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's SIGTERM handler: `ray.init` installs its own, which ends the process silently.

    Raises:
        KeyboardInterrupt: a SIGTERM came while Ray's handler was there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as ended:
        raise KeyboardInterrupt from ended
    finally:
        signal.signal(signal.SIGTERM, own)


def _init_arguments(address: str | None, job: Mapping[str, str]) -> Arguments:
    from ray.job_config import JobConfig

    common: Arguments = {"namespace": NAMESPACE, "logging_level": logging.ERROR, "log_to_driver": False}
    if not (address or "").startswith("ray://"):  # Ray's client cannot pass metadata on
        common["job_config"] = JobConfig(metadata=dict(job))
    if address is None:
        # "local" never joins a cluster that happens to run here or left its address.
        return common | {
            "address": "local",
            "dashboard_host": "127.0.0.1",
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    # Send this version along: a cluster's nodes need torch and Ray, not flopray.
    package = str(Path(flopray.__file__).parent)
    return common | {"address": address, "runtime_env": {"py_modules": [package]}}


def resolved(address: str) -> str:
    """`auto` as the address that Ray would take for it: RAY_ADDRESS, a Ray that runs here, or the file of the last one.

    Raises:
        ClusterError: there is none.
    """
    if address != "auto":
        return address
    try:
        found = ray_internals.address_found_by_ray()
    except ClusterError:
        raise
    except Exception as error:
        raise ClusterError(_explain("auto", error)) from error
    if found in ("auto", "local"):
        raise ClusterError(f"RAY_ADDRESS={found} names no cluster: unset it, or set it to host:port or ray://host:port")
    return found


def _said(asked: str, address: str) -> str:
    """Where an address comes from, for messages."""
    if asked != "auto":
        return f"<address> {asked}"
    if os.environ.get("RAY_ADDRESS"):
        return f"RAY_ADDRESS={address} (from the environment)"
    return f"<address> auto: Ray's last cluster here was at {address or 'no address'}"


def _check_reachable(address: str, said: str) -> None:
    """Fail within seconds where Ray would retry for minutes.

    Args:
        address: `host:port` or `ray://host:port`.
        said: where it comes from, which begins each message.
    """
    remedy = "; `ray start --head` starts a new one" if "last cluster" in said else ""
    found = _host_and_port(address)
    if found is None:
        raise ClusterError(
            f"{said}{f', which is none{remedy}' if remedy else ': write auto, host:port or ray://host:port'}"
        )
    scheme, host, port = found
    at = head_node.target(host, port)
    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S).close()
    except UnicodeError as error:
        raise ClusterError(f"{said}: {host:.80} cannot be the name of a machine") from error
    except OSError as error:
        raise ClusterError(f"{said}: nothing answers at {at} ({error.strerror or error}){remedy}") from error
    if not head_node.speaks_grpc(host, port, _CONNECT_TIMEOUT_S):
        if head_node.is_silent(host, port, _CONNECT_TIMEOUT_S):
            raise ClusterError(
                f"{said}: {at} accepts connections and says nothing within {_CONNECT_TIMEOUT_S:g} s: a head "
                f"node that hangs ({head_node.WHERE_TO_LOOK}), or no head node: is the port right?{remedy}"
            )
        raise ClusterError(f"{said}: what answers at {at} is not a Ray head node: is the port right?{remedy}")
    client = scheme == "ray"
    agree_on_token(host, port, said, client=client)
    head_node.check_service(host, port, said, client=client)


@contextmanager
def _as_reached(address: str) -> Iterator[None]:
    """For the block, have Ray reach a loopback address as it is, if nothing listens at this machine's other address.

    Ray takes the other one for it, and then waits for minutes for a Ray that listens on the loopback interface alone,
    as that of a local sweep does.
    """
    scheme, host, port = _host_and_port(address) or ("", "", 0)
    with ExitStack() as stack:
        if scheme != "ray" and host in ("localhost", "127.0.0.1", "::1"):
            from ray.util import get_node_ip_address

            try:
                socket.create_connection((get_node_ip_address(), port), timeout=_CONNECT_TIMEOUT_S).close()
            except OSError:
                stack.enter_context(ray_internals.own_address_is_loopback())
        yield


def _host_and_port(address: str) -> tuple[str, str, int] | None:
    """Scheme (`ray`, or none), host and port of an address; None of another form."""
    try:
        parsed = urlparse(address if "://" in address else f"//{address}")
        host, port = parsed.hostname, parsed.port
    except ValueError:
        return None
    more = parsed.path.rstrip("/") or parsed.query or parsed.fragment or parsed.username is not None
    if parsed.scheme not in ("", "ray") or not host or not port or more:
        return None
    return parsed.scheme, host, port


def _explain(address: str | None, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # What failed in a runtime environment stands below.
    first = " ".join(lines[:2])[:500] if lines[0].startswith(_NO_ENVIRONMENT) else lines[0]
    if address == "auto":
        return (
            f"<address> auto: this machine belongs to no running Ray cluster; `ray start --head` starts one ({first})"
        )
    if address is None:
        return f"cannot start Ray on this machine: {first}"
    hint = next((text for part, text in _JOIN_HINTS.items() if part in first), "")
    return f"<address> {address}: cannot join the cluster: {first.rstrip(': ')}{hint}"
