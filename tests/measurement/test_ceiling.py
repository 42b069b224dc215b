"""The rate of products on this CPU is measured for each precision, as a denominator and not a limit."""

import pytest
import torch

from flopray.measurement import ceiling
from flopray.measurement.ceiling import measured_peak_flops_per_s
from flopray.measurement.columns import derived_columns


def test_the_fastest_product_counts(monkeypatch):
    each_s = {256: [9.0, 0.001, 0.5], 512: [0.004, 0.002], 1024: [0.1, 0.06]}

    def seconds(left, right):
        times = each_s[left.shape[0]]
        return times.pop(0) if len(times) > 1 else times[0]

    monkeypatch.setattr(ceiling, "_seconds", seconds)
    monkeypatch.setattr(ceiling, "_REPEAT_S", 0.001)
    each_s[256][0] = 0.3
    assert measured_peak_flops_per_s("fp32") == 2 * 512**3 / 0.002


def test_a_precision_that_is_slow_is_measured_with_small_products_once(monkeypatch):
    seen = []

    def seconds(left, right):
        seen.append((left.shape[0], left.dtype))
        return 2.0

    monkeypatch.setattr(ceiling, "_seconds", seconds)
    assert measured_peak_flops_per_s("bf16") == 2 * 256**3 / 2.0
    assert seen == [(256, torch.bfloat16)]


def test_what_a_cpu_has_no_products_for_has_no_peak(monkeypatch):
    assert measured_peak_flops_per_s("tf32") is None

    def no_kernel(*_):
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(ceiling, "_seconds", no_kernel)
    assert measured_peak_flops_per_s("fp16") is None


@pytest.mark.parametrize(
    ("drift", "error", "expected"), [(0.1, None, 0.1), (0.1, 0.58, 0.0), (0.5, 0.196, 0.49**0.5 / 1.4286)]
)
def test_only_the_drift_beyond_the_sentinels_own_scatter_is_added_to_an_error(drift, error, expected):
    row = {"phase": "forward", "time_s": 1.0, "model_flops": 10, "time_rel_error": 0.0, "device_name": "a CPU"}
    columns = {"sentinel_time_drift": drift, "sentinel_time_drift_error": error}
    derived = derived_columns(row, "fp32", columns, {"idle_power_w": None})
    assert derived["time_rel_error"] == pytest.approx((max(0.0, drift**2 - ((error or 0.0) / 1.96) ** 2)) ** 0.5)
    assert derived["time_rel_error"] == pytest.approx(expected, rel=0.01)
