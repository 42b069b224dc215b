"""A point that breaks its CUDA context becomes a row with that reason, and a new process measures the others."""

import json
from pathlib import Path

import pytest
from driver import PLAN_VARIABLE

from flopray import load_run

pytestmark = [pytest.mark.ray, pytest.mark.gpu, pytest.mark.timeout(400)]
FLAGS = "--instruments time --phases forward --max-seconds 0.05 --target-error 0.5 --sentinel-every 0 --no-plots"


def test_a_poisoned_context_costs_its_point_and_no_other(lane):
    plan = {"act": "poison", "shape": {"n_layers": 2, "width": 128, "tokens": 32}}
    line = f"--n 2 --d 64:256:64 --m 16:64:16 --points-per-trial 16 {FLAGS} --name poisoned"
    sweep = lane.start(line, script=str(Path(__file__).with_name("driver.py")), **{PLAN_VARIABLE: json.dumps(plan)})
    assert sweep.wait() == 3, sweep.output
    frame = load_run(lane.run_path("poisoned"))
    assert len(frame) == 16
    bad = frame[frame["status"] != "ok"]
    assert bad[["width", "tokens", "status"]].to_numpy().tolist() == [[128, 32, "failed"]]
    assert "assert" in bad["status_reason"].item()
    assert (frame.loc[frame["status"] == "ok", "time_s"] > 0).all()
    assert not frame.duplicated(["trial_id", "phase"]).any()
