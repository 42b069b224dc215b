"""A cluster that asks for a token: which one is sent, and what is said of it before Ray tries."""

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from flopray.cluster import authentication
from flopray.errors import ClusterError

TOKEN = "ab" * 32
_raylet: Any = importlib.import_module("ray._raylet")


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def set_to(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        _raylet.Config.initialize("")
        _raylet.AuthenticationTokenLoader.instance().reset_cache()

    set_to()
    yield set_to
    monkeypatch.undo()
    set_to()


@pytest.fixture
def head():
    """A server that takes one token, or any call where that is None; returns its port."""
    servers = []

    def start(token, methods=("CheckAlive", "ClusterInfo"), code=grpc.StatusCode.UNAUTHENTICATED):
        def answer(request, context):
            if token and dict(context.invocation_metadata()).get("authorization") != f"Bearer {token}":
                context.abort(code, "missing or incorrect")
            return b""

        handler = {name: grpc.unary_unary_rpc_method_handler(answer) for name in methods}
        server = grpc.server(ThreadPoolExecutor(1))
        services = ("ray.rpc.NodeInfoGcsService", "ray.rpc.RayletDriver")
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handler) for name in services])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return port

    yield start
    for server in servers:
        server.stop(None)


def check(port, client=False):
    authentication.check_token("127.0.0.1", port, "--address x", client=client)


@pytest.mark.parametrize("client", [False, True])
def test_the_token_that_a_cluster_asks_for_is_taken_and_any_other_is_named(environment, head, client):
    port = head(TOKEN)
    with pytest.raises(ClusterError, match="--address x: the cluster asks for a token, and there is none here"):
        check(port, client)
    environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    check(port, client)
    environment(RAY_AUTH_TOKEN="cd" * 32)
    with pytest.raises(ClusterError, match="refuses the token in RAY_AUTH_TOKEN"):
        check(port, client)


def test_the_file_that_holds_a_wrong_token_is_named(environment, head, tmp_path):
    (tmp_path / "token").write_text("cd" * 32)
    environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
    with pytest.raises(ClusterError, match=f"refuses the token in {tmp_path / 'token'}"):
        check(head(TOKEN, code=grpc.StatusCode.PERMISSION_DENIED))


def test_a_mode_that_sends_no_token_is_named(environment, head):
    environment(RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN=TOKEN)
    with pytest.raises(ClusterError, match="RAY_AUTH_MODE=disabled sends none: set RAY_AUTH_MODE=token"):
        check(head(TOKEN))


def test_a_mode_without_its_token_is_named(environment, head):
    environment(RAY_AUTH_MODE="token")
    with pytest.raises(ClusterError, match="RAY_AUTH_MODE=token needs a token, and there is none"):
        check(head(None))


def test_a_cluster_that_asks_for_none_takes_any(environment, head):
    check(head(None))
    environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    check(head(None))


def test_another_version_of_ray_is_left_to_itself(environment, head, monkeypatch):
    check(head(TOKEN, methods=()))
    monkeypatch.setitem(sys.modules, "ray._private.grpc_utils", None)
    check(head(TOKEN))
