"""A sweep joins a running cluster, from one of its machines and from outside."""

from __future__ import annotations

import re

import pytest
from machine import QUICK, free_port

from flopray import load_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

POINTS = f"--n 1 --d 16 --m 8 16 --phases forward {QUICK}"


@pytest.fixture(scope="module")
def addresses(machine):
    """Addresses of a standing cluster by their kind."""
    client = free_port()
    flags = f"--port=0 --num-cpus=2 --include-dashboard=false --ray-client-server-port={client}"
    started = machine.ray(f"start --head {flags}")
    gcs = re.search(r"--address='([^']+)'", started)
    assert gcs, started
    yield {"auto": "auto", "port": gcs[1], "client": f"ray://127.0.0.1:{client}"}
    machine.end_processes()


@pytest.mark.parametrize("kind", ["auto", "port", "client"])
def test_a_sweep_joins_a_cluster_and_leaves_it_running(machine, addresses, kind):
    code, output = machine.sweep(f"--address {addresses[kind]} {POINTS} --name {kind}")
    assert code == 0, output
    frame = load_run(machine.run_path(kind))
    assert len(frame) == 2
    assert (frame.status == "ok").all()
    # Behind ray:// Tune runs on the head node, where a folder of this machine would be in the wrong place.
    assert (machine.run_path(kind) / "tune").exists() == (kind != "client")
    assert any("gcs_server" in command for command in machine.processes().values())
