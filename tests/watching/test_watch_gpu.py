"""`watch` and `flopray run` on real GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import flopray
from flopray.watching.program_run import run_program
from flopray.watching.series import load_series

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
#: A program that watches itself: products of a width on a device of torch, then its summary as JSON.
PROGRAM = """
import json, sys, time, torch, flopray
device, width, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
torch.cuda.set_device(device)
x = torch.randn(width, width, device=device, dtype=torch.bfloat16) / width**0.5
with flopray.watch(cpu=False) as w:
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        with w.step():
            y = x
            for _ in range(50):
                y = y @ x
            y.sum().item()
print(json.dumps(w.summary().to_dict()))
"""


def start(device, width, seconds, visible=None):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    command = [sys.executable, "-c", PROGRAM, device, str(width), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def told(process):
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def uuid_of(index):
    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"


def test_a_watched_loop_agrees_with_what_measure_says():
    """Replays of a graph in a plain loop: the remaining difference is temperature (docs/method.md)."""
    x = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16) / 64

    def step():
        y = x
        for _ in range(40):
            y = y @ x
        return y

    flopray.measure(step, max_seconds=4.0, target_error=0.001)  # warm
    measured = flopray.measure(step, max_seconds=4.0)
    with flopray.watch(cpu=False) as w:
        for number in range(800):
            with w.step():
                step()
            if number % 20 == 19:
                torch.cuda.synchronize()
    s = w.summary()
    assert s.time.clock == "cuda_events"
    assert s.time.time_s == pytest.approx(measured.time.time_s, rel=0.03)
    error = s.rel_error + measured.energy.rel_error
    assert s.energy_j == pytest.approx(measured.energy.energy_j, rel=0.03 + error)
    (gpu,) = s.devices
    assert gpu.uuid == uuid_of(0)
    assert gpu.source == "nvml_counter"
    assert 0 < gpu.power_w <= gpu.peak_power_w < 1500
    assert 15 < gpu.peak_temperature_c < 110
    assert w.frame["sm_clock_hz"].notna().all()


def test_marks_lie_where_a_synchronised_loop_says():
    """Regions around sleeps between synchronised steps: events on the host clock are right to milliseconds."""
    import time

    x = torch.randn(2048, 2048, device="cuda")
    walls_s = []
    with flopray.watch(cpu=False) as w:
        for _ in range(100):
            torch.cuda.synchronize()
            walls_s.append(time.perf_counter())
            with w.step():
                (x @ x).sum().item()
    starts_s = w.series().steps.groupby("step")["start_s"].min().to_numpy() + w.series().about["origin_s"]
    off_s = starts_s - walls_s[-len(starts_s) :]
    assert abs(off_s[1:]).max() < 0.01  # the first one loads the product's kernels between its mark and the device


def test_a_region_in_a_capture_is_refused_and_one_around_replays_is_not():
    x = torch.randn(512, 512, device="cuda")
    x @ x
    torch.cuda.synchronize()
    with flopray.watch(cpu=False) as w:
        graph = torch.cuda.CUDAGraph()
        with w.region("capture"), torch.cuda.graph(graph):
            y = x @ x
            with pytest.raises(RuntimeError, match="capture of a CUDA graph"), w.region("inside"):
                pass
        for _ in range(50):
            with w.step():
                graph.replay()
    assert y.shape == (512, 512)
    assert w.summary().steps == 50


def test_under_a_reordered_environment_the_right_gpu_is_watched():
    """By index and by UUID of NVML: `cuda:0` is then another GPU than NVML's first, where there are several."""
    last = torch.cuda.device_count() - 1
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        pytest.skip("CUDA_VISIBLE_DEVICES is set already: its indices are not those of this process")
    for visible in (",".join(str(index) for index in range(last, -1, -1)), uuid_of(last)):
        summary = told(start("cuda:0", 2048, 1.5, visible))
        assert [device["uuid"] for device in summary["devices"]] == [uuid_of(last)]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_processes_on_two_gpus_keep_their_joules_apart():
    """Both see both GPUs, as ranks do; one works hard and the other one lightly, then alone for comparison."""
    heavy, light = start("cuda:0", 8192, 6.0), start("cuda:1", 512, 6.0)
    both = [told(heavy), told(light)]
    alone = told(start("cuda:1", 512, 6.0))
    assert [[device["uuid"] for device in summary["devices"]] for summary in both] == [[uuid_of(0)], [uuid_of(1)]]
    assert both[0]["devices"][0]["power_w"] > 1.5 * both[1]["devices"][0]["power_w"]
    assert both[1]["devices"][0]["power_w"] == pytest.approx(alone["devices"][0]["power_w"], rel=0.15)


def test_a_program_from_outside_takes_what_it_says_inside(tmp_path):
    environment = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{environment}"
    script = PROGRAM.replace("print(json", "w.save(sys.argv[4]); print(json")
    try:
        words = [sys.executable, "-c", script, "cuda:0", "4096", "5", str(tmp_path / "inside")]
        run, series = run_program(words, tmp_path / "run")
    finally:
        os.environ["PYTHONPATH"] = environment
    assert run.exit_code == 0
    assert [gpu.uuid for gpu in run.gpus] == [uuid_of(0)], run.known_by
    inside = load_series(tmp_path / "inside").about["summary"]["devices"][0]
    assert run.energy_j > inside["energy_j"]
    assert run.peak_power_w == pytest.approx(inside["peak_power_w"], rel=0.1)
    assert series.samples["temperature_c"].notna().any()
