"""`python -m flopray doctor` on a real cluster of two nodes, as a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from machine import DEADLINE_S, free_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def addresses(machine):
    """Addresses by kind; one of the cluster's two nodes has no CPU to give."""
    client = free_port()
    flags = f"--port=0 --num-cpus=1 --include-dashboard=false --ray-client-server-port={client}"
    started = machine.ray(f"start --head {flags}")
    gcs = re.search(r"--address='([^']+)'", started)
    assert gcs, started
    machine.ray(f"start --address={gcs[1]} --num-cpus=0")
    # The fixture `machine` ends it; `ray stop` would end every other Ray on this machine too.
    return {"port": gcs[1], "client": f"ray://127.0.0.1:{client}"}


def doctor(machine, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "flopray", "doctor", *arguments],
        capture_output=True,
        text=True,
        cwd=machine.folder,
        env=machine.environment | environment,
        timeout=DEADLINE_S,
    )


def test_every_node_is_looked_at_from_outside_of_the_cluster(machine, addresses):
    done = doctor(machine, "--address", addresses["client"], "--json")
    assert (done.returncode, done.stderr) == (0, "")
    nodes = json.loads(done.stdout)["nodes"]
    assert len(nodes) == 2
    assert len({node["name"] for node in nodes}) == 2  # although both have this machine's name
    for node in nodes:
        assert node["reason"] is None
        assert node["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
        assert node["machine"]["torch"]["version"]
        assert all(check["text"] for check in node["checks"])


def test_people_get_a_table_on_a_node_of_the_cluster(machine, addresses):
    done = doctor(machine, "--address", addresses["port"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 nodes" in done.stdout
    assert re.search(r"FLOPs +ok +closed form", done.stdout)
    assert re.search(r"torch +(ok|missing) +2\.", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_an_address_where_nothing_is_is_bad_input(machine):
    done = doctor(machine, "--address", f"127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: --address \S+: nothing answers at .*\n", done.stderr)
