"""The table of GPUs: names, and numbers that agree with each other."""

import pytest

from flopray.audit.hardware import (
    FLOP_PER_CLOCK_PER_SM,
    GPUS,
    efficiency_limit_flops_per_j,
    find_gpu,
    hard_limit_flops_per_s,
    peak_flops_per_s,
)

H100 = "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("device_name", "expected"),
    [
        (H100, "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40GB"),
        ("Tesla V100-SXM2-16GB", "V100 SXM2"),
        ("Tesla V100-SXM2-32GB", "V100 SXM2"),
        ("Tesla V100-PCIE-16GB", "V100 PCIe"),
        ("Tesla V100S-PCIE-32GB", "V100S PCIe"),
        ("Tesla T4", "T4"),
        ("NVIDIA A40", "A40"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("v100", "V100 SXM2"),
        ("a40", "A40"),
        ("l40s", "L40S"),
        ("a100", "A100 SXM"),
        ("a100-40g", "A100 SXM"),
        ("h100", "H100 SXM"),
    ],
)
def test_names_of_nvml_and_short_names_find_their_row(device_name, expected):
    assert find_gpu(device_name).name == expected


@pytest.mark.parametrize(
    "device_name",
    [
        None,
        "",
        "CPU",
        "AMD EPYC 7763 64-Core Processor",
        "AMD Instinct MI300X",
        "NVIDIA GB200",
        "NVIDIA A10G",
        "NVIDIA A100-SXM-64GB",
        "NVIDIA A40-48Q",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    ],
)
def test_a_part_of_a_gpu_or_another_gpu_is_unknown(device_name):
    assert find_gpu(device_name) is None
    assert peak_flops_per_s(device_name, "fp32") is None
    assert hard_limit_flops_per_s(device_name, "fp32") is None
    assert efficiency_limit_flops_per_j(device_name, "fp32") is None


@pytest.mark.parametrize("spec", GPUS, ids=lambda spec: spec.name)
def test_a_datasheet_agrees_with_its_sms_and_clock(spec):
    rates = FLOP_PER_CLOCK_PER_SM[spec.compute_capability]
    assert set(spec.peaks) == set(rates)
    for precision, peak in spec.peaks.items():
        ratio = spec.sm_count * rates[precision] * spec.max_sm_clock_hz / peak
        # The sheets of L40 and RTX 4090 state the half rate that accumulation in fp32 has there.
        half_rate = spec.name in ("L40", "RTX 4090") and precision != "fp32"
        assert ratio == pytest.approx(2.0, rel=0.01) if half_rate else 0.99 <= ratio <= 1.16
    assert spec.source.startswith("https://")


def test_no_name_finds_two_rows():
    for spec in GPUS:
        assert find_gpu(spec.name) is spec


def test_peaks_are_dense_and_absent_where_the_chip_has_no_unit():
    assert peak_flops_per_s(H100, "bf16") == 989.4e12
    assert peak_flops_per_s(H100, "fp32") == 67e12
    assert peak_flops_per_s("v100", "bf16") is None
    assert peak_flops_per_s("v100", "tf32") is None
    assert peak_flops_per_s(H100, "fp8") == peak_flops_per_s(H100, "fp8_rowwise") == 1979e12
    assert peak_flops_per_s("a100", "fp8") is None
    assert peak_flops_per_s(H100, None) is None


def test_the_hard_limit_of_an_h100_is_above_its_datasheet_because_its_clock_is():
    limit = hard_limit_flops_per_s(H100, "bf16", compute_capability="9.0", sm_count=132, max_sm_clock_hz=1.98e9)
    assert limit.bound == pytest.approx(132 * 4096 * 1.98e9)
    assert "132 SMs" in limit.basis
    assert hard_limit_flops_per_s(H100, "bf16").bound == pytest.approx(limit.bound)


def test_a_reported_clock_goes_before_the_datasheet():
    slow = hard_limit_flops_per_s(H100, "fp32", max_sm_clock_hz=1.0e9)
    assert slow.bound == pytest.approx(132 * 256 * 1.0e9)


def test_a_gpu_outside_the_table_has_a_limit_from_what_it_reports():
    limit = hard_limit_flops_per_s(
        "NVIDIA RTX 6000 Ada Generation", "fp32", compute_capability="8.9", sm_count=142, max_sm_clock_hz=2.5e9
    )
    assert limit.bound == pytest.approx(142 * 256 * 2.5e9)
    assert (
        hard_limit_flops_per_s("a new GPU", "fp32", compute_capability="99.0", sm_count=1, max_sm_clock_hz=1e9) is None
    )


def test_a_precision_without_a_unit_is_held_against_the_fastest_unit():
    assert hard_limit_flops_per_s("v100", "bf16").bound == pytest.approx(hard_limit_flops_per_s("v100", "fp16").bound)
    assert hard_limit_flops_per_s("v100", "int4") is None


def test_efficiency_is_peak_over_board_power_and_unknown_for_a_module():
    assert efficiency_limit_flops_per_j("a100", "fp16").bound == pytest.approx(312e12 / 400)
    assert efficiency_limit_flops_per_j("NVIDIA A100-PCIE-40GB", "fp16").bound == pytest.approx(312e12 / 250)
    assert efficiency_limit_flops_per_j("NVIDIA GH200 480GB", "fp16") is None


def test_a_count_of_sms_beyond_any_float_limits_nothing():
    stated = {"compute_capability": "9.0", "sm_count": int(1e308), "max_sm_clock_hz": 1.98e9}
    assert hard_limit_flops_per_s("NVIDIA H100 80GB HBM3", "fp32", **stated).basis == "datasheet of the H100 SXM"
    assert hard_limit_flops_per_s("no GPU", "fp32", **stated) is None
