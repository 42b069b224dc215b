"""The formula for executed FLOPs: it finds the tiles from which the data were made, and is tested on held-out data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flopray.records import TRAINING_PHASES
from flopray.report.flops.adjusted import fit, held_out
from flopray.report.flops.data import load_published_group
from flopray.report.flops.held_out import METHODS, splits, summarised
from flopray.report.flops.tiles import PARTS, rounded_up, terms
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point

PHASES = TRAINING_PHASES

LAYERS, WIDTHS, TOKENS = (2, 4, 8), range(64, 1025, 64), range(16, 257, 16)


def executed_parts(n: int, d: int, m: int, phase: str) -> tuple[int, int, int]:
    """GEMM, reduction and elementwise FLOPs of a chip that works in tiles of (64, 32), and depth 16 for weights."""
    wide = 2 * int(rounded_up(np.float64(d), 64) * rounded_up(np.float64(m), 32)) * d + 3 * d * m
    deep = 2 * d * d * int(rounded_up(np.float64(m), 16)) + d * d
    return {
        "forward": (n * wide, 2 * n * d * m, 16 * n * d * m),
        "backward": ((n - 1) * wide + n * deep, (n - 1) * 4 * d * m, 3 * n * d * m),
    }[phase]


def frame_of(phase: str, layers=LAYERS, widths=WIDTHS, tokens=TOKENS) -> pd.DataFrame:
    rows = []
    for n in layers:
        for d in widths:
            for m in tokens:
                spec = make_point(workload="mlp", device_type="H100", n_layers=n, width=d, tokens=m)
                parts = executed_parts(n, d, m, phase)
                rows.append((phase, n, d, m, sum(MLP().closed_form(spec, phase).values()), sum(parts), *parts[:2]))
    names = ("phase", "n_layers", "width", "tokens", "model_flops", "executed_flops")
    return pd.DataFrame(rows, columns=[*names, "executed_gemm_flops", "executed_reduction_flops"])


@pytest.mark.parametrize(("phase", "tokens"), [("forward", (24, 100, 31, 512)), ("backward", (32, 96, 144, 512))])
def test_the_tiles_of_a_chip_are_found_and_hold_between_and_beyond_the_counted_points(phase, tokens):
    # depths that are multiples of 16 cannot tell what other depths are padded to: backward is asked at such ones
    n, d, m = np.array([3, 32, 5, 8]), np.array([200, 1000, 64, 2048]), np.array(tokens)
    expected = [sum(executed_parts(*shape, phase)) for shape in zip(n.tolist(), d.tolist(), m.tolist(), strict=True)]
    np.testing.assert_allclose(fit(frame_of(phase)).predict(n, d, m), expected, rtol=1e-3)


def test_parts_add_up_to_the_total_and_keep_their_meaning():
    frame = frame_of("backward")
    n, d, m = (frame[name].to_numpy(float) for name in ("n_layers", "width", "tokens"))
    formula = fit(frame)
    parts = formula.predict_parts(n, d, m)
    assert tuple(parts) == PARTS
    np.testing.assert_allclose(sum(parts.values()), formula.predict(n, d, m))
    np.testing.assert_allclose(parts["rest"], 3 * n * d * m, rtol=1e-3)
    np.testing.assert_allclose(parts["gemm"], frame["executed_gemm_flops"], rtol=1e-3)


def test_the_description_names_the_tiles_and_their_coefficients():
    text = fit(frame_of("forward")).describe()
    assert "⌈d/64⌉64 ⌈m/32⌉32" in text
    assert text.splitlines()[-2:] == ["rest =", "    16       n d m"]
    assert [line for line in text.splitlines() if line.endswith("=")] == ["gemm =", "reduction =", "rest ="]


def test_a_shape_that_was_counted_at_two_n_is_known_at_every_n():
    frame = frame_of("backward", layers=(2, 8))
    frame["executed_gemm_flops"] += frame["n_layers"] * 12_345_678  # no tile explains this at all shapes
    frame["executed_flops"] += frame["n_layers"] * 12_345_678
    formula = fit(frame)
    expected = sum(executed_parts(32, 512, 48, "backward")) + 32 * 12_345_678
    assert formula.predict(np.array([32]), np.array([512]), np.array([48]))[0] == pytest.approx(expected, rel=2e-3)


@pytest.mark.slow
def test_where_the_library_changes_its_tile_the_neighbourhood_is_better_than_one_mixture_for_all():
    frame = frame_of("forward")
    narrow = frame["width"] < 512
    frame.loc[narrow, "executed_flops"] += 2 * frame["executed_gemm_flops"]
    frame.loc[narrow, "executed_gemm_flops"] *= 3
    errors = summarised(held_out(frame)).set_index(["split", "method"])
    for split in ("points", "shapes", "tokens"):
        assert errors.loc[(split, "formula"), "p95"] < 0.7 * errors.loc[(split, "everywhere"), "p95"]
        assert errors.loc[(split, "formula"), "median"] < errors.loc[(split, "closed_form"), "median"]


def test_held_out_points_have_no_part_in_the_fit():
    frame = frame_of("forward", layers=(2, 4))
    for folds in splits(frame, seed=3).values():
        assert all(fold.any() and not fold.all() for fold in folds)
    whole = {name: np.sum(folds, axis=0) for name, folds in splits(frame, seed=3).items()}
    assert whole["points"].sum() == len(frame) // 5
    assert all((whole[name] == 1).all() for name in ("shapes", "widths", "tokens"))
    for fold in splits(frame, seed=3)["shapes"]:
        shapes = frame["width"] * 10_000 + frame["tokens"]
        assert not set(shapes[fold]) & set(shapes[~fold])


def test_the_seed_decides_which_points_are_held_out():
    frame = frame_of("forward", layers=(2,))
    same, again, other = (splits(frame, seed)["points"][0] for seed in (1, 1, 2))
    assert (same == again).all()
    assert (same != other).any()


def test_errors_can_be_judged_on_the_larger_widths_alone():
    predictions = held_out(frame_of("forward", layers=(2,)))
    everything, large = summarised(predictions), summarised(predictions, min_width=512)
    assert large["points"].max() < everything["points"].max()
    assert set(everything["method"]) == set(METHODS)
    assert (everything["median"] <= everything["p95"]).all()


def test_what_points_do_not_allow_is_left_out():
    line = frame_of("forward", layers=(2,), tokens=(64,))
    assert set(summarised(held_out(line))["split"]) == {"points", "shapes", "widths"}
    assert summarised(held_out(frame_of("forward", layers=(2,), widths=(64,), tokens=(16,)))).empty


def test_a_formula_is_of_one_phase():
    with pytest.raises(ValueError, match="one phase"):
        fit(pd.concat([frame_of("forward"), frame_of("backward")]))
    with pytest.raises(ValueError, match="one phase"):
        fit(frame_of("forward").iloc[:0])


def test_one_number_of_layers_does_not_pass_for_all():
    assert "all points have n = 4" in fit(frame_of("forward", layers=(4,))).describe()
    formula = fit(frame_of("backward", layers=(1,)))
    assert formula.predict(np.array([1]), np.array([256]), np.array([64])) > 0
    with pytest.raises(ValueError, match="only points of one layer"):
        formula.predict(np.array([2]), np.array([256]), np.array([64]))


@pytest.mark.parametrize("phase", PHASES)
def test_terms_are_counts_that_grow_with_the_shape(phase):
    n, d, m = np.array([2.0]), np.array([100.0]), np.array([10.0])
    for part in PARTS:
        for term in terms(phase, part):
            assert term.values(n, d, m) > 0, term.text
            assert (term.values(2 * n, 2 * d, 2 * m) >= term.values(n, d, m)).all(), term.text


@pytest.mark.slow
def test_the_published_points_are_predicted_better_than_by_the_closed_form(published):
    group = load_published_group(published / "metrics" / "20250922-120007_n2-32_d128-2048_m16-256.csv")
    for phase, most in (("forward", 0.02), ("backward", 0.015)):
        errors = summarised(held_out(group.of(phase))).set_index(["split", "method"])["median"]
        assert errors["points", "formula"] < 1e-3  # the same shapes were counted at other n
        for split in ("shapes", "widths", "tokens"):
            assert errors[split, "formula"] < min(most, 0.25 * errors[split, "closed_form"])
