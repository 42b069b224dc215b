"""What the driver does with points that come in."""

import io

import pytest
from rich.console import Console

from flopray.errors import StorageError
from flopray.monitoring.progress import Progress
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.sweep.driver import _slabs
from flopray.sweep.failures import failed_records
from flopray.sweep.journal_writer import JournalWriterThread
from flopray.sweep.trial import device_type_of, packed, points_of
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point, point_from


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


def test_points_go_through_tune_as_a_text_and_come_back():
    points = [{"order_index": i, "spec": record.fields()} for i, record in enumerate(_specs())]
    config = {"slab": {"device_type": "CPU", "points": packed(points)}, "sweep": {}}
    assert device_type_of(config) == "CPU"
    assert [point_from(fields) for _, fields in points_of(config)] == _specs()
    assert [index for index, _ in points_of(config)] == [0, 1, 2]


def _specs():
    common = {"device_type": "CPU", "n_layers": 2, "width": 16}
    return [make_point(workload="mlp", tokens=tokens, **common) for tokens in (8, 16, 24)]


def test_a_journal_that_cannot_be_written_is_told_with_how_to_go_on(folder):
    with folder.writer() as journal:
        drain = JournalWriterThread(None, journal, Progress(Console(file=io.StringIO()), total=2), supersede=False)
        drain._failure = StorageError("1 point could not be saved")
        with pytest.raises(
            StorageError, match=rf"saved; all points before are safe: .*flopray resume {folder.path} goes on"
        ):
            drain.raise_failure()


def test_points_that_are_tried_again_keep_their_place_behind_those_that_are_done():
    """The second time Tune runs, for the points of trials that it gave up, and in a resume."""
    sweep = Sweep(
        workload=MLP(),
        axes={"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
        | {"n_layers": (2,), "width": (16, 24, 32), "tokens": (8, 16)},
        settings=MeasureSettings(phases=("forward",)),
        cpus_per_trial={"CPU": 1},
    )
    ids = [point.id for point in sweep.points()]

    def planned(done):
        (slabs,) = _slabs(sweep, {"CPU": 1}, done).space.values()
        return [
            (index, fields["width"]) for slab in slabs["grid_search"] for index, fields in points_of({"slab": slab})
        ]

    whole, rest = planned(set()), planned(set(ids[:4]))
    assert [index for index, _ in whole] == list(range(6))
    assert sorted(width for _, width in whole) == [16, 16, 24, 24, 32, 32]
    assert [index for index, _ in rest] == [4, 5]
    assert _slabs(sweep, {"CPU": 1}, set(ids[:5])).longest == 1
