"""Boards of one type: the model on simulated fleets, what counts as a board, how far boards agree."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flopray import load_run
from flopray.energy.board_spread import GROUPS, BoardGroup
from flopray.report.boards.agreement import left_out, pairs
from flopray.report.boards.data import AS_MEASURED, AT_REFERENCE, TIME, boards_of, short_names
from flopray.report.boards.effects import Prior, fit_boards
from flopray.report.boards.means import OF_TYPE, means_of_types
from flopray.report.boards.priors import prior_of
from flopray.report.boards.table import board_tables, verdict
from flopray.testing.simulated_fleet import Fleet, simulated_fleet

H100 = "NVIDIA H100 80GB HBM3"
NAMES = tuple(f"GPU-{letter * 8}-0000" for letter in "abcdefgh")


@pytest.mark.slow
@pytest.mark.parametrize("case", [{}, {"unequal": 0.8, "missing": 0.2}, {"astray": 0.1}], ids=str)
@pytest.mark.parametrize("boards", [2, 8])
def test_intervals_hold_as_often_as_they_say(
    boards: int, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole table is that of bench/board_coverage.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    board_coverage = importlib.import_module("board_coverage")
    of_type, another, factors, _ = board_coverage.coverage(60, boards, rows=24, **case)
    # rows of a fleet share their boards: the standard deviation of 60 fleets is 3 %, of a factor of two boards 4 %
    assert of_type >= 0.88
    assert another >= 0.88
    assert factors >= 0.82


def test_two_boards_have_students_t_of_one_degree_and_a_prior_makes_it_useful() -> None:
    fleet = simulated_fleet(np.random.default_rng(1), 2, scatter=0.0, errors=(1e-6, 1e-5))
    alone = fit_boards(fleet.values, fleet.errors)
    apart = abs(fleet.factors[1] - fleet.factors[0])
    assert alone is not None
    assert alone.degrees == 1
    assert np.median(alone.type_errors) == pytest.approx(12.706 * apart / 2, rel=0.01)
    helped = fit_boards(fleet.values, fleet.errors, Prior(0.016, 3, "simulated"))
    assert helped is not None
    assert helped.degrees == 3
    spread = np.sqrt((apart**2 / 2 + 2 * 0.016**2) / 3)
    assert np.median(helped.type_errors) == pytest.approx(3.182 * spread / np.sqrt(2), rel=0.01)


def test_boards_that_contradict_a_prior_leave_it_out() -> None:
    fleet = simulated_fleet(np.random.default_rng(2), 4, spread=0.1)
    fit = fit_boards(fleet.values, fleet.errors, Prior(0.005, 3, "simulated"))
    assert fit is not None
    assert fit.prior_left_out
    assert fit.prior is None
    assert fit.degrees == 3


@pytest.mark.parametrize("shape", [(4, 0), (0, 3), (4, 2)])
def test_no_value_has_no_fit(shape):
    values = np.full(shape, np.nan)
    assert fit_boards(values, values) is None


def test_factors_and_scatter_are_told_apart() -> None:
    fleet = simulated_fleet(np.random.default_rng(3), 3, 400, spread=0.03, scatter=0.01)
    fit = fit_boards(fleet.values, fleet.errors)
    assert fit is not None
    assert np.log1p(fit.factors) == pytest.approx(fleet.factors - fleet.factors.mean(), abs=0.002)
    assert fit.scatter == pytest.approx(0.01, rel=0.1)


def test_a_few_rows_that_differ_by_far_do_not_move_a_factor() -> None:
    fleet = simulated_fleet(np.random.default_rng(4), 2, spread=0.0, scatter=0.002, errors=(0.001, 0.003))
    fleet.values[::8, 1] *= 1.5
    fit = fit_boards(fleet.values, fleet.errors)
    assert fit is not None
    assert np.abs(fit.factors).max() < 0.002


def test_boards_without_a_shared_row_say_nothing_about_one_another() -> None:
    fleet = simulated_fleet(np.random.default_rng(5), 2)
    fleet.values[::2, 0] = fleet.values[1::2, 1] = np.nan
    assert fit_boards(fleet.values, fleet.errors) is None


def test_one_board_has_an_interval_of_the_type_by_a_prior_alone() -> None:
    fleet = simulated_fleet(np.random.default_rng(6), 1)
    assert fit_boards(fleet.values, fleet.errors) is None
    fit = fit_boards(fleet.values, fleet.errors, Prior(0.016, 3, "simulated"))
    assert fit is not None
    assert fit.boards == 1
    assert np.median(fit.type_errors) == pytest.approx(4.303 * 0.016, rel=0.1)


def rows_of(fleet: Fleet, *, column: str = "energy_j", names: tuple[str, ...] = NAMES, **more: Any) -> pd.DataFrame:
    """Rows of records as runs on these boards give them."""
    found = []
    for (row, board), value in np.ndenumerate(fleet.values):
        if np.isfinite(value):
            found.append(
                {
                    **{"trial_id": f"p{row}", "phase": "forward", "status": "ok", "device_type": "H100"},
                    **{"device_name": "NVIDIA H100 80GB HBM3", "device_uuid": names[board], "node": "n", **more},
                    **{column: value, column.replace("_j", "_rel_error"): fleet.errors[row, board]},
                }
            )
    return pd.DataFrame(found)


def test_a_board_measured_twice_is_one_board() -> None:
    fleet = simulated_fleet(np.random.default_rng(7), 2)
    once = rows_of(fleet)
    again = once.assign(trial_id=once["trial_id"] + "-2", node="another", started_unix_s=1.0)
    once["started_unix_s"] = 0.0
    (both,) = boards_of(pd.concat([once, again], ignore_index=True))
    (alone,) = boards_of(once)
    (merged_and_source,) = boards_of(pd.concat([once, once], ignore_index=True))
    assert merged_and_source.parts[AS_MEASURED].errors == pytest.approx(alone.parts[AS_MEASURED].errors)
    assert both.boards == NAMES[:2]
    assert both.parts[AS_MEASURED].values == pytest.approx(alone.parts[AS_MEASURED].values)
    # two equal measurements state an error smaller by the root of two
    assert both.parts[AS_MEASURED].errors == pytest.approx(alone.parts[AS_MEASURED].errors / np.sqrt(2))
    fit, of_one = both.fits[AS_MEASURED], alone.fits[AS_MEASURED]
    assert fit is not None
    assert of_one is not None
    assert fit.degrees == of_one.degrees == 1


def test_rows_of_other_boards_have_their_own_means() -> None:
    """Another model on other boards of the type, in the same comparison, takes no means and no boards from this one."""

    def measured(seed: int, boards: int, first: int) -> pd.DataFrame:
        fleet = simulated_fleet(np.random.default_rng(seed), boards)
        rows = rows_of(fleet, names=NAMES[first : first + boards], ended_unix_s=1.0)
        rows = rows.assign(time_s=rows["energy_j"] / 300, time_rel_error=rows["energy_rel_error"])
        return rows.assign(trial_id=f"{seed}-" + rows["trial_id"])

    few, many = measured(1, 3, 0), measured(2, 4, 3)
    alone, _ = means_of_types(few, ["trial_id", "phase"], ["device_type"])
    both, _ = means_of_types(pd.concat([many, few], ignore_index=True), ["trial_id", "phase"], ["device_type"])
    beside = both[both["trial_id"].str.startswith("1-")].set_index("trial_id")
    alone = alone.set_index("trial_id")
    assert set(both["boards"]) == {3, 4}
    for name in ("time_s", "time_rel_error", "energy_j", "energy_rel_error"):
        assert beside.loc[alone.index, name].to_numpy() == pytest.approx(alone[name].to_numpy())
    assert set(beside["time_interval"]) == set(beside["energy_interval"]) == {OF_TYPE}


def test_measurements_of_one_board_that_disagree_widen_its_error() -> None:
    rows = pd.DataFrame({"trial_id": ["a", "a-2"], "phase": "forward", "status": "ok", "device_type": "H100"})
    rows = rows.assign(device_name="x", device_uuid="GPU-1", energy_j=[1.0, 1.1], energy_rel_error=0.01)
    (device,) = boards_of(rows)
    part = device.parts[AS_MEASURED]
    assert part.values[0, 0] == pytest.approx(np.sqrt(1.1))
    assert part.errors[0, 0] == pytest.approx(1.96 * np.log(1.1) / 2, rel=0.01)


def test_rows_without_a_board_count_as_one() -> None:
    fleet = simulated_fleet(np.random.default_rng(8), 3)
    rows = rows_of(fleet).assign(device_uuid=None)
    (device,) = boards_of(rows)
    assert device.boards == ("unknown",)
    (cpu,) = boards_of(rows.assign(device_type="CPU", device_name="cpu", node=rows.index % 2))
    assert cpu.boards == ("0", "1")


def test_energy_at_reference_is_used_where_every_board_has_it() -> None:
    fleet = simulated_fleet(np.random.default_rng(9), 2, 20)
    rows = rows_of(fleet, reference_temperature_c=50.0)
    rows["energy_at_reference_j"] = rows["energy_j"] * 1.1
    rows["energy_at_reference_rel_error"] = rows["energy_rel_error"]
    throttled = (rows["trial_id"] == "p3") & (rows["device_uuid"] == NAMES[1])
    rows.loc[throttled, "energy_at_reference_j"] = np.nan
    elsewhere = (rows["trial_id"] == "p4") & (rows["device_uuid"] == NAMES[0])
    rows.loc[elsewhere, "reference_temperature_c"] = 60.0
    (device,) = boards_of(rows)
    assert len(device.parts[AT_REFERENCE].keys) == 18
    assert sorted(device.parts[AS_MEASURED].keys) == ["p3 forward", "p4 forward"]
    assert device.reference_temperatures() == [50.0]


def test_types_are_told_apart_and_failures_left_out() -> None:
    fleet = simulated_fleet(np.random.default_rng(10), 2, 8)
    failed = rows_of(fleet).assign(status="out_of_memory")
    pcie = rows_of(fleet, device_name="NVIDIA H100 PCIe").assign(time_s=1.0)
    found = list(boards_of(pd.concat([failed, pcie], ignore_index=True)))
    assert [device.device_name for device in found] == ["NVIDIA H100 PCIe"]
    assert set(found[0].parts) == {TIME, AS_MEASURED}


def test_pairs_take_factors_out() -> None:
    fleet = simulated_fleet(np.random.default_rng(11), 2, spread=0.0, scatter=0.0)
    fleet.values[:, 1] *= 1.05
    (device,) = boards_of(rows_of(fleet))
    (pair,) = pairs(device.parts[AS_MEASURED], device.fits[AS_MEASURED])
    assert pair.rows == 64
    assert pair.rms == pytest.approx(0.049, abs=0.003)
    assert pair.factor == pytest.approx(0.05, abs=0.004)
    assert pair.rms_without_factor < 0.012
    assert pair.agree < 0.1
    assert pair.agree_without_factor > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("boards", [2, 3])
def test_equal_boards_are_seldom_called_different(boards: int) -> None:
    rng, found = np.random.default_rng(31), []
    for _ in range(120):
        fleet = simulated_fleet(rng, boards, 32, spread=0.0, scatter=0.003)
        (device,) = boards_of(rows_of(fleet))
        found += pairs(device.parts[AS_MEASURED], device.fits[AS_MEASURED])
    assert np.mean([bool(pair.differ) for pair in found]) <= 0.09


def test_boards_with_a_factor_are_called_different_and_rows_that_scatter_too() -> None:
    fleet = simulated_fleet(np.random.default_rng(32), 2, spread=0.0, scatter=0.0)
    (device,) = boards_of(rows_of(fleet))
    (alike,) = pairs(device.parts[AS_MEASURED], device.fits[AS_MEASURED])
    assert verdict(alike) == "not seen"
    fleet.values[:, 1] *= 1.01
    (device,) = boards_of(rows_of(fleet))
    (apart,) = pairs(device.parts[AS_MEASURED], device.fits[AS_MEASURED])
    assert verdict(apart) == "yes, by a factor"
    assert apart.factor_error < 0.005
    fleet.values[::2, 1] *= 1.1
    (device,) = boards_of(rows_of(fleet))
    (single,) = pairs(device.parts[AS_MEASURED], device.fits[AS_MEASURED])
    assert "row by row" in verdict(single)
    assert verdict(replace(single, factor_error=np.nan)).startswith("cannot be told")


def test_a_board_that_is_left_out_lies_in_the_interval_of_another_board() -> None:
    fleet = simulated_fleet(np.random.default_rng(12), 5)
    (device,) = boards_of(rows_of(fleet))
    found = list(left_out(device.parts[AS_MEASURED], None))
    assert [each.others for each in found] == [4] * 5
    assert np.mean([each.in_other_board for each in found]) > 0.8
    (two,) = boards_of(rows_of(simulated_fleet(np.random.default_rng(12), 2)))
    assert {each.reason for each in left_out(two.parts[AS_MEASURED], None)} == {"one board is left"}


def test_short_names_stay_apart() -> None:
    assert short_names(["GPU-e6c9bc22-0b46-0833", "GPU-c9235576-001f"]) == {
        "GPU-e6c9bc22-0b46-0833": "e6c9bc22",
        "GPU-c9235576-001f": "c9235576",
    }
    assert set(short_names(["GPU-e6c9bc22-0b46", "GPU-e6c9bc22-0b47"]).values()) == {"e6c9bc22-0b46", "e6c9bc22-0b47"}


def test_priors_name_their_boards_and_source() -> None:
    prior = prior_of(H100, AT_REFERENCE)
    assert prior is not None
    assert "H100" in prior.source
    assert (prior.boards, prior.degrees) == (5, 3)  # three boards of one day and two of the next
    # 1.6, 3.1 and 1.7 % between three boards, two by two, and 1.26 % between two
    assert prior.spread == pytest.approx(0.0139, abs=1e-4)
    assert prior_of(H100, AS_MEASURED) is None
    of_h200 = prior_of("NVIDIA H200", AT_REFERENCE)
    assert of_h200 is not None
    assert (of_h200.boards, of_h200.degrees) == (3, 2)
    # 2.42, 3.14 and 0.74 % between three boards, two by two
    assert of_h200.spread == pytest.approx(0.0165, abs=1e-4)
    assert prior_of("NVIDIA H200 NVL", AT_REFERENCE) is None


def test_a_board_at_hand_is_in_no_prior_beside_itself() -> None:
    (group,) = [group for group in GROUPS if group.uuids and group.device_name == H100]
    for uuid in group.uuids:
        prior = prior_of(H100, AT_REFERENCE, [uuid, "GPU-other"])
        assert prior is not None
        assert (prior.boards, prior.degrees) == (3, 2)
        assert prior.spread == pytest.approx(0.0158, abs=1e-4)
        frame = rows_of(simulated_fleet(np.random.default_rng(3), 2)).assign(device_name=H100)
        frame["device_uuid"] = frame["device_uuid"].replace(frame["device_uuid"].iloc[0], uuid)
        (device,) = boards_of(frame)
        beside = device.prior(TIME)
        assert beside is not None
        assert beside.boards == 3


@pytest.mark.parametrize("group", [group for group in GROUPS if group.uuids])
def test_a_group_is_what_its_kept_runs_say(group: BoardGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    told_at_reference = importlib.import_module("boards").told_at_reference
    kept = Path(__file__).parents[2] / "docs" / "results" / "boards"
    frames = [frame for run in sorted(kept.iterdir()) if set((frame := load_run(run))["device_uuid"]) <= group.uuids]
    frame = told_at_reference(pd.concat(frames, ignore_index=True))
    (device,) = boards_of(frame)
    for quantity, stated in ((AT_REFERENCE, group.energy), (TIME, group.time)):
        found = pairs(device.parts[quantity], device.fits[quantity])
        assert [abs(pair.factor) for pair in found] == pytest.approx(list(stated), abs=6e-5)
        if quantity == AT_REFERENCE:
            assert [pair.rms_without_factor for pair in found] == pytest.approx(list(group.works), abs=6e-5)


def test_boards_of_which_nothing_was_timed_have_no_table():
    """As in a run of hardware counters alone on two boards: it would have a header and no row."""
    rows = load_run("reference:h100-counters").groupby("device_uuid").head(2)
    devices = list(boards_of(rows))
    assert [len(device.boards) for device in devices] == [2]
    assert all(not device.parts for device in devices)
    assert not [table for device in devices for table in board_tables(device)]
