"""What answers at an address: a head node, its client server, or a stranger.

Ray itself would try for 20 to 30 s, or for ever, and say in raw lines that it could not connect.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from flopray.cluster import ray_internals
from flopray.errors import ClusterError

if TYPE_CHECKING:
    import grpc

#: A call that changes nothing, of the head node and of its client server; an empty message is one of its requests.
_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_CLIENT_CLUSTER_INFO = "/ray.rpc.RayletDriver/ClusterInfo"
_ANSWER_S = 5.0


def target(host: str, port: int) -> str:
    """Host and port as gRPC takes them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def speaks_grpc(host: str, port: int, timeout_s: float = _ANSWER_S) -> bool:
    """Ray's head node and its client server both speak gRPC; over TLS this is not looked at."""
    import grpc

    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True
    with grpc.insecure_channel(target(host, port)) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=timeout_s)
        except grpc.FutureTimeoutError:
            return False
    return True


def answer(host: str, port: int, *, client: bool) -> grpc.StatusCode | None:
    """What is answered to a call that changes nothing, with the token of this user where one is sent.

    Args:
        host: of the head node.
        port: of its GCS, or of its client server.
        client: whether the call is one of the client server.

    Returns:
        The status, `OK` included; None where this Ray lacks what asks for it.
    """
    with suppress(Exception):  # of any kind: this check is optional, and `ray.init` decides
        import grpc

        channel = ray_internals.grpc_channel(target(host, port))
        method = _CLIENT_CLUSTER_INFO if client else _CHECK_ALIVE
        try:
            call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
            call(b"", timeout=_ANSWER_S)
        except grpc.RpcError as error:
            return error.code()  # pyright: ignore[reportAttributeAccessIssue]  # a call's error is its call too
        finally:
            channel.close()
        return grpc.StatusCode.OK
    return None


def check_service(host: str, port: int, said: str, *, client: bool) -> None:
    """Refuse the port of the other service: that of the client server without `ray://`, that of the GCS with it.

    Args:
        host: of the head node.
        port: which the address names.
        said: where the address comes from, which begins each message.
        client: whether the address says `ray://`.

    Raises:
        ClusterError: it is another service of Ray, or none.
    """
    if not _lacks(host, port, client=client):
        return
    if _lacks(host, port, client=not client):
        if not ray_internals.knows_services():
            return  # another version of Ray is left to itself
        raise ClusterError(f"{said}: what answers at {host}:{port} is not a Ray head node: is the port right?")
    there = target(host, port)
    raise ClusterError(
        f"{said}: {there} is the head node itself, which takes no ray://: write {there}, or ray:// with the port of "
        "its client server (10001 unless `ray start` was given another)"
        if client
        else f"{said}: {there} is the client server of a head node: write ray://{there}, or the port of the head node "
        "itself (6379 unless `ray start` was given another)"
    )


def _lacks(host: str, port: int, *, client: bool) -> bool:
    code = answer(host, port, client=client)
    return code is not None and code.name == "UNIMPLEMENTED"
