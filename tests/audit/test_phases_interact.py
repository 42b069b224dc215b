"""Parts that differ from the whole: what a cache can explain, what nothing explains, and at which temperature."""

import pytest

from flopray.audit import Severity, audit_point, audit_row, audit_rows
from flopray.audit.cache_bounds import TIME_SHARE, UNKNOWN_SHARE, lost_bytes
from flopray.audit.hardware import GPUS, cache_of
from flopray.workloads.base import closed_columns
from tests.audit.test_audit import GOOD, H100
from tests.specs import mlp

PHASES = ("forward", "backward", "forward_backward")


def rows(n, d, m, precision, times, energies, phases=PHASES, **changes):
    """Phases of an MLP as a CUDA graph, with the bytes of its closed form; columns of None are removed."""
    spec = mlp(n, d, m, precision=precision)
    return [
        {
            name: value
            for name, value in (
                GOOD
                | {"phase": phase, "precision": precision, "execution": "graph", "n_layers": n, "width": d, "tokens": m}
                | {"time_s": time_s, "energy_j": energy_j, "time_rel_error": 0.004, "energy_rel_error": 0.008}
                | {"least_moved_bytes": closed_columns(spec, phase)["least_moved_bytes"]}
                | changes
            ).items()
            if value is not None
        }
        for phase, time_s, energy_j in zip(phases, times, energies, strict=True)
    ]


def codes(found):
    return [finding.code for finding in found]


@pytest.mark.parametrize("bytes_known", [True, False])
@pytest.mark.parametrize(("energy", "time"), [(-0.061, -0.014), (-0.049, -0.014), (0.061, 0.014)])
def test_a_difference_that_a_cache_explains_is_a_note_with_both_numbers(energy, time, bytes_known):
    """MLP n3 d1500 m200 in bf16 on two H100 boards: forward + backward against forward_backward."""
    changes = {} if bytes_known else {"least_moved_bytes": None}
    found = audit_point(
        rows(
            *(3, 1500, 200, "bf16", (20e-6, 30e-6, 50e-6 * (1 + time)), (5e-3, 10e-3, 15e-3 * (1 + energy))),
            **changes | {"energy_rel_error": 0.0, "time_rel_error": 0.004, "temperature_end_c": 52.0},
        )
    )
    if abs(energy) < 0.05:
        assert found == []
        return
    assert codes(found) == ["note:phases_interact"]
    assert f"energy {energy:+.1%}" in found[0].sentence
    assert f"time {time:+.1%}" in found[0].sentence
    assert found[0].sentence.endswith("the board was at 52 °C throughout")
    assert found[0].numbers["whole_energy_j"] / found[0].numbers["parts_energy_j"] - 1 == pytest.approx(energy)
    assert found[0].numbers["whole_time_s"] / found[0].numbers["parts_time_s"] - 1 == pytest.approx(time)
    assert found[0].rows == (2, 0, 1)


@pytest.mark.parametrize("bytes_known", [True, False])
@pytest.mark.parametrize("factor", [0.7, 1.3])
@pytest.mark.parametrize("shape", [(2, 256, 64), (3, 1500, 200), (8, 4096, 1024)])
def test_parts_that_are_30_percent_apart_are_implausible(shape, factor, bytes_known):
    n, d, m = shape
    scale = n * d**2 * m / (3 * 1500**2 * 200)
    times, energies = (20e-6 * scale, 30e-6 * scale), (5e-3 * scale, 10e-3 * scale)
    changes = {} if bytes_known else {"least_moved_bytes": None}
    whole = sum(times) * factor, sum(energies) * factor
    found = audit_point(rows(n, d, m, "bf16", (*times, whole[0]), (*energies, whole[1]), **changes))
    assert codes(found) == ["implausible:additivity"] * 2


@pytest.mark.parametrize("bytes_known", [True, False])
def test_a_backward_pass_that_computed_on_overwritten_numbers_is_implausible(bytes_known):
    """34 mJ measured where 40 mJ are right, in the same time: MLP n4 d1024 m128 in fp32 on an H100."""
    changes = {} if bytes_known else {"least_moved_bytes": None}
    wrong = rows(4, 1024, 128, "fp32", (45e-6, 105e-6, 150e-6), (20e-3, 34e-3, 60e-3), **changes)
    right = rows(4, 1024, 128, "fp32", (45e-6, 105e-6, 150e-6), (20e-3, 40e-3, 60e-3), **changes)
    assert codes(audit_point(wrong)) == ["implausible:additivity"]
    assert audit_point(right) == []


@pytest.mark.parametrize("cost", [0.92, 1.08])
def test_where_all_fits_the_cache_a_cache_explains_nothing(cost):
    found = audit_point(rows(2, 256, 64, "fp32", (10e-6, 15e-6, 25e-6), (2e-3, 3e-3, 5e-3 * cost)))
    assert codes(found) == ["implausible:additivity"]


@pytest.mark.parametrize("device", [H100, "NVIDIA H200", "Some GPU"])
def test_no_more_bytes_are_lost_than_phases_touch_or_the_cache_holds(device):
    size = cache_of(device).size_bytes
    small, large = ({"device_name": device, "least_moved_bytes": share * size} for share in (0.2, 40.0))
    assert lost_bytes(large, [small, large], costs_more=True) == pytest.approx(1.2 * size)
    assert lost_bytes(large, [small, large], costs_more=False) == pytest.approx(size)
    assert lost_bytes(small, [small, small], costs_more=True) == 0
    assert lost_bytes(large, [{"memory_peak_bytes": 0.5 * size}, {}], costs_more=True) == pytest.approx(1.5 * size)


def test_every_gpu_has_a_cache_and_no_unknown_one_has_a_narrower_bound():
    widest = cache_of("Some GPU")
    for spec in GPUS:
        assert 4 * 2**20 <= spec.l2_bytes <= widest.size_bytes
        assert widest.bytes_per_s <= spec.memory_bytes_per_s
        assert spec.dram_j_per_byte <= widest.j_per_byte
    assert cache_of(H100).size_bytes == 50 * 2**20
    assert cache_of(H100).j_per_byte == pytest.approx(62.4e-12)


def test_no_difference_beyond_a_share_is_explained_where_bytes_are_not_known():
    whole = 1 + UNKNOWN_SHARE + 0.03
    found = audit_point(
        rows(2, 512, 64, "bf16", (10e-6, 15e-6, 25e-6), (2e-3, 3e-3, 5e-3 * whole), least_moved_bytes=None)
    )
    assert codes(found) == ["implausible:additivity"]


@pytest.mark.parametrize(
    ("shape", "times", "energies"),
    [
        ((32, 256, 128), (256.8e-6, 400.9e-6, 261.6e-6, 970.3e-6), (50.15e-3, 79.61e-3, 52.45e-3, 190.92e-3)),
        ((4, 512, 256), (44.8e-6, 68.9e-6, 99.6e-6, 232.3e-6), (15.3e-3, 27.63e-3, 19.96e-3, 67.17e-3)),
    ],
)
def test_small_kernels_that_find_nothing_in_the_cache_are_slower_than_the_peak_bandwidth(shape, times, energies):
    """Measured on an H200 in fp32: 5.5 and 9.0 % of time, of which bytes at the peak explain 1.9 and 4.6 %."""
    step = ("forward", "backward", "optimizer_step", "train_step")
    found = audit_point(rows(*shape, "fp32", times, energies, step, device_name="NVIDIA H200"))
    assert codes(found) == ["note:phases_interact"]


def test_no_more_than_a_share_of_the_time_is_explained_by_slow_loads():
    """The same step, slower than any that was measured."""
    times = (44.8e-6, 68.9e-6, 99.6e-6, (44.8e-6 + 68.9e-6 + 99.6e-6) * (1 + TIME_SHARE + 0.03))
    step = ("forward", "backward", "optimizer_step", "train_step")
    found = audit_point(rows(4, 512, 256, "fp32", times, (15.3e-3, 27.63e-3, 19.96e-3, 62.89e-3), step))
    assert codes(found) == ["implausible:additivity"]


def at_reference(factors, **changes):
    """Three phases whose energies as measured and at the reference temperature differ by a factor per phase."""
    made = rows(8, 1024, 128, "fp32", (1e-3, 2e-3, 3e-3), (0.6, 1.2, 1.8))
    return [
        row
        | {"energy_j": row["energy_j"] * raw, "temperature_end_c": 40.0 + 10 * place}
        | {"energy_at_reference_j": row["energy_j"] * told, "energy_at_reference_rel_error": 0.012}
        | {"reference_temperature_c": 50.0}
        | changes
        for place, (row, (raw, told)) in enumerate(zip(made, factors, strict=True))
    ]


def test_energies_are_compared_at_the_reference_temperature():
    assert audit_point(at_reference([(1, 1), (1, 1), (1.12, 1)])) == []
    found = audit_point(at_reference([(1, 1), (1, 1), (1, 1.3)]))
    assert codes(found) == ["implausible:additivity"]
    assert "at 50 °C" in found[0].sentence
    assert "the board was" not in found[0].sentence
    assert found[0].numbers["whole_energy_at_reference_j"] == pytest.approx(1.3 * 1.8)


def test_the_errors_at_the_reference_temperature_count():
    wide = at_reference([(1, 1), (1, 1), (1, 1.12)], energy_at_reference_rel_error=0.1)
    assert audit_point(wide) == []


@pytest.mark.parametrize(
    "change",
    [
        {"energy_at_reference_j": None, "energy_at_reference_reason": "held at the power limit"},
        {"reference_temperature_c": 60.0},
        {"reference_temperature_c": None},
        {"energy_at_reference_rel_error": 1.5},
    ],
)
def test_as_measured_where_a_row_has_no_energy_at_the_same_reference(change):
    measured = at_reference([(1, 1), (1, 1), (1.2, 1)])
    measured[1] |= change
    found = [finding for finding in audit_point(measured) if finding.rule == "additivity"]
    assert codes(found) == ["implausible:additivity"]
    assert found[0].sentence.endswith("the board was at 60 °C for the whole, at 40 and 50 °C for its parts")


def test_what_has_no_energy_at_a_reference_has_no_finding_for_it():
    row = GOOD | {"energy_at_reference_j": None, "energy_at_reference_rel_error": None}
    row |= {"energy_at_reference_reason": "held at the power limit", "reference_temperature_c": 50.0}
    assert audit_row(row) == []


@pytest.mark.parametrize(("second", "measurements"), [(0.93, 2), (1.07, None)])
def test_a_difference_that_comes_back_on_another_board_says_so(second, measurements):
    boards = [
        row | {"device_uuid": f"GPU-{place}"}
        for place, factor in enumerate((0.939, second))
        for row in rows(3, 1500, 200, "bf16", (20e-6, 30e-6, 49e-6), (5e-3, 10e-3, 15e-3 * factor))
    ]
    found = [finding for finding in audit_rows(boards) if finding.rule == "phases_interact"]
    assert [finding.rows for finding in found] == [(2, 0, 1), (5, 3, 4)]
    assert [finding.numbers.get("measurements") for finding in found] == [measurements] * 2
    assert ("it did so in 2 measurements of this point" in found[0].sentence) == (measurements == 2)


def test_launches_that_overlap_stay_a_note_of_additivity():
    eager = rows(3, 1500, 200, "bf16", (20e-6, 30e-6, 40e-6), (5e-3, 10e-3, 15e-3), execution="eager")
    assert codes(audit_point(eager)) == ["note:additivity"]


def test_a_note_does_not_stand_beside_what_is_implausible():
    found = audit_point(rows(3, 1500, 200, "bf16", (20e-6, 30e-6, 75e-6), (5e-3, 10e-3, 15e-3 * 1.08)))
    assert codes(found) == ["implausible:additivity"]
    assert "whole_time_s" in found[0].numbers


@pytest.mark.parametrize("converged", [True, "True", None])
def test_an_error_above_its_target_for_drift_alone_says_so(converged):
    drifted = {"energy_rel_error": 0.0188, "sentinel_energy_drift": 0.016, "sentinel_energy_drift_error": 0.003}
    found = audit_row(GOOD | drifted | {"energy_converged": converged})
    assert [(f.rule, f.severity) for f in found] == [("target_error_missed", Severity.NOTE)]
    assert "for energy, the window reached it, and the rest is the sentinel's drift of +1.60% ± 0.30%" in (
        found[0].sentence
    )
    assert found[0].numbers["sentinel_energy_drift"] == 0.016


def test_drift_that_temperature_does_not_explain_is_told_as_that():
    drifted = {"energy_rel_error": 0.0188, "sentinel_energy_drift": 0.06, "sentinel_energy_drift_unexplained": 0.016}
    found = audit_row(GOOD | drifted | {"energy_converged": True, "sentinel_energy_drift_error": 0.04})
    assert "drift of +1.60%" in found[0].sentence
    assert "temperature does not explain" in found[0].sentence


def test_a_window_that_missed_its_target_is_not_excused_by_drift():
    found = audit_row(GOOD | {"energy_rel_error": 0.03, "sentinel_energy_drift": 0.016, "energy_converged": False})
    assert "drift" not in found[0].sentence
