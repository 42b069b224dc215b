"""`flopray series RUN POINT`: which point is meant, what is printed and drawn, and what is refused in one line."""

import re

import matplotlib.image
import msgspec
import numpy as np
import pandas as pd
import pytest

from flopray.cli.main import main
from flopray.energy.meter import Temperature
from flopray.measurement.window_series import DeviceSample, window_series
from flopray.records import PhaseRecord
from flopray.report.series.figure import series_figure
from flopray.report.series.lines import panels_of
from flopray.report.series.windows import samples_of, window_table
from flopray.settings import MeasureSettings
from flopray.store import series_table
from flopray.store.run import RunFolder
from flopray.store.window_series import series_in
from flopray.sweep.definition import Sweep
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import SimulatedMeter, VirtualClock, poll_simulated
from flopray.workloads.mlp import MLP

PHASES = ("forward", "backward")


def texts(power_w, *, seconds=2.0, period_s=0.1):
    """The series of a window on a simulated GPU."""
    meter = SimulatedMeter(ConstantPower(power_w), VirtualClock(), period_s=period_s, seed=1)
    found = window_series(
        poll_simulated(meter, seconds, period_s),
        start_s=0.0,
        end_s=seconds,
        meter=meter.characteristics,
        temperatures=[Temperature(0.0, 40.0), Temperature(seconds, 50.0)],
        samples=[DeviceSample(k * period_s, 1.98e9 - 1e6 * k, 2**31) for k in range(round(seconds / period_s))],
    )
    assert found is not None
    return (found.to_json(),)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three points: one whose windows have series, one with a series in one window only, one without."""
    axes = {"device_type": ("H100",), "precision": ("bf16",), "execution": ("graph",), "n_layers": (2,)}
    axes |= {"width": (256, 512, 1024), "tokens": (64,)}
    settings = MeasureSettings(phases=PHASES, keep_series=True)
    sweep = Sweep(workload=MLP(), axes=axes, settings=settings, cpus_per_trial={"H100": 1})
    folder = RunFolder.create(tmp_path_factory.mktemp("runs"), "kept", sweep.to_manifest("kept", {}))
    none = {"series_status": "no_energy_source", "series_reason": "no counter here: buy one"}
    series = [
        *({"series": texts(300), "series_status": "ok"}, {"series": texts(500), "series_status": "ok"}),
        *({"series": texts(300), "series_status": "ok"}, {"series_status": "failed", "series_reason": "no tick"}),
        *(none, none),
    ]
    with folder.writer() as journal:
        for place, point in enumerate(sweep.points()):
            same = {"run": "kept", "trial_id": point.id, "order_index": place, **point.fields()}
            rows = series[2 * place : 2 * place + 2]
            journal.append([[PhaseRecord.of(phase=p, **same, **row) for p, row in zip(PHASES, rows, strict=True)]])
    return folder


@pytest.fixture(scope="module")
def ids(run):
    frame = run.load(["trial_id", "order_index"])
    return dict(zip(frame.order_index, frame.trial_id, strict=True))


@pytest.mark.slow
def test_a_point_by_id_label_and_index(run, ids, tmp_path, capsys):
    said = set()
    for number, name in enumerate((ids[0], "n=2 d=256 m=64 bf16 graph", "n=2 d=256  m=64 bf16 graph H100", "0")):
        out = tmp_path / str(number) / "power.png"
        assert main(["series", str(run.path), name, "--out", str(out)]) == 0
        assert matplotlib.image.imread(out).std() > 0.05
        said.add(capsys.readouterr().out.replace(str(out), "FILE").replace("\n", " "))
    assert len(said) == 1
    (text,) = said
    assert "n=2 d=256 m=64 bf16 graph on H100" in text
    assert "forward" in text
    assert "backward" in text


def test_the_figure_lies_in_the_run_and_one_phase_can_be_chosen(run, ids, capsys):
    assert main(["series", str(run.path), "0", "--phase", "backward"]) == 0
    assert (run.path / "plots" / "series" / f"{ids[0]}.png").stat().st_size > 1000
    text = capsys.readouterr().out
    assert "forward" not in text
    assert re.search(r"4\d\d–5\d\d W", text)


def test_a_window_without_a_series_says_why_beside_the_others(run, tmp_path, capsys):
    assert main(["series", str(run.path), "1", "--out", str(tmp_path / "f.svg")]) == 0
    assert "backward: no series, no tick" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["n=2 d=257 m=64 bf16 graph"], "did you mean 'n=2 d=256 m=64 bf16 graph' or"),
        (["99"], "has no point '99': name a trial id ("),
        (["2"], "no series of n=2 d=1024 m=64 bf16 graph: no counter here: buy one\n"),
        (["1", "--phase", "backward"], "no series of n=2 d=512 m=64 bf16 graph: no tick\n"),
        (["0", "--phase", "forwrd"], "--phase forwrd: the point has forward, backward"),
        (["0", "--out", "x.jpg"], "--out x.jpg: the name must end in .png, .svg, .pdf"),
    ],
)
def test_what_is_refused_is_said_in_one_line(run, capsys, words, said):
    assert main(["series", str(run.path), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_run_that_kept_no_series_says_how_to_get_one(run, tmp_path, capsys):
    folder = RunFolder.create(tmp_path, "plain", {**run.manifest})
    (first, *_) = run.points()
    plain = [{**record.columns(), "series": (), "series_status": "not_requested"} for record in first]
    with folder.writer() as journal:
        journal.append([[PhaseRecord.of(**row) for row in plain]])
    assert main(["series", str(folder.path), "0"]) == 2
    assert "the run did not keep any; measure it with --keep-series" in capsys.readouterr().err
    assert main(["series", str(tmp_path / "nowhere"), "0"]) == 2


def test_the_side_file_of_a_run(run):
    frame = pd.read_parquet(run.write_series())
    assert list(frame) == series_table.SCHEMA.names
    assert len(frame.groupby(["trial_id", "phase"])) == 3
    power_w = frame[frame.used].groupby("phase").power_w.median()
    assert power_w.to_dict() == pytest.approx({"forward": 300.0, "backward": 500.0}, rel=0.05)


def test_used_ticks_are_marked_and_windows_are_lines_of_their_own():
    windows = {phase: series_in(texts(power))[0] for phase, power in zip(PHASES, (300, 500), strict=True)}
    panels = panels_of(samples_of(windows))
    assert [panel.title for panel in panels] == ["power", "temperature", "SM clock", "memory in use"]
    for panel in panels:
        assert [line.device for line in panel.lines] == list(PHASES)
    line, series = panels[1].lines[0], windows["forward"]
    assert line.used is not None
    np.testing.assert_array_equal(line.used, series.used)
    axes = series_figure(panels, []).axes[1]
    marks = [drawn for drawn in axes.lines if drawn.get_marker() == "o"]
    assert [len(drawn.get_xdata()) for drawn in marks[:2]] == [sum(series.used), len(series.used) - sum(series.used)]
    # Power since a tick that was not used may hold what was before the load: the table leaves it out.
    before = msgspec.structs.replace(series, power_w=[1.0] * 2 + [9.0] + [300.0] * (len(series.used) - 3))
    assert before.used[:3] == [False, False, True]
    (cell,) = window_table({"forward": before}).columns[3].cells
    assert cell == "300 W"
