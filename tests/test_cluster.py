"""Reaching a cluster: which token, how often, and what is said when it does not work."""

import logging
import signal
import socket
import sys

import pytest

from flopray import connection
from flopray.cluster import Cluster, check_cores, choose_devices
from flopray.errors import ClusterError

MOST = {"CPU": 64, "H100": 64, "A100": 16}
MIXED = Cluster({"H100": 8, "A100": 4}, 16, MOST, None, False)


def test_every_type_of_gpu_is_swept_and_the_cpu_only_without_one():
    assert choose_devices(MIXED, None) == {"H100": 8, "A100": 4}
    assert choose_devices(Cluster({}, 4, {"CPU": 4}, None, True), None) == {"CPU": 1}
    assert choose_devices(MIXED, ["A100", "CPU"]) == {"A100": 4, "CPU": 1}


def test_a_type_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ClusterError, match=r"--accelerators V100: no node has it; the cluster has H100, A100, CPU"):
        choose_devices(MIXED, ["V100"])


def test_more_cores_than_any_node_has_are_refused_where_ray_would_wait():
    check_cores(MIXED, {"H100": 64, "A100": 16, "CPU": 64})
    with pytest.raises(ClusterError, match="a trial on A100 holds 17 CPU cores, and no node with it has more than 16"):
        check_cores(MIXED, {"H100": 17, "A100": 17})


def test_a_stranger_at_the_port_is_told_in_seconds(environment):
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(ClusterError, match="is no Ray head node"):
        connection._check_reachable(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that it is put back at the end, whatever the test makes of it
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode_after(address):
    connection._use_token(address)
    return connection.os.environ.get("RAY_AUTH_MODE")


def test_a_client_uses_the_token_that_the_user_has(environment, monkeypatch):
    assert mode_after("ray://head:10001") is None
    (environment / ".ray").mkdir()
    (environment / ".ray" / "auth_token").write_text("secret")
    assert mode_after("head:6379") is None  # Ray sees to it by itself
    assert mode_after("ray://head:10001") == "token"


def test_what_the_user_says_of_tokens_goes_first(environment, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert mode_after("ray://head:10001") == "disabled"


def failing(times, error):
    calls = []

    def init(**arguments):
        calls.append(arguments)
        if len(calls) <= times:
            raise error
        return "context"

    return init, calls


def test_a_client_server_that_starts_no_process_is_asked_again(monkeypatch):
    ray = pytest.importorskip("ray")
    error = ConnectionAbortedError("Initialization failure from server:\n")
    init, calls = failing(2, error)
    monkeypatch.setattr(ray, "init", init)
    assert connection._init("ray://head:10001", {}) == "context"
    assert len(calls) == 3
    monkeypatch.setattr(ray, "init", failing(3, error)[0])
    with pytest.raises(ConnectionAbortedError):
        connection._init("ray://head:10001", {})


def test_any_other_failure_is_told_at_once(monkeypatch):
    ray = pytest.importorskip("ray")
    init, calls = failing(1, ConnectionAbortedError("version mismatch"))
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ConnectionAbortedError, match="version mismatch"):
        connection._init("ray://head:10001", {})
    assert len(calls) == 1


def test_a_sigterm_while_ray_has_its_own_handler_is_an_interrupt():
    own = signal.getsignal(signal.SIGTERM)

    def join():
        with connection._own_sigterm():
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # as `ray.init` does
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        join()
    assert signal.getsignal(signal.SIGTERM) is own


def test_what_raylets_say_is_logged_and_not_printed(monkeypatch, capfd):
    from ray._private import worker

    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    logged = []
    monkeypatch.setattr(logging.getLogger("ray"), "warning", lambda form, *words: logged.append(form % words))
    connection._log_what_raylets_say()
    worker.print_to_stdstream({"lines": ["a worker", "died"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    assert logged == ["a worker died"]
    assert capfd.readouterr() == ("", "")
