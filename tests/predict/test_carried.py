"""Fits carried to a type of device without rows of that work."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from imagined_gpu import made_frame, truth

from flopray.errors import InputError
from flopray.predict import Predictor, fit
from flopray.predict.arrays import works_as_arrays
from flopray.predict.carried import carried, carried_intervals, is_alike
from flopray.predict.device import device_of
from flopray.predict.judging import half_width
from flopray.predict.kernel_choice import KernelChoices
from flopray.predict.stored import Interval
from flopray.predict.work import work_of
from flopray.workloads.mlp import MLP

KINDS = ["n"]


def mlp(device_type: str, precision: str = "bf16", width: int = 384):
    return MLP().point(
        device_type=device_type, precision=precision, execution="graph", n_layers=4, width=width, tokens=64
    )


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """bf16 was measured on both types, fp32 on the H200 alone."""
    frames = [made_frame(device_type=name, noise=0.02, seed=seed) for seed, name in enumerate(("H100", "H200"))]
    only = made_frame(device_type="H200", precision="fp32", noise=0.02, seed=2)
    return fit([pd.concat([*frames, only], ignore_index=True)], kinds=KINDS)


@pytest.mark.slow
def test_work_that_was_measured_on_the_same_chip_alone_is_answered(predictor):
    titles = {group.where.title for group in predictor.groups}
    assert "H100 fp32 graph mlp, from H200" in titles
    assert "H100 bf16 graph mlp" in titles
    answer = predictor.predict(mlp("H100", "fp32"), "forward")
    time, energy = truth("H100", "fp32")
    works = works_as_arrays([work_of(mlp("H100", "fp32"), "forward")], time.device, KernelChoices())
    seconds = time.times(works)
    assert answer.time_s.value == pytest.approx(float(seconds[0]), rel=0.1)
    assert answer.energy_j.value == pytest.approx(float(energy.energies(time, works, seconds)[0]), rel=0.1)
    assert answer.basis.endswith("carried to H100 by datasheets")
    assert answer.same_kind
    # at this precision nothing shows how well it is carried
    assert answer.time_s.low is None
    with pytest.raises(InputError, match="was not measured on H100"):
        predictor.predict(mlp("H100", "fp32"), "forward", model="constant")


@pytest.mark.slow
def test_intervals_have_what_carrying_missed_where_both_types_were_measured():
    """Graphs of both types were measured; eager work of the H200 alone."""
    both = [made_frame(device_type=name, noise=0.02, seed=seed) for seed, name in enumerate(("H100", "H200"))]
    eager = made_frame(device_type="H200", noise=0.02, seed=2).assign(execution="eager")
    made = fit([pd.concat([*both, eager], ignore_index=True)], kinds=KINDS)
    group = next(one for one in made.groups if one.where.carried_from)
    source = next(one for one in made.groups if (one.where.execution, one.where.device_type) == ("eager", "H200"))
    assert group.where.title == "H100 bf16 eager mlp, from H200"
    (judged,) = group.judged
    assert (judged.held_out.kind, judged.held_out.device_type, judged.held_out.values) == ("type", "H100", ("H200",))
    assert judged.scores["time"]["roofline"].mape < 0.1
    for target in ("time", "energy"):
        ours, theirs = group.intervals[target]["learned"], source.intervals[target]["learned"]
        assert ours.inside > theirs.inside
        assert ours.boards == theirs.boards
    again = Predictor.from_json(made.to_json())
    assert next(one for one in again.groups if one.where.carried_from).where == group.where


def test_intervals_are_added_up():
    class Errors:
        inside = np.ones(20, bool)

        def __init__(self, size):
            self.size = size

        def logs(self, target, model, *, counted=True):
            return np.full(20, self.size)

    own = {"time": {"learned": Interval(inside=0.03, outside=None, boards=0.01)}}
    (interval,) = carried_intervals(own, [Errors(0.04)])["time"].values()
    assert interval.inside == pytest.approx(0.03 + half_width(np.full(20, 0.04)))
    assert interval.outside is None
    assert carried_intervals(own, [])["time"]["learned"].inside is None


def test_only_the_same_chip_is_alike():
    h100, h200, a100 = (device_of(name, None, None, [], []) for name in ("H100", "H200", "A100"))
    assert is_alike(h100, h200, "bf16")
    assert not is_alike(h100, a100, "bf16")
    assert not is_alike(h100, h200, "fp7")


@pytest.mark.slow
def test_memory_keeps_its_share_of_the_datasheet(predictor):
    source = next(one for one in predictor.groups if one.where.title == "H200 fp32 graph mlp").fit
    device = device_of("H100", "NVIDIA H100 80GB HBM3", None, [], [])
    found = carried(source, device, "fp32").time.constants
    ratio = found["memory_bytes_per_s"] / source.time.constants["memory_bytes_per_s"]
    assert ratio == pytest.approx(device.memory_bytes_per_s / source.device.memory_bytes_per_s)
    assert found["product_launch_s"] == pytest.approx(source.time.constants["product_launch_s"])
