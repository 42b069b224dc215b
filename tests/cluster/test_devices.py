"""Reaching a cluster: which token, how often, and the message when it fails."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from flopray.cluster import connection, devices
from flopray.cluster import this_machine as this_machine_module
from flopray.cluster.devices import Cluster, check_cores, choose_devices, inspect_cluster, passed_over, wait_for
from flopray.cluster.quiet import quiet_ray
from flopray.cluster.this_machine import this_machine
from flopray.errors import ClusterError

MOST = {"CPU": 64, "H100": 64, "A100": 16}
MIXED = Cluster({"H100": 8, "A100": 4}, 16, MOST, None, False)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("h100", "H100"),
        ("Tesla T4", "T4"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("H10O", "H100"),
        ("rtx pro 6000", "RTX-PRO-6000"),
        ("A100-80GB", "A100-80G"),
    ],
)
def test_a_type_in_other_words_is_recognised(asked, meant):
    with pytest.raises(ClusterError, match=rf"no node has it; .*: did you mean {meant}\?$"):
        choose_devices(MIXED, [asked])


def test_a_type_that_is_written_well_is_not_asked_back():
    with pytest.raises(ClusterError, match=r"device_type T4: no node has it; the cluster has H100, A100, CPU$"):
        choose_devices(MIXED, ["T4"])


def test_a_plan_does_not_count_what_it_adds_among_the_types_of_the_cluster():
    with pytest.raises(
        ClusterError, match=r"L99: no node has it; the cluster has H100, A100, CPU; a plan can be for A10"
    ):
        choose_devices(MIXED.with_types(["L4"]), ["L4", "L99"], planned=["L4"])


def test_a_type_without_a_datasheet_is_told_what_can_be_planned():
    with pytest.raises(ClusterError, match=r"the cluster has H100, A100, CPU; a plan can be for A100, .*, V100 too$"):
        choose_devices(MIXED, ["MI300X"], planned=[])  # not like B300
    with pytest.raises(ClusterError, match=r"the cluster has H100, A100, CPU$"):
        choose_devices(MIXED, ["MI300X"])


def test_every_type_of_gpu_is_swept_and_the_cpu_only_without_one():
    assert choose_devices(MIXED, None) == {"H100": 8, "A100": 4}
    assert choose_devices(Cluster({}, 4, {"CPU": 4}, None, True), None) == {"CPU": 1}
    assert choose_devices(MIXED, ["A100", "CPU"]) == {"A100": 4, "CPU": 1}


def test_a_type_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ClusterError, match=r"device_type V100: no node has it; the cluster has H100, A100, CPU"):
        choose_devices(MIXED, ["V100"])


def test_more_cores_than_any_node_has_are_refused_where_ray_would_wait():
    check_cores(MIXED, {"H100": 64, "A100": 16, "CPU": 64})
    with pytest.raises(ClusterError, match="a trial on A100 holds 17 CPU cores, and no node with it has more than 16"):
        check_cores(MIXED, {"H100": 17, "A100": 17})


def test_gpus_of_no_known_type_are_not_passed_over_for_the_cpu():
    """`ray start --num-gpus 2` on a node whose GPUs Ray does not know."""
    untyped = Cluster({}, 4, {"CPU": 8, "": 8}, None, False, untyped=2)
    with pytest.raises(ClusterError, match=r"2 GPUs of a type that Ray does not know: say it with gpu_type"):
        choose_devices(untyped, None)
    assert choose_devices(untyped, ["CPU"]) == {"CPU": 1}
    with pytest.raises(ClusterError, match="2 GPUs without a type"):
        choose_devices(untyped, ["H100"])
    named = untyped.with_gpu_type("H100")
    assert choose_devices(named, None) == {"H100": 2}
    assert choose_devices(named, ["H100"]) == {"H100": 2}
    check_cores(named, {"H100": 8})


def inspected(monkeypatch, **resources):
    node = {"Alive": True, "Resources": {"CPU": 8.0, **resources}}
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: [node], is_initialized=lambda: True))
    return inspect_cluster(dashboard_url=None, local=False)


def test_gpus_of_two_types_are_not_measured_twice_without_a_word(monkeypatch):
    """A type that a user gives to a node stands beside the one that Ray finds."""
    names = {"accelerator_type:H100": 1.0, "accelerator_type:H100-80G": 1.0}
    cluster = inspected(monkeypatch, GPU=2.0, **names)
    with pytest.raises(ClusterError, match="the types H100, H100-80G, and would be measured under each: choose one"):
        choose_devices(cluster, None)
    assert choose_devices(cluster, ["H100-80G"]) == {"H100-80G": 2}
    assert choose_devices(inspected(monkeypatch, **names), None) == {"CPU": 1}


def test_a_type_without_a_name_is_none(monkeypatch):
    cluster = inspected(monkeypatch, GPU=2.0, **{"accelerator_type:": 1.0})
    assert (cluster.slots, cluster.untyped) == ({}, 2)


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"TPU": 4.0}, "the cluster has 4 TPU, and flopray measures whole NVIDIA GPUs and processors"),
        ({"GPU": 0.5, "accelerator_type:H100": 1.0}, "the cluster has 0.5 GPU in parts, and"),
        ({"neuron_cores": 2.0, "HPU": 1.0}, "the cluster has 1 HPU, 2 neuron_cores, and"),
    ],
)
def test_accelerators_that_no_trial_can_own_are_not_passed_over_for_the_cpu(monkeypatch, resources, said):
    cluster = inspected(monkeypatch, **resources)
    with pytest.raises(ClusterError, match=said):
        choose_devices(cluster, None)
    assert choose_devices(cluster, ["CPU"]) == {"CPU": 1}


def test_part_of_a_gpu_beside_whole_ones_is_told(monkeypatch):
    cluster = inspected(monkeypatch, GPU=1.5, **{"accelerator_type:H100": 1.0})
    assert choose_devices(cluster, None) == {"H100": 1}
    assert passed_over(cluster) == "0.5 GPU in parts of the cluster left out: flopray measures whole NVIDIA GPUs"
    assert passed_over(inspected(monkeypatch, GPU=1.0, **{"accelerator_type:H100": 1.0})) is None


def test_a_type_by_flag_is_for_gpus_without_one():
    assert MIXED.with_gpu_type(None) is MIXED
    with pytest.raises(ClusterError, match=r"gpu_type L4: the cluster has GPUs whose type Ray knows \(H100, A100\)"):
        MIXED.with_gpu_type("L4")
    with pytest.raises(ClusterError, match="gpu_type L4: the cluster has no GPU"):
        Cluster({}, 4, {"CPU": 4}, None, True).with_gpu_type("L4")


@pytest.fixture
def joining(monkeypatch):
    """Clusters that are found one after the other, with a simulated clock."""

    def prepare(*clusters):
        later = iter(clusters)
        monkeypatch.setattr(devices, "_LOOK_EVERY_S", 0.0)
        monkeypatch.setattr(devices, "inspect_cluster", lambda **_: next(later))

    return prepare


EMPTY = Cluster({}, 4, {"CPU": 4}, None, False)
UNTYPED = Cluster({}, 4, {"CPU": 8, "": 8}, None, False, untyped=2)


@pytest.mark.parametrize("wanted", [["L4"], ["L4", "CPU"], None])
def test_gpus_without_a_type_that_are_waited_for_get_it_when_they_join(joining, wanted):
    joining(EMPTY, UNTYPED)
    said = []
    found = wait_for(EMPTY, wanted, 60.0, said.append, "L4")
    assert found.slots == {"L4": 2}
    assert choose_devices(found, wanted)["L4"] == 2
    assert said == ["waiting up to 60 s for L4 to join the cluster"]


def test_a_gpu_type_that_cannot_be_is_refused_without_waiting(joining):
    joining()  # looking again would end in StopIteration
    with pytest.raises(ClusterError, match="the cluster has GPUs whose type Ray knows"):
        wait_for(MIXED, ["L4"], 60.0, print, "L4")
    with pytest.raises(ClusterError, match="gpu_type CPU"):
        wait_for(EMPTY, ["CPU"], 60.0, print, "CPU")
    with pytest.raises(ClusterError, match="gpu_type L4: the cluster has no GPU"):
        wait_for(EMPTY, ["L4"], 0.0, print, "L4")


def test_a_type_that_a_flag_could_name_is_told_with_the_flag():
    with pytest.raises(ClusterError, match=r"2 GPUs without a type \(say it with gpu_type L4, or"):
        choose_devices(UNTYPED, ["L4"])


def test_gpus_that_are_passed_over_beside_others_are_told():
    assert passed_over(MIXED) is None
    assert "2 GPUs of the cluster left out" in (passed_over(dataclasses.replace(MIXED, untyped=2)) or "")


def test_a_driver_that_fails_is_told_where_the_cpu_is_swept_in_place_of_a_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # also where there are GPUs
    monkeypatch.setattr(this_machine_module, "why_nvml_fails", lambda: "nvmlInit failed: Unknown Error")
    broken = this_machine()
    assert choose_devices(broken, None) == {"CPU": 1}
    assert "NVIDIA driver: nvmlInit failed: Unknown Error" in (passed_over(broken) or "")
    assert passed_over(broken, ["CPU"]) is None
    with pytest.raises(ClusterError, match=r"no node has it.*\(nvmlInit failed: Unknown Error\)"):
        choose_devices(broken, ["H100"])
    with pytest.raises(ClusterError, match=r"the cluster has no GPU \(nvmlInit failed: Unknown Error\)"):
        broken.with_gpu_type("L4")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:9", r"RAY_ADDRESS=127.0.0.1:9 .*nothing answers at 127.0.0.1:9"),
        ("ray://127.0.0.1:9", r"RAY_ADDRESS=ray://127.0.0.1:9 .*nothing answers"),
        ("garbage", "RAY_ADDRESS=garbage .*write auto, host:port"),
        ("[::1]:9", r"nothing answers at \[::1\]:9"),
        ("ray://[::1]:9", r"nothing answers at \[::1\]:9"),
        ("[::1", "write auto, host:port"),
        ("\x1b[31m:6379", "write auto, host:port"),
        ("127.0.0.1:0", "write auto, host:port"),
        ("127.0.0.1:6379/path", "write auto, host:port"),
        ("someone@127.0.0.1:6379", "write auto, host:port"),
        ("http://127.0.0.1:8265", "write auto, host:port"),
        ("a..b:6379", r"a\.\.b cannot be the name of a machine"),
        ("x" * 64 + ":6379", "cannot be the name of a machine"),
        ("no.such.host.invalid:6379", "nothing answers at no.such.host.invalid"),
        ("local", "RAY_ADDRESS=local names no cluster"),
    ],
)
def test_an_address_of_the_environment_is_resolved_and_tried_before_ray_is(monkeypatch, address, words):
    """Ray itself would try for minutes."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError, match=words), connection.connected("auto"):
        pass


def test_the_address_file_of_a_cluster_that_is_gone_is_told_with_what_it_says(monkeypatch):
    from ray._private import services

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: "127.0.0.1:9")
    with (
        pytest.raises(ClusterError, match=r"Ray's last cluster here was at .*:9: nothing answers .*ray start --head"),
        connection.connected("auto"),
    ):
        pass


@pytest.mark.parametrize("content", ["", "garbage", "[::1"])
def test_an_address_file_without_an_address_is_told_with_what_helps(monkeypatch, content):
    from ray._private import services

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: content)
    with (
        pytest.raises(ClusterError, match=r"no running Ray cluster|was at .*, which is none; .*ray start --head"),
        connection.connected("auto"),
    ):
        pass


@pytest.mark.parametrize(("listening", "loopback"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_a_ray_that_listens_on_loopback_alone_is_reached_there(listening, loopback):
    """Ray would try this machine's other address for minutes, beside a local sweep."""
    from ray._private import ray_constants
    from ray.util import get_node_ip_address

    if get_node_ip_address() == "127.0.0.1":
        pytest.skip("this machine has no other address")
    before = ray_constants.ENABLE_RAY_CLUSTER
    with socket.create_server((listening, 0)) as server, connection._as_reached(f"127.0.0.1:{server.getsockname()[1]}"):
        assert (get_node_ip_address() == "127.0.0.1") is loopback
    assert before == ray_constants.ENABLE_RAY_CLUSTER


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "before"),
    [
        ({}, ""),
        ({"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "1"}, ""),
        ({"RAY_RUNTIME_ENV_HOOK": "ray._private.runtime_env.uv_runtime_env_hook.hook"}, ""),
        ({"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "1"}, "import ray; "),  # as in a notebook
    ],
)
def test_ray_takes_workers_as_they_are_under_uv_run(environment, before):
    """Its hook would replace the workers' Python and upload this folder, whatever the user's environment says."""
    code = f"{before}from flopray.cluster.quiet import quiet_ray; quiet_ray(); from ray._private import worker, "
    code += "ray_constants as c; assert not c.RAY_ENABLE_UV_RUN_RUNTIME_ENV; assert worker._maybe_modify_runtime_env("
    code += "{'a': 1}, False) == {'a': 1}; import os; assert 'RAY_RUNTIME_ENV_HOOK' not in os.environ"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | environment)


def test_a_hook_of_the_users_own_stays(monkeypatch):
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "company.hook")
    quiet_ray()
    assert os.environ["RAY_RUNTIME_ENV_HOOK"] == "company.hook"


@pytest.mark.parametrize("hook", ["company.hook", "json.nothing", "hook", ".", "json"])
def test_a_hook_that_cannot_be_loaded_is_named_by_its_variable(monkeypatch, hook):
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", hook)
    with (
        pytest.raises(ClusterError, match=rf"^RAY_RUNTIME_ENV_HOOK={hook} cannot be loaded \(.*\): unset it"),
        connection.connected(None),
    ):
        pass


@pytest.mark.parametrize("hook", ["", " ", "ray._private.runtime_env.uv_runtime_env_hook.hook"])
def test_a_hook_that_is_none_is_left_out(monkeypatch, hook):
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", hook)
    quiet_ray()
    assert "RAY_RUNTIME_ENV_HOOK" not in os.environ


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_accepts_connections_and_says_nothing_is_told_in_seconds(monkeypatch, scheme):
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT_S", 0.5)
    said = (
        r"127\.0\.0\.1:\d+ accepts connections and says nothing within 0\.5 s: a head node that hangs .*or no head node"
    )
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(ClusterError, match=said):
        connection._check_reachable(f"{scheme}127.0.0.1:{server.getsockname()[1]}", "--address x")


@pytest.mark.slow
def test_a_stranger_at_the_port_is_told_in_seconds(monkeypatch):
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT_S", 0.5)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ClusterError, match="is not a Ray head node: is the port right"):
            connection._check_reachable(f"127.0.0.1:{server.server_port}", "--address x")
        server.shutdown()


def test_joining_ends_after_its_time_whatever_ray_makes_of_the_alarm():
    before = signal.getsignal(signal.SIGALRM)

    def join(error):
        with connection._at_most(0.2):
            try:
                threading.Event().wait(60)
            except TimeoutError:
                raise error from None

    with pytest.raises(TimeoutError, match=r"did not let this process in within 0\.2 s"):
        join(RuntimeError("Failed to set up runtime environment."))
    with connection._at_most(60), pytest.raises(ValueError, match="another"):
        raise ValueError("another")
    assert signal.getsignal(signal.SIGALRM) is before
    told = connection._explain("ray://x:1", TimeoutError("it did not let this process in within 120 s"))
    assert told.startswith(
        "<address> ray://x:1: cannot join the cluster: it did not let this process in within 120 s: its"
    )


def test_a_process_that_has_joined_a_cluster_is_told_so(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(ClusterError, match=r"joined a Ray cluster already: call ray\.shutdown\(\) first"):
        connection.connected(None).__enter__()


def test_a_submitted_job_starts_no_cluster_of_its_own(monkeypatch):
    """It would look for the job's files in that cluster, and find none: RuntimeEnvSetupError."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ClusterError, match="address auto measures on the cluster"):
        connection.connected(None).__enter__()


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


def test_a_type_by_flag_is_that_of_a_gpu():
    with pytest.raises(ClusterError, match="device_type CPU"):
        Cluster({}, 4, {"CPU": 8, "": 8}, None, False, untyped=2).with_gpu_type("CPU")


def test_a_resume_names_the_run_and_no_flag_that_it_does_not_take():
    cluster = Cluster({}, 4, {"CPU": 8, "": 8}, None, False, untyped=2)
    with pytest.raises(ClusterError, match=r"^the run has points for H100, and no node has it; .* gpu_type H100"):
        choose_devices(cluster, ["H100"], resumed=True)


def test_an_interrupt_while_ray_is_imported_stays_one(monkeypatch):
    """What is left of an interrupted import cannot be imported again, and there is no cluster to leave."""

    class Interrupted:
        def find_spec(self, name, *_):
            if name == "ray":
                raise AttributeError("partially initialized module")

    def init(*_: object) -> None:
        monkeypatch.delitem(sys.modules, "ray", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
        raise KeyboardInterrupt

    monkeypatch.setattr(connection, "_init", init)
    with pytest.raises(KeyboardInterrupt):
        next(connection._joined(None, {}, contextlib.nullcontext()))
