"""The public names of the package: they exist whatever was imported before, and their examples are true."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import flopray
from flopray.cli.python import Run
from flopray.cluster.this_machine import this_machine
from flopray.errors import InputError
from flopray.measurement.host import cpu_threads
from flopray.measurement.profile import Profile
from flopray.records import PhaseRecord, Status
from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.sweep import definition
from flopray.workloads import MLP

pytestmark = pytest.mark.usefixtures("peak_measured_once")

ROOT = Path(flopray.__path__[0]).parent
#: What can take a place in the face: modules directly below it. Its own modules import what lies deeper.
ROOMS = sorted(f"flopray.{found.name}" for found in pkgutil.iter_modules(flopray.__path__) if found.name != "__main__")
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in Path(flopray.__path__[0]).rglob("*.py")
    if ">>> " in path.read_text()
)


def printed(code: str, *words: str) -> str:
    """The output of a new Python process."""
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_module_can_be_imported_and_none_takes_the_place_of_a_name_of_the_face(warm_python):
    """Importing `flopray.x.y` binds `flopray.x`: no function of the face may be called as a room."""
    code = """
import importlib, inspect, pkgutil, sys, types
import flopray
def check():
    for name in flopray.__all__:
        found = getattr(flopray, name)
        assert isinstance(found, types.ModuleType) == (name == "workloads"), name
        assert name in dir(flopray)
        if name not in ("workloads", "__version__"):
            assert callable(found) and inspect.getdoc(found), name
for name in sys.argv[1:]:
    importlib.import_module(name)
check()
extras = ("lightning", "mlflow", "nvtx", "optuna", "plotly", "tensorboardX", "transformers", "wandb")
for module in pkgutil.walk_packages(flopray.__path__, "flopray."):
    if not module.name.endswith(("__main__", "torch_probe")):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            assert error.name in extras, error
check()
m = flopray.measure(lambda: sum(range(100)), max_seconds=0.3, target_error=0.9, device="cpu", instruments=("time",))
assert m.time.time_s > 0
space = {}
exec("from flopray import *", space)
assert set(flopray.__all__) <= set(space)
print("done")
"""
    assert {"flopray.measurement", "flopray.cli", "flopray.workloads", "flopray.errors"} <= set(ROOMS)
    done = warm_python.run("-c", code, *ROOMS, *flopray._FACE.values())
    assert done.stdout == "done\n", done.stderr


def test_every_name_is_what_its_module_has():
    assert set(flopray.__all__) == {*flopray._FACE, "workloads", "__version__"}
    for name, module in flopray._FACE.items():
        assert getattr(flopray, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="module 'flopray' has no attribute 'meassure'"):
        flopray.meassure


def test_importing_the_face_needs_the_standard_library_alone():
    code = """
import sys
before = set(sys.modules)
import flopray
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - set(sys.stdlib_module_names) - {"flopray"}))
"""
    assert printed(code).split() == []


@pytest.mark.slow
@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_of_docstrings_are_true(module):
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_the_examples_are_found():
    expected = {"flopray.errors", "flopray.cli.python", "flopray.measurement.profile", "flopray.workloads.registry"}
    assert expected <= set(WITH_EXAMPLES)


SHAPE = {"n_layers": 1, "width": 16, "tokens": 8}


@pytest.mark.parametrize(
    ("workload", "arguments", "said"),
    [
        (MLP(), {}, "workload: give one with its values"),
        ("mlp", {}, "workload: give one with its values"),
        (MLP, {}, "workload: give one with its values, such as MLP(n_layers=8, ...), got MLP"),
        (MLP(**SHAPE), {"phases": "fordward"}, "phases: unknown 'fordward', choose from inference, forward"),
        (MLP(**SHAPE), {"phases": 3}, "phases must be a list of values, such as [3], got 3"),
        (MLP(**SHAPE), {"instruments": 3}, "instruments must be a list of values"),
        (MLP(**SHAPE), {"phases": ["fordward"]}, "phases: unknown 'fordward', choose from inference, forward"),
        (MLP(**SHAPE), {"phases": ["prefill"]}, "phases: unknown 'prefill'"),
        (MLP(**SHAPE), {"phases": []}, "phases"),
        (MLP(**SHAPE), {"instruments": ["speed"]}, "instruments"),
        (MLP(**SHAPE), {"precision": "fp31"}, "unknown precision 'fp31'"),
        (MLP(**SHAPE), {"execution": "fast"}, "unknown execution 'fast'"),
        (MLP(**SHAPE), {"target_error": 0.0}, "target_error"),
        (MLP(**SHAPE), {"max_seconds": -1.0}, "max_seconds"),
        (MLP(**SHAPE), {"device": "tpu"}, "tpu"),
        (MLP(**SHAPE), {"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        (MLP(**SHAPE), {"threads": 1.5}, "threads must be a whole number of at least 1, got 1.5"),
        (MLP(**SHAPE), {"device": "cuda:99"}, "cuda:99"),
    ],
)
def test_profile_says_in_one_line_what_cannot_be(workload, arguments, said):
    with pytest.raises(InputError) as error:
        flopray.profile(workload, **{"device": "cpu", **arguments})
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)  # no flag: there is no command line


def test_profile_shows_a_line_for_each_phase_and_says_once_why_there_is_no_energy():
    records = flopray.profile(MLP(**SHAPE), phases=["forward", "backward"], max_seconds=0.05, device="cpu")
    none = {"energy_status": Status.NO_ENERGY_SOURCE, "energy_reason": "no source"}
    shown = Profile(records.point, [dataclasses.replace(record, **none) for record in records])
    head, forward, backward, without = repr(shown).splitlines()
    assert head.endswith(f"on {records[0].device_name}")
    assert (forward.split()[0], backward.split()[0]) == ("forward", "backward")
    assert without == "  no energy: no source"


def test_profile_computes_with_as_many_threads_as_a_sweep_and_leaves_those_of_the_process():
    before = torch.get_num_threads()
    quick = {"phases": "forward", "instruments": "time", "max_seconds": 0.05, "device": "cpu"}
    torch.set_num_threads(3)
    try:
        (record,) = flopray.profile(MLP(**SHAPE), **quick)
        assert record.cpu_threads == cpu_threads(this_machine().cores)  # what `PointTrial` takes on this machine
        (record,) = flopray.profile(MLP(**SHAPE), threads=2, **quick)
        assert record.cpu_threads == 2
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("workload", "arguments", "said"),
    [
        ("mpl", {}, "unknown workload 'mpl': choose from mlp, llama"),
        ("none.py:Net", {}, "there is no file"),
        ("mlp", {"axes": {"depth": [1]}}, "unknown axis 'depth': choose from n_layers, tokens, width"),
        ("mlp", {"axes": {"precision": ["fp32"]}}, "width: precision is a setting: Sweep(..., precision=...)"),
        ("mlp", {"axes": {"d": [8]}}, "unknown axis 'd': choose from n_layers, tokens, width: did you mean 'width'?"),
        ("causal_lm", {"axes": {"seq_len": [8]}}, "weights: did you mean 'sequence_length'?"),
        ("mlp", {"n": [8]}, "the axes of mlp are n_layers, tokens, width: did you mean axes={'n_layers': [...]}?"),
        ("mlp", {"width": [8]}, "did you mean axes={'width': [...]}?"),
        ("mlp", {"hidden_size": 8}, "did you mean axes={'width': [...]}?"),
        ("mlp", {"phase": "forward"}, "did you mean phases?"),
        ("mlp", {"trial_timeout": 3}, "did you mean point_timeout_s?"),
        ("mlp", {"accelerators": "H100"}, "did you mean device_types?"),
        ("mlp", {"plots": True}, "plots is an argument of run: Sweep(...).run(path, plots=...)"),
        ("mlp", {"storage": "x"}, "the folder of a run is the argument of run"),
        ("llama", {"axes": {"model_config": ["x"]}}, "unknown axis 'model_config'"),
        ("mlp", {"axes": {"width": 8}}, "axis width must be a list of values, such as [8], got 8"),
        ("mlp", {"axes": {"width": "8"}}, "axis width must be a list of values, such as ['8'], got '8'"),
        ("mlp", {"axes": {"width": None}}, "axis width must be a list of values, such as [8, 16], got None"),
        ("mlp", {"axes": [8]}, "axes must map each field to its values, such as {'width': [64, 128]}, got [8]"),
        ("mlp", {"phases": 3}, "phases must be a list of values, such as [3], got 3"),
        (3, {}, "workload must be a name, FILE.py:NAME or a Workload, got 3"),
        (MLP(**SHAPE), {}, "workload: MLP(n_layers=1, width=16, tokens=8) is one shape, which `profile` measures"),
        ("mlp", {"maxseconds": 3}, "unknown setting 'maxseconds': choose from calibrate, cooldown_c, "),
    ],
)
def test_a_sweep_says_in_one_line_what_cannot_be(workload, arguments, said):
    with pytest.raises(InputError) as error:
        flopray.Sweep(workload, **arguments)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("axes", "settings", "said"),
    [
        ({"width": [0]}, {}, "width must be a whole number of at least 1, got 0"),
        ({"width": [16.5]}, {}, "width"),
        ({"width": []}, {}, "width"),
        ({}, {"precision": "fp31"}, "fp31"),
        ({}, {"phases": ["prefill"]}, "prefill"),
        ({}, {"search": "random"}, "samples"),
        ({}, {"target_error": 2.0}, "target_error"),
        ({}, {"seed": -1}, "seed"),
        ({}, {"shard": (1, 2)}, "shard must be a text, got (1, 2)"),
        ({}, {"shard": 3}, "shard must be a text, got 3"),
        ({}, {"trial": 3}, "trial: a value must be a text, got 3"),
        ({}, {"search": ["grid"]}, "search: a value must be a text, got ['grid']"),
        ({}, {"keep_series": "yes"}, "keep_series must be True or False, got 'yes'"),
        ({}, {"calibrate": 1}, "calibrate must be True or False, got 1"),
        ({}, {"phases": [3]}, "phases: a name must be a text, got 3"),
        ({}, {"precision": [["fp32"]]}, "precision: a value must be a text, got ['fp32']"),
    ],
)
def test_values_that_cannot_be_are_refused_before_ray_starts(tmp_path, monkeypatch, axes, settings, said):
    monkeypatch.setattr("flopray.cluster.connection.connected", no_ray)
    grid = {"n_layers": [1], "width": [16], "tokens": [8], **axes}
    with pytest.raises(InputError) as error:
        flopray.Sweep("mlp", axes=grid, device_types="CPU", **settings).run(tmp_path / "run", quiet=True)
    assert said in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_message_calls_settings_as_python_does(tmp_path, monkeypatch):
    monkeypatch.setattr("flopray.cluster.connection.connected", no_ray)
    sweep = flopray.Sweep("mlp", axes={"n_layers": [1], "width": [16], "tokens": [8]}, device_types="H100-of-a-dream")
    with pytest.raises(InputError, match=r"^device_types H100-of-a-dream: no node has it"):
        sweep.run(tmp_path / "run", quiet=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "file").write_text("mine")
    for taken in ("run", "file"):  # no run: `flopray resume` would refuse it
        with pytest.raises(InputError, match=rf"{taken} exists and is not a run of flopray: choose another name$"):
            sweep.run(tmp_path / taken, quiet=True)


def test_what_is_no_path_is_no_run(tmp_path, monkeypatch):
    """`None` would become a folder of that name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flopray.cluster.connection.connected", no_ray)
    with pytest.raises(InputError, match=r"^path must be a path, got None$"):
        flopray.Sweep("mlp", axes={"n_layers": [1], "width": [16], "tokens": [8]}).run(None)  # pyright: ignore
    for read in (flopray.load_run, flopray.resume):
        with pytest.raises(InputError, match=r"^the run must be a path, got None$"):
            read(None)  # pyright: ignore
    assert not list(tmp_path.iterdir())


def no_ray(*_: object, **__: object) -> None:
    pytest.fail("Ray was started")


def test_a_sweep_shows_its_axes():
    shown = repr(flopray.Sweep("mlp", axes={"n_layers": [2, 4], "tokens": range(8, 25, 8)}))
    assert shown == "Sweep of mlp: n_layers 2 4; tokens 8 16 24"
    assert repr(flopray.Sweep(MLP())) == "Sweep of mlp: its default grid"


def test_a_class_that_only_this_process_knows_is_refused_before_ray_starts():
    """The workers load a workload by its name or its file."""

    class Own(MLP):
        name = "own"

    with pytest.raises(InputError, match=r"name Own by its file, such as models.py:Own"):
        flopray.Sweep(Own())
    with pytest.raises(InputError, match=r"name Own by its file, such as models.py:Own"):
        flopray.Sweep(Own)


def test_axes_may_be_arrays_and_the_workload_a_class(tmp_path):
    numpy = pytest.importorskip("numpy")
    sweep = flopray.Sweep(MLP, axes={"width": numpy.array([64, 128])})
    assert repr(sweep) == "Sweep of mlp: width 64 128"
    assert {type(value) for value in sweep.axes["width"]} == {int}


def test_a_run_shows_its_best_rate_with_the_interval_of_the_window(tmp_path):
    """A rate without an error would look more certain than it is."""
    point = MLP(n_layers=1, width=16, tokens=8).point(device_type="CPU")
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    axes |= {name: (value,) for name, value in point.values.items()}
    sweep = definition.Sweep(workload=MLP(), axes=axes, settings=MeasureSettings(), cpus_per_trial={"CPU": 1})
    folder = RunFolder.create(tmp_path, "r", sweep.to_manifest("r", {}))
    measured = {"time_s": 1e-3, "time_rel_error": 0.02, "flops_per_s": 4e9}
    with folder.writer() as journal:
        journal.append([[PhaseRecord.of(trial_id=point.id, phase="forward", **point.fields(), **measured)]])
    assert repr(Run(folder)).splitlines()[1:] == ["  points   1", "  best     4 GFLOP/s ± 2.0%, forward"]
