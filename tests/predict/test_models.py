"""The models by themselves: they find the constants that made the rows, and use nothing that they did not see."""

from __future__ import annotations

import numpy as np
import pytest
from imagined_gpu import made_frame, truth

from flopray.predict.arrays import works_as_arrays
from flopray.predict.domain import Domain
from flopray.predict.energy import HELD_LOOSELY, UNITS, fit_energy, parts_of
from flopray.predict.energy import start_of as energy_start
from flopray.predict.fitting import devices_of, fit_devices
from flopray.predict.kernel_choice import Choice, Counted, KernelChoices, distinct, rule_of_thumb
from flopray.predict.measured import measured_rows
from flopray.predict.residual import INPUTS, fit_residual
from flopray.predict.roofline import CONSTANTS, NAMES
from flopray.predict.simple import fit_power_law, fit_rate
from flopray.predict.work import Work, work_of
from flopray.workloads.mlp import MLP
from flopray.workloads.operations import PLAIN, Bulk, Product


def point(n=4, d=512, m=64, **options):
    made = {"device_type": "H100", "precision": "bf16", "execution": "graph", **options}
    return MLP().point(n_layers=n, width=d, tokens=m, **made)


def work(flops=1.0, moved=1.0, **shape) -> Work:
    return Work("mlp", "forward", "fp32", "graph", shape, (), flops, moved, moved)


@pytest.mark.parametrize("phase", MLP.phases)
def test_operations_of_an_mlp_are_its_closed_form(phase):
    mlp, asked = MLP(), point()
    products = sum(one.flops for one in mlp.operations(asked, phase) if isinstance(one, Product))
    assert products == mlp.closed_form(asked, phase)["gemm_flops"]


def test_roofline_finds_times_and_energies_that_its_constants_made():
    rows = measured_rows([made_frame()])
    (fit,) = fit_devices(rows, devices_of(rows), KernelChoices(), learn=False).values()
    times, energies = fit.predict(rows.works)["roofline"]
    assert np.abs(times / rows.times_s - 1).max() < 0.02
    assert np.abs(energies / rows.energies_j - 1).max() < 0.02
    time, _ = truth("H100", "bf16")
    for name in ("product_launch_s", "pass_launch_s"):
        assert fit.time.constants[name] == pytest.approx(time.constants[name], rel=0.15)


def test_constants_that_no_row_tells_stay_where_the_datasheet_puts_them():
    rows = measured_rows([made_frame(phases=("forward",))])
    (fit,) = fit_devices(rows, devices_of(rows), KernelChoices(), learn=False).values()
    start, _ = truth("H100", "bf16")
    for name in ("update_launch_s", "bulk_efficiency", "attention_efficiency", "host_launch_s"):
        assert fit.time.constants[name] == pytest.approx(start.constants[name], rel=1e-6)


def test_energy_constants_are_never_negative_where_rows_would_have_them_so():
    time, _ = truth("H100", "fp32")
    works = works_as_arrays(
        [work_of(point(d=d, precision="fp32"), "forward") for d in (128, 256, 512)], time.device, KernelChoices()
    )
    parts = parts_of(time, works, time.times(works))
    falling = np.array([3.0, 2.0, 1.0])  # less energy for more work
    fitted = fit_energy(parts, falling, energy_start(time.device, "fp32"), HELD_LOOSELY)
    assert set(fitted.constants) == set(UNITS)
    assert min(fitted.constants.values()) >= 0


def test_a_constant_has_the_unit_that_its_name_says():
    units = {one.name: one.unit for one in CONSTANTS} | UNITS
    endings = {
        **{"_macs_per_s": "MAC/s", "_bytes_per_s": "B/s", "_s_per_byte": "s/B", "_j_per_byte": "J/B"},
        **{"_j_per_flop": "J/FLOP", "_bytes": "B", "_s": "s", "_w": "W", "_factor": "1", "_efficiency": "1"},
    }
    assert units == {name: next(unit for end, unit in endings.items() if name.endswith(end)) for name in units}


def test_time_of_launches_is_a_multiple_of_layers():
    time, _ = truth("H100", "bf16")
    works = works_as_arrays(
        [work_of(point(n=n, d=128, m=16), "forward") for n in (1, 2, 32)], time.device, KernelChoices()
    )
    one, two, many = time.times(works)
    assert two == pytest.approx(2 * one)
    assert many == pytest.approx(32 * one)


def test_a_tile_more_costs_a_wave():
    time, _ = truth("H100", "fp32")
    exactly, more = (Product(PLAIN, 132 * 128, columns, 4096) for columns in (128, 129))
    counted = [
        Counted("H100", "fp32", PLAIN, one.rows, one.columns, one.inner, Choice(128, 128)) for one in (exactly, more)
    ]
    works = [Work("mlp", "forward", "fp32", "graph", {}, (one,), one.flops, 1.0, 1.0) for one in (exactly, more)]
    whole, split = time.times(works_as_arrays(works, time.device, KernelChoices(counted)))
    assert split / whole > 1.9


def test_power_law_and_rate_are_exact_where_they_hold():
    works = [work(flops=2.0 * n * d**2, width=float(d), layers=float(n)) for n in (1, 2, 4) for d in (8, 16, 64)]
    values = np.array([3.0 * one.shape["layers"] * one.shape["width"] ** 1.5 for one in works])
    law = fit_power_law(works, values)
    assert law.exponents == pytest.approx({"layers": 1.0, "width": 1.5}, abs=1e-4)
    assert law.of({"layers": 8.0, "width": 100.0}) == pytest.approx(3.0 * 8 * 1000, rel=1e-3)
    assert fit_rate(works, np.array([one.flops / 7e12 for one in works])) == pytest.approx(7e12)
    assert fit_rate([work(flops=0.0)], np.ones(1)) is None


def test_a_size_that_never_differs_has_no_exponent():
    works = [work(width=float(d), layers=4.0) for d in (8, 16)]
    assert fit_power_law(works, np.array([1.0, 4.0])).exponents == pytest.approx(
        {"layers": 0.0, "width": 2.0}, abs=1e-4
    )


@pytest.mark.extras("predict")
def test_a_residual_is_learned_and_forgotten_far_away():
    random = np.random.default_rng(0)
    inputs = random.uniform(0, 1, (60, len(INPUTS)))
    inputs[:, 3:] = 1.0  # inputs that do not differ
    known = 0.1 * np.sin(4 * inputs[:, 0])
    residual = fit_residual(inputs, known)
    assert residual is not None
    between = inputs[:20].copy()
    between[:, 0] += 0.01
    assert np.abs(residual.of(between) - 0.1 * np.sin(4 * between[:, 0])).max() < 0.02
    assert np.abs(residual.of(inputs + 1e3 * (np.arange(len(INPUTS)) < 3))).max() < 1e-3
    assert fit_residual(inputs[:10], known[:10]) is None


def test_a_counted_kernel_is_found_exactly_then_nearby_then_by_rule():
    ours, near = Choice(64, 32, 4, True), Choice(128, 128)
    choices = KernelChoices(
        [Counted("H100", "bf16", PLAIN, 512, 64, 512, ours), Counted("H100", "bf16", PLAIN, 4096, 64, 4096, near)]
    )

    def of(rows, precision="bf16", device_type="H100"):
        return choices.of(Product(PLAIN, rows, 64, rows), device_type, precision, 132)

    assert of(512) == of(640) == of(512, "fp16") == of(512, device_type="H200") == ours
    assert of(3000) == near
    assert of(512, "fp32") == rule_of_thumb(Product(PLAIN, 512, 64, 512), 132)
    assert of(64) == rule_of_thumb(Product(PLAIN, 64, 64, 64), 132)


def test_kernels_that_types_share_are_kept_once():
    one, same = (Counted(name, "bf16", PLAIN, 512, 64, 512, Choice(64, 64)) for name in ("H100", "H200"))
    other = Counted("H200", "bf16", PLAIN, 256, 64, 256, Choice(32, 64))
    assert distinct([one, same, other]) == [one, other]
    kept = KernelChoices(distinct([one, same, other]))
    assert kept.of(Product(PLAIN, 512, 64, 512), "H200", "bf16", 132) == same.choice


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"a": 2.0, "b": 2.0}, None),
        ({"a": 1.0, "b": 1.0}, None),
        ({"a": 1.01, "b": 1.0}, None),  # a little room
        ({"a": 9.0, "b": 2.0}, "a 9 is outside the measured range 1 to 4"),
        ({"a": 4.0, "b": 4.0}, "does not lie between measured ones"),
        ({"a": 2.0}, "its b is not known"),
    ],
)
def test_a_question_outside_of_the_hull_is_said_to_be_outside(shape, reason):
    domain = Domain.of([work(flops=8.0, moved=8.0, a=a, b=b) for a, b in ((1.0, 1.0), (4.0, 1.0), (1.0, 4.0))])
    said = domain.why_outside(work(flops=8.0, moved=8.0, **shape))
    assert said is None if reason is None else reason in said


def test_flops_and_intensity_outside_are_outside_too():
    domain = Domain.of([work(flops=8.0, moved=8.0, a=1.0), work(flops=16.0, moved=8.0, a=2.0)])
    assert "FLOPs 32" in domain.why_outside(work(flops=32.0, moved=16.0, a=2.0))
    assert "FLOPs a byte" in domain.why_outside(work(flops=16.0, moved=4.0, a=2.0))
    assert domain.is_far(work(a=4.5))
    assert not domain.is_far(work(a=3.9))


def test_work_of_sums_is_products_attention_passes_and_an_update():
    from flopray.predict.work import work_of_row

    row = {"workload": "their_model", "phase": "train_step", "precision": "bf16", "execution": "eager"}
    row |= {"model_flops": 1000, "gemm_flops": 600, "attention_flops": 200, "norm_flops": 40, "optimizer_flops": 160}
    made = work_of_row({**row, "least_moved_bytes": 400, "parameters": 10})
    products = [one for one in made.operations if isinstance(one, Bulk)]
    assert [(one.flops, one.attention) for one in products] == [(600, False), (200, True)]
    assert made.shape == {"parameters": 10.0}
    assert NAMES  # constants exist for each of them
