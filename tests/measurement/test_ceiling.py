"""The rate of products on this CPU is measured for each precision, as a denominator and not a limit."""

import torch

from flopray.measurement import ceiling
from flopray.measurement.ceiling import measured_peak_flops_per_s


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
