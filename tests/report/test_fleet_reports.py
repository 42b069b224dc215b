"""Reports of runs on several boards of a type: which interval they show, strips of boards, ratios of types,
--boards."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fleet_runs import fleet_run

from flopray import load_run
from flopray.cli.compare_gpus import main as compare_gpus
from flopray.report.boards.means import OF_BOARD, OF_TYPE, OF_WINDOW, means_of_types
from flopray.report.boards.statement import statement
from flopray.report.gpus.comparison import comparisons_of
from flopray.report.gpus.data import ENERGY, load_runs
from flopray.report.gpus.dots import draw_dots
from flopray.report.gpus.table import ratio_tables, tables_of
from flopray.report.gpus.types import POINT, bars_said, intervals_said, rows_of_types
from flopray.report.surface.data import surface_sets
from flopray.report.surface.lines import draw_lines
from flopray.report.surface.selection import Selection


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Three boards of a type, the first of them measured twice, and one board of another type."""
    storage = tmp_path_factory.mktemp("fleet")
    a, b, c = (f"GPU-{letter * 8}-0000" for letter in "abc")
    return {
        "h100": [
            fleet_run(storage, "one", a, factor=1.0, hot=1.04, seed=1),
            fleet_run(storage, "two", b, factor=1.03, hot=0.99, seed=2),
            fleet_run(storage, "three", c, factor=0.985, hot=1.02, seed=3),
            fleet_run(storage, "again", a, factor=1.0, hot=1.01, seed=4),
        ],
        "h200": [fleet_run(storage, "other", "GPU-dddddddd-0000", device="H200", factor=0.8, seed=5)],
    }


@pytest.fixture(scope="module")
def rows(fleet):
    return rows_of_types(load_runs([*fleet["h100"], *fleet["h200"]]))


def test_a_type_has_the_mean_of_its_boards_at_the_reference_temperature(rows):
    found, notes = rows
    h100 = found[found["gpu"] == "H100"]
    assert len(h100) == 16
    assert set(h100["energy_interval"]) == {OF_TYPE}
    assert set(h100["boards"]) == {3}
    assert set(h100["energy_at"]) == {50.0}
    # 400 W times the geometric mean of the three factors, whatever the temperature of each run
    expected = h100["time_s"] * 400 * (1.0 * 1.03 * 0.985) ** (1 / 3)
    assert (h100["energy_j"] / expected - 1).abs().max() < 0.01
    assert h100["flops_per_j"].to_numpy() == pytest.approx((h100["model_flops"] / h100["energy_j"]).to_numpy())
    assert h100["power_w"].isna().all()
    # 2.3 % between three boards and 1.6 % between three before: wider than any window by far
    assert h100["energy_type_rel_error"].between(0.02, 0.06).all()
    assert h100["energy_window_rel_error"].to_numpy() == pytest.approx(0.01)
    assert any(note.startswith("H100: 3 boards") for note in notes)


def test_one_board_says_so_and_has_no_interval_of_its_type(rows):
    found, notes = rows
    h200 = found[found["gpu"] == "H200"]
    assert set(h200["energy_interval"]) == {OF_BOARD}
    assert set(h200["time_interval"]) == {OF_WINDOW}
    assert h200["energy_rel_error"].to_numpy() == pytest.approx(0.012)
    assert h200["energy_type_rel_error"].isna().all()
    assert any(note.startswith("H200: one board") for note in notes)


def test_tables_say_what_their_intervals_are_of(rows):
    (comparison,) = comparisons_of(rows[0])
    notes = {table.title.split(",")[0]: " | ".join(table.notes) for table in tables_of(comparison)}
    assert "± of energy: of the type (H100: 3 boards)" in notes["H100"]
    assert "± of energy: of the board at reference temperature (H200: one board)" in notes["H200"]
    assert "± of time: of the window (H200: one board)" in notes["H200"]
    assert "energy at 50 °C" in notes["H200"]


def test_ratios_use_the_intervals_of_types(rows, fleet, tmp_path):
    (comparison,) = comparisons_of(rows[0])
    (table,) = ratio_tables(comparison)
    assert any("H200: one board" in note for note in table.notes)
    # energy at the reference temperature is not compared with energy as measured, and no ratio has an interval
    assert "±" not in table.header
    second = fleet_run(tmp_path, "second", "GPU-eeeeeeee-0000", device="H200", factor=0.81, seed=6)
    both, _ = rows_of_types(load_runs([*fleet["h100"], *fleet["h200"], second]))
    (table,) = ratio_tables(comparisons_of(both)[0])
    errors = [float(row[4].rstrip("%")) for _, section in table.sections for row in section]
    assert min(errors) > 5  # two boards: Student's t with one degree of freedom
    assert {row[3] for _, section in table.sections for row in section} <= {"0.79", "0.80", "0.81"}


def test_intervals_of_several_kinds_name_their_phases_and_quantities(rows):
    found = rows[0][rows[0]["gpu"] == "H200"]
    forward = found[found["phase"] == "forward"].assign(energy_interval="window")
    decode = found[found["phase"] == "forward"].assign(phase="train_step")
    both = pd.concat([forward, decode], ignore_index=True)
    said = "of the board at reference temperature (training step; H200: one board); of the window (forward; H200: one"
    assert intervals_said(both, "energy") == f"{said} board)"
    assert bars_said(both, "energy") == f"bars: 95 % intervals {said} board)"
    assert bars_said(both, "time", "energy") == (
        f"bars: 95 % intervals; time: of the window (H200: one board); energy: {said} board)"
    )
    assert bars_said(forward, "time", "energy") == "bars: 95 % intervals of the window (H200: one board)"


def test_a_column_of_dashes_is_left_out(tmp_path):
    one = fleet_run(tmp_path, "as_measured", "GPU-aaaaaaaa-1111", reference=False)
    other = fleet_run(tmp_path, "at_reference", "GPU-bbbbbbbb-1111", device="H200")
    found, _ = rows_of_types(load_runs([one, other]))
    (table,) = ratio_tables(comparisons_of(found)[0])
    assert "Energy" not in table.header
    assert any("energies are not compared" in note for note in table.notes)


def test_a_processor_is_no_board(fleet):
    _, (device,) = means_of_types(load_runs(fleet["h200"]), POINT, ["gpu"])
    assert next(statement(device)) == "H200: one board: how far boards of the type differ was not measured"
    processor = dataclasses.replace(device, name="CPU")
    assert next(statement(processor)) == "CPU: one machine: how far machines of the type differ was not measured"


def test_energy_without_a_reference_is_compared_as_measured(tmp_path):
    runs = [
        fleet_run(tmp_path, name, f"GPU-{name}", factor=factor, reference=False)
        for name, factor in (("x", 1.0), ("y", 1.05))
    ]
    found, notes = rows_of_types(load_runs(runs))
    assert found["energy_at"].isna().all()
    assert set(found["energy_interval"]) == {OF_TYPE}
    assert any("energy as measured" in note for note in notes)
    # no prior for energy at whatever temperature: half of 5 % times 12.7
    assert found["energy_type_rel_error"].between(0.25, 0.45).all()


def test_dots_have_a_strip_of_boards_beside_the_mean(rows):
    (comparison,) = comparisons_of(rows[0])
    figure = draw_dots(comparison, ENERGY, ["forward"])
    assert figure is not None
    strips = [line for axes in figure.axes for line in axes.lines if line.get_gid() == "boards"]
    assert {len(line.get_xdata()) for line in strips} == {3}
    assert any("of the type (H100: 3 boards" in text.get_text() for text in figure.texts)


def test_lines_of_a_surface_have_strips_and_say_whose_interval_they_show(fleet):
    frame = pd.concat([load_run(run) for run in fleet["h100"]], ignore_index=True)
    chosen = Selection(metrics=["energy"], phases=["forward"], y_min=128)
    (surfaces,) = surface_sets(frame, chosen)
    assert surfaces.boards == 3
    assert surfaces.above_target_count() == 0  # the target is of a window
    figure = draw_lines(surfaces)
    strips = [line for line in figure.axes[0].lines if line.get_gid() == "boards"]
    assert [len(line.get_xdata()) for line in strips] == [3, 3, 3, 3]
    assert any("of the type (3 boards)" in text.get_text() for text in figure.texts)
    (alone,) = surface_sets(load_run(fleet["h100"][0]), chosen)
    assert alone.boards == 1
    assert any("of the window" in text.get_text() for text in draw_lines(alone).texts)


@pytest.mark.extras("html")
def test_pages_say_what_their_intervals_are_of(rows, fleet):
    from flopray.report.gpus.html import page_text as gpu_page
    from flopray.report.surface.html import page_text as surface_page

    page = gpu_page(comparisons_of(rows[0]))
    said = _data(page)["comparisons"][0]["intervals"]
    assert said["energy"] == "of the board at reference temperature (H200: one board); of the type (H100: 3 boards)"
    shown = _data(page)["comparisons"][0]["rows"]
    assert not any(each["values"]["energy"].get("above") for each in shown if each["gpu"] == "H100")
    assert said["time"] == "of the type (H100: 3 boards); of the window (H200: one board)"
    chosen = Selection(metrics=["energy", "dispatched"], phases=["forward"])
    for runs, words in ((fleet["h100"], "of the type (3 boards)"), (fleet["h100"][:1], "of the window")):
        frame = pd.concat([load_run(run) for run in runs], ignore_index=True)
        for each in _data(surface_page(list(surface_sets(frame, chosen)))):
            assert each["interval"] == (words if each["metric"] == "energy" else "")
            assert (f"±: 95 % interval {words}" in each["subtitle"]) == (each["metric"] == "energy")


def _data(page):
    """What the script of a page reads."""
    return json.loads(page.split('type="application/json">')[1].split("</script>")[0])


def test_compare_gpus_compares_boards(fleet, tmp_path, capsys):
    runs = [str(run) for run in fleet["h100"]]
    assert compare_gpus([*runs, "--boards", "--out", str(tmp_path), "--tables", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "H100: 3 boards (aaaaaaaa, bbbbbbbb, cccccccc)" in said
    (kind,) = json.loads((tmp_path / "boards.json").read_text())
    energy = kind["energy at 50 °C"]
    factors = [energy["boards"][board]["factor"] for board in kind["boards"]]
    assert factors == pytest.approx([-0.005, 0.025, -0.02], abs=0.004)
    assert [each["others"] for each in energy["left_out"]] == [2, 2, 2]
    assert (tmp_path / "boards" / "NVIDIA-H100-80GB-HBM3.png").exists()
    assert "left out in turn" in (tmp_path / "boards.md").read_text()


def test_boards_of_published_results_are_refused_in_a_line(fleet, capsys):
    assert compare_gpus([str(fleet["h100"][0]), "--boards", "--published", "x"]) == 2
    said = "error: --boards compares boards of measured runs: name RUNs, without --published\n"
    assert capsys.readouterr().err == said


def test_the_bench_tells_steps_apart(fleet, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    boards = importlib.import_module("boards")
    frame = pd.concat([load_run(run) for run in fleet["h100"]], ignore_index=True)
    (device,) = boards.boards_of(frame)
    steps = {name: rms for name, rms, _, _ in boards.steps_of(device)}
    assert list(steps)[2:] == [
        *("energy as measured", "energy as measured, boards' factors taken out"),
        *("energy at 50 °C", "energy at 50 °C, boards' factors taken out"),
    ]
    assert steps["energy at 50 °C"] == pytest.approx(0.033, abs=0.004)
    assert steps["energy at 50 °C, boards' factors taken out"] < 0.01
    assert boards.main([str(run) for run in fleet["h100"]] + ["--out", str(tmp_path)]) == 0
    assert "| 48 |" in capsys.readouterr().out
    assert np.isfinite(json.loads((tmp_path / "boards.json").read_text())["NVIDIA H100 80GB HBM3"]["time"]["rows"])
