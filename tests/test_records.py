"""The specification of a point, its hash, and the record's columns."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from flopray.errors import SpecError
from flopray.point import Point
from flopray.records import PhaseRecord

POINT = {"workload": "mlp", "device_type": "CPU", "n_layers": 2, "width": 128, "tokens": 32}


def test_trial_id_is_stable_between_processes():
    code = f"from flopray.point import Point; print(Point(**{POINT!r}).trial_id)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == Point(**POINT).trial_id


@pytest.mark.parametrize(
    "change", [{"width": 256}, {"precision": "bf16"}, {"execution": "graph"}, {"device_type": "H100"}, {"n_layers": 3}]
)
def test_every_field_changes_the_trial_id(change):
    assert Point(**{**POINT, **change}).trial_id != Point(**POINT).trial_id


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
        Point(**{**POINT, **change})


def test_a_row_survives_the_way_out_and_back():
    record = PhaseRecord(run="r", trial_id="a", phase="forward", time_s=0.5, findings=("note:drift",))
    assert PhaseRecord.from_row(record.to_row()) == record


def test_an_unknown_column_is_not_dropped_in_silence():
    with pytest.raises(SpecError, match="colour"):
        PhaseRecord.from_row({"run": "r", "colour": "red"})


def test_every_column_says_what_it_is():
    assert all(len(f.metadata["doc"]) > 2 for f in dataclasses.fields(PhaseRecord))


def test_what_was_not_measured_is_none_and_not_zero():
    row = PhaseRecord(run="r", trial_id="a", phase="forward").to_row()
    measured = [name for name in row if name.endswith(("_s", "_j", "_w", "_flops", "_hz", "_c"))]
    assert measured
    assert all(row[name] is None for name in measured)


def test_the_page_of_columns_is_what_the_record_says():
    script = Path(__file__).parents[1] / "docs" / "make_records.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
