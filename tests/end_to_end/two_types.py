"""A simulated cluster of several nodes with GPUs that do not exist: where do trials run? Run as a program.

Everything is real but the devices: Ray's nodes, resources and placement, Tune, the sweep's command line. The trainable
opens the CPU instead of its GPU, and writes into the record which node and which GPUs Ray assigned to it.
"""

import contextlib
import functools
import json
import platform
import subprocess
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

import flopray.sweep.driver
from flopray.cli.main import sweep_command
from flopray.measurement.device import Device
from flopray.settings import MeasureSettings
from flopray.sweep.limits import Limits
from flopray.sweep.recorder_actor import start_recorder
from flopray.sweep.trial import PointTrial

sys.path.insert(0, str(Path(__file__).parents[2]))
from flopray.workloads.mlp import MLP

FLAGS = "--n 1 --d 16 --precision fp32 --execution eager --phases forward --instruments time --no-plots"
FLAGS += " --max-seconds 0.3 --target-error 0.3 --sentinel-every 0"


class Placed(PointTrial):
    """Measures on the CPU and says where it was."""

    def _device(self):
        context = ray.get_runtime_context()
        where = {"node": context.get_node_id(), "gpus": context.get_accelerator_ids()["GPU"]}
        platform.node = lambda: json.dumps(where)
        device = Device("CPU", threads=1)
        columns = device.columns() | {"compute_capability": "9.0"}
        device.columns = lambda: columns
        return device


def add(cluster, device_type, gpus):
    node = cluster.add_node(num_cpus=2, num_gpus=gpus, resources={f"accelerator_type:{device_type}": gpus})
    return node.node_id


@contextlib.contextmanager
def join_later(address, device_type):
    """A node that joins after some seconds, by Ray's own command line."""
    resources = json.dumps({f"accelerator_type:{device_type}": 1})
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--address", address]
    start += ["--num-cpus", "2", "--num-gpus", "1", "--resources", resources]
    code = f"import os, time; time.sleep(4); os.execv({start[0]!r}, {start!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def run(cluster, line, storage, name):
    arguments = f"{FLAGS} --address {cluster.address} --storage {storage} --name {name} {line}"
    code = sweep_command(MLP(), arguments.split())
    ray.shutdown()
    return code


def recorders(cluster, count):
    """Node of the driver, and the nodes of this many recorders."""
    ray.init(cluster.address, log_to_driver=False)
    started = [
        start_recorder("r", set(), MeasureSettings(phases=("forward",)), Limits(), actor_name=f"r{index}")
        for index in range(count)
    ]
    nodes = ray.get([each.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for each in started])
    here = ray.get_runtime_context().get_node_id()
    ray.shutdown()
    return here, nodes


def program(storage):
    flopray.sweep.driver.run_sweep = functools.partial(flopray.sweep.driver.run_sweep, trainable=Placed)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0})
    nodes = {"H100": add(cluster, "H100", 2), "A100": add(cluster, "A100", 1)}
    codes = {"both": run(cluster, "--m 8 16 --points-per-trial 1", storage, "both")}
    codes["missing"] = run(cluster, "--m 8 --accelerators L40S", storage, "missing")
    codes["counted"] = run(cluster, "--m 8 16 --accelerators H100 --instruments counters", storage, "counted")
    with join_later(cluster.address, "L40S"):
        codes["waited"] = run(cluster, "--m 8 --accelerators L40S --wait 90", storage, "waited")
    driver, beside = recorders(cluster, 4)
    cluster.shutdown()
    print("RESULT " + json.dumps({"nodes": nodes, "codes": codes, "driver": driver, "recorders": beside}))


if __name__ == "__main__":
    program(sys.argv[1])
