"""Optuna draws each point once, learns from known points, and handles points without a value."""

import itertools
import math

import pytest
from ray import tune

from flopray.settings import MeasureSettings
from flopray.sweep.definition import Sweep

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'flopray[optuna]'")
from flopray.sweep.searchers import DistinctOptuna, Searcher, key_of
from flopray.workloads.mlp import MLP

pytestmark = pytest.mark.extras("optuna")
AXES = {
    "device_type": ("CPU",),
    "precision": ("fp32", "bf16"),
    "execution": ("eager",),
    "n_layers": (1,),
    "width": (16, 32, 64, 128),
    "tokens": (8, 16),
}
GRID = set(itertools.product(*AXES.values()))


def searcher(known=None, samples=16, axes=AXES, objective=("flops_per_s",)) -> DistinctOptuna:
    sweep = Sweep(
        cpus_per_trial={"CPU": 1},
        workload=MLP(),
        axes=axes,
        settings=MeasureSettings(),
        search="optuna",
        samples=samples,
        objective=objective,
    )
    search = DistinctOptuna(sweep, known or {})
    space = {name: tune.choice(list(values)) for name, values in axes.items()}
    assert search.set_search_properties(None, None, space)
    return search


def draw(search, count, value_of):
    keys = []
    for number in range(count):
        fields = search.suggest(f"t{number}")
        if fields == Searcher.FINISHED:
            break
        keys.append(key_of(fields, AXES))
        search.on_trial_complete(f"t{number}", {"forward/flops_per_s": value_of(keys[-1])})
    return keys


def test_every_point_of_a_grid_is_drawn_once_and_then_the_search_ends():
    keys = draw(searcher(), 20, lambda key: float(key[4]))
    assert len(keys) == len(GRID)
    assert set(keys) == GRID


@pytest.mark.parametrize("value", [float("nan"), None, float("inf")])
def test_points_without_a_number_are_not_drawn_again(value):
    keys = draw(searcher(), 20, lambda key: value)
    assert set(keys) == GRID
    assert len(keys) == len(GRID)


def test_trials_that_run_at_the_same_time_are_of_different_points():
    search = searcher()
    running = [key_of(search.suggest(f"t{i}"), AXES) for i in range(len(GRID))]
    assert set(running) == GRID
    for i in range(len(running)):
        search.on_trial_complete(f"t{i}", None, error=True)
    assert search.suggest("late") == Searcher.FINISHED


def test_what_is_known_is_not_drawn_and_is_learned_from():
    known = {key: (math.log(key[4] * key[5]),) for key in sorted(GRID)[:10]}
    known[sorted(GRID)[0]] = None
    search = searcher(known)
    told = search.study.get_trials()
    assert sorted(trial.value for trial in told) == sorted(values[0] for values in known.values() if values)
    assert set(draw(search, 20, lambda key: 1.0)) == GRID - set(known)


def test_the_direction_follows_the_objective():
    assert searcher().mode == "max"
    assert searcher().metric == "forward/flops_per_s", "Tune checks that results have it"
    assert searcher(objective=("time_s",)).mode == "min"
    both = searcher(objective=("train_step/mfu", "memory_peak_bytes"))
    assert (both.metric, both.mode) == (["train_step/mfu", "forward/memory_peak_bytes"], ["max", "min"])
    assert [direction.name for direction in both.study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_a_search_for_two_objectives_finds_their_front_before_it_has_seen_the_grid():
    """Time grows with width and tokens, energy falls with width: the front is fp32 with 8 tokens at any width."""
    widths = (16, 32, 64, 128, 256, 512)
    axes = {**AXES, "width": widths, "tokens": tuple(range(8, 129, 8))}
    search = searcher(axes=axes, objective=("time_s", "energy_j"), samples=60)
    drawn = set()
    for number in range(60):
        fields = search.suggest(f"t{number}")
        key = key_of(fields, axes)
        assert key not in drawn
        drawn.add(key)
        slow = 2.0 if fields["precision"] == "fp32" else 1.0
        time_s, energy_j = slow * fields["width"] * fields["tokens"], slow * fields["tokens"] / fields["width"]
        search.on_trial_complete(f"t{number}", {"forward/time_s": time_s, "forward/energy_j": energy_j})
    front = {("CPU", "bf16", "eager", 1, width, 8) for width in widths}
    assert len(front & drawn) >= 4, "drawn at random, 60 of 192 points hold two of the six"


@pytest.mark.parametrize("value", [float("nan"), None])
def test_a_point_without_one_of_its_objectives_is_a_failure_for_the_search(value):
    search = searcher(objective=("time_s", "energy_j"))
    search.suggest("t0")
    search.on_trial_complete("t0", {"forward/time_s": 1.0, "forward/energy_j": value})
    assert [trial.state.name for trial in search.study.get_trials()] == ["FAIL"]


def test_a_search_for_two_objectives_learns_from_what_is_known():
    known = {key: (1.0 * key[4], 1.0 / key[5]) for key in sorted(GRID)[:10]} | {sorted(GRID)[0]: None}
    search = searcher(known, objective=("time_s", "energy_j"))
    assert sorted(trial.values for trial in search.study.get_trials()) == sorted(
        map(list, filter(None, known.values()))
    )


def test_a_result_of_an_unknown_trial_is_ignored():
    search = searcher()
    search.on_trial_complete("never-suggested", {"objective": 1.0})
    assert len(draw(search, 20, lambda key: 1.0)) == len(GRID)
