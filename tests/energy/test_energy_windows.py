"""The bench of window lengths: its arithmetic on made-up runs, and all of it on a simulated counter."""

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import energy_report

    return energy_report


def made_up(error_by_method, loads=(0.45, 1.15), temperature_c=50.0):
    """A run whose truth climbs from 1.00 to 1.02 J and whose windows are wrong by +-error at either load length."""
    truths = [
        {
            "start_s": s,
            "end_s": s + 60.0,
            "energy_j": e,
            "time_s": 1e-3,
            "power_w": 500.0,
            "temperature_c": [50.0, 51.0],
        }
        for s, e in ((0.0, 1.00), (200.0, 1.02))
    ]
    windows = []
    for load_s in loads:
        for sign in (1, -1):
            start_s = 130.0 - load_s / 2  # half way between the truths: 1.01 J
            energy_j = {m: 1.01 * (1 + sign * e(load_s)) for m, e in error_by_method.items()}
            windows.append(
                {
                    "start_s": start_s,
                    "end_s": start_s + load_s,
                    "window_s": load_s - 0.15,
                    "temperature_c": temperature_c,
                    "energy_j": energy_j,
                }
            )
    return {"truths": truths, "windows": windows, "settle_s": 0.15}


def test_errors_are_against_the_truth_of_that_moment(report):
    run = made_up({"ticks": lambda load: 0.01})
    assert report.truth_at(run, 130.0) == pytest.approx(1.01)
    for values in report.errors(run)["ticks"].values():
        assert report.rms(values) == pytest.approx(0.01)
        assert values.mean() == pytest.approx(0.0)


def test_windows_at_another_temperature_are_left_out(report):
    assert report.errors(made_up({"ticks": lambda load: 0.01}, temperature_c=57.0)) == {}


def test_seconds_for_an_error_follow_the_power_law(report):
    """An error of 0.1 / load reaches 0.125 at 0.8 s."""
    run = made_up({"zeus": lambda load: 0.1 / load}, loads=(0.5, 1.0, 2.0))
    assert report.seconds_for_error(run, "zeus", 0.125) == (pytest.approx(0.8), True)
    assert report.seconds_for_error(run, "zeus", 0.3) == (pytest.approx(0.5), True)
    assert report.seconds_for_error(run, "zeus", 0.01) == (pytest.approx(2.0), False)


def test_an_error_that_comes_back_does_not_count_as_reached(report):
    run = made_up({"zeus": lambda load: {0.5: 0.01, 1.0: 0.05, 2.0: 0.01}[load]}, loads=(0.5, 1.0, 2.0))
    seconds, reached = report.seconds_for_error(run, "zeus", 0.02)
    assert reached
    assert 1.0 < seconds < 2.0


def test_windows_with_too_few_ticks_cost_time_without_a_result(report):
    run = made_up({"ticks": lambda load: 0.01})
    failed = {**run["windows"][0], "energy_j": {}, "too_short": 1.0}
    run["windows"].append(failed)
    short_s, long_s = report.gpu_seconds(run, "ticks").values()
    assert short_s == pytest.approx(1.5 * 0.45)
    assert long_s == pytest.approx(1.15)


@pytest.mark.slow
def test_the_whole_bench_on_a_simulated_counter(tmp_path, warm_python):
    command = ["bench/energy_windows.py", "--out", str(tmp_path)]
    done = warm_python.run(*command, "--smoke", "--device", "simulated", "--workloads", "small", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "tick-aligned" in done.stdout
    assert "begin / end" in done.stdout
    (file,) = tmp_path.glob("*.json")
    run = json.loads(file.read_text())
    truth_j = run["truths"][0]["energy_j"]
    assert truth_j == pytest.approx(0.3, rel=0.02)
    ticks = [abs(w["energy_j"]["ticks"] / truth_j - 1) for w in run["windows"] if "ticks" in w["energy_j"]]
    assert len(ticks) == 4
    assert np.median(ticks) < 0.04
    assert warm_python.run(*command, "--plot", str(file), cwd=ROOT).returncode == 0
    assert (tmp_path / "energy_windows.png").stat().st_size > 10_000


def test_without_a_gpu_it_says_so(tmp_path, warm_python):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = warm_python.run("bench/energy_windows.py", "--out", str(tmp_path), cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert not list(tmp_path.glob("*.json"))
