"""A resume runs the file of a workload only if somebody named it on this machine, and only if it is unchanged."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from flopray.cli.main import main as flopray_main
from flopray.cli.trust import check_code, trust, trust_code, workload_of_run
from flopray.errors import InputError, NotARun, resume_command
from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import find_workload, load, reference_of

CONV = Path(__file__).parents[1] / "workloads" / "models" / "conv.py"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A user who has run nothing yet."""
    monkeypatch.setenv("FLOPRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path) -> Path:
    """A file that leaves a trace when it is run."""
    made = tmp_path / "my models" / "conv.py"
    made.parent.mkdir()
    # What a process has run is not run again: each test has a text of its own.
    made.write_text(f"{CONV.read_text()}\nopen({str(tmp_path / 'was run')!r}, 'w').close()\n")
    return made


@pytest.fixture
def run(file, tmp_path) -> RunFolder:
    """A run of the file's workload from another machine."""
    workload = find_workload(f"{file}:ConvNet")
    (tmp_path / "was run").unlink()
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",), "kernel": ("3x3",)}
    axes |= {"channels": (8,), "image_size": (8,), "images": (2,)}
    sweep = Sweep(workload=workload, axes=axes, settings=MeasureSettings(), cpus_per_trial={"CPU": 1})
    return RunFolder.create(tmp_path, "run", sweep.to_manifest("run", {}))


def test_code_that_was_not_run_here_is_refused_with_the_command_that_allows_it(run, file, tmp_path, capsys):
    again = f"{resume_command(run.address)} --workload {shlex.quote(f'{file}:ConvNet')}"
    with pytest.raises(InputError) as error:
        workload_of_run(run.manifest, run.address)
    assert str(error.value) == f"run {run.address} measures code that was not run here before: read it, then {again}"
    assert flopray_main(["resume", str(run.path)]) == 2
    assert capsys.readouterr().err == f"error: {error.value}\n"
    assert not (tmp_path / "was run").exists()
    # The command that is named does allow it, from then on for a plain resume too.
    named = shlex.split(again)[-1]
    assert workload_of_run(run.manifest, run.address, named).name == "conv_net"
    assert workload_of_run(run.manifest, run.address).name == "conv_net"


def test_what_was_swept_here_is_resumed_without_being_named(run, file):
    trust(find_workload(f"{file}:ConvNet"))
    found = workload_of_run(run.manifest, run.address)
    assert found.source is not None
    assert (found.name, found.source.path) == ("conv_net", str(file))


@pytest.mark.parametrize("named", [False, True])
def test_a_file_that_changed_is_refused_and_not_run(run, file, tmp_path, named):
    trust(find_workload(f"{file}:ConvNet"))
    file.write_text(file.read_text() + f"\nopen({str(tmp_path / 'changed was run')!r}, 'w').close()\n")
    with pytest.raises(InputError) as error:
        workload_of_run(run.manifest, run.address, f"{file}:ConvNet" if named else None)
    assert str(error.value) == f"{file} changed since the run began: put it back as it was, or start a new run"
    assert not (tmp_path / "changed was run").exists()


def test_a_file_that_moved_is_named(run, file, tmp_path):
    trust(find_workload(f"{file}:ConvNet"))
    moved = file.rename(tmp_path / "moved.py")
    with pytest.raises(InputError) as error:
        workload_of_run(run.manifest, run.address)
    assert str(error.value) == f"there is no file {file}: name where it is now with --workload FILE.py:NAME"
    found = workload_of_run(run.manifest, run.address, f"{moved}:ConvNet")
    assert found.source is not None
    assert (found.name, found.source.path) == ("conv_net", str(moved))


def test_another_file_is_not_the_run_s(run, tmp_path):
    other = tmp_path / "other.py"
    other.write_text("raise RuntimeError('it is run')")
    with pytest.raises(InputError, match="changed since the run began"):
        workload_of_run(run.manifest, run.address, f"{other}:ConvNet")


def test_a_built_in_workload_needs_no_trust(tmp_path, cache):
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    axes |= {"n_layers": (1,), "width": (16,), "tokens": (8,)}
    sweep = Sweep(workload=MLP(), axes=axes, settings=MeasureSettings(), cpus_per_trial={"CPU": 1})
    assert type(workload_of_run(sweep.to_manifest("run", {}), "run")) is MLP
    trust(MLP())
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_stops_no_sweep(file, monkeypatch, tmp_path):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("FLOPRAY_CACHE", str(tmp_path / "a file"))
    trust(find_workload(f"{file}:ConvNet"))


@pytest.mark.parametrize(
    "source",
    [
        3,
        {},
        [],
        {"path": 3, "class_name": "ConvNet", "sha256": "0" * 64},
        {"path": "conv.py", "class_name": "ConvNet", "sha256": None},
        {"path": "conv.py", "class_name": "ConvNet", "sha256": "../../etc/passwd"},
        {"path": "conv.py", "class_name": "ConvNet", "sha256": ""},
        {"path": "\0", "class_name": "ConvNet", "sha256": "0" * 64},
        {"path": "/dev/zero", "class_name": "ConvNet", "sha256": "0" * 64},
    ],
)
def test_a_manifest_of_a_stranger_runs_nothing(run, source, tmp_path, cache):
    cache.mkdir()
    with pytest.raises((InputError, NotARun)) as error:
        workload_of_run(run.manifest | {"workload_source": source}, run.address)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "was run").exists()


def test_a_manifest_without_its_file_needs_one_that_is_installed(run):
    manifest = {key: value for key, value in run.manifest.items() if key != "workload_source"}
    with pytest.raises(InputError, match="unknown workload 'conv_net'"):
        workload_of_run(manifest, run.address)


def test_a_manifest_that_describes_no_workload_is_no_run(run):
    for manifest in ({}, {"sweep": {}}, run.manifest | {"workload": 3}, run.manifest | {"workload": {}}):
        with pytest.raises(NotARun):
            workload_of_run(manifest, run.address)


@pytest.fixture
def package(tmp_path, monkeypatch, request) -> Path:
    """A distribution as pip leaves it, of two modules; each test has a package of its own."""
    name = f"nets_{request.node.name.partition('[')[0][-30:]}"
    folder = tmp_path / "site" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "layers.py").write_text("DEPTH = 3\n")
    code = CONV.read_text().replace("class ConvNet", f"from {name} import layers\n\n\nclass ConvNet")
    (folder / "models.py").write_text(code.replace('"conv_net"', f'"{name}"'))
    info = folder.parent / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[flopray.workloads]\n{name} = {name}.models:ConvNet\n")
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def run_of_package(package: Path, tmp_path: Path) -> RunFolder:
    workload = find_workload(package.name)
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",), "kernel": ("3x3",)}
    axes |= {"channels": (8,), "image_size": (8,), "images": (2,)}
    sweep = Sweep(workload=workload, axes=axes, settings=MeasureSettings(), cpus_per_trial={"CPU": 1})
    return RunFolder.create(tmp_path, "run", sweep.to_manifest("run", {}))


def test_the_code_of_an_installed_package_stands_in_the_manifest_and_is_held_to_it(package, tmp_path):
    run = run_of_package(package, tmp_path)
    began = run.manifest["workload_package"]
    assert (began["name"], began["version"], len(began["sha256"])) == (package.name, "1.0", 64)
    assert workload_of_run(run.manifest, run.address).name == package.name

    sent = reference_of(find_workload(package.name))
    assert load(sent).name == package.name
    (package / "layers.py").write_text("DEPTH = 4\n")  # not the module of the class
    changed = f"{package.name} 1.0 changed, with the same version"
    with pytest.raises(InputError) as error:
        workload_of_run(run.manifest, run.address)
    said = "the code of the workload changed since the run began"
    assert str(error.value) == f"{said}: {changed}; install it as it was, or start a new run"
    with pytest.raises(InputError, match=f"differs here: {changed}"):  # on a node
        load(sent)
    (package / "layers.py").write_text("DEPTH = 3\n")
    (package.parent / f"{package.name}-1.0.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package.name}\nVersion: 1.1\n"
    )
    assert workload_of_run(run.manifest, run.address).name == package.name  # the same code
    older = {key: value for key, value in run.manifest.items() if key != "workload_package"}
    assert workload_of_run(older, run.address).name == package.name


def test_the_package_of_a_run_cannot_be_replaced_by_a_file(package, file, tmp_path):
    run = run_of_package(package, tmp_path)
    with pytest.raises(InputError, match=f"{package.name} 1.0 is not installed here"):
        workload_of_run(run.manifest, run.address, f"{file}:ConvNet")


@pytest.mark.parametrize("content", [3, {}, {"name": 1, "version": "", "sha256": ""}, []])
def test_a_manifest_of_a_stranger_may_describe_no_package(run, content):
    manifest = {key: value for key, value in run.manifest.items() if key != "workload_source"}
    with pytest.raises(NotARun, match="which package"):
        workload_of_run(manifest | {"workload_package": content}, run.address)


def test_a_package_that_is_not_installed_is_named(run):
    manifest = {key: value for key, value in run.manifest.items() if key != "workload_source"}
    package = {"name": "nets", "version": "2.0", "sha256": "0" * 64}
    with pytest.raises(InputError, match=r"unknown workload 'conv_net'.*the package nets 2.0"):
        workload_of_run(manifest | {"workload_package": package}, run.address)


def test_tasks_of_an_evaluation_are_run_again_only_as_they_were(tmp_path):
    """A task may call Python: a stranger's run may name a folder of it, and so may one whose tasks changed since."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "mine.yaml").write_text("task: mine\ndoc_to_text: !function mine.text\n")
    (folder / "mine.py").write_text("def text(doc): return doc\n")
    workload = find_workload("evaluation")
    axes = {"include_path": (str(folder),)}
    with pytest.raises(InputError, match="were not run here before in this form"):
        check_code(workload, axes, "results/r")
    trust_code(workload, axes)
    check_code(workload, axes, "results/r")
    (folder / "mine.py").write_text("def text(doc): raise SystemExit\n")
    with pytest.raises(InputError, match="were not run here before in this form"):
        check_code(workload, axes, "results/r")
    check_code(workload, {"include_path": ("harness",)}, "results/r")
    check_code(MLP(), {}, "results/r")
