"""What answers at an address, and whether it asks for a token: what is sent and said before Ray tries."""

import importlib
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from flopray.cluster import authentication, head_node
from flopray.errors import ClusterError

TOKEN = "ab" * 32
SERVICES = GCS, CLIENT_SERVER = ("ray.rpc.NodeInfoGcsService", "ray.rpc.RayletDriver")
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
    """A server that accepts one token, or any call if the token is None; returns its port."""
    servers = []

    def start(token, services=SERVICES, code=grpc.StatusCode.UNAUTHENTICATED):
        def answer(request, context):
            if token and dict(context.invocation_metadata()).get("authorization") != f"Bearer {token}":
                context.abort(code, "missing or incorrect")
            return b""

        handler = {name: grpc.unary_unary_rpc_method_handler(answer) for name in ("CheckAlive", "ClusterInfo")}
        server = grpc.server(ThreadPoolExecutor(1))
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handler) for name in services])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return port

    yield start
    for server in servers:
        server.stop(None)


def check(port, client=False):
    authentication.agree_on_token("127.0.0.1", port, "--address x", client=client)


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


def write_token(home, token=TOKEN):
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(token)


def mode_after(port, **how):
    """RAY_AUTH_MODE, and how Ray reads it, while a cluster is joined; both are restored."""
    with authentication.own_mode():
        check(port, **how)
        mode = os.environ.get("RAY_AUTH_MODE")
        assert (_raylet.get_authentication_mode() == _raylet.AuthenticationMode.TOKEN) == (mode == "token")
    assert "RAY_AUTH_MODE" not in os.environ
    assert _raylet.get_authentication_mode() == _raylet.AuthenticationMode.DISABLED
    return mode


@pytest.mark.parametrize("client", [False, True])
def test_a_token_goes_to_a_cluster_that_asks_for_one_and_to_no_other(environment, head, tmp_path, client):
    """A driver that demands tokens refuses the calls of a head node without one, which then treats it as dead."""
    write_token(tmp_path)
    assert mode_after(head(TOKEN), client=client) == "token"
    assert mode_after(head(None), client=client) is None


def test_a_mode_that_makes_this_process_refuse_the_cluster_is_named(environment, head):
    environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    with pytest.raises(ClusterError, match=r"was started without tokens.*: unset RAY_AUTH_MODE"):
        check(head(None))
    check(head(None), client=True)  # whose driver runs beside the head node


def test_a_cluster_that_asks_for_none_is_joined_without(environment, head):
    check(head(None))
    environment(RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN=TOKEN)
    check(head(None))


def test_a_service_that_cannot_be_told_apart_is_left_to_ray(environment, head, monkeypatch):
    check(head(TOKEN, services=()))
    monkeypatch.setitem(sys.modules, "ray._private.grpc_utils", None)
    check(head(TOKEN))


def service(port, client):
    head_node.check_service("127.0.0.1", port, "--address x", client=client)


def test_the_port_of_the_other_service_is_told_with_the_one_to_write(environment, head):
    port = head(None, services=[GCS])
    service(port, client=False)
    with pytest.raises(ClusterError, match=rf"is the head node itself, .*: write 127\.0\.0\.1:{port}, or ray://"):
        service(port, client=True)
    port = head(None, services=[CLIENT_SERVER])
    service(port, client=True)
    with pytest.raises(ClusterError, match=rf"is the client server of a head node: write ray://127\.0\.0\.1:{port}"):
        service(port, client=False)


@pytest.mark.parametrize("client", [False, True])
def test_another_server_that_speaks_grpc_is_no_head_node(environment, head, monkeypatch, client):
    port = head(None, services=())
    with pytest.raises(ClusterError, match=f"what answers at 127.0.0.1:{port} is not a Ray head node"):
        service(port, client)
    monkeypatch.setattr(head_node.ray_internals, "knows_services", lambda: False)
    service(port, client)  # another version of Ray is left to itself


@pytest.mark.parametrize("client", [False, True])
def test_a_head_node_that_takes_calls_and_answers_none_is_told_so(environment, monkeypatch, client):
    monkeypatch.setattr(head_node, "_ANSWER_S", 0.2)
    done = threading.Event()
    handler = {
        name: grpc.unary_unary_rpc_method_handler(lambda *_: done.wait(60)) for name in ("CheckAlive", "ClusterInfo")
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handler) for name in SERVICES])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(ClusterError, match=r"answered none of 3 within 0\.2 s each: it hangs or is overloaded"):
            service(port, client)
    finally:
        done.set()
        server.stop(None)


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "import ray; "])
def test_the_token_is_sent_whether_or_not_ray_was_imported(environment, head, tmp_path, before):
    """Ray reads RAY_AUTH_MODE once, when it is imported; set later, no token is sent."""
    write_token(tmp_path)
    code = f"""
        {before}
        from flopray.cluster.connection import _check_reachable
        _check_reachable("127.0.0.1:{head(TOKEN)}", "--address x")
        from ray._raylet import AuthenticationMode, get_authentication_mode
        assert get_authentication_mode() == AuthenticationMode.TOKEN
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
