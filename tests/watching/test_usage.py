"""Which GPUs a program used, from NVML's processes: on a machine, in a container, and where NVML hides them."""

import os
import subprocess
import sys

import pytest

from flopray.energy.nvml_errors import NvmlUnavailable
from flopray.watching import usage
from flopray.watching.programs import family, process_name

GIB = 2**30


class Gpu:
    def __init__(self, uuid, processes=(), memory=GIB):
        self.uuid, self.now, self.memory = uuid, set(processes), memory

    def processes(self):
        return None if self.now is None else dict.fromkeys(self.now)

    def memory_used_bytes(self):
        return self.memory


@pytest.fixture
def gpus(monkeypatch):
    found = [Gpu("GPU-a", {7}), Gpu("GPU-b"), Gpu("GPU-c")]
    monkeypatch.setattr(usage, "list_gpus", lambda: found)
    monkeypatch.setattr(usage, "family", lambda pid: {pid, pid + 1})
    monkeypatch.setattr(usage, "process_name", lambda pid: {7: "neighbour"}.get(pid, str(pid)))
    return found


def test_a_gpu_with_a_process_of_the_program_was_used(gpus):
    seen = usage.Usage()
    gpus[0].now |= {101}
    gpus[2].now |= {500}  # somebody else began meanwhile
    seen.look(100)
    gpus[0].now = {7}  # the worker has ended
    seen.look(100)
    assert seen.used() == {"GPU-a": ("its processes", ["neighbour (7)"])}


def test_in_a_container_processes_that_came_later_are_taken_for_its_own(gpus):
    seen = usage.Usage()
    gpus[0].now |= {90001}
    gpus[1].now |= {90002}
    seen.look(100)
    how = "processes that came after it began"
    assert seen.used() == {"GPU-a": (how, ["neighbour (7)"]), "GPU-b": (how, [])}


def test_where_no_process_is_shown_memory_tells(gpus):
    for gpu in gpus:
        gpu.now = None
    seen = usage.Usage()
    gpus[1].memory += GIB
    seen.look(100)
    gpus[1].memory -= GIB
    seen.look(100)
    assert seen.used() == {"GPU-b": ("memory that was allocated after it began", [])}


def test_a_program_without_a_gpu_used_none(gpus):
    seen = usage.Usage()
    seen.look(100)
    assert seen.used() == {}
    assert seen.reason is None


def test_without_nvml_there_is_a_reason(monkeypatch):
    def none():
        raise NvmlUnavailable("no NVML library: this machine has no NVIDIA driver")

    monkeypatch.setattr(usage, "list_gpus", none)
    seen = usage.Usage()
    seen.look(100)
    assert (seen.used(), seen.reason) == ({}, "no NVML library: this machine has no NVIDIA driver")


def test_a_family_has_children_of_children():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        child.stdout.readline()
        found = family(os.getpid())
        assert {os.getpid(), child.pid} < found
        assert len(family(child.pid)) == 2
    finally:
        child.communicate("\n", timeout=20)
    assert process_name(2**22 + 1) == str(2**22 + 1)
