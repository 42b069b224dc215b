"""What of the sentinel's deviation enters the errors of a row, and how often these then hold on devices that drift."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from flopray.audit.drift import SCATTER, added_error
from flopray.measurement.columns import derived_columns

ROOT = Path(__file__).resolve().parents[2]
IDLE: dict[str, float | None] = {"idle_power_w": None, "awake_idle_power_w": None}


@pytest.mark.parametrize(
    ("drift", "error", "expected"), [(-0.1, None, 0.1), (0.1, 0.58, 0.0), (-0.5, 0.196, 0.5), (0.0, 0.0, 0.0)]
)
def test_a_deviation_enters_whole_or_as_scatter_not_at_all(drift, error, expected):
    row = {"phase": "forward", "time_s": 1.0, "model_flops": 10, "time_rel_error": 0.01, "device_name": "a CPU"}
    columns: dict[str, float | None] = {"sentinel_time_drift": drift, "sentinel_time_drift_error": error}
    derived = derived_columns(row, "fp32", columns, IDLE)
    assert derived["time_rel_error"] == pytest.approx(0.01 + expected)


def test_the_bound_is_in_standard_deviations_of_the_sentinel():
    bound = SCATTER * 0.0135 / 1.96
    assert added_error(1.01 * bound, 0.0135) == pytest.approx(1.01 * bound)
    assert added_error(-0.99 * bound, 0.0135) == 0.0


@pytest.mark.parametrize(("unexplained", "added"), [(0.002, 0.0), (-0.03, 0.03), (None, 0.06)])
def test_what_temperature_explains_enters_no_error(unexplained, added):
    row = {"phase": "forward", "time_s": 1.0, "energy_j": 2.0, "energy_rel_error": 0.01, "time_rel_error": 0.003}
    drift: dict[str, float | None] = {"sentinel_energy_drift": 0.06, "sentinel_energy_drift_error": 0.013}
    drift |= {"sentinel_energy_drift_unexplained": unexplained, "sentinel_energy_drift_unexplained_error": 0.014}
    derived = derived_columns(row, "fp32", drift, IDLE)
    assert derived["energy_rel_error"] == pytest.approx(0.01 + added)
    assert "time_rel_error" not in derived  # of time no drift is known


@pytest.fixture(scope="module")
def bench():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench"))
        return importlib.import_module("drift_coverage")


@pytest.mark.parametrize("stated", [1.0, 1.5, 2.0])
def test_it_holds_more_than_in_quadrature_and_widens_fewer_rows_of_a_steady_device(bench, stated):
    named = bench.rules()
    for kind, size in bench._CASES:
        *seen, missed = bench.swept(kind, size, 400, 0.95, stated, np.random.default_rng(1))
        widths = {name: named[name](*seen) for name in ("variance", "flopray")}
        held = {name: np.mean(np.abs(missed) <= width) for name, width in widths.items()}
        assert held["flopray"] > held["variance"] + (0.1 if size >= 2 else -0.01), (kind, size)
        if kind == "none":
            assert np.mean(widths["flopray"] > 1) < np.mean(widths["variance"] > 1)
            assert held["flopray"] > 0.94


def test_the_bench_drifts_as_it_says(bench):
    minutes = np.tile(np.linspace(0, 8, 9), (4000, 1))[:, ::-1]
    for kind in ("even", "walk", "jump"):
        moved = bench.drift_at(kind, 2.0, minutes, np.random.default_rng(0))
        assert np.all(moved[:, -1] == 0)
        assert np.sqrt(np.mean(moved[:, 0] ** 2)) == pytest.approx(2.0, rel=0.05)
        middle = {"even": 1.0, "walk": 2**0.5, "jump": 2**0.5}[kind]
        assert np.sqrt(np.mean(moved[:, 4] ** 2)) == pytest.approx(middle, rel=0.05)
