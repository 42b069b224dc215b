"""What Ray Tune is asked to run, and what a trial reads from its configuration."""

import dataclasses
import json
import pickle
from types import SimpleNamespace

import pytest
from ray import cloudpickle

from flopray.errors import SettingError
from flopray.settings import MeasureSettings
from flopray.sweep import trial
from flopray.sweep import trials as trials_module
from flopray.sweep.definition import Sweep
from flopray.sweep.trial import ORDER_INDEX, PointTrial, ResultAllowance, bound, device_type_of, points_of, readable
from flopray.sweep.trials import BesideStartingActors, trials_of
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import point_from

SHARED = {"workload": {"name": "mlp"}, "implied": {}, "cpus_per_trial": {"CPU": 1}, "placed_by_type": []}


def sweep(**fields) -> Sweep:
    return Sweep(
        workload=MLP(),
        axes={"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
        | {"n_layers": (2,), "width": (16, 24, 32), "tokens": (8, 16)},
        settings=MeasureSettings(phases=("forward",)),
        cpus_per_trial={"CPU": 1},
        **fields,
    )


def slabs_in(trials):
    return [{"slab": slab} for slab in trials.space["slab"]["grid_search"]]


def listed(trials):
    return trials.search["search_alg"]._points_to_evaluate


def test_the_points_of_a_slab_go_through_tune_as_a_text_and_come_back():
    asked = sweep(points_per_trial=2)
    trials = trials_of(asked, None, {"CPU": 1}, set())
    configs = slabs_in(trials)
    assert len(configs) == 3
    points = [point_from(fields) for config in configs for _, fields in points_of(config, SHARED)]
    assert {point.id for point in points} == {point.id for point in asked.points()}
    assert {device_type_of(config, SHARED) for config in configs} == {"CPU"}


def test_a_slab_says_in_words_what_it_holds_and_results_do_not_carry_the_text():
    trials = trials_of(sweep(), None, {"CPU": 1}, set())
    for config in slabs_in(trials):
        told = readable(config)["slab"]
        assert "points" not in told
        assert told["count"] == len(points_of(config, SHARED))
        assert set(told["width"].split()) <= {"16", "24", "32"}
        assert (told["n_layers"], told["precision"]) == ("2", "fp32")
        # What a result says is enough to know the points of a trial that failed.
        ids = [point.id for point in trials.points_of(readable(config), SHARED)]
        assert ids == [point_from(fields).id for _, fields in points_of(config, SHARED)]


def test_points_that_are_tried_again_keep_their_place_behind_those_that_are_done():
    """The second time Tune runs, for the points of trials that it gave up, and in a resume."""
    asked = sweep()
    ids = [point.id for point in asked.points()]

    def planned(done):
        trials = trials_of(asked, None, {"CPU": 1}, done)
        return [(i, fields["width"]) for config in slabs_in(trials) for i, fields in points_of(config, SHARED)]

    whole, rest = planned(set()), planned(set(ids[:4]))
    assert [index for index, _ in whole] == list(range(6))
    assert sorted(width for _, width in whole) == [16, 16, 24, 24, 32, 32]
    assert [index for index, _ in rest] == [4, 5]
    assert trials_of(asked, None, {"CPU": 1}, set(ids[:5])).longest == 1


def test_a_trial_of_one_point_has_its_fields_as_configuration():
    asked = sweep(trial="point")
    ids = [point.id for point in asked.points()]
    trials = trials_of(asked, None, {"CPU": 1}, set(ids[:2]))
    assert trials.longest == 1
    configs = listed(trials)
    assert trials.search["num_samples"] == len(configs) == 4
    assert {name for config in configs for name in config} == {*asked.axes, ORDER_INDEX}
    found = [(index, point_from(fields).id) for c in configs for index, fields in points_of(c, SHARED)]
    assert [index for index, _ in found] == [2, 3, 4, 5]
    assert {point_id for _, point_id in found} == set(ids[2:])
    assert [point.id for c in configs for point in trials.points_of(c, SHARED)] == [i for _, i in found]


def test_a_trial_is_a_slab_of_a_grid_and_a_point_of_a_search():
    assert sweep().trial_shape == sweep(search="random", samples=2).trial_shape == "slab"
    assert sweep(search="optuna", samples=2, objective=("time_s",)).trial_shape == "point"
    assert sweep(trial="point").trial_shape == "point"
    with pytest.raises(SettingError, match="goes with trial slab"):
        sweep(trial="point", points_per_trial=2)
    with pytest.raises(SettingError, match="goes with a grid"):
        sweep(search="optuna", samples=2, objective=("time_s",), trial="slab")
    with pytest.raises(SettingError, match="trial: unknown 'points', choose from slab, point"):
        sweep(trial="points")


def test_the_trainable_of_a_sweep_takes_along_what_its_trials_share():
    made = bound(PointTrial, SHARED)
    sent = pickle.loads(cloudpickle.dumps(made))
    assert sent.__name__ == "PointTrial"
    assert sent.shared == SHARED
    assert PointTrial.shared == {}
    config = {"device_type": "CPU", "precision": "fp32", "execution": "eager", "n_layers": 2, "width": 16, "tokens": 8}
    assert sent.default_resource_request(config).bundles == [{"CPU": 1.0}]
    assert len(json.dumps(config)) < 200


def test_results_of_short_points_are_thinned_and_long_ones_never(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(trial.time, "monotonic", lambda: now[0])

    def reported(points, each_s):
        allowance, count = ResultAllowance(), 0
        for _ in range(points):
            now[0] += each_s
            count += allowance.take()
        return count

    assert reported(1000, 0.25) == 1000
    assert reported(50, 0.0) == 50  # such as ones that are refused
    assert reported(10_000, 0.001) == pytest.approx(50 + 10_000 * 0.001 / 0.2, abs=1)


def test_a_finished_trials_actor_goes_to_a_trial_whose_own_is_not_starting():
    """Two devices: of the waiting trials, at most the first two have an actor that is starting."""
    pending = [SimpleNamespace(name=name, status="PENDING") for name in "abcd"]
    running = SimpleNamespace(name="r", status="RUNNING")

    def chosen(trials, devices):
        found = BesideStartingActors(devices).choose_trial_to_run(SimpleNamespace(get_trials=lambda: trials))
        return found and found.name

    assert chosen([running, *pending], 2) == "b"
    assert chosen([running, *pending], 4) == "d"
    assert chosen([running, *pending[:1]], 4) == "a"
    assert chosen([running], 2) is None


def test_as_many_points_are_in_flight_as_devices_measure(monkeypatch):
    monkeypatch.setattr(trials_module.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(trials_module, "free_by_node", lambda: [({"CPU": 8.0}, {}), ({"CPU": 3.0}, {})])
    many = dataclasses.replace(sweep(trial="point"), cpus_per_trial={"CPU": 2, "H100": 1})
    assert trials_module._at_once(many, {"H100": 8}) == 8
    assert trials_module._at_once(many, {"CPU": 1}) == 4 + 1
    assert trials_module._at_once(many, {"H100": 8, "CPU": 1}) == 8 + 5
