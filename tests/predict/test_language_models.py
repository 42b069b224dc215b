"""Language models: held out by model, and one that is always left out."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
import pytest
from imagined_gpu import NAMES, truth

from flopray.predict import fit
from flopray.predict.arrays import works_as_arrays
from flopray.predict.kernel_choice import KernelChoices
from flopray.predict.measured import plain_rows
from flopray.predict.work import work_of
from flopray.workloads.registry import make_point

MODELS = ("llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "llama-tiny")
LEFT_OUT = "llama-3.2-1b"


def llama(model: str, tokens: int, batch: int = 8):
    return make_point(
        "llama", device_type="H100", precision="bf16", model=model, weights="random", attention="auto",
        checkpointing=False, batch_size=batch, sequence_length=tokens,
    )  # fmt: skip


def cost(point, phase: str) -> tuple[float, float]:
    """What the imagined GPU takes: time and energy."""
    time, energy = truth("H100", "bf16")
    works = works_as_arrays([work_of(point, phase)], time.device, KernelChoices())
    seconds = time.times(works)
    return float(seconds[0]), float(energy.energies(time, works, seconds)[0])


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rows = []
    for model, tokens, batch, phase in itertools.product(MODELS, (256, 1024), (1, 8), ("forward", "train_step")):
        point = llama(model, tokens, batch)
        row: dict[str, Any] = {**point.fields(), "phase": phase, "trial_id": point.id, "status": "ok"}
        row |= dict(point.workload.closed_form(point, phase)) | dict(point.workload.beside(point, phase))
        row["model_flops"] = sum(point.workload.closed_form(point, phase).values())
        row["least_moved_bytes"] = point.workload.least_moved_bytes(point, phase, 2)
        row["time_s"], row["energy_j"] = cost(point, phase)
        row |= {"energy_at_reference_j": row["energy_j"], "reference_temperature_c": 50.0}
        rows.append(row | {"device_name": NAMES["H100"], "device_uuid": "GPU-a", "findings": []})
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_a_model_that_was_held_out_and_one_that_was_left_out_are_predicted(frame):
    predictor = fit([frame], kinds=["model"], leave_out=[LEFT_OUT])
    (group,) = predictor.groups
    assert predictor.left_out == {f"{LEFT_OUT} is left out": 8}
    assert [one.held_out.label for one in group.judged] == [
        "model=llama-3.1-8b",
        "model=llama-3.2-3b",
        "model=llama-tiny",
    ]
    by_model = {one.held_out.values[0]: one.scores for one in group.judged}
    for name in ("llama-3.2-3b", "llama-3.1-8b"):
        assert by_model[name]["time"]["roofline"].mape < 0.1  # few rows; with constants, fastest kernels change too
    for tokens, phase in itertools.product((256, 512, 1024), ("forward", "train_step")):
        point = llama(LEFT_OUT, tokens)
        answer = predictor.predict(point, phase, model="roofline")
        time_s, energy_j = cost(point, phase)
        assert answer.time_s.value == pytest.approx(time_s, rel=0.1)
        assert answer.energy_j.value == pytest.approx(energy_j, rel=0.1)
        assert answer.outside is None


def test_work_of_a_row_and_of_its_point_are_the_same(frame):
    from flopray.predict.work import work_of_row
    from flopray.workloads.llama import Llama

    row = plain_rows(frame[frame["model"] == "llama-3.2-3b"])[0]
    one = work_of_row(row, Llama())
    other = work_of(llama("llama-3.2-3b", int(row["sequence_length"]), int(row["batch_size"])), row["phase"])
    assert one == other
