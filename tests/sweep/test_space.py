"""Grid values, points and slabs: nothing lost, nothing twice, the same again from the same seed."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopray.cli.axes import parse_values
from flopray.errors import InputError, SpecError
from flopray.sweep.space import MAX_TRIALS, TRIAL_SECONDS, grid, sentinel_of, slabs, spread
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point


def axes(device_types=("CPU",), precisions=("fp32",), executions=("eager",), n=(1,), d=(16,), m=(8,)):
    names = ("device_type", "precision", "execution", "n_layers", "width", "tokens")
    return dict(zip(names, (device_types, precisions, executions, n, d, m), strict=True))


def kind(point):
    return point.device_type, point.precision, point.execution


def pack(points, seconds=1.0, slots=None, seed=0, **options):
    return slabs(points, seconds=lambda point: seconds, slots=slots or {"CPU": 1}, seed=seed, **options)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["2"], (2,)),
        (["2", "4", "8"], (2, 4, 8)),
        (["8", "2"], (8, 2)),
        (["128:512:128"], (128, 256, 384, 512)),
        (["1", "10:20:4", "40"], (1, 10, 14, 18, 40)),
        (["5:5:1"], (5,)),
        (["1:4:100"], (1,)),
        (["128:2048:128"], tuple(128 * i for i in range(1, 17))),
    ],
)
def test_values_and_ranges(words, values):
    assert parse_values("--d", words) == values


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["0"], "--d: 0 is below 1"),
        (["-4"], "--d: -4 is below 1"),
        (["1.5"], "--d: '1.5' is not a whole number"),
        (["1e3"], "not a whole number"),
        (["nan"], "not a whole number"),
        (["x"], "not a whole number"),
        ([""], "not a whole number"),
        ([], "--d needs at least one value"),
        (["2", "2"], "--d: 2 is named twice"),
        (["2", "1:3:1"], "2 is named twice"),
        (["4:2:1"], "the range is empty"),
        (["1:4:0"], "0 is below 1"),
        (["1:4"], "write a whole number or a range"),
        (["1:2:3:4"], "write a whole number or a range"),
        (["1:1000000000:1"], "more than a million values"),
    ],
)
def test_values_that_make_no_axis(words, message):
    with pytest.raises(InputError) as error:
        parse_values("--d", words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 500))
def test_a_range_holds_its_ends_in_steps(first, length, step):
    values = parse_values("--d", [f"{first}:{first + length}:{step}"])
    assert values[0] == first
    assert first + length - step < values[-1] <= first + length
    assert all(b - a == step for a, b in itertools.pairwise(values))


def test_the_grid_is_the_product_with_the_last_axis_fastest():
    points = grid(MLP(), axes(precisions=("fp32", "bf16"), n=(1, 2), d=(16, 32), m=(8, 16, 24)))
    assert len(points) == len({point.id for point in points}) == 24
    assert [point.tokens for point in points[:4]] == [8, 16, 24, 8]
    assert [point.precision for point in points] == ["fp32"] * 12 + ["bf16"] * 12


def test_a_grid_of_impossible_points_is_refused():
    with pytest.raises(SpecError, match="width"):
        grid(MLP(), axes(d=(0,)))
    with pytest.raises(SpecError, match="unknown precision 'fp64'"):
        grid(MLP(), axes(precisions=("fp64",)))


@settings(deadline=None, max_examples=60)
@given(
    precisions=st.sampled_from([("fp32",), ("fp32", "bf16", "fp16")]),
    devices=st.sampled_from([("CPU",), ("H100", "A100")]),
    widths=st.integers(1, 9),
    tokens=st.integers(1, 9),
    seconds=st.floats(0.01, 300),
    slots=st.integers(1, 8),
    seed=st.integers(0, 5),
    fixed=st.one_of(st.none(), st.integers(1, 7)),
)
def test_slabs_are_the_points_once_each_and_of_one_kind(
    precisions, devices, widths, tokens, seconds, slots, seed, fixed
):
    points = grid(MLP(), axes(devices, precisions, d=range(1, widths + 1), m=range(1, tokens + 1)))
    packed = pack(points, seconds, dict.fromkeys(devices, slots), seed, points_per_trial=fixed)
    flat = [point for slab in packed for point in slab]
    assert sorted(point.id for point in flat) == sorted(point.id for point in points)
    assert all(slab and len({kind(point) for point in slab}) == 1 for slab in packed)
    if fixed:
        assert max(len(slab) for slab in packed) <= fixed
    assert packed == pack(points, seconds, dict.fromkeys(devices, slots), seed, points_per_trial=fixed)


AXES = {"n": (1, 2, 4, 8, 16, 32), "d": (128, 256, 512, 1024), "m": (16, 32, 64, 128, 256)}


@given(st.integers(1, 130), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_spread_shapes_are_of_the_grid_and_more_samples_keep_them(samples, seed):
    shapes = spread(AXES, samples, seed)
    assert len(shapes) == min(samples, 120)
    assert shapes <= set(itertools.product(*AXES.values()))
    assert shapes <= spread(AXES, samples + 5, seed)


@pytest.mark.parametrize("seed", range(5))
def test_spread_shapes_have_each_value_about_equally_often(seed):
    """Chance alone would leave some value of d with 5 of 32 or fewer in half of all cases."""
    shapes = spread(AXES, 32, seed)
    for place, values in enumerate(AXES.values()):
        counts = [sum(shape[place] == value for shape in shapes) for value in values]
        assert max(counts) - min(counts) <= 3


def test_slabs_hold_neighbours():
    points = grid(MLP(), axes(d=range(1, 11), m=range(1, 11)))
    for slab in pack(points, points_per_trial=10):
        places = sorted(points.index(point) for point in slab)
        assert places == list(range(places[0], places[0] + 10))


def test_the_seed_shuffles_slabs_and_points():
    points = grid(MLP(), axes(d=range(1, 13), m=range(1, 13)))
    first, second = (pack(points, seed=seed, points_per_trial=12) for seed in (0, 1))
    assert first != second
    assert [point.id for slab in first for point in slab] != [point.id for point in points]
    assert any(slab != sorted(slab, key=points.index) for slab in first)


def test_without_a_seed_points_that_share_kernels_stay_together():
    points = grid(MLP(), axes(n=(2, 4, 8), d=range(1, 9), m=range(1, 5)))
    packed = pack(points, seed=None, points_per_trial=24)
    assert len(packed) == 4
    for slab in packed:  # two widths, with all of their depths and tokens
        assert len({point.width for point in slab}) == 2
    assert [points.index(point) for slab in packed for point in slab if point.n_layers == 2] == list(range(32))


def test_short_points_are_bundled_into_trials_that_outlast_an_actors_start():
    points = grid(MLP(), axes(d=range(1, 41), m=range(1, 41)))
    packed = pack(points, seconds=0.5, slots={"CPU": 2})
    assert min(len(slab) for slab in packed) * 0.5 >= 0.5 * TRIAL_SECONDS[0]
    assert max(len(slab) for slab in packed) * 0.5 <= TRIAL_SECONDS[1]
    assert len(packed) >= 4 * 2  # enough for both slots to end together


def test_a_point_longer_than_a_trial_is_a_trial():
    points = grid(MLP(), axes(d=range(1, 9)))
    assert [len(slab) for slab in pack(points, seconds=TRIAL_SECONDS[1] * 2)] == [1] * 8


def test_a_huge_grid_stays_within_what_tune_can_hold():
    points = grid(MLP(), axes(d=range(1, 201), m=range(1, 201)))
    assert len(pack(points, seconds=30.0, slots={"CPU": 64})) <= MAX_TRIALS * 1.1


def test_no_points_make_no_slabs():
    assert pack([]) == []


def test_the_sentinel_is_one_point_of_each_type_and_a_graph_on_gpus():
    points = grid(MLP(), axes(("H100", "CPU"), d=(16, 32, 64)))
    sentinels = sentinel_of(points)
    assert set(sentinels) == {"H100", "CPU"}
    assert sentinels["CPU"] in points
    assert sentinels["CPU"].width == sentinels["H100"].width == 32
    assert (sentinels["CPU"].execution, sentinels["H100"].execution) == ("eager", "graph")
    assert sentinel_of([]) == {}


def test_a_trial_id_names_the_specification():
    point = make_point(workload="mlp", device_type="CPU", n_layers=1, width=16, tokens=8)
    assert point.id == make_point(workload="mlp", device_type="CPU", n_layers=1, width=16, tokens=8).id
    assert point.id != make_point(workload="mlp", device_type="H100", n_layers=1, width=16, tokens=8).id
