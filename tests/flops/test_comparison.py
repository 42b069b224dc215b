"""Three counts compared: differences add up and have the right names."""

from __future__ import annotations

import pytest

from flopray.flops.comparison import ClosedForm, Counts, Executed, ModuleCount


def counts(closed=None, dispatched=None, executed=None):
    return Counts(
        "step",
        {"width": 8},
        None,
        closed or ClosedForm(None, "no closed form"),
        dispatched or ModuleCount(None, "no formula for aten.x"),
        executed or Executed("unsupported", "no GPU"),
    )


def sums(found):
    total: dict[str, int] = {}
    for one in found.differences:
        total[one.between] = total.get(one.between, 0) + one.flops
    return total


def words(found, flops):
    (one,) = [one for one in found.differences if one.flops == flops]
    return one.words


def test_closed_and_dispatched_differ_by_elements_and_by_what_is_computed_again():
    found = counts(
        ClosedForm(1100, products=1000), ModuleCount(1350, None, recomputed_flops=300, scores_again_flops=50)
    )
    assert sums(found) == {"closed -> dispatched": 250}
    assert "elementwise" in words(found, -100)
    assert "checkpointing" in words(found, 300)
    assert "scores" in words(found, 50)


def test_what_a_closed_form_holds_already_is_not_told_again():
    found = counts(ClosedForm(1350, products=1350), ModuleCount(1350, None, recomputed_flops=300))
    assert found.differences == ()


@pytest.mark.parametrize(
    ("gemm", "attention", "count", "expected"),
    [
        (1010, 0, ModuleCount(1000, None), {10: "filled up"}),
        (900, 0, ModuleCount(1000, None, convolution_flops=1000), {-100: "Winograd"}),
        (900, 0, ModuleCount(1000, None), {-100: "fewer than asked for"}),
        (600, 230, ModuleCount(1000, None, attention_flops=400, causal_flops=400), {-170: "above the diagonal"}),
        (600, 420, ModuleCount(1000, None, attention_flops=400), {20: "blocks that are filled up"}),
        (1024, 0, ModuleCount(1000, None, attention_flops=400), {24: "filled up"}),  # attention ran as products
    ],
)
def test_dispatched_and_executed_products(gemm, attention, count, expected):
    found = counts(dispatched=count, executed=Executed("ok", by_class={"gemm": gemm, "attention": attention}))
    assert {one.flops for one in found.differences} == set(expected)
    for flops, text in expected.items():
        assert text in words(found, flops)


def test_what_is_not_dispatched_is_named_by_class_and_all_adds_up():
    by_class = {"gemm": 1001, "attention": 0, "reduction": 7, "elementwise": 50, "normalisation": 3, "optimizer": 16}
    found = counts(dispatched=ModuleCount(1000, None), executed=Executed("ok", by_class=by_class))
    assert sums(found) == {"dispatched -> executed": 77}
    assert "split-K" in words(found, 7)
    assert found.executed.flops == 1077


def test_a_missing_count_differs_from_nothing():
    assert counts(ClosedForm(10, products=10)).differences == ()
    text = repr(counts(ClosedForm(10, products=10)))
    assert "none: no formula for aten.x" in text
    assert "none: no GPU" in text
    assert counts().to_dict()["executed"]["flops"] is None
