"""The token of a Ray cluster: whether this user's is sent, and whether the cluster accepts it.

Both sides have to agree. A process in the mode `token` not only sends its token, it refuses each call that comes
without one, and a head node that was started without sends none: it takes such a driver for dead.
Where another version of Ray lacks what this uses, nothing is checked beforehand, and
`ray.init` says later what is wrong. https://docs.ray.io/en/latest/ray-security/token-auth.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flopray.cluster import head_node, ray_internals
from flopray.errors import ClusterError

_MODE = "RAY_AUTH_MODE"
_REFUSALS = ("UNAUTHENTICATED", "PERMISSION_DENIED")
_HOW = "(`ray get-auth-token` prints it on the head node)"


@contextmanager
def own_mode() -> Iterator[None]:
    """Put RAY_AUTH_MODE back at the end: `ray.init` sets it for a cluster of its own, and the next may ask for none."""
    before = os.environ.get(_MODE)
    try:
        yield
    finally:
        _set_mode(before)


def agree_on_token(host: str, port: int, said: str, *, client: bool) -> None:
    """Send this user's token to a cluster that asks for one, and to no other.

    Ray sends it by itself for the address `auto` alone, and then to a cluster that asks for none, too.

    Args:
        host: of the head node.
        port: of its GCS, or of its client server.
        said: where the address comes from, which begins each message.
        client: it is the client server's.

    Raises:
        ClusterError: the cluster asks for a token, and we have another one or none; or the environment promises one;
            or the environment asks for tokens, and the cluster has none.
    """
    mode = os.environ.get(_MODE)
    if _is_token(mode) and not _has_token():
        where = f"neither in RAY_AUTH_TOKEN nor in {_token_file()}"
        raise ClusterError(f"{said}: RAY_AUTH_MODE=token needs a token, and there is none, {where} {_HOW}")
    asks = _asks_for_one(host, port, client=client)
    if not asks:
        if asks is False and _is_token(mode) and not client:  # behind ray:// the driver is the cluster's own process
            raise ClusterError(
                f"{said}: the cluster was started without tokens, and with RAY_AUTH_MODE=token this process would "
                "refuse its calls: unset RAY_AUTH_MODE"
            )
        return
    if mode is None and _has_token():
        _set_mode("token")
    if _refused(host, port, client=client):
        raise ClusterError(f"{said}: {_remedy()}")


def _asks_for_one(host: str, port: int, *, client: bool) -> bool | None:
    """Whether a call without a token is refused; None where that cannot be found out."""
    with own_mode():
        _set_mode("disabled")
        return _refused(host, port, client=client)


def _refused(host: str, port: int, *, client: bool) -> bool | None:
    """Whether a call is refused for its token; None where that cannot be found out."""
    code = head_node.answer(host, port, client=client)
    if code is None or code.name not in ("OK", *_REFUSALS):
        return None
    return code.name != "OK"


def _set_mode(mode: str | None) -> None:
    if os.environ.get(_MODE) == mode:
        return
    if mode is None:
        del os.environ[_MODE]
    else:
        os.environ[_MODE] = mode
    ray_internals.read_environment_again()


def _is_token(mode: str | None) -> bool:
    return (mode or "").lower() == "token"


def _token_file() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _has_token() -> bool:
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or _token_file().is_file()


def _remedy() -> str:
    """What was sent, and what to do about it; in the order in which Ray looks for tokens."""
    mode = os.environ.get(_MODE)
    if mode is None:
        return f"the cluster asks for a token, and there is none here: set RAY_AUTH_TOKEN to it {_HOW}"
    if not _is_token(mode):
        return (
            f"the cluster asks for a token, and RAY_AUTH_MODE={mode} sends none: set RAY_AUTH_MODE=token, and "
            f"RAY_AUTH_TOKEN to the token {_HOW}"
        )
    if os.environ.get("RAY_AUTH_TOKEN"):
        return f"the cluster refuses the token in RAY_AUTH_TOKEN: set it to the cluster's own {_HOW}"
    return f"the cluster refuses the token in {_token_file()}: set RAY_AUTH_TOKEN to the cluster's own {_HOW}"
