"""A workload of a user: found, refused in one line, sent to another process, measured, and read without its code."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flopray
from flopray.cli.main import main as flopray_main
from flopray.description import Column, Description, Field
from flopray.errors import InputError, SpecError, Unsupported
from flopray.point import Point
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.store.schema import RecordSchema
from flopray.sweep.definition import Sweep
from flopray.sweep.merge import merge
from flopray.workloads.base import Workload, workload_of
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import find_workload, load, reference_of

pytestmark = pytest.mark.usefixtures("peak_measured_once")

ROOT = Path(__file__).parents[2]
CONV = Path(__file__).parent / "models" / "conv.py"
SHAPE = {"kernel": "3x3", "channels": 8, "image_size": 16, "images": 2}
#: Of a workload that is right, to be spoilt by each test.
RIGHT = """
from flopray.workloads import Built, Column, Field, Workload

class Right(Workload):
    name = "right"
    fields = (Field(name="size", letter="s", values=(1, 2)),)

    def build(self, point, *, device, dtype, seed):
        raise RuntimeError("it is not built")
"""


@pytest.fixture(scope="module")
def conv() -> Workload:
    return find_workload(f"{CONV}:ConvNet")


def conv_point(workload: Workload, **changes) -> Point:
    return workload.point(device_type="CPU", **{**SHAPE, **changes})


@pytest.fixture
def elsewhere(warm_python, tmp_path):
    """The output of another Python process that shares nothing with this one."""

    def printed(code: str, *words: object) -> str:
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
        done = warm_python.run("-c", code, *map(str, words), cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return printed


# found


def test_a_workload_is_found_by_its_file_and_class(conv):
    assert (conv.name, type(conv).__name__) == ("conv_net", "ConvNet")
    assert conv.source is not None
    assert (conv.source.path, conv.source.class_name) == (str(CONV), "ConvNet")
    assert conv.source.text == CONV.read_text()
    assert [f.name for f in conv.dimensions] == ["channels", "image_size", "images"]
    assert [f.name for f in conv.choices] == ["kernel"]
    assert type(find_workload(f"{CONV}:ConvNet")) is type(conv)  # one text is run once


def test_a_changed_file_is_run_again(tmp_path):
    file = tmp_path / "right.py"
    file.write_text(RIGHT)
    first = find_workload(f"{file}:Right")
    file.write_text(RIGHT.replace("(1, 2)", "(3,)"))
    second = find_workload(f"{file}:Right")
    assert (first.fields[0].values, second.fields[0].values) == ((1, 2), (3,))


def test_a_workload_of_an_installed_package_is_found_by_its_name(tmp_path, monkeypatch):
    install(tmp_path, RIGHT, right="a_package_of_a_test:Right", torn="a_package_of_a_test:Wrong", none="no_such:X")
    monkeypatch.syspath_prepend(tmp_path)
    found = find_workload("right")
    assert (found.name, found.source) == ("right", None)
    package = {"name": "a-package-of-a-test", "version": "1.0"}
    assert reference_of(found)["name"] == "right"
    assert {name: reference_of(found)["package"][name] for name in package} == package
    assert type(load(reference_of(found))) is type(found)
    for name in ("torn", "none"):
        with pytest.raises(InputError, match=f"the entry point {name} .* cannot be loaded: ") as error:
            find_workload(name)
        assert "\n" not in str(error.value)
    with pytest.raises(
        InputError, match="'rihgt': choose from mlp, llama, causal_lm, evaluation, none, right, torn, or"
    ):
        find_workload("rihgt")


def install(folder: Path, code: str, **names: str) -> None:
    """A distribution as pip leaves it, with entry points of flopray's group."""
    (folder / "a_package_of_a_test.py").write_text(code)
    info = folder / "a_package_of_a_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package-of-a-test\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in names.items()]
    (info / "entry_points.txt").write_text("\n".join(["[flopray.workloads]", *lines, ""]))


@pytest.mark.parametrize("name", ["mlp", "llama"])
def test_built_in_workloads_need_no_file(name):
    found = find_workload(name)
    assert (found.name, found.source, reference_of(found)) == (name, None, {"name": name})


# refused


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("class Right", "class Rihgt", "has no 'Right': it has Rihgt"),
        ("(Workload)", "", "is not a subclass of flopray.Workload"),
        ("class Right(Workload)", "Right = 3\nclass Other(Workload)", "is not a subclass of flopray.Workload"),
        ("def build", "def biuld", "has no method build(self, point, *, device, dtype, seed)"),
        ('name = "right"', 'name = "mlp"', "the name 'mlp' is that of a built-in workload"),
        ('name = "right"', 'name = "llama"', "the name 'llama' is that of a built-in workload"),
        ('name = "right"', 'name = "../right"', "must be named in lower-case letters, digits and _"),
        ('name = "right"', "", "must be named in lower-case letters, digits and _"),
        ('letter="s", values=(1, 2)', "type=bool", "has no dimension: give it a Field of whole numbers"),
        ('(Field(name="size", letter="s", values=(1, 2)),)', "()", "has no dimension"),
        ('name="size"', 'name="Size"', "the field 'Size' must be named in lower-case"),
        ('letter="s", ', "type=str, ", "field size: a choice needs words="),
        ("values=(1, 2)),", 'values=(1, 2)), Field(name="size"),', "has the column size twice"),
        ("values=(1, 2)),", 'values=(1, 2)), "width",', "fields"),
        ('(Field(name="size", letter="s", values=(1, 2)),)', "3", "fields"),
        (
            "from flopray",
            "raise ValueError('two\\nlines')\nfrom flopray",
            "cannot be imported: ValueError: two lines",
        ),
        ("from flopray", "import no_such_package\nfrom flopray", "cannot be imported: ModuleNotFoundError"),
        ("from flopray", "import sys; sys.exit(0)\nfrom flopray", "cannot be imported: SystemExit"),
        ("class Right", "class class Right", "cannot be imported: SyntaxError"),
        ("class Right", "\0class Right", "cannot be imported"),
        ('name = "right"', 'name = "right"\n    phases = ()', "has no phases"),
        ('name = "right"', 'name = "right"\n    phases = ("Forward",)', "the phase 'Forward' must be named"),
        (
            'name = "right"',
            'name = "right"\n    def __init__(self, **values): raise KeyError("x")',
            "cannot be made: KeyError",
        ),
    ],
)
def test_a_workload_that_cannot_be_is_refused_in_one_line(tmp_path, old, new, said):
    assert old in RIGHT
    file = tmp_path / "right.py"
    file.write_text(RIGHT.replace(old, new))
    with pytest.raises(InputError) as error:
        find_workload(f"{file}:Right")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)
    assert len(str(error.value)) < 600


def test_a_column_that_every_record_has_keeps_its_type():
    """A closed form may fill `gemm_flops`, which is a whole number everywhere."""

    class Own(MLP):
        name = "own"
        columns = (Column(name="gemm_flops", type=int),)

    assert RecordSchema(Own()).own == ("n_layers", "width", "tokens")
    Own.columns = (Column(name="gemm_flops", type=str),)
    with pytest.raises(SpecError, match="give the workload's column another name"):
        RecordSchema(Own())


@pytest.mark.parametrize("name", ["time_s", "status", "device_name"])
def test_a_field_that_every_record_has_is_refused_before_anything_starts(tmp_path, capsys, name):
    file = tmp_path / "right.py"
    file.write_text(RIGHT.replace('"size"', f'"{name}"'))
    said = f"{name} is a column of every record: give the workload's field another name"
    storage = tmp_path / "results"
    assert flopray_main(["sweep", f"{file}:Right", "--storage", str(storage)]) == 2
    assert capsys.readouterr().err == f"error: workload right: {said}\n"
    workload = find_workload(f"{file}:Right")
    with pytest.raises(InputError, match=said):
        flopray.Sweep(workload).run(storage / "run")
    with pytest.raises(InputError, match=said):
        flopray.profile(type(workload)(**{name: 1}), device="cpu")
    assert not storage.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{0}/none.py:Right", "there is no file {0}/none.py"),
        ("{0}:Right", "there is no file {0}"),
        ("{0}/right.py", "name the class too, as right.py:ClassName"),
        ("{0}/right.py:", "name the class too, as "),
        (":Right", "name the class too"),
        ("{0}/latin.py:Right", "cannot be read as Python"),
        ("{0}/large.py:Right", "is larger than 1048576 bytes"),
        ("{0}/right.txt:Right", "is not a Python file"),
    ],
)
def test_a_file_that_cannot_be_is_refused_in_one_line(tmp_path, name, said):
    for file in ("right.py", "right.txt"):
        (tmp_path / file).write_text(f"{RIGHT}# {file}")
    (tmp_path / "latin.py").write_bytes(RIGHT.encode() + b"# \xe9\n")
    (tmp_path / "large.py").write_text(RIGHT + "#" * 2**20)
    with pytest.raises(InputError) as error:
        find_workload(name.format(tmp_path))
    assert said.format(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "kind"), [("width", int), ("weights", int), ("model", bool), ("parameters", str)])
def test_a_field_may_have_the_name_of_another_workloads_column_and_any_type(name, kind):
    described = Description.from_dict(WITH_FIELD)
    described.fields = (Field(name=name, type=kind),)
    schema = RecordSchema(described)
    assert schema.own == (name,)
    assert schema.types[name] == (kind, True)


def test_a_point_must_have_every_field_and_no_other(conv):
    for changes, said in (
        ({"channels": 0}, "channels must be a whole number of at least 1, got 0"),
        ({"channels": True}, "channels must be a whole number"),
        ({"images": 2.0}, "images must be a whole number"),
        ({"kernel": "5x5"}, "unknown kernel '5x5': choose from 1x1, 3x3"),
        ({"kernel": ""}, "kernel is missing"),
        ({"depth": 3}, "a point of conv_net has no field 'depth'"),
    ):
        with pytest.raises(SpecError, match=said):
            conv_point(conv, **changes)


# sent


@pytest.mark.slow
def test_a_workload_is_loaded_where_its_file_is_not(conv, elsewhere, tmp_path):
    """Another machine has only the text; it counts the same there."""
    file = tmp_path / "conv.py"
    file.write_text(CONV.read_text())
    reference = reference_of(find_workload(f"{file}:ConvNet"))
    assert json.loads(json.dumps(reference)) == reference
    file.unlink()
    code = """
import json, sys
from flopray.workloads.registry import load
workload = load(json.loads(sys.argv[1]))
point = workload.point(device_type="CPU", **json.loads(sys.argv[2]))
print(json.dumps([point.id, workload.dispatched(point), workload.source.sha256, workload.source.class_name]))
"""
    found = json.loads(elsewhere(code, json.dumps(reference), json.dumps(SHAPE)))
    point = conv_point(conv)
    assert conv.source is not None
    assert found == [point.id, dict(conv.dispatched(point)), conv.source.sha256, "ConvNet"]


@pytest.mark.slow
def test_where_the_file_was_changed_the_text_that_was_sent_is_run(elsewhere, tmp_path):
    file = tmp_path / "right.py"
    file.write_text(RIGHT)
    reference = reference_of(find_workload(f"{file}:Right"))
    file.write_text("raise RuntimeError('this is not what was sent')")
    code = "import json, sys; from flopray.workloads.registry import load; print(load(json.loads(sys.argv[1])).name)"
    assert elsewhere(code, json.dumps(reference)) == "right\n"


def test_a_point_is_unpickled_without_the_code(conv):
    point = conv_point(conv)
    there = pickle.loads(pickle.dumps(point))
    assert type(there.workload) is Description
    assert (there, there.id, there.label(), there.fields()) == (point, point.id, point.label(), point.fields())
    assert there.workload == Description.from_dict(conv.to_dict())
    with pytest.raises(Unsupported, match="the code of the workload conv_net is not loaded in this process"):
        workload_of(there)
    assert (
        type(
            pickle.loads(pickle.dumps(MLP())).build(
                point=MLP().point(device_type="CPU", n_layers=1, width=8, tokens=4), device="meta", dtype=None, seed=0
            )
        )
        is not None
    )


# described

WITH_FIELD = {"name": "w", "fields": [{"name": "a", "type": "int"}], "columns": [], "phases": ["forward"]}
_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
_WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=20)
_FIELDS = st.builds(
    Field,
    name=_NAMES,
    letter=st.none() | _NAMES,
    label=_WORDS,
    unit=_WORDS,
    type=st.sampled_from([int, str, bool]),
    doc=_WORDS,
    implied=st.booleans(),
)
_COLUMNS = st.builds(Column, name=_NAMES, type=st.sampled_from([int, float, str, bool]), doc=_WORDS)


@settings(max_examples=60, deadline=None)
@given(
    name=_NAMES,
    fields=st.lists(_FIELDS, max_size=5, unique_by=lambda f: f.name),
    columns=st.lists(_COLUMNS, max_size=5, unique_by=lambda c: c.name),
    phases=st.lists(_NAMES, min_size=1, max_size=4),
)
def test_a_description_survives_its_manifest(name, fields, columns, phases):
    made = Description()
    taken = {f.name for f in fields}
    made.name, made.fields, made.phases = name, tuple(fields), tuple(phases)
    made.columns = tuple(c for c in columns if c.name not in taken)
    back = Description.from_dict(json.loads(json.dumps(made.to_dict())))
    assert back == made
    assert (back.fields, back.columns, back.phases) == (made.fields, made.columns, made.phases)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from([*(f for f in Field.__dataclass_fields__), "", "no_such"])
_PARTS = st.dictionaries(_KEYS, _JSON | st.sampled_from(["int", "str", "a"]), max_size=4) | _JSON


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    content=st.fixed_dictionaries(
        {},
        optional={
            "name": st.just("w") | _JSON,
            "fields": st.lists(_PARTS.map(lambda p: {"name": "a", "type": "str"} | p if isinstance(p, dict) else p)),
            "columns": st.just([]) | st.lists(_PARTS, max_size=2),
            "phases": st.just(["forward"]) | _JSON,
        },
    )
    | _JSON
)
def test_what_a_stranger_wrote_is_a_description_or_refused(content):
    try:
        found = Description.from_dict(content)
    except SpecError as error:
        assert len(str(error)) < 400  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert Description.from_dict(found.to_dict()) == found
    for f in found.fields:
        assert f.title.isprintable()
        try:
            f.check("x")
        except SpecError as error:
            assert f.name in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../evil"},
        {"name": "w\n"},
        {"name": 3},
        {"fields": "abc"},
        {"fields": ["abc"]},
        {"fields": [["name", "type"]]},
        {"fields": [{"name": "a"}]},
        {"fields": [{"name": "a", "type": "object"}]},
        {"fields": [{"name": "a", "type": ["int"]}]},
        {"fields": [{"name": "a", "type": "float"}]},
        {"fields": [{"name": "a", "type": "int", "doc": "\x1b[2J"}]},
        {"fields": [{"name": "a", "type": "int", "doc": "x" * 501}]},
        {"fields": [{"name": "a", "type": "int", "implied": 1}]},
        {"fields": [{"name": f"a{i}", "type": "int"} for i in range(201)]},
        {"fields": [{"name": "a", "type": "int"}] * 2},
        {"columns": [{"name": "a", "type": "int"}]},
        {"columns": [{"name": "c", "type": "tuple"}]},
        {"columns": [{"name": "c", "type": "int", "letter": "x"}]},
        {"phases": []},
        {"phases": ["../x"]},
        {"phases": None},
    ],
)
def test_hostile_descriptions_are_refused(changes):
    assert Description.from_dict(WITH_FIELD).fields[0].name == "a"
    with pytest.raises(SpecError):
        Description.from_dict(WITH_FIELD | changes)


# counted and measured


@pytest.mark.parametrize(("kernel", "c", "s", "b"), [("3x3", 8, 16, 2), ("3x3", 5, 7, 3), ("1x1", 4, 9, 1)])
def test_the_dispatcher_counts_a_convolution_as_its_formula_says(conv, kernel, c, s, b):
    """2 k^2 c^2 s^2 b for a layer of stride 1 that is padded to the same size; a pass back has twice the products.

    The first layer's input needs no gradient, so that its share is one product and not two.
    """
    point = conv_point(conv, kernel=kernel, channels=c, image_size=s, images=b)
    layer = 2 * int(kernel[0]) ** 2 * c * c * s * s * b
    counted = conv.dispatched(point)
    assert (counted["forward"], counted["inference"], counted["backward"]) == (3 * layer, 3 * layer, 5 * layer)
    assert counted["train_step"] == 8 * layer
    assert conv.closed_form(point, "forward") is None


def test_memory_is_that_of_weights_gradients_and_moments(conv):
    point = conv_point(conv)
    weights = 3 * (3 * 3 * 8 * 8 + 8)
    assert conv.parameters(point) == weights
    copies = {"weights": 1, "inference": 1, "forward": 1, "backward": 2, "optimizer_step": 4, "train_step": 4}
    assert {phase: conv.least_bytes(point, phase, 2) for phase in copies} == {
        phase: 2 * weights * count for phase, count in copies.items()
    }


@pytest.mark.slow
def test_it_is_measured_without_a_closed_form(conv):
    workload = type(conv)(**SHAPE)
    records = flopray.profile(workload, phases=["forward", "backward"], max_seconds=0.1, target_error=0.5, device="cpu")
    assert [record.phase for record in records] == ["forward", "backward"]
    frame = records.frame()
    for name, value in SHAPE.items():
        assert frame[name].tolist() == [value] * 2
    for record, row in zip(records, frame.to_dict("records"), strict=True):
        assert record.status == "ok", record.status_reason
        assert (record.model_flops, record.model_flops_convention, record.dispatched_rel_difference) == (None,) * 3
        assert record.dispatched_flops == conv.dispatched(conv_point(conv))[record.phase]
        assert record.time_s is not None
        assert record.flops_per_s == pytest.approx(record.dispatched_flops / record.time_s)
        assert row["flops_per_s"] == pytest.approx(record.flops_per_s)
        assert row["workload"] == "conv_net"


# read without the code


def conv_run(storage: Path, name: str, workload: Workload, images: tuple[int, ...]) -> RunFolder:
    """A run whose points are as if they had been measured."""
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",), "kernel": ("3x3",)}
    axes |= {"channels": (8, 16), "image_size": (8, 16, 32), "images": images}
    of = Sweep(workload=workload, axes=axes, settings=MeasureSettings(phases=("forward",)), cpus_per_trial={"CPU": 1})
    folder = RunFolder.create(storage, name, of.to_manifest(name, {}))
    with folder.writer() as journal:
        for number, point in enumerate(of.points(), start=1):
            row = {"run": name, "trial_id": point.id, **point.fields(), "phase": "forward", "device_name": "a CPU"}
            row |= {"time_s": 1e-3 * number, "flops_per_s": 1e9 / number, "started_unix_s": 100.0 + number}
            journal.append([[PhaseRecord.of(**row)]])
    folder.compact()
    return folder


@pytest.mark.slow
def test_a_run_is_loaded_merged_drawn_and_told_without_the_code(elsewhere, tmp_path):
    file = tmp_path / "conv.py"
    file.write_text(CONV.read_text())
    workload = find_workload(f"{file}:ConvNet")
    conv_run(tmp_path, "a", workload, (2,))
    conv_run(tmp_path, "b", workload, (4,))
    file.unlink()
    code = """
import json, sys
from pathlib import Path
from matplotlib.figure import Figure
from rich.console import Console
import flopray
from flopray.cli.main import main
from flopray.cli.run_figures import draw_surfaces
from flopray.sweep.merge import merge

frame = flopray.load_run("a")
shown = frame[["workload", "kernel", "channels", "image_size", "images", "time_s"]].to_dict("records")
merged = merge(["a", "b"], Path("both"))
Figure.savefig = lambda self, path, **_: Path(path).touch()  # images of surfaces are tests/report's
draw_surfaces(Path("both"), Console(file=sys.stderr))
print(json.dumps([shown, merged.points, merged.not_resumable, len(flopray.load_run("both"))]), flush=True)
assert main(["status", "both", "--json"]) == 0
assert not [name for name in sys.modules if name.startswith("flopray_workload")]
"""
    first, _, rest = elsewhere(code).partition("\n")
    shown, points, not_resumable, rows = json.loads(first)
    assert {(row["channels"], row["image_size"]) for row in shown} == {(c, s) for c in (8, 16) for s in (8, 16, 32)}
    assert {(row["workload"], row["kernel"], row["images"]) for row in shown} == {("conv_net", "3x3", 2)}
    assert sorted(row["time_s"] for row in shown) == pytest.approx([1e-3 * n for n in range(1, 7)])
    assert (points, not_resumable, rows) == (12, None, 12)
    status = json.loads(rest)
    assert (status["state"], status["points"], status["finished"]) == ("finished", 12, 12)
    drawn = {path.suffix for path in (tmp_path / "both" / "plots").rglob("*") if path.is_file()}
    assert ".png" in drawn


def test_runs_of_workloads_that_differ_are_not_merged(tmp_path, conv):
    other = Description.from_dict(conv.to_dict() | {"columns": [{"name": "note", "type": "str"}]})
    first = conv_run(tmp_path, "a", conv, (2,))
    manifest = json.loads(first.manifest_path.read_text()) | {"workload": other.to_dict()}
    second = RunFolder.create(tmp_path, "b", manifest)
    with pytest.raises(InputError, match="share the name conv_net and differ in fields or columns"):
        merge([first.path, second.path], tmp_path / "both")


def test_a_manifest_has_the_text_that_was_measured(tmp_path, conv):
    manifest = json.loads(conv_run(tmp_path, "a", conv, (2,)).manifest_path.read_text())
    source = manifest["workload_source"]
    assert "\n".join(source["lines"]) == CONV.read_text()
    assert source["path"] == str(CONV)
    opened = Sweep.from_manifest(manifest)
    assert type(opened.workload) is Description
    assert [point.id for point in opened.with_code(conv).points()] == [point.id for point in opened.points()]
