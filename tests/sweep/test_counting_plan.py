"""Trials share counts, so that a device starts ncu as rarely as possible, and nothing is counted twice."""

import math

import pytest

from flopray.flops.executed.counts import NotCounted
from flopray.sweep.counting_plan import MOST_S, CountingPlan, Counts, Expected

HERE = (("device_name", "NVIDIA H100"), ("torch_version", "2.11"))
OTHER = (("device_name", "NVIDIA H100"), ("torch_version", "2.12"))
COUNTS = Counts({"forward": NotCounted("out_of_memory", "too large")}, "2025.3.1.0")


def expected(count, seconds=1.0, device_type="H100"):
    """Points as the driver expects them."""
    return [Expected(f"{device_type}-{i}", device_type, {"place": i}, seconds) for i in range(count)]


def sweep(points, slab, devices=1):
    """Trials of `slab` points on devices that begin together; the points that each start of ncu counted."""
    plan = CountingPlan(points, {"H100": devices})
    ids = [one.id for one in points]
    slabs = [ids[i : i + slab] for i in range(0, len(ids), slab)]
    starts, counting = [], []
    for number, own in enumerate(slabs):
        trial = f"trial-{number}"
        claim = plan.claim(trial, HERE, own)
        counted = [*claim.own, *(f"H100-{fields['place']}" for fields in claim.others)]
        if claim.own:
            starts.append(counted)
        counting.append((trial, counted, own))
        if len(counting) == devices or number == len(slabs) - 1:
            for one, found, mine in counting:
                plan.store(one, HERE, {point: COUNTS for point in found if point not in mine})
            for _, _, mine in counting:
                for point in mine:
                    plan.finish(point)
            counting = []
    return starts


def test_a_device_counts_all_its_points_in_one_start():
    starts = sweep(expected(32), slab=4)
    assert [len(counted) for counted in starts] == [32]


@pytest.mark.parametrize("devices", [2, 3, 4])
def test_devices_that_begin_together_count_a_share_each(devices):
    starts = sweep(expected(60), slab=5, devices=devices)
    assert len(starts) == devices
    counted = [point for one in starts for point in one]
    assert len(counted) == len(set(counted)) == 60
    assert max(map(len, starts)) <= 2 * 60 / devices


def test_a_start_counts_no_longer_than_an_interrupt_may_cost():
    points = expected(1000, seconds=1.0)
    starts = sweep(points, slab=10)
    assert max(map(len, starts)) <= MOST_S
    assert len(starts) == math.ceil(1000 / MOST_S)
    assert sorted(point for one in starts for point in one) == sorted(one.id for one in points)


def test_a_slab_that_takes_longer_than_that_is_counted_in_one_go_all_the_same():
    assert [len(counted) for counted in sweep(expected(8, seconds=50.0), slab=4)] == [4, 4]


def test_what_another_trial_still_counts_is_not_waited_for():
    plan = CountingPlan(expected(8), {"H100": 1})
    plan.claim("first", HERE, ["H100-0"])
    claim = plan.claim("second", HERE, ["H100-7"])
    assert (claim.own, claim.others, claim.counted) == (frozenset({"H100-7"}), (), {})


def test_counts_are_handed_over_between_devices_alike_only():
    plan = CountingPlan(expected(4), {"H100": 1})
    plan.claim("first", HERE, ["H100-0"])
    plan.store("first", HERE, {f"H100-{i}": COUNTS for i in (1, 2, 3)})
    assert plan.claim("second", HERE, ["H100-1"]).counted == {"H100-1": COUNTS}
    assert plan.claim("third", OTHER, ["H100-1"]).own == frozenset({"H100-1"})


def test_what_a_trial_that_died_was_to_count_is_counted_by_others():
    plan = CountingPlan(expected(6), {"H100": 1})
    assert len(plan.claim("first", HERE, ["H100-0"]).others) == 5
    plan.release("first")
    assert len(plan.claim("again", HERE, ["H100-0"]).others) == 5


def test_counts_stay_until_their_point_is_finished_since_its_trial_may_die():
    plan = CountingPlan(expected(2), {"H100": 1})
    plan.claim("first", HERE, ["H100-0"])
    plan.store("first", HERE, {"H100-1": COUNTS})
    for attempt in ("second", "second again"):
        assert plan.claim(attempt, HERE, ["H100-1"]).counted == {"H100-1": COUNTS}
    plan.finish("H100-1")
    plan.store("late", HERE, {"H100-1": COUNTS})
    assert not plan.claim("third", HERE, ["H100-1"]).counted


def test_types_of_devices_count_apart():
    plan = CountingPlan([*expected(3), *expected(3, device_type="A100")], {"H100": 1, "A100": 1})
    others = plan.claim("first", HERE, ["A100-0"]).others
    assert len(others) == 2


def test_points_that_a_searcher_draws_are_counted_by_themselves():
    claim = CountingPlan().claim("drawn", HERE, ["H100-5"])
    assert (claim.own, claim.others) == (frozenset({"H100-5"}), ())
