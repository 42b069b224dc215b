"""Calibrations in the user's cache: none is ever replaced, and only suitable ones are used."""

import dataclasses
import time

import pytest

from flopray.energy.calibration import Calibration, LoadResult
from flopray.errors import InputError, StorageError
from flopray.store.calibrations import keep, kept, latest

DAY_S = 86_400.0
UUID = "GPU-12ab-34cd"
NOW = Calibration(
    device_name="NVIDIA X",
    device_uuid=UUID,
    driver_version="580",
    power_limit_w=700.0,
    node="n",
    torch_version="2.11",
    cuda_version="12.8",
    flopray_version="1",
    measured_unix_s=time.time(),
    seconds=30.0,
    reference_temperature_c=50.0,
    loads=(LoadResult(load="copy", reason="out of memory"),),
)


def before(days: float, **fields) -> Calibration:
    return dataclasses.replace(NOW, measured_unix_s=NOW.measured_unix_s - days * DAY_S, **fields)


def test_all_are_kept_in_the_order_of_their_dates(tmp_path):
    for each in (NOW, before(2), before(1), NOW):
        keep(each, tmp_path)
    found, damaged = kept(UUID, tmp_path)
    assert [each.measured_unix_s for each in found] == [e.measured_unix_s for e in (before(2), before(1), NOW, NOW)]
    assert found[-1] == NOW
    assert damaged == []
    assert kept("GPU-other", tmp_path) == ([], [])


def test_the_newest_that_serves_is_used(tmp_path):
    for each in (before(3), before(2), before(1, driver_version="590"), before(0.5, reference_temperature_c=60.0)):
        keep(each, tmp_path)
    assert latest(UUID, "580", 50.0, folder=tmp_path) == before(2)
    assert latest(UUID, "590", 50.0, folder=tmp_path) == before(1, driver_version="590")
    assert latest(UUID, "600", 50.0, folder=tmp_path) is None
    assert latest(UUID, "580", 50.0, most_age_s=DAY_S, folder=tmp_path) is None


def test_an_old_one_does_not_serve(tmp_path):
    keep(before(31), tmp_path)
    assert latest(UUID, "580", 50.0, folder=tmp_path) is None
    assert len(kept(UUID, tmp_path)[0]) == 1


def test_what_is_no_calibration_is_named_and_left(tmp_path):
    path = keep(NOW, tmp_path)
    for name, text in (
        ("a.json", "{"),
        ("b.json", '{"loads": 3}'),
        ("c.json", path.read_text().replace(UUID, "GPU-9")),
    ):
        path.with_name(name).write_text(text)
    found, damaged = kept(UUID, tmp_path)
    assert found == [NOW]
    assert [name.rsplit("/")[-1] for name in damaged] == ["a.json", "b.json", "c.json"]


def test_a_name_that_is_no_uuid_reaches_no_file(tmp_path):
    with pytest.raises(InputError, match="not the UUID of a GPU"):
        kept("../../etc", tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be kept"):
        keep(NOW, tmp_path / "file")
