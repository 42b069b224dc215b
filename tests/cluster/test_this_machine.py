"""What a plan finds on this machine without Ray is what a Ray started here would have."""

import multiprocessing
import subprocess
import sys
from types import SimpleNamespace

import pytest

from flopray.cluster import this_machine as module
from flopray.cluster.this_machine import accelerator_type, cores_here, gpus_here, this_machine
from flopray.errors import MeterError, NoEnergySource

#: As NVML gives them.
NAMES = (
    "NVIDIA H100 80GB HBM3",
    "NVIDIA H100 PCIe",
    "NVIDIA H100 NVL",
    "NVIDIA H200",
    "NVIDIA B200",
    "NVIDIA GH200 480GB",
    "NVIDIA A100-SXM4-40GB",
    "NVIDIA A100 80GB PCIe MIG 1g.10gb",
    "A100-SXM4-80GB",
    "NVIDIA A10G",
    "NVIDIA A40-48Q",
    "NVIDIA L40S",
    "NVIDIA L4",
    "Tesla V100-SXM2-16GB",
    "Tesla T4",
    "Tesla P100-PCIE-16GB",
    "NVIDIA TITAN V",
    "NVIDIA TITAN RTX",
    "NVIDIA GeForce RTX 5090",
    "NVIDIA GeForce GTX 1080 Ti",
    "NVIDIA RTX A6000",
    "NVIDIA RTX 6000 Ada Generation",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    "Quadro RTX 8000",
    "GRID T4-16Q",
    "NVIDIA Graphics Device",
    "NVIDIA DGX Display",
    "NVIDIA 7",
    "NVIDIA",
    "Orin (nvgpu)",
    "",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_has_the_type_that_ray_gives_it(name):
    from ray._private.accelerators import NvidiaGPUAcceleratorManager

    assert accelerator_type(name) == NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(name)


def test_types_as_they_are_known():
    assert [accelerator_type(NAMES[i]) for i in (0, 6, 16, 18, 22)] == [
        *("H100", "A100", "TITAN-V", "GeForce-RTX-5090", "RTX-PRO-6000"),
    ]


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 2), ("", 0), ("NoDevFiles", 0), ("0", 1), ("1,0", 2), ("0,1,2", 2), ("GPU-1f", 1)],
)
def test_gpus_that_cuda_may_not_see_are_left_out(monkeypatch, visible, count):
    gpu = SimpleNamespace(info=lambda: {"device_name": "NVIDIA H100 80GB HBM3"})
    monkeypatch.setattr(module, "list_gpus", lambda: [gpu, gpu])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_here() == (count, "H100" if count else None)
    assert this_machine().slots == ({"H100": count} if count else {})


def test_gpus_without_a_name_are_counted(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(module, "list_gpus", lambda: [SimpleNamespace(info=lambda: {"device_name": None})])
    found = this_machine()
    assert (found.slots, found.untyped) == ({}, 1)


@pytest.mark.parametrize("error", [NoEnergySource("no driver"), MeterError("the GPU is lost")])
def test_an_nvml_that_fails_leaves_a_plan_for_the_cpu(monkeypatch, error):
    def fails():
        raise error

    monkeypatch.setattr(module, "list_gpus", fails)
    assert (this_machine().slots, this_machine().untyped) == ({}, 0)


def test_this_machine_has_the_cores_that_ray_counts():
    from ray._private.utils import get_num_cpus

    assert this_machine().cores == max(1, int(get_num_cpus()))


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"cpu.max": "max 100000"},
        {"cpu.max": "250000 100000"},
        {"cpu.max": "50000 100000"},
        {"cpu.max": "nonsense"},
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"},
        {"cpu/cpu.cfs_quota_us": "0", "cpu/cpu.cfs_period_us": "100000"},
        {"cpuset/cpuset.cpus": "0-3,8\n"},
        {"cpuset/cpuset.cpus": "0-3,8\n", "cpu.max": "200000 100000"},
        {"cpuset/cpuset.cpus": "\n"},
    ],
)
def test_limits_of_a_container_are_read_as_ray_reads_them(tmp_path, files):
    from ray._private.utils import _get_docker_cpus

    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    places = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpuset/cpuset.cpus", "cpu.max")
    ray_s = _get_docker_cpus(*(str(tmp_path / name) for name in places))
    assert cores_here(tmp_path) == (ray_s or multiprocessing.cpu_count())


@pytest.mark.slow
def test_a_plan_for_this_machine_does_not_import_ray(tmp_path):
    code = f"""
import sys
from flopray.cli.main import sweep_command
from flopray.workloads.mlp import MLP
flags = "--dry-run --n 1 --d 16 --m 8 --accelerators CPU H200 --storage {tmp_path} --name r"
assert sweep_command(MLP(), flags.split()) == 0
assert "ray" not in sys.modules, sorted(name for name in sys.modules if name.startswith("ray."))[:5]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "H200" in done.stdout
