"""Held-out rows: what is held out, that no fit sees it, and how its errors are used."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from imagined_gpu import made_frame

from flopray.predict.fitting import LEARNED, MODELS, devices_of, fit_devices
from flopray.predict.held_out import HeldOut, hash_of, held_out_sets, keys_of
from flopray.predict.judging import LEVEL, TARGETS, TIME, SetErrors, half_width, interval_width, judgements, set_errors
from flopray.predict.kernel_choice import Choice, Counted, KernelChoices
from flopray.predict.measured import measured_rows
from flopray.predict.stored import Interval
from flopray.predict.work import work_of
from flopray.workloads.mlp import MLP

DOCS = Path(__file__).parents[2] / "docs"


def errors_of(frame, kinds):
    rows = measured_rows([frame])
    return list(set_errors(rows, devices_of(rows), KernelChoices(), {"mlp": MLP()}, kinds))


def test_each_value_of_each_dimension_and_each_board_is_held_out_once():
    frame = made_frame(layers=(2, 4), widths=(128, 256, 512), tokens=(16,), boards=("GPU-a", "GPU-b"))
    sets = [one for one, _ in held_out_sets(frame, MLP())]
    assert [one.label for one in sets] == ["n=2", "n=4", "d=128", "d=256", "d=512", "board=GPU-a", "board=GPU-b"]
    assert [one.edge for one in sets] == [True, True, True, False, True, False, False]
    assert {one.rows for one in sets if one.kind == "d"} == {8}


def test_of_many_values_neighbours_are_held_out_together():
    frame = made_frame(layers=(2,), widths=tuple(range(64, 64 * 11, 64)), tokens=(16,), phases=("forward",))
    blocks = [one.values for one, _ in held_out_sets(frame, MLP(), ["d"])]
    assert blocks == [("64", "128"), ("192", "256"), ("320", "384"), ("448", "512"), ("576", "640")]


def test_a_hash_names_rows_whatever_their_order_and_values():
    frame = made_frame(layers=(2,), widths=(128,), tokens=(16, 64))
    assert hash_of(keys_of(frame)) == hash_of(keys_of(frame[::-1])) == hash_of(keys_of(frame.assign(time_s=1.0)))
    assert hash_of(keys_of(frame)) != hash_of(keys_of(frame[1:]))


@pytest.mark.parametrize("kind", ["d", "board"])
def test_what_is_held_out_does_not_move_its_own_prediction(kind):
    frame = made_frame(layers=(2, 8), widths=(256, 512), tokens=(16, 256), boards=("GPU-a", "GPU-b"), noise=0.01)
    held = frame["width"] == 512 if kind == "d" else frame["device_uuid"] == "GPU-b"
    wrong = frame.copy()
    wrong.loc[held, ["time_s", "energy_at_reference_j"]] *= 10.0
    value = "512" if kind == "d" else "GPU-b"
    right, moved = (
        next(one for one in errors_of(each, [kind]) if one.held_out.values == (value,)) for each in (frame, wrong)
    )
    for target in ("time", "energy"):
        assert moved.measured[target] == pytest.approx(10 * right.measured[target])
        for model in MODELS:
            assert moved.predicted[target][model] == pytest.approx(right.predicted[target][model], rel=1e-12)


def test_a_value_is_held_out_on_all_types_of_device():
    shape = {"layers": (2, 8), "widths": (256, 512), "tokens": (16, 256), "phases": ("forward",)}
    h100, h200 = (made_frame(**shape, device_type=name) for name in ("H100", "H200"))
    wrong = h100.copy()
    wrong.loc[wrong["width"] == 512, "time_s"] *= 10.0
    predicted = []
    for other in (h100, wrong):
        frames = measured_rows([other, h200])
        found = set_errors(frames, devices_of(frames), KernelChoices(), {"mlp": MLP()}, ["d"])
        one = next(e for e in found if e.held_out.device_type == "H200" and e.held_out.values == ("512",))
        predicted.append(one.predicted[TIME]["roofline"])
    assert predicted[0] == pytest.approx(predicted[1], rel=1e-12)


def test_an_interval_holds_nine_of_ten_new_errors():
    random = np.random.default_rng(1)
    held = []
    for _ in range(300):
        width = half_width(random.normal(0, 0.05, 40))
        assert width is not None
        held.append(abs(random.normal(0, 0.05)) <= width)
    assert np.mean(held) == pytest.approx(LEVEL, abs=0.05)
    assert half_width(np.array([0.1] * 9)) is None
    assert half_width(np.array([*np.arange(1, 11) / 100, np.nan])) == pytest.approx(0.10)


def set_of(kind: str, errors: list[float], *, device: str = "H200", inside: bool = True, value: str = "1") -> SetErrors:
    """A set whose predictions are off by these logarithms."""
    rows = len(errors)
    named = {"workload": "mlp", "device_type": device, "precision": "bf16", "execution": "graph"}
    one = HeldOut(**named, kind=kind, values=(value,), edge=not inside, rows=rows, sha256="")
    ones = np.ones(rows)
    off = {target: dict.fromkeys(MODELS, np.exp(errors)) for target in TARGETS}
    return SetErrors(one, np.full(rows, "forward"), np.full(rows, inside), dict.fromkeys(TARGETS, ones), off)


def test_boards_that_saw_the_same_shapes_make_no_interval_of_other_shapes():
    """Three boards at the same 8 shapes agree within 1 %; a shape that was held out is 10 % off."""
    boards = [set_of("board", [0.01] * 32, value=name) for name in "abc"]
    shapes = [set_of("d", [0.1] * 16), set_of("m", [0.1] * 16)]
    edges = [set_of("d", [0.2] * 16, inside=False)]
    other_type = [set_of("d", [0.07] * 16, device="H100")]

    def width(*sources, inside=True):
        return interval_width(sources, TIME, LEARNED, inside=inside)

    assert width([*boards, *shapes]) == pytest.approx(0.1)
    # all shapes of the type lie at its edge: those of another type say more than its own boards
    assert width([*boards, *edges], [*boards, *edges, *other_type]) == pytest.approx(0.07)
    assert width([*boards, *edges], inside=False) == pytest.approx(0.2)
    assert width(boards) == pytest.approx(0.01)  # nothing else was held out
    assert width([]) is None
    # coverage is that of the same intervals: an interval of 7 % contains a board that is 1 % off
    (judged, *_) = judgements([*boards, *edges], [*boards, *edges, *other_type])
    assert judged.scores[TIME][LEARNED].coverage == 1.0
    # and the set's own value makes no interval for it, on whatever type
    (judged, *_) = judgements(shapes[:1], [*shapes[:1], *other_type])
    assert judged.scores[TIME][LEARNED].coverage is None


def test_answers_whose_kernels_nobody_counted_have_the_interval_of_such_rows():
    """Known kernels are 5 % off, unknown ones 12 %; an interval without them is never the narrower one."""
    known = set_of("d", [0.05] * 20)
    blind = {target: dict.fromkeys(MODELS, np.exp([0.12] * 20)) for target in TARGETS}
    sets = [replace(known, uncounted=blind)]
    assert interval_width([sets], TIME, LEARNED, inside=True) == pytest.approx(0.05)
    assert interval_width([sets], TIME, LEARNED, inside=True, counted=False) == pytest.approx(0.12)
    assert interval_width([[known]], TIME, LEARNED, inside=True, counted=False) == pytest.approx(0.05)
    interval = Interval(inside=0.05, outside=0.06, boards=0.0, uncounted_inside=0.12, uncounted_outside=0.04)
    assert interval.half(outside=False) == interval.half(outside=False, counted=True) == 0.05
    assert interval.half(outside=False, counted=False) == 0.12
    assert interval.half(outside=True, counted=False) == 0.06


def test_a_kernel_that_was_counted_is_known_and_any_other_is_not():
    points = (
        MLP(n_layers=4, width=width, tokens=64).point(device_type="H100", precision="bf16", execution="graph")
        for width in (512, 640)
    )
    asked, unknown = (work_of(point, "forward") for point in points)
    rows = measured_rows([made_frame()])
    counted = KernelChoices([Counted("H100", "bf16", "plain", 512, 64, 512, Choice(64, 64))])
    fit = replace(fit_devices(rows, devices_of(rows), KernelChoices(), learn=False)["H100"], choices=counted)
    assert fit.knows_kernels(asked)
    assert not fit.knows_kernels(unknown)


@pytest.mark.slow
def test_scores_are_mean_errors_and_coverage_of_the_other_sets_intervals():
    found = errors_of(made_frame(noise=0.02, widths=(256, 512, 1024, 2048)), ["d"])
    judged = judgements(found)
    for one, made in zip(found, judged, strict=True):
        ratio = one.predicted[TIME][LEARNED] / one.measured[TIME]
        score = made.scores["time"][LEARNED]
        assert score.mape == pytest.approx(np.abs(ratio - 1).mean())
        assert score.bias == pytest.approx((ratio - 1).mean())
        assert score.coverage is None or 0 <= score.coverage <= 1
    assert [made.inside == 0 for made in judged] == [made.held_out.edge for made in judged]


@pytest.fixture(scope="module")
def make_prediction():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        return importlib.import_module("make_prediction")


@pytest.mark.slow
def test_the_page_reports_every_set_of_the_list_that_was_written_first(make_prediction):
    assert make_prediction.check(make_prediction.RUNS) == []
    assert len(make_prediction.listed()) >= 46


@pytest.mark.slow
def test_a_page_without_a_set_is_told(make_prediction, monkeypatch):
    less = make_prediction.Predictor.load(make_prediction.SHIPPED)
    dropped = less.groups[0].judged[0]
    monkeypatch.setattr(make_prediction.Predictor, "load", lambda _: make_prediction.Predictor(less.groups[1:]))
    lines = make_prediction.check(make_prediction.RUNS[2:3])
    assert any(line.startswith("not reported: ") and dropped.held_out.label in line for line in lines)


def test_a_reported_error_comes_out_again(make_prediction):
    """One set of the reference, without what is learned: its fit is made anew from the rows."""
    runs = [run for run in make_prediction.RUNS if "boards/" in run]
    rows, workloads = make_prediction.measured(runs)
    bf16 = rows.of(rows.column("precision") == "bf16")
    counted = make_prediction.Predictor.load(make_prediction.SHIPPED).counted
    known = {"mlp": workloads["mlp"]}
    found = list(set_errors(bf16, devices_of(bf16), KernelChoices(counted), known, ["m"]))
    assert {one.held_out.device_type for one in found} == {"H100", "H200"}
    for one in judgements(found):
        assert one.scores["time"]["roofline"].mape < 0.15
        assert one.scores["time"]["roofline"].mape < one.scores["time"]["constant"].mape
