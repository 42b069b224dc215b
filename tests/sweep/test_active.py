"""The most informative points: far ones first, none twice, and on real grids fewer of them for the same error."""

import importlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from flopray import load_run
from flopray.errors import FloprayError
from flopray.predict.shipped import shipped
from flopray.settings import MeasureSettings
from flopray.sweep.active import Surrogate, features_of
from flopray.sweep.definition import Sweep
from flopray.sweep.objectives import objectives_of
from flopray.sweep.prior import MODEL, prior_of
from flopray.workloads.mlp import MLP

pytestmark = pytest.mark.extras("active")
RESULTS = Path(__file__).parents[2] / "docs" / "results"
DIMENSIONS = ("n_layers", "width", "tokens")


def sweep(objective=None, search="active", samples=6, phases=("forward",), **more) -> Sweep:
    axes = {"device_type": ("H100",), "precision": ("fp32", "bf16"), "execution": ("graph",)}
    axes |= {"n_layers": (2,), "width": (64, 128, 256), "tokens": (16, 64)}
    settings = MeasureSettings(phases=phases, instruments=("time", "energy"))
    return Sweep(
        workload=MLP(),
        axes=axes,
        settings=settings,
        search=search,
        samples=samples,
        objective=objective,
        cpus_per_trial={"H100": 1},
        **more,
    )


def test_places_are_logarithmic_and_words_are_apart():
    axes = {"precision": ("fp32", "bf16"), "execution": ("graph",), "width": (64, 128, 1024)}
    keys = list(itertools.product(*axes.values()))
    places = features_of(axes, keys)
    assert places.shape == (6, 3)  # two words, one dimension; one value is no column
    assert places[:3, 2].tolist() == pytest.approx([0, 0.25, 1])
    assert np.linalg.norm(places[0] - places[3]) == pytest.approx(1)


def test_what_runs_is_not_drawn_again_and_counts_as_known():
    surrogate = Surrogate(np.linspace(0, 1, 9)[:, None])
    drawn = []
    for _ in range(9):
        drawn.append(surrogate.next_of_surface(running=drawn))
    assert sorted(drawn) == list(range(9))
    assert abs(drawn[0] - drawn[1]) > 1  # not its neighbour


def test_a_missing_quantity_leaves_the_others():
    surrogate = Surrogate(np.linspace(0, 1, 8)[:, None])
    for place in range(0, 8, 2):
        surrogate.tell(place, [2.0**place, float("nan")])
    values, spreads = surrogate.predict()
    assert values.shape == spreads.shape == (8, 1)
    assert values[3, 0] == pytest.approx(8, rel=0.1)


@pytest.mark.parametrize("run", ["h100_mlp_fp32", "h100_mlp_bf16"])
def test_a_measured_grid_is_known_from_fewer_points_than_drawn_at_random(run):
    frame = load_run(RESULTS / run)
    wide = frame.pivot_table(index=list(DIMENSIONS), columns="phase", values=["time_s", "energy_j"])
    keys, truth = [tuple(map(int, key)) for key in wide.index], wide.to_numpy(float)
    axes = {name: sorted({key[place] for key in keys}) for place, name in enumerate(DIMENSIONS)}

    def error(order) -> float:
        """Root mean square relative error of what was not measured, after a third of the grid."""
        surrogate, known = Surrogate(features_of(axes, keys)), []
        for step in range(len(keys) // 3):
            place = surrogate.next_of_surface() if order is None else int(order[step])
            surrogate.tell(place, truth[place])
            known.append(place)
        rest = np.setdiff1d(np.arange(len(keys)), known)
        return float(np.sqrt(np.mean((surrogate.predict()[0][rest] / truth[rest] - 1) ** 2)))

    at_random = [error(np.random.default_rng(seed).permutation(len(keys))) for seed in range(3)]
    assert error(None) < 0.8 * np.mean(at_random)


def test_what_models_expect_is_corrected_by_what_is_measured():
    """A surface with a step that a smooth process cannot know, 20 % above a prior that knows the step."""
    places = np.linspace(0, 1, 40)
    expected = (np.exp(3 * places) * np.where(places > 0.52, 4.0, 1.0))[:, None]
    truth = 1.2 * expected
    errors = {}
    for name, prior in (
        ("with", expected),
        ("without", None),
        ("missing", np.where(places > 0.9, np.nan, 1.0)[:, None]),
    ):
        surrogate = Surrogate(places[:, None], prior=prior)
        for place in (0, 12, 26, 39):
            surrogate.tell(place, truth[place])
        errors[name] = np.abs(surrogate.predict()[0] / truth - 1).max()
    assert errors["with"] < 0.02 < 0.2 < errors["without"]
    assert errors["missing"] == errors["without"]


def test_a_prior_does_not_change_which_points_are_on_the_front():
    """The front is of the quantities, not of their ratios to a prior that has them the wrong way round."""
    places = np.linspace(0, 1, 30)
    costs = np.stack([np.exp(-places), np.exp(places)], axis=1)
    costs[20:] *= 5
    surrogate = Surrogate(np.stack([places, np.arange(30) >= 20], axis=1), prior=costs * np.exp(4 * places)[:, None])
    for place in (0, 10, 19, 20, 29):
        surrogate.tell(place, costs[place])
    drawn = []
    for _ in range(8):
        place = surrogate.next_of_front([True, True])
        surrogate.tell(place, costs[place])
        drawn.append(place)
    assert sum(place < 20 for place in drawn) >= 7


def test_shipped_models_expect_what_was_measured_and_say_nothing_of_other_devices():
    objectives = objectives_of(
        ["forward/time_s", "forward/flops_per_j", "forward/memory_peak_bytes"], ["forward"], ["forward"]
    )
    model = MLP(n_layers=8, width=1024, tokens=128)
    known = model.point(device_type="H100", precision="bf16", execution="graph")
    unknown = model.point(device_type="B300", precision="bf16", execution="graph")
    table = prior_of([known, unknown], objectives)
    assert table[0, 0] == pytest.approx(44.3e-6, rel=0.2)  # 44.3 us were measured
    assert table[0, 1] == pytest.approx(
        2 * 8 * 1024**2 * 128 / shipped().predict(known, "forward", model=MODEL).energy_j.value, rel=0.01
    )
    assert np.isnan(table[0, 2])
    assert np.isnan(table[1]).all()
    assert prior_of([unknown], objectives) is None
    assert prior_of([known] * 5_000, objectives) is None


def test_the_page_has_the_table_of_the_kept_errors(monkeypatch):
    monkeypatch.syspath_prepend(str(RESULTS.parents[1] / "bench"))
    made = importlib.import_module("active_search_plot")
    kept = json.loads((RESULTS / "active_search.json").read_text())
    assert made.table_of(kept["grids"]) in (RESULTS.parent / "ray.md").read_text()
    assert not {grid["run"] for grid in kept["grids"]} & {run.removeprefix("docs/results/") for run in kept["fit_to"]}


def test_a_front_is_sought_where_two_quantities_are_at_odds():
    """Time falls and energy rises along the line; a third of the points is worse in both."""
    places = np.linspace(0, 1, 30)
    costs = np.stack([np.exp(-places), np.exp(places)], axis=1) * np.where(np.arange(30) % 3, 1.0, 1.0)[:, None]
    costs[20:] *= 5  # the last points are worse than earlier ones
    surrogate = Surrogate(np.stack([places, np.arange(30) >= 20], axis=1))
    for place in (0, 10, 19, 20, 29):
        surrogate.tell(place, costs[place])
    drawn = []
    for _ in range(8):
        place = surrogate.next_of_front([True, True])
        surrogate.tell(place, costs[place])
        drawn.append(place)
    assert sum(place < 20 for place in drawn) >= 7


def test_what_an_active_search_learns():
    assert [o.key for o in sweep(phases=("forward", "backward")).objectives] == [
        *("forward/time_s", "forward/energy_j"),
        *("backward/time_s", "backward/energy_j"),
    ]
    assert [o.key for o in sweep(objective=("pareto",)).objectives] == ["forward/flops_per_j", "forward/flops_per_s"]
    assert sweep().trial_shape == "point"
    assert Sweep.from_manifest(sweep().to_manifest("r", {})).of_surface


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": None}, "needs samples N"),
        ({"objective": ("time_s",)}, "for one objective use optuna"),
        ({"objective": ("surface", "time_s")}, "unknown metric"),
        ({"shards": ("1/2",)}, "leave it out"),
        ({"search": "random", "objective": ("surface",)}, "goes with search optuna or active"),
        ({"search": "optuna", "objective": ("surface",)}, "unknown metric"),
    ],
)
def test_what_does_not_go_together(changes, said):
    with pytest.raises(FloprayError, match=said):
        assert sweep(**changes).objectives


def test_the_searcher_draws_each_point_once_and_ends():
    from flopray.sweep.active_searcher import ActiveGrid

    known = {("H100", "fp32", "graph", 2, 64, 16): (1e-3, 0.1)}
    search = ActiveGrid(sweep(), known)
    drawn = []
    for number in range(11):
        config = search.suggest(str(number))
        drawn.append(tuple(config.values()))
        result = {"forward/time_s": 1e-3 * (number + 1), "forward/energy_j": 0.1}
        search.on_trial_complete(str(number), None if number == 4 else result, error=number == 4)
    assert len({*drawn, *known}) == 12
    assert search.suggest("12") == "FINISHED"
