"""The token of a Ray cluster: which one this user sends, and whether the cluster accepts it.

Where another version of Ray lacks what this uses, nothing is checked beforehand, and
`ray.init` says later what is wrong. https://docs.ray.io/en/latest/ray-security/token-auth.html
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from flopray.cluster import ray_internals
from flopray.errors import ClusterError

#: A call that changes nothing, of the head node and of its client server; an empty message is one of its requests.
_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_CLIENT_CLUSTER_INFO = "/ray.rpc.RayletDriver/ClusterInfo"
_ANSWER_S = 5.0
_HOW = "(`ray get-auth-token` prints it on the head node)"


def use_token() -> None:
    """Use the token of this user, as Ray does by itself for `auto` alone: a cluster that asks for none ignores it.

    A head node that was started here while there was a token asks for it.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    if _has_token():
        os.environ["RAY_AUTH_MODE"] = "token"
        ray_internals.read_environment_again()


def check_token(host: str, port: int, said: str, *, client: bool) -> None:
    """Ask a cluster whether it takes our token: Ray itself would try for 20 to 30 s, and warn in raw lines meanwhile.

    Args:
        host: of the head node.
        port: of its GCS, or of its client server.
        said: where the address comes from, which begins each message.
        client: it is the client server's.

    Raises:
        ClusterError: the cluster asks for a token and we have none or another one; or the environment asks for one.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" and not _has_token():
        where = f"neither in RAY_AUTH_TOKEN nor in {_token_file()}"
        raise ClusterError(f"{said}: RAY_AUTH_MODE=token needs a token, and there is none, {where} {_HOW}")
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if _refused(address, _CLIENT_CLUSTER_INFO if client else _CHECK_ALIVE):
        raise ClusterError(f"{said}: {_remedy()}")


def _refused(address: str, method: str) -> bool:
    """Whether a call of a method is refused for its token; False also where that cannot be found out."""
    with suppress(Exception):  # of any kind: this check is optional, and `ray.init` decides
        import grpc

        channel = ray_internals.grpc_channel(address)
        try:
            call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
            call(b"", timeout=_ANSWER_S)
        except grpc.RpcError as error:
            code = error.code()  # pyright: ignore[reportAttributeAccessIssue]  # a call's error is its call too
            return code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
        finally:
            channel.close()
    return False


def _token_file() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _has_token() -> bool:
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or _token_file().is_file()


def _remedy() -> str:
    """What was sent, and what to do about it, in the order in which Ray looks for tokens."""
    mode = os.environ.get("RAY_AUTH_MODE")
    if mode is None:
        return f"the cluster asks for a token, and there is none here: set RAY_AUTH_TOKEN to it {_HOW}"
    if mode.lower() != "token":
        return (
            f"the cluster asks for a token, and RAY_AUTH_MODE={mode} sends none: set RAY_AUTH_MODE=token, and "
            f"RAY_AUTH_TOKEN to the token {_HOW}"
        )
    if os.environ.get("RAY_AUTH_TOKEN"):
        return f"the cluster refuses the token in RAY_AUTH_TOKEN: set it to the cluster's own {_HOW}"
    return f"the cluster refuses the token in {_token_file()}: set RAY_AUTH_TOKEN to the cluster's own {_HOW}"
