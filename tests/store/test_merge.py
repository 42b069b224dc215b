"""Merging runs: nothing is lost, nothing twice, nothing averaged; the sources stay as they are."""

import dataclasses
import itertools
import json

import pytest

from flopray import load_run
from flopray.cli.main import main as flopray_main
from flopray.errors import InputError, NotARun, RunExists, SchemaMismatch
from flopray.point import point_of
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.sweep.merge import merge, united
from flopray.workloads.mlp import MLP

KERNEL = json.dumps({"name": "gemm", "class": "gemm", "launches": 2, "tensor_flops": 3, "cuda_flops": 4})


def sweep(device="H100", widths=(16, 32), tokens=(8, 16), **more):
    axes = {"device_type": (device,), "precision": ("fp32",), "execution": ("graph",), "n_layers": (2,)}
    axes |= {"width": widths, "tokens": tokens}
    fields = {"settings": MeasureSettings(phases=("forward", "backward")), "cpus_per_trial": {device: 1}} | more
    return Sweep(workload=MLP(), axes=axes, **fields)


def measured(storage, name, of, *, time_s=1e-3, only=None, start_s=100.0, **columns):
    """A run whose points are as if they had been measured."""
    folder = RunFolder.create(storage, name, of.to_manifest(name, {}))
    with folder.writer() as journal:
        for point in of.points()[:only]:
            common = {"run": name, "trial_id": point.id, **point.fields(), "time_s": time_s, "model_flops": 1000}
            common |= {"started_unix_s": start_s, "ended_unix_s": start_s + 1, "device_uuid": f"GPU-{name}"} | columns
            journal.append([[PhaseRecord.of(phase=phase, **common) for phase in of.settings.phases]])
    return folder


def test_two_clusters_become_one_run(tmp_path):
    a, b = measured(tmp_path, "a", sweep("H100")), measured(tmp_path, "b", sweep("A100"))
    before = a.journal_path.read_bytes(), sorted(path.name for path in a.path.iterdir())
    done = merge([a.path, b.path], tmp_path / "both")
    assert (done.points, done.measurements, done.identical, done.not_resumable) == (8, 8, 0, None)
    frame = load_run(tmp_path / "both")
    assert len(frame) == 16
    assert set(frame.device_type) == {"H100", "A100"}
    assert set(frame.run) == {"a", "b"}  # who measured stays known
    of = Sweep.from_manifest(RunFolder.open(tmp_path / "both").manifest)
    assert {point.id for point in of.points()} == set(frame.trial_id)
    assert before == (a.journal_path.read_bytes(), sorted(path.name for path in a.path.iterdir()))
    assert not list(tmp_path.glob(".*"))


def test_a_point_measured_twice_is_kept_twice_whatever_the_order(tmp_path):
    early = measured(tmp_path, "early", sweep(), time_s=1e-3, start_s=100.0)
    late = measured(tmp_path, "late", sweep(), time_s=2e-3, start_s=200.0)
    failed = measured(tmp_path, "failed", sweep(), start_s=50.0, status="failed", status_reason="x", only=1)
    frames = []
    for number, order in enumerate(itertools.permutations([early, late, failed])):
        done = merge([folder.path for folder in order], tmp_path / f"m{number}")
        assert (done.points, done.measurements, done.identical) == (4, 9, 0)
        frames.append(load_run(tmp_path / f"m{number}"))
    for frame in frames:
        assert frame.drop(columns="run").equals(frames[0].drop(columns="run"))
        for point, rows in frame.groupby(frame.trial_id.map(point_of)):
            times = rows.groupby("trial_id").time_s.first()
            assert times[point] == 1e-3  # the first that is ok
            assert times[f"{point}-2"] == 2e-3
            assert len(rows) == 2 * len(times)
    assert RunFolder.open(tmp_path / "m0").finished()[early.records()[0].trial_id] == "ok"


def test_equal_measurements_are_one_also_of_merged_runs(tmp_path):
    a, b = measured(tmp_path, "a", sweep()), measured(tmp_path, "b", sweep(), time_s=3e-3, start_s=300.0)
    merge([a.path, b.path], tmp_path / "ab")
    done = merge([tmp_path / "ab", b.path, a.path], tmp_path / "again")
    assert (done.points, done.measurements, done.identical) == (4, 8, 8)
    assert load_run(tmp_path / "again").equals(load_run(tmp_path / "ab"))


def test_shards_make_the_grid_and_do_not_move_when_it_grows(tmp_path):
    whole = sweep(widths=tuple(range(16, 176, 16)), tokens=tuple(range(8, 88, 8)))
    shards = [dataclasses.replace(whole, shards=(f"{i}/8",)) for i in range(1, 9)]
    parts = [{point.id for point in shard.points()} for shard in shards]
    assert [len(part) for part in parts] == [shard.size for shard in shards]
    assert sum(map(len, parts)) == len(set().union(*parts)) == whole.size
    assert min(map(len, parts)) > 0
    larger = sweep(widths=tuple(range(16, 336, 16)), tokens=tuple(range(8, 88, 8)), shards=("3/8",))
    assert parts[2] < {point.id for point in larger.points()}
    folders = [measured(tmp_path, f"s{i}", shard) for i, shard in enumerate(shards)]
    merge([folder.path for folder in folders[:2]], tmp_path / "two")
    two = Sweep.from_manifest(RunFolder.open(tmp_path / "two").manifest)
    assert {point.id for point in two.points()} == parts[0] | parts[1]
    merge([tmp_path / "two", *(folder.path for folder in folders[2:])], tmp_path / "whole")
    assert Sweep.from_manifest(RunFolder.open(tmp_path / "whole").manifest) == whole
    assert load_run(tmp_path / "whole").trial_id.nunique() == whole.size


def test_a_random_draw_is_divided_and_not_drawn_again():
    of = sweep(widths=tuple(range(16, 176, 16)), search="random", samples=10)
    parts = [dataclasses.replace(of, shards=(f"{i}/3",)).points() for i in (1, 2, 3)]
    assert sorted(p.id for part in parts for p in part) == sorted(p.id for p in of.points())


@pytest.mark.parametrize("shard", ["0/8", "9/8", "3", "3/", "/8", "a/b", "-1/8", "1/0", "1/100000000", "¹/8", "1/2/3"])
def test_what_is_no_shard(shard):
    with pytest.raises(InputError, match="shard"):
        sweep(shards=(shard,))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (sweep(widths=(64,), tokens=(64,)), "make no grid together"),
        (sweep(settings=MeasureSettings(phases=("forward", "backward"), target_error=0.5)), "differ in settings"),
        (sweep(cpus_per_trial={"H100": 2}), "differ in cpus_per_trial"),
        (sweep(search="random", samples=2), "differ in search"),
    ],
)
def test_what_a_resume_could_not_follow_says_why(tmp_path, other, reason):
    assert reason in str(united([sweep(), other])[1])
    a, b = measured(tmp_path, "a", sweep()), measured(tmp_path, "b", other, start_s=200.0)
    assert reason in str(merge([a.path, b.path], tmp_path / "m").not_resumable)
    again = merge([tmp_path / "m", a.path], tmp_path / "again")
    assert again.not_resumable is not None


def test_kernels_come_along(tmp_path):
    a, b = measured(tmp_path, "a", sweep(), kernels=(KERNEL,)), measured(tmp_path, "b", sweep("A100"))
    merge([a.path, b.path], tmp_path / "m")
    import pandas as pd

    kernels = pd.read_parquet(tmp_path / "m" / "kernels.parquet")
    assert len(kernels) == 8
    assert set(kernels.device_type) == {"H100"}


def test_points_that_only_the_parquet_file_has_are_merged(tmp_path):
    a, b = measured(tmp_path, "a", sweep()), measured(tmp_path, "b", sweep("A100"))
    a.compact()
    a.journal_path.write_bytes(b"")
    assert merge([a.path, b.path], tmp_path / "m").points == 8


def test_what_cannot_be_merged_leaves_nothing(tmp_path):
    a, b = measured(tmp_path, "a", sweep()), measured(tmp_path, "b", sweep("A100"))
    with pytest.raises(InputError, match="at least two"):
        merge([a.path], tmp_path / "m")
    with pytest.raises(RunExists):
        merge([a.path, b.path], a.path)
    with pytest.raises(NotARun):
        merge([a.path, tmp_path / "nothing"], tmp_path / "m")
    manifest = json.loads(b.manifest_path.read_text())
    b.manifest_path.write_text(json.dumps(manifest | {"schema_version": 1}))
    with pytest.raises(SchemaMismatch):
        merge([a.path, b.path], tmp_path / "m")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_merge_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    a, b = measured(tmp_path, "a", sweep()), measured(tmp_path, "b", sweep("A100"))

    def full(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "compact", full)
    with pytest.raises(KeyboardInterrupt):
        merge([a.path, b.path], tmp_path / "m")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_command(tmp_path, capsys):
    a, b = measured(tmp_path, "a", sweep()), measured(tmp_path, "b", sweep(), start_s=200.0)
    assert flopray_main(["merge", str(a.path), str(b.path), "--into", str(tmp_path / "m")]) == 0
    said = capsys.readouterr().out
    assert "4 points of 2 runs" in said
    assert "4 further measurements" in said
    assert flopray_main(["merge", str(a.path), str(b.path), "--into", str(tmp_path / "m")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_boards_of_one_type_are_told_apart_in_the_summary(tmp_path, capsys):
    sources = [
        measured(tmp_path, name, sweep(), time_s=time_s, start_s=start_s, energy_j=0.3, energy_rel_error=0.01)
        for name, time_s, start_s in (("a", 1e-3, 0.0), ("b", 1.01e-3, 10.0), ("c", 1.02e-3, 20.0))
    ]
    again = measured(tmp_path, "d", sweep(), time_s=1e-3, start_s=30.0, device_uuid="GPU-a")  # a board for the 2nd time
    both = tmp_path / "both"
    assert flopray_main(["merge", *(str(folder.path) for folder in (*sources, again)), "--into", str(both)]) == 0
    said = capsys.readouterr().out
    assert "H100: 3 boards (a, b, c)" in said
    assert "8 shared rows" in said
    (kind,) = json.loads((both / "summary.json").read_text())["boards"]
    assert kind["boards"] == ["GPU-a", "GPU-b", "GPU-c"]
    factors = [kind["time"]["boards"][board]["factor"] for board in kind["boards"]]
    assert factors == pytest.approx([-0.01, 0.0, 0.01], abs=2e-4)
    assert kind["time"]["fit"]["spread"] == pytest.approx(0.01, abs=2e-4)


def test_one_board_of_each_type_is_said(tmp_path, capsys):
    runs = [measured(tmp_path, name, sweep(name)).path for name in ("H100", "A100")]
    assert flopray_main(["merge", *map(str, runs), "--into", str(tmp_path / "both")]) == 0
    said = capsys.readouterr().out
    assert "H100: one board" in said
    assert "A100: one board" in said


def test_a_source_without_a_point_is_named(tmp_path, capsys):
    """Its table may be damaged and its journal gone, which the number of all points does not show."""
    full, lost = measured(tmp_path, "full", sweep()), measured(tmp_path, "lost", sweep("A100"))
    lost.journal_path.unlink()
    assert flopray_main(["merge", str(full.path), str(lost.path), "--into", str(tmp_path / "both")]) == 0
    said = capsys.readouterr().out
    assert f"{lost.path}: has no point" in said
    assert f"{full.path}: has no point" not in said
