"""Looking at a machine: meters in software, GPUs that answer and that do not, and this machine as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from flopray.cluster.doctor import machine, software
from flopray.cluster.doctor.machine import look, watch
from flopray.cluster.doctor.software import look_at_counters, look_at_torch
from flopray.energy.nvml_errors import GpuLost, NvmlFails, NvmlUnavailable
from flopray.errors import MeterError, NoEnergySource, Unsupported
from flopray.flops.executed.metrics import CHIPS
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import Faults, SimulatedMeter


def ticking(period_s=0.02, faults=None):
    return SimulatedMeter(ConstantPower(100.0), period_s=period_s, latency_s=0.0005, faults=faults)


class FakeGpu:
    def __init__(self, uuid, failure=None):
        self.uuid, self.handle, self._failure = uuid, uuid, failure

    def info(self):
        if self._failure:
            raise self._failure
        return {
            "device_name": "NVIDIA H100 80GB HBM3",
            "device_uuid": self.uuid,
            "driver_version": "580.159.04",
            "compute_capability": "9.0",
            "power_limit_w": 700.0,
            "memory_total_bytes": 85_520_809_984,
        }

    def is_mig(self):
        return False

    def other_processes(self, own_context=True):
        assert not own_context
        return 2


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with a GPU and a lost one, quickly looked at."""
    gpus = [FakeGpu("GPU-a"), FakeGpu("GPU-b", GpuLost("the GPU is lost"))]
    memory = SimpleNamespace(nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(free=7), NVMLError=OSError)

    def open_gpu_meter(uuid):
        if uuid == "GPU-b":
            raise MeterError("the GPU is lost")
        return ticking()

    monkeypatch.setattr(machine, "list_gpus", lambda: gpus)
    monkeypatch.setattr(machine, "library", lambda: memory)
    monkeypatch.setattr(machine, "open_gpu_meter", open_gpu_meter)
    monkeypatch.setattr(machine, "look_at_torch", lambda whole_machine: software.Torch("2.13.0", "13.0", 2, None))
    monkeypatch.setattr(software, "find_ncu", no_ncu)


def no_ncu():
    raise Unsupported("ncu is not installed: install Nsight Compute")


@pytest.mark.slow
def test_each_gpu_is_looked_at_and_a_lost_one_says_so(two_gpus):
    found = look()
    first, lost = found.gpus
    assert (first.name, first.memory_free_bytes, first.other_processes) == ("NVIDIA H100 80GB HBM3", 7, 2)
    assert first.energy.source == "simulated"
    assert first.energy.tick_period_s == pytest.approx(0.02, rel=0.3)
    assert lost.reason == "the GPU is lost"
    assert (lost.name, lost.memory_free_bytes, lost.other_processes, lost.energy.source) == (None,) * 4
    assert found.counters is not None
    assert found.counters.ncu is None
    assert "install" in (found.counters.ncu_reason or "")


@pytest.mark.slow
def test_what_was_found_is_plain_data(two_gpus):
    found = asdict(look())
    assert json.loads(json.dumps(found))["gpus"][0]["uuid"] == "GPU-a"


@pytest.fixture
def a_torch(monkeypatch):
    """What torch would say, without the seconds of its import in another process."""
    monkeypatch.setattr(machine, "look_at_torch", lambda whole_machine: software.Torch("2.13.0", "13.0", 0, None))


@pytest.mark.usefixtures("a_torch")
def test_without_a_driver_there_is_a_reason(monkeypatch):
    def list_gpus():
        raise NvmlUnavailable("no NVML library")

    monkeypatch.setattr(machine, "list_gpus", list_gpus)
    found = look()
    assert (found.gpus, found.gpus_reason, found.counters) == ((), "no NVML library", None)


def test_a_driver_that_fails_is_told_from_none(monkeypatch):
    def list_gpus():
        raise NvmlFails("nvmlInit failed: Unknown Error")

    monkeypatch.setattr(machine, "list_gpus", list_gpus)
    found = look(quick=True)
    assert (found.gpus, found.gpus_reason, found.gpus_fail) == ((), "nvmlInit failed: Unknown Error", True)


def test_a_lost_gpu_hides_neither_counters_nor_chip_of_the_others(two_gpus, monkeypatch):
    asked = []
    monkeypatch.setattr(machine, "look_at_counters", lambda capabilities: asked.append(list(capabilities)))
    look(quick=True)
    assert asked == [["9.0"]]


@pytest.mark.usefixtures("a_torch")
def test_a_driver_without_gpus_is_no_working_one(monkeypatch):
    monkeypatch.setattr(machine, "list_gpus", list)
    assert "--gpus" in (look().gpus_reason or "")


def test_meters_are_watched_together_and_keep_their_order():
    def none():
        raise NoEnergySource("nothing to read")

    slow, absent, failing, fast = watch(
        [lambda: ticking(5.0), none, lambda: ticking(faults=Faults(fail_s=0.05)), ticking], 0.5
    )
    assert slow.source == "simulated"
    assert slow.tick_period_s is None
    assert "ticks" in (slow.tick_reason or "")
    assert (absent.source, absent.reason) == (None, "nothing to read")
    assert failing.source is None
    assert failing.reason
    assert fast.tick_period_s == pytest.approx(0.02, rel=0.3)
    # The mean counts over missed ticks, the percentiles leave them out: on a busy machine it can lie outside of them.
    assert fast.tick_p5_s is not None
    assert 0 < fast.tick_p5_s <= (fast.tick_p95_s or 0)


def test_a_meter_that_changes_when_read_has_no_ticks():
    meter = ticking()
    meter.changes_on_read = True
    (energy,) = watch([lambda: meter], 0.1)
    assert (energy.source, energy.tick_period_s) == ("simulated", None)
    assert "sampled" in (energy.tick_reason or "")


@pytest.mark.slow
def test_torch_is_asked_in_a_process_of_its_own():
    import torch

    found = look_at_torch(whole_machine=False)
    assert (found.version, found.cuda) == (str(torch.__version__), torch.version.cuda)
    assert found.gpus == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


@pytest.mark.parametrize("whole_machine", [True, False])
def test_what_ray_hides_from_a_task_is_shown_on_demand(monkeypatch, whole_machine):
    def run(command, env, **_):
        return SimpleNamespace(stdout=json.dumps(answer | {"gpus": int("CUDA_VISIBLE_DEVICES" not in env)}))

    answer = {"version": "2.13.0", "cuda": "13.0", "reason": None}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(subprocess, "run", run)
    assert look_at_torch(whole_machine=whole_machine).gpus == int(whole_machine)


@pytest.mark.parametrize("printed", ["", "Segmentation fault\n"])
def test_a_torch_that_breaks_its_process_is_told(monkeypatch, printed):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=printed))
    found = look_at_torch(whole_machine=False)
    assert (found.version, found.gpus) == (None, None)
    assert "import torch" in (found.reason or "")


def test_a_torch_that_hangs_is_told(monkeypatch):
    def run(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    assert "did not end" in (look_at_torch(whole_machine=False).reason or "")


@pytest.fixture
def ncu(tmp_path, monkeypatch):
    """An ncu that knows only Hopper."""
    path = tmp_path / "ncu"
    path.write_text(
        '#!/bin/sh\n[ "$1" = --list-chips ] && echo "gh100, gb100" || echo "Version 2025.3.1.0 (build 1)"\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("FLOPRAY_NCU", str(path))
    return path


def test_ncu_is_asked_for_each_kind_of_gpu_once(ncu):
    found = look_at_counters(["9.0", "9.0", "7.0", "99.0", None])
    assert (found.ncu, found.ncu_version, found.ncu_reason) == (str(ncu), "2025.3.1.0", None)
    assert [chip.name for chip in found.chips] == [CHIPS["9.0"], CHIPS["7.0"], None, None]
    hopper, volta, future, silent = (chip.reason for chip in found.chips)
    assert hopper is None
    assert "gv100" in (volta or "")
    assert "99.0" in (future or "")
    assert "unknown" in (silent or "")


def test_importing_needs_neither_ray_nor_torch():
    code = "import flopray.cluster.doctor.machine, sys; print(sorted({'ray', 'torch', 'pynvml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.gpu
def test_a_real_gpu_is_looked_at():
    gpu = look().gpus[0]
    assert gpu.reason is None
    assert gpu.memory_free_bytes is not None
    assert gpu.memory_total_bytes is not None
    assert 0 < gpu.memory_free_bytes <= gpu.memory_total_bytes
    if gpu.energy.source == "nvml_counter":
        assert gpu.energy.tick_period_s is not None
        assert 0.005 < gpu.energy.tick_period_s < 1
