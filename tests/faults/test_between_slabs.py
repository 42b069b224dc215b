"""A process that ends between two slabs: Tune gives up the second one without a retry, flopray does not."""

import json
from pathlib import Path

import pytest
from driver import PLAN_VARIABLE

from flopray import load_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
FLAGS = "--instruments time --phases forward --max-seconds 0.05 --target-error 0.5 --sentinel-every 0 --no-plots"


@pytest.mark.parametrize(("times", "code"), [(1, 0), (100, 3)])
def test_each_point_ends_as_a_row(lane, tmp_path, times, code):
    plan = {"act": "die-between", "marks": str(tmp_path), "times": times}
    name = f"between-{times}"
    line = f"--address {lane.cluster('plain')} --cpus-per-trial 2 --points-per-trial 4"
    line += f" --n 2 --d 64:256:64 --m 16:64:16 {FLAGS} --name {name}"
    sweep = lane.start(line, script=str(Path(__file__).with_name("driver.py")), **{PLAN_VARIABLE: json.dumps(plan)})
    assert sweep.wait() == code, sweep.output
    frame = load_run(lane.run_path(name))
    assert len(frame) == 16
    assert not frame.duplicated(["trial_id", "phase"]).any()
    bad = frame[frame["status"] != "ok"]
    assert bool(len(bad)) == (code == 3)
    assert bad["status_reason"].str.contains("abandoned its trial|could not run").all()
