"""The comparison of `flopray run`, a watch and a sweep: values from kept series, and what counts as agreement."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import flopray
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import SimulatedMeter
from flopray.watching.series import load_series

BENCH = Path(__file__).parents[2] / "bench"
POWER_W, STEP_S = 300.0, 0.01


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        return importlib.import_module("against_run")


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> Path:
    """Two seconds of steps in a watch, with a meter whose truth is known."""
    folder = tmp_path_factory.mktemp("watched")
    meter = SimulatedMeter(ConstantPower(POWER_W), period_s=0.02, latency_s=0.0005)
    end_s = time.perf_counter() + 2.0
    with flopray.watch(meter=meter, cpu=False, save=folder / "mlp") as w:
        while time.perf_counter() < end_s:
            with w.step():
                time.sleep(STEP_S)
    return folder


def values(bench: ModuleType, folder: Path, factor: float) -> dict[str, Any]:
    """The rows of a loop whose profile says `factor` times what the watch says."""
    series = load_series(folder / "mlp")
    truth_j = POWER_W * series.about["summary"]["time"]["time_s"]
    record = {"device_name": "NVIDIA H200", "power_limit_w": 700.0, "power_w": POWER_W, "temperature_mean_c": 45.0}
    record |= {"time_s": 0.0101, "time_rel_error": 0.01, "energy_j": factor * truth_j, "energy_rel_error": 0.01}
    (folder / "mlp.json").write_text(json.dumps({"work": "an MLP", "precision": "bf16", "record": record}))
    return bench.compared(folder, series, "mlp")


@pytest.mark.parametrize(("factor", "agree"), [(1.0, True), (1.5, False)])
def test_values_that_are_further_apart_than_both_intervals_do_not_agree(bench, watched, factor, agree):
    outside, inside, profiled = values(bench, watched, factor)["rows"]
    assert inside["energy_j"] == pytest.approx(outside["energy_j"])
    found = bench.agreement(inside, profiled)
    assert found["agree"] is agree
    assert found["difference"] == pytest.approx(profiled["energy_j"] / inside["energy_j"] - 1)


def test_the_table_has_each_value_and_says_what_is_missing(bench, watched, capsys):
    about = {"device": "NVIDIA H200", "uuid": "GPU-1", "driver": "1", "torch": "2", "date": "2026-01-01"}
    bench.show(about | {"watch_s": 2.0, "took_s": 3.0, "loops": {"mlp": values(bench, watched, 1.5)}})
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "mlp: an MLP, train_step"
    run, watch, profile, *verdicts = lines[3:]
    assert [line.split("  ")[1].strip() for line in (run, watch, profile)] == [
        "flopray run",
        "watch inside it",
        "flopray.profile",
    ]
    assert all("J a step ±" in line for line in (run, watch, profile))
    assert "at 50 °C none: " in watch  # a simulated meter has no temperature
    assert "45.0 °C; at 50 °C " in profile
    assert "none" not in profile
    assert len(verdicts) == 3
    assert "within both intervals: yes, within 1 %: yes" in verdicts[0]
    assert "within both intervals: no, within 1 %: no" in verdicts[2]


def test_without_a_source_of_energy_the_reason_is_kept(bench, watched):
    series = load_series(watched / "mlp")
    row = bench.estimated("watch", series, 0.0, series, None)
    assert row["energy_j"] is None
    assert row["time_s"] == pytest.approx(STEP_S, rel=0.5)
    assert bench.agreement(row, row) is None
    assert bench.agreement(row, row, "time") is not None
