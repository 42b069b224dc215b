"""A sweep joins a running cluster, from one of its machines and from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from machine import DEADLINE_S, QUICK, free_port

from flopray import load_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

POINTS = f"--n 1 --d 16 --m 8 16 --phases forward {QUICK}"


@pytest.fixture(scope="module")
def addresses(machine):
    """Addresses of a standing cluster by their kind; a token exists when it is started, so it asks for that token."""
    folder = Path(machine.environment["HOME"]) / ".ray"
    folder.mkdir()
    (folder / "auth_token").write_text("ab" * 32)
    client = free_port()
    flags = f"--port=0 --num-cpus=2 --include-dashboard=false --ray-client-server-port={client}"
    started = machine.ray(f"start --head {flags}")
    gcs = re.search(r"--address='([^']+)'", started)
    assert gcs, started
    yield {"auto": "auto", "port": gcs[1], "client": f"ray://127.0.0.1:{client}"}
    machine.end_processes()


@pytest.mark.parametrize("kind", ["port", "client"])
def test_a_sweep_joins_a_cluster_and_leaves_it_running(machine, addresses, kind):
    code, output = machine.sweep(f"--address {addresses[kind]} {POINTS} --name {kind}")
    assert code == 0, output
    frame = load_run(machine.run_path(kind))
    assert len(frame) == 2
    assert (frame.status == "ok").all()
    # Behind ray:// Tune runs on the head node, where a folder of this machine would be in the wrong place.
    assert (machine.run_path(kind) / "tune").exists() == (kind != "client")
    assert any("gcs_server" in command for command in machine.processes().values())


@pytest.mark.parametrize("kind", ["auto", "port", "client"])
def test_a_wrong_token_is_refused_in_one_line(machine, addresses, kind):
    """Ray itself tries for 20 to 30 s, and warns in twenty raw lines."""
    sweep = machine.start(f"--address {addresses[kind]} {POINTS} --name wrong", RAY_AUTH_TOKEN="cd" * 32)
    assert sweep.wait() == 2, sweep.output
    assert sweep.output.startswith("error: --address")
    assert "refuses the token in RAY_AUTH_TOKEN" in sweep.output
    assert len(sweep.output.splitlines()) == 1


@pytest.mark.parametrize("kind", ["port", "client"])
def test_a_head_node_that_hangs_is_one_line_within_the_stated_time(machine, addresses, kind):
    """Its kernel still accepts connections; behind ray:// its client server answers, and waits for it for ever."""
    (gcs,) = (pid for pid, command in machine.processes().items() if "gcs_server" in command.split()[0])
    os.kill(gcs, signal.SIGSTOP)
    code = f"""
        from flopray.cluster import connection
        connection._JOIN_S = 10.0
        from flopray.cli.main import main
        raise SystemExit(main(["doctor", "--address", {addresses[kind]!r}]))
    """
    try:
        told = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            env=machine.environment,
            timeout=DEADLINE_S,
        )
    finally:
        os.kill(gcs, signal.SIGCONT)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith(f"error: --address {addresses[kind]}: ")
    assert len(told.stderr.splitlines()) == 1
    said = "says nothing within 5 s" if kind == "port" else "did not let this process in within 10 s"
    assert said in told.stderr
    assert "gcs_server.out may say why" in told.stderr


def test_the_ray_of_a_local_sweep_is_joined_where_it_listens(tmp_path):
    """It listens on the loopback interface alone; Ray would try this machine's other address for minutes."""
    local = """
        from flopray.cluster.connection import connected
        with connected(None):
            import ray
            print(ray.get_runtime_context().gcs_address, flush=True)
            input()
    """
    code = [sys.executable, "-c", textwrap.dedent(local)]
    with subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as holder:
        assert holder.stdout
        assert holder.stdin
        address = holder.stdout.readline().strip()
        try:
            told = subprocess.run(
                [sys.executable, "-m", "flopray", "doctor", "--address", address],
                capture_output=True,
                text=True,
                timeout=DEADLINE_S,
                cwd=tmp_path,
            )
        finally:
            holder.stdin.close()
    assert told.returncode == 0, told.stderr
    assert "closed form, and torch's dispatcher" in told.stdout
