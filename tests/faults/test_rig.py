"""The rig itself detects the faults that it is made for."""

import os
import random
import signal
import time
from types import SimpleNamespace

import damage
import pytest
import rounds
from catalogue import INTERRUPTED, KINDS
from lane import catches, is_running
from ledger import Ledger, duplicates, lost, measurements, printed_count, printed_ids

from flopray.records import PhaseRecord
from flopray.store.run import RunFolder
from flopray.workloads.registry import make_point


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, "r", {})


def point(width):
    spec = make_point(workload="mlp", device_type="CPU", n_layers=2, width=width, tokens=8)
    return [PhaseRecord.of(trial_id=spec.id, run="r", phase="forward", started_unix_s=float(width), **spec.fields())]


def ids(*widths):
    return [point(width)[0].trial_id for width in widths]


def test_a_line_is_told_and_one_that_is_rolled_back_is_not(folder):
    with folder.writer() as journal, Ledger(folder.journal_path) as ledger:
        journal.append([point(8)])
        until = time.monotonic() + 60
        while not ledger.told and time.monotonic() < until:
            time.sleep(0.01)
        ledger.settle()
        size = folder.journal_path.stat().st_size
        ledger._offset, ledger._fresh = size + 100, {"half": 1.0}  # as after a line that is gone again
        ledger._read()
        ledger._read()
    assert ledger.told == dict(zip(ids(8), [8.0], strict=True))


def test_a_point_that_is_missing_or_was_measured_again_is_lost():
    told = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    assert lost(told, {"d"}, {"a": 1.0, "b": 9.0}) == {"b", "c"}


def test_a_point_that_stands_twice_is_a_duplicate():
    assert duplicates(["a", "b", "a"], [("c", "forward"), ("c", "forward"), ("c", "backward")]) == {"a", "c"}


def test_what_was_printed_is_read():
    output = '3/9 points | now x\n{"event": "point", "trial_id": "a"}\n5/9 points\n{"event": "notice"}\n'
    assert (printed_ids(output), printed_count(output)) == ({"a"}, 5)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("harm", [damage.torn, damage.flipped, damage.emptied])
def test_damage_costs_what_it_says(folder, harm, seed):
    with folder.writer() as journal:
        journal.append([point(8), point(16), point(24)])
    hit = harm(folder.journal_path, random.Random(seed))
    assert len(hit) == (3 if harm is damage.emptied else 1)
    left = dict(measurements(folder.journal_path.read_bytes()))
    assert set(left) == set(ids(8, 16, 24)) - hit


def test_damage_to_an_empty_journal_is_none(folder):
    for harm in (damage.torn, damage.flipped, damage.emptied):
        assert harm(folder.journal_path, random.Random(0)) == set()


def test_a_small_disk_fills(tmp_path):
    if os.geteuid():
        pytest.skip("only root mounts file systems")
    try:
        with damage.small_disk(tmp_path / "disk") as disk:
            damage.fill(disk, 0)
            with pytest.raises(OSError, match="No space left"):
                (disk / "more").write_bytes(bytes(100_000))
    except PermissionError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("json", "output", "wrong"),
    [
        (False, "interrupted; every finished point is in the journal. Go on with:\n  flopray resume b\n", 0),
        (False, "interrupted; every finished point is in the journal. Go on with:\n", 1),
        (False, "Traceback (most recent call last):\n  flopray resume b\n", 2),
        (True, '{"event": "point"}\n(raylet) A worker died\n', 2),
    ],
)
def test_what_a_user_is_told_is_checked(json, output, wrong):
    assert len(list(rounds._messages(SimpleNamespace(json=json), output, (INTERRUPTED,)))) == wrong


def test_every_kind_says_what_is_expected_of_it():
    for name, kind in KINDS.items():
        assert name == kind.name
        assert kind.codes
        assert kind.says or kind.check or kind.codes == (-9,) or not kind.resumes
        assert kind.resumes or 0 in kind.codes or 3 in kind.codes


def test_signals_and_processes_are_seen():
    assert is_running(os.getpid())
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert not catches(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    assert catches(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
