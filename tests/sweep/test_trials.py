"""What Ray Tune is asked to run, and what a trial reads from its configuration."""

import dataclasses
import json
import pickle
from types import SimpleNamespace

import pytest
from ray import cloudpickle

from flopray.errors import SettingError
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.store.schema import RecordSchema
from flopray.store.tune_results import ResultFormat
from flopray.sweep import trial
from flopray.sweep import trials as trials_module
from flopray.sweep.definition import Sweep
from flopray.sweep.trial import (
    ORDER_INDEX,
    BrokenDevice,
    PointTrial,
    ResultAllowance,
    bound,
    device_type_of,
    points_of,
    readable,
)
from flopray.sweep.trials import BesideStartingActors, trials_of
from flopray.sweep.worker_log import WorkerLog
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point, point_from

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
            count += allowance.take(each_s)
        return count

    assert reported(1000, 0.2) == 1000
    assert reported(20, 0.0) == 20  # such as ones that are refused
    assert reported(10_000, 0.001) == pytest.approx(20 + 10_000 * 0.001, abs=1)


def test_long_points_use_up_nothing_of_the_short_ones_allowance():
    allowance = ResultAllowance()
    assert all(allowance.take(1.0) for _ in range(1000))
    assert sum(allowance.take(0.0) for _ in range(60)) == 20


class Calls:
    """A recorder's actor and a profiler in one: notes what a trial calls, in order."""

    def __init__(self, seconds=(), failed=(), sick=()):
        self.said, self.now_s, self.seconds, self.failed, self.sick = [], 0.0, dict(seconds), failed, sick
        self.begin = SimpleNamespace(remote=self._begin)
        self.push = SimpleNamespace(remote=lambda _, records: self.said.append(f"push {records[0].width}"))

    def _begin(self, _, spec, actor, measured):
        assert actor == "CPU@a:1"
        self.said.append(f"begin {spec.width}" + (f" with {measured[0].width}" if measured else ""))
        return 1

    def measure_point(self, spec, **_):
        self.now_s += self.seconds.get(spec.width, 0.0)
        self.last = spec.width
        status = "failed" if spec.width in self.failed else "ok"
        return [PhaseRecord.of(trial_id=spec.id, phase="forward", status=status, **spec.fields())]

    def healthy(self):
        return self.last not in self.sick


@pytest.fixture
def step(monkeypatch):
    """A step of a trial, whose recorder and profiler are `Calls`."""
    monkeypatch.setattr(trial.ray, "get", lambda answer: answer)

    def stepped(calls, widths, at_once=20):
        monkeypatch.setattr(trial, "_RESULTS_AT_ONCE", at_once)
        monkeypatch.setattr(trial.time, "monotonic", lambda: calls.now_s)
        settings = MeasureSettings(phases=("forward",))
        made = object.__new__(bound(PointTrial, SHARED | {"point_timeout_s": 0, "settings": settings.to_dict()}))
        made._sweep, made._trial_info, made._recorder, made._profiler = made.shared, None, calls, calls
        made._own_name, made._counted, made._unsent, made._worker_log = "CPU@a:1", True, None, WorkerLog()
        made._results, made._format = ResultAllowance(), ResultFormat(RecordSchema(MLP()), ("forward",))
        fields = {"workload": "mlp", "device_type": "CPU", "n_layers": 2, "tokens": 8}
        made._left = list(enumerate(make_point(**fields, width=width) for width in widths))
        return made

    return stepped


def test_short_points_go_along_with_the_question_for_the_next_one_and_none_is_left(step):
    calls = Calls()
    result = step(calls, (16, 24, 32), at_once=0).step()
    assert calls.said == ["begin 16", "begin 24 with 16", "begin 32 with 24", "push 32"]
    assert (result["points"], result["done"]) == (3, True)


def test_a_point_is_handed_over_before_its_result(step):
    calls = Calls()
    trial_of_two = step(calls, (16, 24))
    assert trial_of_two.step()["points"] == 1
    assert calls.said == ["begin 16", "push 16"]
    assert trial_of_two.step()["done"]


def test_a_long_point_and_a_failed_one_are_handed_over_at_once(step):
    calls = Calls(seconds={16: 0.2}, failed=(24,))
    step(calls, (16, 24, 32), at_once=0).step()
    assert calls.said[:2] == ["begin 16", "push 16"]
    calls = Calls(failed=(24,))
    step(calls, (16, 24, 32), at_once=0).step()
    assert calls.said == ["begin 16", "begin 24 with 16", "push 24", "begin 32", "push 32"]


def test_a_point_after_which_the_device_stops_computing_is_handed_over_first(step):
    calls = Calls(sick=(24,))
    with pytest.raises(BrokenDevice):
        step(calls, (16, 24, 32), at_once=0).step()
    assert calls.said == ["begin 16", "begin 24 with 16", "push 24"]


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
