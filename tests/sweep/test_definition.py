"""What a sweep is: contradictions are refused, a manifest is all a resume needs."""

import json

import pytest

from flopray.cli.flags import told
from flopray.errors import FloprayError, InputError, NotARun
from flopray.records import COLUMN_NAMES, SCHEMA_VERSION
from flopray.settings import MeasureSettings
from flopray.sweep.definition import Sweep
from flopray.sweep.objectives import METRICS
from flopray.workloads.mlp import MLP

AXES = {
    "device_type": ("CPU",),
    "precision": ("fp32", "bf16"),
    "execution": ("eager",),
    "n_layers": (1, 2),
    "width": (16, 32),
    "tokens": (8, 16, 24),
}


def sweep(axes=None, **fields) -> Sweep:
    defaults = {"workload": MLP(), "settings": MeasureSettings(), "cpus_per_trial": {"CPU": 1}}
    return Sweep(**{**defaults, "axes": {**AXES, **(axes or {})}, **fields})


def test_a_grid_has_all_points_and_random_search_some_of_them():
    whole = sweep()
    assert whole.size == whole.grid_size == len(whole.points()) == 24
    drawn = sweep(search="random", samples=10)
    assert drawn.size == len(drawn.points()) == 10
    assert drawn.grid_size == 24
    ids = [point.id for point in drawn.points()]
    assert len(set(ids)) == 10
    assert set(ids) < {point.id for point in whole.points()}


def test_random_search_draws_the_same_points_from_the_same_seed():
    def ids(seed):
        return [p.id for p in sweep(search="random", samples=10, settings=MeasureSettings(seed=seed)).points()]

    assert ids(3) == ids(3)
    assert ids(3) != ids(4)


def test_random_search_of_the_whole_grid_is_the_grid():
    assert sweep(search="random", samples=24).points() == sweep().points()


def test_sobol_draws_shapes_and_measures_each_in_every_precision():
    drawn = sweep(search="sobol", samples=5, settings=MeasureSettings(seed=7))
    shapes = [{tuple(p.shape().values()) for p in drawn.points() if p.precision == name} for name in ("fp32", "bf16")]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 5
    assert drawn.size == len(drawn.points()) == 10
    assert sweep(search="sobol", samples=99).points() == sweep().points()
    assert Sweep.from_manifest(json.loads(json.dumps(drawn.to_manifest("r", {})))).points() == drawn.points()


@pytest.mark.parametrize(
    ("axes", "fields", "flag"),
    [
        ({"precision": ("fp64",)}, {}, "--precision: unknown 'fp64'"),
        ({"precision": ("fp32", "fp32")}, {}, "--precision"),
        ({"execution": ("fast",)}, {}, "--execution: unknown 'fast'"),
        ({"execution": ("eager", "eager")}, {}, "--execution"),
        ({}, {"search": "hyperband"}, "--search: unknown 'hyperband'"),
        ({}, {"samples": 5}, "--samples goes with"),
        ({}, {"search": "random"}, "--search random needs --samples"),
        ({}, {"search": "random", "samples": 0}, "--search random needs --samples"),
        ({}, {"search": "optuna", "samples": 3}, "--search optuna needs --objective"),
        ({}, {"search": "optuna", "samples": 3, "objective": ("beauty",)}, "--objective 'beauty': unknown metric"),
        ({}, {"objective": ("time_s",)}, "--objective goes with"),
        ({}, {"search": "random", "samples": 3, "objective": ("time_s",)}, "--objective goes with"),
        ({}, {"cpus_per_trial": {"CPU": 0}}, "--cpus-per-trial"),
        ({"device_type": ("CPU", "CPU")}, {}, "--accelerators"),
        ({"width": (16, 2**31 - 1), "tokens": (2**31 - 1,)}, {}, "the largest point, n=2 d=2147483647"),
        ({}, {"points_per_trial": 0}, "--points-per-trial"),
    ],
)
def test_contradictions_are_refused_by_the_flags_name(axes, fields, flag):
    with pytest.raises(InputError) as error:
        sweep(axes, **fields)
    assert flag in told(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("objective", ["energy_j", "flops_per_j", "train_step/energy_per_token_j", "power_w"])
def test_an_objective_of_energy_needs_the_instrument(objective):
    search = {"search": "optuna", "samples": 3, "objective": ("time_s", objective)}
    assert sweep(**search)
    with pytest.raises(InputError, match=f"objective {objective} needs energy among the instruments"):
        sweep(**search, settings=MeasureSettings(instruments=("time",)))


def test_every_objective_is_a_column_with_a_direction_and_a_unit():
    assert set(METRICS) <= COLUMN_NAMES
    assert {metric.error for metric in METRICS.values()} <= {*COLUMN_NAMES, None}
    better_when_larger = {name for name, metric in METRICS.items() if metric.mode == "max"}
    assert better_when_larger == {"flops_per_s", "flops_per_j", "mfu", "hfu"}


def test_an_objective_is_of_the_first_phase_or_of_the_one_that_is_named():
    objective = ("energy_j", "train_step/time_s")
    made = sweep(search="optuna", samples=3, objective=objective)
    assert [(o.phase, o.column, o.key) for o in made.objectives] == [
        ("forward", "energy_j", "forward/energy_j"),
        ("train_step", "time_s", "train_step/time_s"),
    ]


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (("glory",), "'glory': unknown metric, choose from time_s, energy_j, energy_per_token_j, memory_peak_bytes"),
        (("train_step/glory",), "'train_step/glory': unknown metric, choose from time_s"),
        (("train_step",), "unknown metric"),
        (("trainstep/time_s",), "'trainstep/time_s': unknown phase, choose from forward, backward, optimizer_step"),
        (("inference/time_s",), "inference is not measured: add it to phases, or choose from forward"),
        (("time_s", "forward/time_s"), "has forward/time_s twice"),
        (("time_s,energy_j",), "write objective time_s energy_j"),
        (("a/b/time_s",), "unknown phase"),
        (("/time_s",), "unknown phase"),
    ],
)
def test_an_objective_that_cannot_be_is_refused_in_a_line_with_the_choices(objective, said):
    with pytest.raises(InputError) as error:
        sweep(search="optuna", samples=3, objective=objective)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kept", "read"), [("time_s", ("time_s",)), (None, ()), (["time_s", "mfu"], ("time_s", "mfu"))]
)
def test_manifests_of_runs_with_one_objective_are_read(kept, read):
    search = {"search": "optuna", "samples": 3} if kept else {}
    manifest = sweep(**search, objective=read or None).to_manifest("r", {})
    manifest["sweep"]["objective"] = kept
    assert Sweep.from_manifest(manifest).objective == (read or None)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"search": "random", "samples": 5},
        {
            "search": "optuna",
            "samples": 5,
            "objective": ("flops_per_s", "train_step/time_s"),
            "cpus_per_trial": {"CPU": 2},
        },
        {"points_per_trial": 3, "settings": MeasureSettings(phases=("backward",), cooldown_c=40.0)},
    ],
)
def test_a_manifest_brings_back_the_same_sweep(fields):
    original = sweep(**fields)
    manifest = json.loads(json.dumps(original.to_manifest("r", {"ray": "2.60"})))
    assert manifest["schema_version"] == SCHEMA_VERSION
    assert manifest["name"] == "r"
    assert manifest["versions"] == {"ray": "2.60"}
    again = Sweep.from_manifest(manifest)
    assert again == original
    assert [p.id for p in again.points()] == [p.id for p in original.points()]


def broken_manifests():
    good = sweep().to_manifest("r", {})
    yield "no sweep", {k: v for k, v in good.items() if k != "sweep"}
    yield "sweep is a list", {**good, "sweep": []}
    for key in ("workload", "axes", "settings"):
        yield f"no {key}", {**good, "sweep": {k: v for k, v in good["sweep"].items() if k != key}}
    yield "an axis too many", {**good, "sweep": {**good["sweep"], "axes": {**AXES, "depth": [1]}}}
    yield "an axis missing", {**good, "sweep": {**good["sweep"], "axes": {"width": [16]}}}
    yield "axes of numbers", {**good, "sweep": {**good["sweep"], "axes": dict.fromkeys(AXES, 3)}}
    yield "foreign workload", {**good, "sweep": {**good["sweep"], "workload": "cnn"}}
    yield "unknown field", {**good, "sweep": {**good["sweep"], "colour": "blue"}}
    yield "objectives of numbers", {**good, "sweep": {**good["sweep"], "objective": [3]}}
    yield "settings of a list", {**good, "sweep": {**good["sweep"], "settings": []}}


@pytest.mark.parametrize("manifest", [pytest.param(m, id=what) for what, m in broken_manifests()])
def test_a_manifest_that_describes_no_sweep_is_refused(manifest):
    with pytest.raises(FloprayError) as error:
        Sweep.from_manifest(manifest)
    assert isinstance(error.value, NotARun)
    assert "\n" not in str(error.value)
