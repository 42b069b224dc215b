"""A journal from a stranger whose checksums hold gives records or a typed error, and analyses handle these records."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import hostile
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import flopray.report.flops.data
import flopray.report.gpus.data
from flopray.cli import audit as audit_command
from flopray.cli import compare_flops, compare_gpus, surfaces
from flopray.errors import FloprayError, SchemaMismatch
from flopray.records import SCHEMA_VERSION
from flopray.report.flops.table import difference_table, kernel_table, share_table
from flopray.report.gpus.comparison import comparisons_of
from flopray.report.gpus.files import write_tables
from flopray.report.gpus.types import rows_of_types
from flopray.report.surface.data import surface_sets
from flopray.report.surface.files import figure_stem, why_not_lines
from flopray.report.surface.html import page_text
from flopray.report.surface.selection import Selection
from flopray.store import entry
from flopray.store.location import load_run
from flopray.store.run import RunFolder
from flopray.store.schema import RecordSchema
from flopray.workloads.mlp import MLP

SCHEMA = RecordSchema(MLP())
ENTRY = json.loads(entry.encode(hostile.point(0), SCHEMA)[2])["entry"]
TEXTS = [name for name, column in SCHEMA.types.items() if column.base is str]
KEPT = {"trial_id", "schema_version", "status", "phase"}
#: Values of the right type that nobody measured.
COLUMNS = {
    name: {
        str: st.sampled_from(hostile.NASTY_TEXTS) | st.text(max_size=20),
        int: st.sampled_from([0, -1, 2**63 - 1, -(2**63), 7]),
        float: st.sampled_from([0.0, -1.0, 1e308, -1e308, 5e-324, 3.5]),
        bool: st.booleans(),
        tuple: st.lists(st.sampled_from([*hostile.NASTY_TEXTS, '{"name": "k", "class": 5}', "[" * 5000]), max_size=3),
    }[column.base]
    | (st.none() if column.nullable else st.nothing())
    for name, column in SCHEMA.types.items()
    if name not in KEPT
}


def use(content: bytes, *, further: bool = False) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = hostile.make_run(Path(folder))
        with run.journal_path.open("ab") as file:
            file.write(content)
        hostile.read_everything(run.path)
        if further:
            analyse(run.path, Path(folder))
            other = hostile.make_run(Path(folder), "other", points=2)
            hostile.resume_and_merge(run.path, other.path, Path(folder) / "merged")


def analyse(run: Path, out: Path) -> None:
    """The work of the scripts of `analysis/` with a run, without drawing each figure."""
    assert hostile.carry_out(lambda: audit_command.main([str(run)])) in (0, 1, 2)
    assert hostile.carry_out(lambda: audit_command.main([str(run), "--json"])) in (0, 1, 2)
    hostile.carry_out(lambda: compare_flop_tables(run))
    hostile.carry_out(lambda: compare_gpu_tables(run, out))
    hostile.carry_out(lambda: surface_texts(run, out))


def compare_flop_tables(run: Path) -> None:
    rows = flopray.report.flops.data.load_runs([run])
    for reason in flopray.report.flops.data.holes(rows):
        print(reason)
    for group in flopray.report.flops.data.groups_of(rows):
        for table in (difference_table(group), share_table(group), kernel_table(group)):
            Console(width=80).print(table)


def compare_gpu_tables(run: Path, out: Path) -> None:
    comparisons = comparisons_of(rows_of_types(flopray.report.gpus.data.load_runs([run]))[0])
    compare_gpus._print_tables(Console(width=80), comparisons)
    for path in write_tables(comparisons, out / "tables", {c.folder: list(c.shapes) for c in comparisons}) or ():
        assert path.parent == out / "tables"


def surface_texts(run: Path, out: Path) -> None:
    sets = list(surface_sets(load_run(run), Selection(["time", "flops_per_j"]), None))
    for text in why_not_lines(sets):
        print(text)
    for surfaces_ in sets:
        stem = figure_stem(out / "plots", surfaces_, "linear", "", whole=True)
        assert stem.resolve().is_relative_to((out / "plots" / "surfaces").resolve())
        assert len(stem.relative_to(out / "plots").parts) == 4
    page_text(sets)


@settings(max_examples=15, **hostile.BOUNDED)
@given(st.binary(max_size=200) | hostile.VALUES.map(lambda value: hostile.line(json.dumps(value).encode())))
def test_any_lines(content: bytes) -> None:
    use(content)


@pytest.mark.slow
@settings(max_examples=5, **hostile.BOUNDED)
@given(hostile.mutated(ENTRY))
def test_a_line_with_other_values_and_a_right_checksum(content: dict) -> None:
    use(hostile.line(json.dumps(content, separators=(",", ":")).encode()), further=True)


@pytest.mark.slow
@settings(max_examples=5, **hostile.BOUNDED)
@given(st.lists(st.fixed_dictionaries({}, optional=COLUMNS), min_size=2, max_size=2))
def test_columns_of_the_right_type_that_nobody_measured(phases: list[dict]) -> None:
    phases = [{**column, "phase": name} for column, name in zip(phases, ("forward", "train_step"), strict=True)]
    content = {"trial_id": "0123456789abcdef", "status": "ok", "shared": {}, "phases": phases}
    use(hostile.line(json.dumps(content, separators=(",", ":")).encode()), further=True)


@pytest.mark.parametrize(
    "columns",
    [
        '{"time_s":NaN}',
        '{"time_s":1e999}',
        '{"width":18446744073709551616}',
        '{"width":' + "9" * 5000 + "}",
        '{"unheard_of":1}',
        '{"kernels":' + "[" * 5000 + "]" * 5000 + "}",
        '{"phase":5}',
        '{"trial_id":"fedcba9876543210"}',
        f'{{"schema_version":{SCHEMA_VERSION + 1}}}',
    ],
    ids=["nan", "infinite", "65 bits", "digits", "unknown", "deep", "type", "id", "version"],
)
def test_what_no_line_may_hold_is_a_schema_mismatch(tmp_path, columns):
    run = hostile.make_run(tmp_path)
    with run.journal_path.open("ab") as file:
        head = '{"trial_id":"0123456789abcdef","status":"ok","shared":'
        file.write(hostile.line((head + columns + ',"phases":[{}]}').encode()))
    with pytest.raises(SchemaMismatch):
        load_run(run.path)
    hostile.read_everything(run.path)


def test_points_that_fit_the_schema_and_make_no_point_are_not_merged(tmp_path):
    phases = [{"phase": "forward"}, {"phase": "forward"}]
    for trial_id in ("0123456789abcdef", "-2", "a" * 64):
        run = hostile.make_run(tmp_path, f"r{trial_id}")
        content = {"trial_id": trial_id, "status": "ok", "shared": {}, "phases": phases}
        with run.journal_path.open("ab") as file:
            file.write(hostile.line(json.dumps(content, separators=(",", ":")).encode()))
        with pytest.raises(FloprayError, match="cannot be merged"):
            hostile.merge([run.path, hostile.make_run(tmp_path, f"o{trial_id}").path], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_text_that_would_reach_the_terminal_is_kept_as_visible_escapes(tmp_path):
    content = ENTRY | {"shared": ENTRY["shared"] | {"status_reason": "\x1b[2Jgone\u202e\ud800\nmore\ttext é"}}
    run = hostile.make_run(tmp_path)
    run.journal_path.write_bytes(hostile.line(json.dumps(content, separators=(",", ":")).encode()))
    kept = "\\x1b[2Jgone\\u202e\\ud800\nmore\ttext é"
    assert {record.status_reason for record in run.records()} == {kept}
    run.compact()
    assert set(RunFolder.open(run.path).load()["status_reason"]) == {kept}


@pytest.mark.slow
@pytest.mark.parametrize("nasty", ["[/red]\x1b[31m", "../../out", "$\\frac$", "\u202e{0}%s"])
def test_whole_commands_on_a_run_with_such_names(tmp_path, nasty):
    """Through the command lines, figures and pages included: nothing lies outside the plots of the run."""
    run = RunFolder.create(tmp_path / "runs", "r", hostile.sweep().to_manifest("r", {}))
    names = {name: nasty for name in TEXTS if name not in {*KEPT, "workload", "counters_status", "energy_status"}}
    with run.writer() as writer:
        writer.append([hostile.point(i, **names, findings=(nasty,), kernels=(nasty,)) for i in range(8)])
    before = {path for path in tmp_path.rglob("*") if run.path not in path.parents}
    for work in (
        lambda: surfaces.main([str(run.path), "--metrics", "time", "--formats", "svg"]),
        lambda: compare_gpus.main([str(run.path), "--formats", "svg"]),
        lambda: compare_flops.main([str(run.path), "--formats", "svg"]),
        lambda: audit_command.main([str(run.path), "--csv", str(tmp_path / "runs" / "r" / "audit.csv")]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert hostile.carry_out(work) in (0, 1, 2)
    assert {path for path in tmp_path.rglob("*") if run.path not in path.parents} == before
    page = (run.plots_path / "surfaces.html").read_text() if (run.plots_path / "surfaces.html").exists() else ""
    assert "\x1b" not in page
    assert isinstance(pd.read_csv(run.path / "audit.csv"), pd.DataFrame)
