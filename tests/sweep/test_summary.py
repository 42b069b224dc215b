"""The text before and after a sweep agrees with the records."""

import dataclasses
import functools
import io
import json

import pytest
from rich.console import Console

from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.sweep.plan import print_plan
from flopray.sweep.summary import duration, print_summary, summarise
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point

PHASES = ("forward", "backward")


def rows(width, *, status="ok", rate=1e9, **columns):
    spec = make_point(workload="mlp", device_type="CPU", n_layers=2, width=width, tokens=8)
    common = {"trial_id": spec.id, "run": "r", "workload": "mlp", "device_type": "CPU", "precision": "fp32"}
    common |= {"execution": "eager", "n_layers": 2, "width": width, "tokens": 8, "status": status}
    if status == "ok":
        common |= {"time_s": 1e-3, "flops_per_s": rate * width, "time_rel_error": 0.02 if width == 32 else 0.01}
        common |= {"target_error": 0.01, "findings": ("note:no_limit_known",), "energy_status": "no_energy_source"}
    else:
        common |= {"status_reason": f"{status} [because]"}
    return [PhaseRecord.of(phase=phase, **{**common, **columns}) for phase in PHASES]


@pytest.fixture
def run(tmp_path):
    """Makes a run's folder of the given points."""

    def make(*points, name="r") -> RunFolder:
        folder = RunFolder.create(tmp_path, name, {"sweep": {"workload": "mlp"}})
        with folder.writer() as journal:
            journal.append(points)
        return folder

    return make


def shown(function, *arguments, width=160, **options) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False)
    function(console, *arguments, **options)
    return console.file.getvalue()


def test_totals(run):
    frame = run(rows(16), rows(32), rows(64, status="unsupported"), rows(128, status="failed")).load()
    summary = summarise(frame, 0.5)
    assert summary == {
        "points": 4,
        "points_not_ok": 2,
        "rows": 8,
        "rows_by_status": {"ok": 4, "unsupported": 2, "failed": 2},
        "rows_with_energy": 0,
        "rows_with_time": 4,
        "rows_with_counters": 0,
        "rows_at_target_in_time": 2,
        "rows_at_target_in_energy": 0,
        "findings": {"note:no_limit_known": 4},
        "measured_fraction": 0.5,
    }
    json.dumps(summary, allow_nan=False)


def test_totals_of_energy(run):
    energy = {"energy_status": "ok", "energy_j": 1e-3}
    folder = run(rows(16, **energy, energy_rel_error=0.01), rows(64, **energy, energy_rel_error=0.011), rows(32))
    summary = summarise(folder.load(), None)
    assert (summary["rows_with_energy"], summary["rows_at_target_in_energy"]) == (4, 2)
    text = shown(print_summary, folder, folder.load(), summary)
    assert "rows that reached the target error: 4 of 6 in time, 2 of 4 in energy" in text


def test_a_point_with_one_bad_phase_is_not_ok(run):
    good, bad = rows(16)[0], rows(16, status="failed")[1]
    assert summarise(run([good, bad]).load(), None)["points_not_ok"] == 1


def test_a_run_without_any_point(run):
    folder = run()
    summary = summarise(folder.load(), None)
    assert (summary["points"], summary["rows"], summary["points_not_ok"]) == (0, 0, 0)
    assert "0 points, 0 rows" in shown(print_summary, folder, folder.load(), summary)


def test_the_summary_names_best_and_worst_points_failures_and_files(run):
    folder = run(rows(16), rows(64), rows(128, status="unsupported"))
    frame = folder.load()
    text = shown(print_summary, folder, frame, summarise(frame, 0.42))
    best = next(line for line in text.splitlines() if "forward" in line)
    assert best.index("64 GFLOP/s") < best.index("n=2 d=64 m=8") < best.index("16 GFLOP/s")
    assert "3 points, 6 rows: 4 ok, 2 unsupported" in text
    assert "reached the target error: 4 of 4 in time; 42% of device time" in text
    assert "2 rows unsupported: unsupported [because]" in text
    frame["status_reason"] = "use execution='compile'"
    text = shown(print_summary, folder, frame, summarise(frame, 0.42), (), {"execution": "--execution"})
    assert "2 rows unsupported: use --execution compile" in text
    assert "audit: 4 x note:no_limit_known" in text
    assert str(folder.records_path) in text
    assert f"flopray.load_run({str(folder.path)!r})" in text


def test_without_a_gpu_two_lines_say_what_was_found_and_what_a_gpu_would_add(run):
    peak = {"measured_peak_flops_per_s": 1e11}
    folder = run(rows(16, mfu=0.16, **peak), rows(64, mfu=0.64, **peak), rows(128, status="failed"))
    lines = shown(print_summary, folder, folder.load(), summarise(folder.load(), None)).splitlines()
    (at,) = [place for place, line in enumerate(lines) if line.startswith("found: ")]
    assert "at n=2 d=64 m=8 does 64 GFLOP/s ±1.0%, 64% of the 100 GFLOP/s that products reach on this CPU" in lines[at]
    assert lines[at + 1].startswith("a GPU would add: the energy of each phase (this machine has no source of it) and")
    for number, error in enumerate((None, 1.22)):
        doubted = rows(64, mfu=0.64, **peak, time_rel_error=error)
        unsure = run(rows(16, mfu=0.16, **peak), doubted, name=f"unsure{number}")
        text = shown(print_summary, unsure, unsure.load(), summarise(unsure.load(), None))
        assert "at n=2 d=16 m=8 does 16 GFLOP/s ±1.0%" in text  # rather than one whose error is none, or bounds nothing
    on_gpu = run(rows(16, device_type="H100", device_name="NVIDIA H100 80GB HBM3", mfu=0.16), name="gpu")
    assert "a GPU would add" not in shown(print_summary, on_gpu, on_gpu.load(), summarise(on_gpu.load(), None))
    energy = {"energy_status": "ok", "energy_j": 1e-3}
    metered = run(rows(16, mfu=0.16, **peak, **energy), name="rapl")
    text = shown(print_summary, metered, metered.load(), summarise(metered.load(), None))
    assert "a GPU would add: executed FLOPs by hardware counters" in text


def test_a_point_is_named_by_what_differs_in_the_run(run):
    folder = run(rows(16), rows(64, precision="bf16"))
    text = shown(print_summary, folder, folder.load(), summarise(folder.load(), None))
    assert "n=2 d=64 m=8 bf16" in text
    assert "n=2 d=16 m=8 fp32" in text
    assert "eager" not in text


def test_paths_are_whole_in_a_narrow_pipe(run):
    folder = run(rows(16), name="a-rather-long-name-of-a-run-that-would-not-fit-into-a-narrow-line")
    frame = folder.load()
    text = shown(print_summary, folder, frame, summarise(frame, None), width=40)
    assert str(folder.records_path) in text
    assert f"flopray.load_run({str(folder.path)!r})" in text


def test_a_reason_that_is_long_is_one_line(run):
    folder = run(rows(16, status="failed", status_reason="word " * 60))
    frame = folder.load()
    text = shown(print_summary, folder, frame, summarise(frame, None), width=80)
    assert ("word " * 60).strip() in text


def sweep(**fields) -> Sweep:
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    axes |= {"n_layers": (1, 2), "width": (16, 32), "tokens": (8, 16, 24)}
    return Sweep(workload=MLP(), axes=axes, settings=MeasureSettings(), cpus_per_trial={"CPU": 1}, **fields)


def cells(text) -> list[str]:
    return [cell.strip() for cell in next(line for line in text.splitlines() if "CPU" in line).split("│")[1:-1]]


def test_the_plan_counts_points_and_trials():
    text = shown(print_plan, sweep(points_per_trial=4), {"CPU": 1})
    assert cells(text)[:4] == ["CPU", "1", "12", "3"]
    assert "nothing was started and nothing was written" in text


def test_the_plan_says_what_is_not_in_its_time():
    made = sweep()
    settings = MeasureSettings(hold_temperature_c=55.0, calibrate=True)
    text = shown(print_plan, dataclasses.replace(made, settings=settings), {"CPU": 1})
    assert "hold_temperature_c=55: filler work and pauses before each window, at most 60 s each, are not in" in text
    assert "calibrate: some minutes for each GPU, which are not in the predicted time" in text
    assert "not in the predicted time" not in shown(print_plan, made, {"CPU": 1})
    held, flags = dataclasses.replace(made, settings=settings), {"hold_temperature_c": "--hold-temperature"}
    assert "--hold-temperature 55: filler work" in shown(functools.partial(print_plan, names=flags), held, {"CPU": 1})


def test_what_holding_took_and_the_factors_of_boards_are_told(run):
    board = {"device_uuid": "GPU-1", "device_name": "X", "board_factor": 1.021, "board_factor_rel_error": 0.034}
    held = {"hold_temperature_c": 55.0, "hold_temperature_s": 100.0, **board}
    folder = run(rows(16, **held), rows(32, **held, hold_temperature_reason="it was at 40 °C"))
    frame = folder.load()
    summary = summarise(frame, 0.5)
    assert summary["hold_temperature_c"] == [55.0]
    assert summary["hold_temperature_s"] == 400.0
    assert summary["rows_not_held"] == 2
    text = shown(print_summary, folder, frame, summary)
    assert "held at 55 °C: 7 min of filler work and pauses before windows" in text
    assert "2 rows could not be held: it was at 40 °C" in text
    assert text.count("board GPU-1: takes 1.021 ±3.4% times the energy of a typical X") == 1


def test_the_plan_of_a_resume_counts_what_is_left():
    finished = {point.id: "ok" for point in sweep().points()[:8]}
    assert cells(shown(print_plan, sweep(points_per_trial=2), {"CPU": 1}, finished=finished))[:4] == [
        "CPU",
        "1",
        "4",
        "2",
    ]


def test_the_plan_of_a_search_counts_its_samples():
    assert cells(shown(print_plan, sweep(search="random", samples=5), {"CPU": 1}))[2] == "5"
    optuna = sweep(search="optuna", samples=5, objective="time_s")
    assert cells(shown(print_plan, optuna, {"CPU": 1}))[2:4] == ["5", "5"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (7200, "2.0 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_small_share_is_not_0_percent():
    from flopray.sweep.summary import _share

    assert [_share(ratio) for ratio in (0.00035, 0.0062, 0.19, 1.02)] == ["0.035%", "0.62%", "19%", "102%"]
