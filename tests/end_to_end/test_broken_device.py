"""A cluster whose node claims a GPU that does not exist: every point says why, and the sweep ends."""

import pytest
from machine import QUICK

from flopray import load_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def boastful(machine):
    resources = '{"accelerator_type:H100":1}'
    machine.ray(f"start --head --port=0 --num-cpus=2 --num-gpus=1 --include-dashboard=false --resources={resources}")
    yield
    machine.end_processes()


def test_a_device_that_cannot_be_opened_is_told_in_every_row(machine, boastful):
    line = f"--address auto --n 1 --d 16 24 --m 8 16 --phases forward {QUICK} --name boastful"
    code, output = machine.sweep(line)
    assert code == 3, output
    frame = load_run(machine.run_path("boastful"))
    assert len(frame) == 4
    assert (frame.status == "failed").all()
    assert frame.status_reason.str.contains("the device could not be opened: .*CUDA").all(), frame.status_reason[0]
    assert frame.time_s.isna().all()


def test_more_cores_than_there_are_is_refused(machine, boastful):
    code, output = machine.sweep("--address auto --cpus-per-trial 3 --name greedy")
    assert code == 2
    assert "a trial on H100 holds 3 CPU cores, and no node with it has more than 2" in output
    assert not machine.run_path("greedy").exists()
