"""What the driver does with points that come in."""

import io

import pytest
from rich.console import Console

from flopray.errors import StorageError
from flopray.monitoring.progress import Progress
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.sweep.failures import failed_records
from flopray.sweep.journal_writer import JournalWriterThread
from flopray.workloads.registry import make_point


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, "r", {})


def point(width, **columns):
    spec = make_point(workload="mlp", device_type="CPU", n_layers=2, width=width, tokens=8)
    fields = {"trial_id": spec.id, "workload": "mlp", "device_type": "CPU", **spec.shape(), **columns}
    return [
        PhaseRecord.of(run="r", phase=phase, precision="fp32", execution="eager", **fields) for phase in ("forward",)
    ]


def test_a_point_that_is_no_record_is_a_row_that_says_so(folder):
    good, bad = point(16, time_s=1.0), point(32, model_flops=2**63)
    with folder.writer() as journal:
        drain = JournalWriterThread(None, journal, Progress(Console(file=io.StringIO()), total=2), supersede=False)
        assert drain._append_alone(good) == good
        (row,) = drain._append_alone(bad)
    assert (row.status, row.phase, row.width) == ("failed", "forward", 32)
    assert "model_flops" in row.status_reason
    frame = folder.load().set_index("width")
    assert frame.status.to_dict() == {16: "ok", 32: "failed"}
    assert frame.time_s[16] == 1.0


def test_rows_of_a_point_that_never_ran_are_records_of_every_phase(folder):
    spec = make_point(workload="mlp", device_type="CPU", n_layers=2, width=16, tokens=8)
    settings = MeasureSettings(phases=("forward", "backward"))
    with folder.writer() as journal:
        journal.append([failed_records(spec, settings, "r", "no such device")])
    frame = folder.load()
    assert frame.phase.tolist() == ["forward", "backward"]
    assert (frame.status == "failed").all()
    assert (frame.energy_status == "failed").all()
    assert frame.status_reason.tolist() == ["no such device"] * 2


def test_a_journal_that_cannot_be_written_is_told_with_how_to_go_on(folder):
    with folder.writer() as journal:
        drain = JournalWriterThread(None, journal, Progress(Console(file=io.StringIO()), total=2), supersede=False)
        drain._failure = StorageError("1 point could not be saved")
        with pytest.raises(
            StorageError, match=rf"saved; all points before are safe: .*flopray resume {folder.path} goes on"
        ):
            drain.raise_failure()
