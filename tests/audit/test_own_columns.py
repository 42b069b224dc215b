"""The audit knows every column that flopray itself writes: of the record, of its workloads and of a run's workload."""

from pathlib import Path

import pytest

from flopray.audit import audit, audit_rows
from flopray.audit.findings import KNOWN, OWN_COLUMNS, OWN_FIELDS
from flopray.cli.main import main
from flopray.description import Column, Description, Field
from flopray.store.location import open_run
from flopray.workloads.registry import BUILT_IN

ROOT = Path(__file__).parents[2]
#: Runs that come with the repository, one of each workload and age.
RUNS = (
    *("docs/results/h200_causal_lm", "docs/results/h200_causal_lm_longer", "docs/results/reference/h200-lm/lm_97ae"),
    *("flopray/reference/data/h200-lm", "docs/results/h100_llama", "tests/data/schema3/conv"),
)
#: Two values of each kind of column that tell rows apart, if they are not known.
_TWO = {int: (16, 17), float: (0.25, 0.5), str: ("one", "two"), bool: (False, True)}


def rows_of(description: Description, **changes: object) -> list[dict[str, object]]:
    """Two rows as flopray writes them, which differ in every column of the workload."""
    parts = [part for part in (*description.fields, *description.columns) if part.type in _TWO]
    return [
        {"schema_version": 6, "phase": "forward", "device_type": "H100", "time_s": 1e-3, "status": "ok"}
        | {part.name: _TWO[part.type][place] for part in parts}
        | changes
        for place in range(2)
    ]


def sentences(found):
    return [finding.sentence for finding in found if finding.rule == "not_understood"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_column_of_a_workload_that_comes_with_flopray_is_known(name):
    workload = BUILT_IN[name]
    assert {field.name for field in workload.fields} <= KNOWN | OWN_FIELDS
    assert {column.name for column in workload.columns} <= KNOWN | OWN_COLUMNS
    assert sentences(audit_rows(rows_of(workload))) == []


def test_no_column_is_known_that_no_workload_writes():
    fields = {field.name for workload in BUILT_IN.values() for field in workload.fields}
    columns = {column.name for workload in BUILT_IN.values() for column in workload.columns}
    assert fields >= OWN_FIELDS
    assert columns >= OWN_COLUMNS
    assert not (OWN_FIELDS | OWN_COLUMNS) & KNOWN


@pytest.mark.parametrize("name", ["task", "limit", "routing", "requests", "model_type"])
def test_in_tables_from_elsewhere_such_names_mean_anything(name):
    rows = [row | {name: value} for row, value in zip(rows_of(Description()), ("one", "two"), strict=True)]
    assert sentences(audit_rows(rows)) == []
    for row in rows:
        del row["schema_version"]
    (said,) = sentences(audit_rows(rows))
    assert f"told apart by {name}, which the audit does not know" in said


def of_phases(**whole: object) -> list[dict[str, object]]:
    """A forward and a backward pass, and both together in the time of one of them, which cannot be of one point."""
    row = rows_of(BUILT_IN["causal_lm"], routing="uniform", model_type="llama", time_rel_error=0.001)[0]
    return [row, row | {"phase": "backward"}, row | {"phase": "forward_backward"} | whole]


def is_additive(rows):
    return not [finding for finding in audit_rows(rows) if finding.rule == "additivity"]


def test_phases_of_points_that_differ_in_a_field_are_not_put_together():
    assert not is_additive(of_phases())
    assert is_additive(of_phases(routing="router"))
    # what follows from a point does not keep its phases apart
    assert not is_additive(of_phases(expert_flops=17, model_type="mixtral"))


class _Step(Description):
    fields = (Field(name="images", values=(1, 2)),)
    columns = (Column(name="channels_of_output", type=int), Column(name="time_of_copies", type=float))


def test_what_a_runs_own_workload_states_is_known():
    rows = rows_of(_Step())
    assert len(sentences(audit_rows(rows))) == 2
    assert sentences(audit_rows(rows, fields=["images"], columns=["channels_of_output", "time_of_copies"])) == []


@pytest.mark.parametrize("run", RUNS)
def test_runs_of_flopray_have_no_column_that_the_audit_does_not_know(run, capsys):
    folder = ROOT / run
    assert main(["audit", str(folder)]) == 0
    assert "does not know" not in capsys.readouterr().out
    if not run.endswith("conv"):  # a workload of its own, which only the run describes
        assert sentences(audit(open_run(folder).load())) == []
