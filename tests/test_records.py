"""The specification of a point, its hash, and the record's columns."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from flopray.errors import SpecError
from flopray.records import PhaseRecord
from flopray.workloads.registry import make_point, point_from

POINT = {"workload": "mlp", "device_type": "CPU", "n_layers": 2, "width": 128, "tokens": 32}


def test_trial_id_is_stable_between_processes():
    code = f"from flopray.workloads.registry import make_point; print(make_point(**{POINT!r}).id)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == point_from(POINT).id


@pytest.mark.parametrize(
    "change", [{"width": 256}, {"precision": "bf16"}, {"execution": "graph"}, {"device_type": "H100"}, {"n_layers": 3}]
)
def test_every_field_changes_the_trial_id(change):
    assert make_point(**{**POINT, **change}).id != point_from(POINT).id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 0}, "width"),
        ({"tokens": -1}, "tokens"),
        ({"n_layers": None}, "n_layers"),
        ({"n_layers": 2.0}, "n_layers"),
        ({"tokens": True}, "tokens"),
        ({"precision": "fp12"}, "fp12"),
        ({"execution": "jit"}, "jit"),
        ({"workload": "cnn"}, "cnn"),
    ],
)
def test_a_point_that_cannot_be_is_refused(change, said):
    with pytest.raises(SpecError, match=said):
        make_point(**{**POINT, **change})


def test_the_columns_of_a_record_make_it_again_and_those_of_a_workload_are_among_them():
    record = PhaseRecord.of(run="r", trial_id="a", phase="forward", time_s=0.5, findings=("note:drift",), channels=16)
    assert PhaseRecord.of(**record.columns()) == record
    assert (record.channels, record.columns()["channels"]) == (16, 16)
    with pytest.raises(AttributeError, match="colour"):
        _ = record.colour


def test_every_column_says_what_it_is():
    assert all(len(f.metadata["doc"]) > 2 for f in dataclasses.fields(PhaseRecord) if f.name != "extra")


def test_what_was_not_measured_is_none_and_not_zero():
    row = PhaseRecord.of(run="r", trial_id="a", phase="forward").columns()
    measured = [name for name in row if name.endswith(("_s", "_j", "_w", "_flops", "_hz", "_c"))]
    assert measured
    assert all(row[name] is None for name in measured)


def test_the_page_of_columns_is_what_the_record_says():
    script = Path(__file__).parents[1] / "docs" / "make_records.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
