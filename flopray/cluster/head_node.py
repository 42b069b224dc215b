"""What answers at an address: a head node, its client server, or a stranger.

Ray itself would try for 20 to 30 s, or for ever, and say in raw lines that it could not connect.
"""

from __future__ import annotations

import os
import socket
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
#: A head node that is busy may be late once.
_TRIES = 3
#: The preface of a client and an empty SETTINGS frame, which any server of HTTP/2 answers with settings of its own.
#: https://www.rfc-editor.org/rfc/rfc9113#section-3.4
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
#: Where a person finds out why a head node does not answer.
WHERE_TO_LOOK = (
    "on its machine /tmp/ray/session_latest/logs/gcs_server.out may say why, and `ray stop` and `ray start --head` "
    "start it anew"
)


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


def is_silent(host: str, port: int, timeout_s: float = _ANSWER_S) -> bool:
    """Whether what accepts the connection then says nothing to the greeting of HTTP/2, such as a process that hangs."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(_HTTP2_GREETING)
            connection.recv(1)
    except TimeoutError:
        return True
    except OSError:
        return False
    return False


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
        ClusterError: it is another service of Ray, or none, or it does not answer.
    """
    if all(_is_late(host, port, client=client) for _ in range(_TRIES)):
        raise ClusterError(
            f"{said}: the head node at {host}:{port} accepts calls and answered none of {_TRIES} within "
            f"{_ANSWER_S:g} s each: it hangs or is overloaded; {WHERE_TO_LOOK}"
        )
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


def _is_late(host: str, port: int, *, client: bool) -> bool:
    code = answer(host, port, client=client)
    return code is not None and code.name == "DEADLINE_EXCEEDED"


def _lacks(host: str, port: int, *, client: bool) -> bool:
    code = answer(host, port, client=client)
    return code is not None and code.name == "UNIMPLEMENTED"
