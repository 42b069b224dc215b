"""A sweep that is watched while it runs: its job and actors in Ray, its metrics on the node's port, its status."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import urllib.request

import pytest
from machine import DEADLINE_S, QUICK, ROOT, free_port

from flopray import load_run
from flopray.monitoring.status import status_of_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
needs_agent = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("aiohttp", "opencensus", "prometheus_client")),
    reason="Ray's dashboard and metrics agent need the packages of ray[default]",
)
GRID = f"--n 1 --d 16 24 32 --m 8:64:8 --phases forward {QUICK}"


@pytest.fixture(scope="module")
def ports(machine):
    found = {"dashboard": free_port(), "metrics": free_port(), "agent": free_port()}
    machine.environment |= {"RAY_AUTH_MODE": "disabled", "RAY_metrics_report_interval_ms": "1000"}
    machine.ray(
        "start --head --port=0 --num-cpus=2"
        f" --dashboard-port={found['dashboard']} --ray-client-server-port={free_port()}"
        f" --metrics-export-port={found['metrics']} --dashboard-agent-listen-port={found['agent']}"
        " --min-worker-port=0 --max-worker-port=0"
    )
    yield found
    machine.end_processes()


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20) as answer:
        return answer.read().decode()


@needs_agent
def test_a_submitted_sweep_is_found_by_its_name_and_scraped(machine, ports):
    address = f"http://127.0.0.1:{ports['dashboard']}"
    sweep = f"{sys.executable} sweeps/mlp_grid.py --address auto {GRID} --name seen --storage {machine.storage}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", address]
    command += ["--submission-id", "seen", "--working-dir", str(ROOT), "--", *sweep.split()]
    environment = machine.environment | {"FLOPRAY_METRICS_LINGER_S": "4"}
    log = (machine.folder / "job.txt").open("w")
    job = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    machine.wait_for(lambda: len(machine.journal_ids(machine.run_path("seen"))) >= 3)
    actors = json.loads(get(ports["dashboard"], "api/v0/actors?detail=true"))["data"]["result"]["result"]
    names = {actor["repr_name"] for actor in actors}
    assert any(name.startswith("sweep seen: ") and "points of mlp on CPU; " in name for name in names)
    assert any(name.startswith("flopray CPU ") for name in names)
    assert status_of_run(machine.run_path("seen")).state == "running"
    metrics = ""
    while job.poll() is None:
        metrics = machine.wait_for(lambda: get(ports["metrics"], "metrics"))
        if "flopray_points_total{" in metrics and "per_second{" in metrics:
            break
    assert re.search(r'ray_flopray_points_total\{.*device_type="CPU".*status="ok".*\} \d', metrics)
    assert re.search(r'ray_flopray_device_model_flops_per_second\{.*phase="forward".*\} \d', metrics)
    assert "power_watts{" not in metrics or load_run(machine.run_path("seen")).power_w.notna().any()  # never 0
    assert job.wait(DEADLINE_S) == 0
    assert status_of_run(machine.run_path("seen")).state == "finished"
    assert "24/24 points" in (machine.folder / "job.txt").read_text()
