"""The models by themselves: they find the constants that made the rows, and use nothing that they did not see."""

from __future__ import annotations

import numpy as np
import pytest
from imagined_gpu import made_frame, truth

from flopray.predict.arrays import LINE_BYTES, works_as_arrays
from flopray.predict.domain import Domain
from flopray.predict.energy import HELD_LOOSELY, UNITS, fit_energy, limited, parts_of, term_parts
from flopray.predict.energy import start_of as energy_start
from flopray.predict.fitting import devices_of, fit_devices
from flopray.predict.kernel_choice import CANDIDATES, Choice, Counted, KernelChoices, distinct
from flopray.predict.measured import measured_rows
from flopray.predict.residual import Terms, fit_residual, joined, terms_of
from flopray.predict.roofline import CONSTANTS, NAMES
from flopray.predict.simple import fit_power_law, fit_rate
from flopray.predict.work import Work, work_of
from flopray.workloads.mlp import MLP
from flopray.workloads.operations import GRADIENT, PLAIN, TRANSPOSED, Bulk, Product


def point(n=4, d=512, m=64, **options):
    made = {"device_type": "H100", "precision": "bf16", "execution": "graph", **options}
    return MLP().point(n_layers=n, width=d, tokens=m, **made)


def crossing(product: Product, precision: str) -> tuple[float, ...]:
    """The shares of one product."""
    time, _ = truth("H100", precision)
    one = Work("mlp", "forward", precision, "graph", {}, (product,), product.flops, 1e6, 1e6)
    return tuple(float(share[0]) for share in works_as_arrays([one], time.device, KernelChoices()).products.crossing)


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


def test_roofline_finds_what_rows_cost_that_cross_lines_of_memory():
    rows = measured_rows([made_frame(widths=(200, 256, 520, 1024), tokens=(40, 64, 72, 256))])
    (fit,) = fit_devices(rows, devices_of(rows), KernelChoices(), learn=False).values()
    time, energy = truth("H100", "bf16")
    assert fit.time.constants["crossing_factor"] == pytest.approx(time.constants["crossing_factor"], rel=0.15)
    assert fit.energy.constants["crossing_j_per_byte"] == pytest.approx(
        energy.constants["crossing_j_per_byte"], rel=0.15
    )


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("numbers", [8, 16, 24, 40, 64, 80, 136])
def test_the_share_of_crossing_rows_is_that_of_rows_laid_one_after_the_other(numbers, precision):
    length = numbers * {"bf16": 2, "fp32": 4}[precision]
    begins = np.arange(LINE_BYTES) * length
    ends = begins + min(length, LINE_BYTES) - 1
    share = (begins // LINE_BYTES != ends // LINE_BYTES).mean()
    assert crossing(Product(PLAIN, 64, numbers, 64), precision) == (0, share, share)


@pytest.mark.parametrize(
    ("layout", "token_rows", "along"),
    [
        (PLAIN, False, ("inner", "columns", "columns")),
        (TRANSPOSED, False, ("rows", "columns", "columns")),
        (GRADIENT, False, ("inner", "inner", "columns")),
        (PLAIN, True, ("inner", "inner", "rows")),
        (TRANSPOSED, True, ("rows", "inner", "rows")),
        (GRADIENT, True, ("rows", "columns", "columns")),
    ],
)
def test_rows_of_matrices_are_as_long_as_the_edge_that_they_lie_along(layout, token_rows, along):
    for edge in ("rows", "columns", "inner"):
        sizes = {"rows": 64, "columns": 64, "inner": 64, edge: 72}
        found = crossing(Product(layout, **sizes, token_rows=token_rows), "bf16")
        assert [share > 0 for share in found] == [one == edge for one in along]


def test_what_torch_lays_out_for_an_mlp_has_these_rows():
    """Weights are (width, width), activations (width, tokens): rows as long as the width, and as the tokens."""
    shares = {}
    for d, m in ((72, 64), (64, 72)):
        for one in MLP().operations(point(d=d, m=m), "train_step"):
            if isinstance(one, Product):
                shares[d, m, one.layout] = [share > 0 for share in crossing(one, "bf16")]
    assert shares[72, 64, PLAIN] == shares[72, 64, TRANSPOSED] == [True, False, False]
    assert shares[64, 72, PLAIN] == shares[64, 72, TRANSPOSED] == [False, True, True]
    assert (shares[72, 64, GRADIENT], shares[64, 72, GRADIENT]) == ([False, False, True], [True, True, False])


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


def sines(shift=0.0):
    """Terms of works of two products each, whose errors are known functions of their sizes."""
    random = np.random.default_rng(0)
    sizes = np.zeros((40, 4))
    sizes[:, :3] = random.uniform(4, 8, (40, 3))
    sizes[:, 0] += shift
    kind = np.repeat([0, 1], 20)
    shares = np.zeros((120, 40))
    for row in range(120):
        one, other = random.integers(20), 20 + random.integers(20)
        shares[row, one] = random.uniform(0.2, 0.8)
        shares[row, other] = 1 - shares[row, one]
    errors = np.where(kind == 0, 0.1 * np.sin(sizes[:, 0]), -0.05)
    return Terms(kind, sizes, shares), errors


def test_a_residual_is_learned_of_terms_from_works_that_mix_them_and_forgotten_far_away():
    terms, errors = sines()
    residual = fit_residual(terms, terms.shares @ errors)
    assert residual is not None
    alone = Terms(terms.kind, terms.sizes, np.eye(40))  # no work had one product only
    assert np.abs(residual.of(alone) - errors).max() < 0.02
    assert np.abs(residual.of(sines(shift=1e4)[0])).max() < 1e-3
    assert fit_residual(terms.of(np.arange(120) < 10), (terms.shares @ errors)[:10]) is None


def test_what_a_product_has_for_itself_is_known_of_it_and_not_of_its_neighbours():
    random = np.random.default_rng(1)
    sizes = np.column_stack([random.uniform(3, 9, (40, 3)), np.zeros(40)])
    own = random.normal(0, 0.08, 40)  # nothing of it is smooth in the sizes
    terms = Terms(np.zeros(40, dtype=np.intp), sizes, np.repeat(np.eye(40), 3, axis=0))
    residual = fit_residual(terms, np.repeat(own, 3) + random.normal(0, 0.005, 120))
    assert residual is not None
    assert residual.parts[0].own == pytest.approx(0.08, rel=0.5)
    assert np.abs(residual.of(Terms(terms.kind, sizes, np.eye(40))) - own).max() < 0.02
    beside = residual.of(Terms(terms.kind, sizes + np.array([0.01, 0.01, 0.01, 0]), np.eye(40)))
    assert np.abs(beside).max() < 0.3 * np.abs(own).max()


def test_terms_of_several_types_are_joined_and_equal_ones_merged():
    terms, errors = sines()
    both = joined([terms, terms])
    assert both.shares.shape == (240, 40)
    assert np.allclose(both.shares[:120], both.shares[120:])
    known = {(kind, *sizes): error for kind, sizes, error in zip(terms.kind, terms.sizes.tolist(), errors, strict=True)}
    in_order = [known[(kind, *sizes)] for kind, sizes in zip(both.kind, both.sizes.tolist(), strict=True)]
    assert np.allclose(both.shares @ in_order, np.tile(terms.shares @ errors, 2))


def test_the_gradient_of_a_residuals_posterior_is_that_of_differences():
    from flopray.predict.residual import _Search

    terms, errors = sines()
    search = _Search(terms, terms.shares @ errors)
    at = search.start + 0.1
    _, slope = search.loss(at)
    for place in range(len(at)):
        step = 1e-5 * (np.arange(len(at)) == place)
        differs = (search.loss(at + step)[0] - search.loss(at - step)[0]) / 2e-5
        assert slope[place] == pytest.approx(differs, rel=1e-4, abs=1e-4)


def test_parts_of_terms_add_up_to_those_of_works():
    time, energy = truth("H100", "bf16")
    works = works_as_arrays([work_of(point(n=n), "train_step") for n in (1, 4)], time.device, KernelChoices())
    times = 1.5 * time.times(works)
    parts = term_parts(time, works, times)
    joules = works.summed(works.term_work, parts @ energy.values)
    assert joules == pytest.approx(energy.energies(time, works, times))
    waited = [list(UNITS).index(name) for name in ("rest_w", "waiting_w")]
    assert works.summed(works.term_work, parts[:, waited].sum(axis=1)) == pytest.approx(times)
    shares = terms_of(time, works, time.term_times(works)).shares
    assert shares.sum(axis=1) == pytest.approx([2.0, 2.0])  # its terms, and the work itself


def test_an_unknown_kernel_is_the_fastest_candidate():
    time, _ = truth("H100", "bf16")
    product = Product(PLAIN, 1024, 64, 1024)
    one = Work("mlp", "forward", "bf16", "graph", {}, (product,), product.flops, 1e6, 1e6)
    free = works_as_arrays([one], time.device, KernelChoices())
    tried = {
        choice: time.times(
            works_as_arrays([one], time.device, KernelChoices([Counted("H100", "bf16", PLAIN, 1024, 64, 1024, choice)]))
        )[0]
        for choice in CANDIDATES
    }
    assert time.times(free)[0] == pytest.approx(min(tried.values()))
    p = time.with_kernels(free).products
    chosen = Choice(int(p.tile_rows[0]), int(p.tile_columns[0]), int(p.splits[0]), bool(p.reduced[0]))
    assert tried[chosen] == min(tried.values())


def test_an_inner_dimension_is_not_split_into_slivers():
    time, _ = truth("H100", "bf16")
    product = Product(PLAIN, 64, 16, 64)
    one = Work("mlp", "forward", "bf16", "graph", {}, (product,), product.flops, 1e6, 1e6)
    chosen = time.with_kernels(works_as_arrays([one], time.device, KernelChoices()))
    assert chosen.products.splits.tolist() == [1.0]


def test_small_tensors_are_updated_in_a_part_of_a_blocks_time():
    time, _ = truth("H100", "bf16")

    def waiting(d, n=1):
        works = works_as_arrays([work_of(point(n=n, d=d), "optimizer_step")], time.device, KernelChoices())
        return time.waiting_times(works)[0]

    block = time.constants["update_block_s"]
    assert waiting(256) - waiting(128) == pytest.approx(0.75 * block)
    assert waiting(2048) == pytest.approx(waiting(256))
    assert waiting(128, 3) - waiting(128, 1) == pytest.approx(2 * time.constants["update_tensor_s"])


def test_a_board_keeps_to_its_power_limit():
    times, energies = limited(np.ones(3), np.array([650.0, 100 + 8 * 600.0, np.nan]), 700.0, 100.0)
    assert times == pytest.approx([1.0, 2.0, 1.0])  # eight times the power above rest at half the clock
    assert energies[:2] == pytest.approx([650.0, 1400.0])
    assert np.isnan(energies[2])


def test_a_counted_kernel_is_found_for_its_shape_alone():
    ours = Choice(64, 32, 4, True)
    choices = KernelChoices([Counted("H100", "bf16", PLAIN, 512, 64, 512, ours)])

    def of(rows, precision="bf16", device_type="H100"):
        return choices.of(Product(PLAIN, rows, 64, rows), device_type, precision)

    assert of(512) == of(512, "fp16") == of(512, device_type="H200") == ours
    assert of(640) is None
    assert of(512, "fp32") is None


def test_kernels_that_types_share_are_kept_once():
    one, same = (Counted(name, "bf16", PLAIN, 512, 64, 512, Choice(64, 64)) for name in ("H100", "H200"))
    other = Counted("H200", "bf16", PLAIN, 256, 64, 256, Choice(32, 64))
    assert distinct([one, same, other]) == [one, other]
    kept = KernelChoices(distinct([one, same, other]))
    assert kept.of(Product(PLAIN, 512, 64, 512), "H200", "bf16") == same.choice


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


def test_products_in_fp8_cast_their_operands():
    plain, cast = (work_of(point(n=1, d=128, m=32, precision=name), "forward").operations for name in ("bf16", "fp8"))
    added = [one for one in cast if one not in plain and not isinstance(one, Product)]
    weights, inputs = 128 * 128, 128 * 32
    assert [one.elements for one in added] == [weights, 1.5 * weights, inputs, 1.5 * inputs]


def rows_of(*shapes: tuple[int, int]) -> list[Work]:
    return [work_of(point(n=2, d=d, m=m, precision="bf16"), "forward") for d, m in shapes]


def test_a_size_that_can_be_divided_by_less_than_all_measured_ones_runs_other_kernels():
    domain = Domain.of(rows_of((128, 16), (128, 1024), (4096, 16), (4096, 1024)))
    (odd, four, eight, plain) = rows_of((1001, 64), (1000, 100), (1000, 104), (1024, 64))
    assert domain.why_outside(odd) == (
        "its products have an edge of 1,001, which is no multiple of 8, as all measured ones are"
    )
    assert domain.runs_other_kernels(odd)
    assert "an edge of 100, which is no multiple of 8" in domain.why_outside(four)
    assert domain.runs_other_kernels(four)
    assert not domain.runs_other_kernels(eight)
    assert domain.why_outside(plain) is None


def test_what_was_measured_so_is_known_so():
    domain = Domain.of(rows_of((100, 10), (100, 1000), (1500, 10), (1500, 1000)))
    (alike,) = rows_of((1300, 30))
    assert not domain.runs_other_kernels(alike)


def test_a_size_that_can_be_divided_by_less_than_its_neighbours_lies_outside():
    """It is answered with the wider interval: an error of that kind was seen on held-out rows."""
    domain = Domain.of(rows_of(*((d, m) for d in (128, 4096) for m in (16, 64, 128, 256))))
    between, measured, divided = rows_of((1024, 80), (1024, 16), (1024, 192))
    said = "tokens 80 is no multiple of 64, as the nearest measured ones are (64, 128)"
    assert domain.why_outside(between) == said
    assert not domain.runs_other_kernels(between)
    assert domain.why_outside(measured) is None
    assert domain.why_outside(divided) is None


def test_a_dimension_that_is_no_edge_of_a_product_may_be_any_number():
    domain = Domain.of([work_of(point(n=n, d=128, m=64, precision="bf16"), "forward") for n in (2, 8)])
    assert domain.why_outside(work_of(point(n=5, d=128, m=64, precision="bf16"), "forward")) is None


@pytest.mark.parametrize(
    ("tokens", "said"),
    [(2331, "its products are of 2,331 tokens, no multiple of 64, as all measured ones are"), (2304, None)],
)
@pytest.mark.parametrize("layout", [PLAIN, TRANSPOSED, GRADIENT])
def test_tokens_that_are_rows_in_memory_may_be_any_number(layout, tokens, said):
    """Such a number is no other kernel, only another tile: an answer has the wider interval."""

    def of(count: int) -> Work:
        edges = (768, 768, count) if layout == GRADIENT else (768, count, 768)
        return Work(
            "causal_lm", "forward", "bf16", "graph", {"a": 1.0}, (Product(layout, *edges, 1, True),), 1.0, 1.0, 1.0
        )

    domain = Domain.of([of(256), of(8192)])
    assert domain.why_outside(of(tokens)) == said
    assert not domain.runs_other_kernels(of(tokens))
