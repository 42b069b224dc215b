"""Reports of runs on several boards of a type: which interval they show, strips of boards, ratios of types,
--boards."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fleet_runs import fleet_run
from rich.console import Console

from flopray import load_run
from flopray.cli.audit import main as audit_table
from flopray.cli.compare_gpus import main as compare_gpus
from flopray.description import Column, Description
from flopray.errors import SpecError
from flopray.report.boards.data import boards_of
from flopray.report.boards.means import OF_BOARD, OF_TYPE, OF_WINDOW, means_of_types
from flopray.report.boards.statement import statement
from flopray.report.boards.table import board_tables
from flopray.report.gpus.comparison import comparisons_of
from flopray.report.gpus.data import ENERGY, load_runs
from flopray.report.gpus.dots import draw_dots
from flopray.report.gpus.table import ratio_tables, tables_of
from flopray.report.gpus.types import POINT, bars_said, intervals_said, rows_of_types
from flopray.report.surface.data import surface_sets
from flopray.report.surface.lines import draw_lines
from flopray.report.surface.plots import draw_surfaces, interval_of
from flopray.report.surface.selection import Selection
from flopray.store.derived import NO_FACTOR, NO_REFERENCE
from flopray.store.location import open_run
from flopray.store.schema import RecordSchema
from flopray.sweep.merge import merge


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
    assert "± of energy: of the board at 50 °C (H200: one board)" in notes["H200"]
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
    said = "of the board at 50 °C (training step; H200: one board); of the window (forward; H200: one"
    assert intervals_said(both, "energy") == f"{said} board)"
    assert bars_said(both, "energy") == f"energy at 50 °C; bars: 95 % intervals {said} board)"
    assert bars_said(both, "time", "energy") == (
        f"energy at 50 °C; bars: 95 % intervals; time: of the window (H200: one board); energy: {said} board)"
    )
    same = "energy at 50 °C; bars: 95 % intervals of the window (H200: one board)"
    assert bars_said(forward, "time", "energy") == same
    assert bars_said(forward, "time") == "bars: 95 % intervals of the window (H200: one board)"
    assert bars_said(forward.assign(time_rel_error=np.nan), "time") == ""
    raw = forward.assign(energy_at=np.nan, energy_rel_error=np.nan)
    assert bars_said(raw, "energy") == "energy as measured"


def test_a_column_of_dashes_is_left_out(tmp_path):
    one = fleet_run(tmp_path, "at_reference", "GPU-aaaaaaaa-1111")
    other = fleet_run(tmp_path, "as_measured", "GPU-bbbbbbbb-1111", device="A100", reference=False)
    found, notes = rows_of_types(load_runs([one, other]))
    (table,) = ratio_tables(comparisons_of(found)[0])
    assert "Energy" not in table.header
    assert "energies are not compared where one is as measured and the other at 50 °C (16 rows)" in table.notes
    (said,) = [note for note in notes if note.startswith("run ")]
    assert said.startswith("run as_measured (bbbbbbbb): 16 of 16 rows have no energy at 50 °C and are compared as ")
    assert said.endswith(
        "measured: it was not measured how the power of NVIDIA A100-SXM4-80GB follows temperature, and this "
        "board covered 0 K so far (16)"
    )


def test_a_processor_is_no_board(fleet):
    _, (device,) = means_of_types(load_runs(fleet["h200"]), POINT, ["gpu"])
    assert next(statement(device)) == "H200: one board: how far boards of the type differ was not measured"
    processor = dataclasses.replace(device, name="CPU")
    assert next(statement(processor)) == "CPU: one machine: how far machines of the type differ was not measured"


def test_energy_without_a_reference_is_compared_as_measured(tmp_path):
    runs = [
        fleet_run(tmp_path, name, f"GPU-{name}", device="A100", factor=factor, reference=False)
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
    assert said["energy"] == "of the board at 50 °C (H200: one board); of the type (H100: 3 boards)"
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


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """Two boards of a type: one has energy at the reference temperature, the other is older than that column.

    A third one is as old, and clocks were held down at two of its points.
    """
    storage = tmp_path_factory.mktemp("older")
    old, new, held = (f"GPU-{letter * 8}-0000" for letter in "abc")
    return [
        fleet_run(storage, "new", new, factor=1.02, hot=1.03, seed=1),
        fleet_run(storage, "old", old, factor=1.0, hot=1.04, reference=False, seed=2),
        fleet_run(storage, "held", held, factor=1.0, hot=1.04, reference=False, limited=2, seed=3),
    ]


def _said_of(lines):
    """The lines on what was worked out afterwards."""
    return [line for line in lines if line.startswith(("energy at", "run "))]


TOLD = (
    "energy at 50 °C of 16 rows was worked out afterwards, from the temperature at the end of the window and the "
    "temperature coefficient of the type: 16 of 16 rows of run old (aaaaaaaa)"
)


def test_every_reader_compares_boards_at_the_reference_temperature_and_says_which_rows_had_to_be_told(
    older, tmp_path, capsys
):
    found, notes = rows_of_types(load_runs(older[:2]))
    assert set(found["energy_at"]) == {50.0}
    assert set(found["energy_interval"]) == {OF_TYPE}
    assert found["told_later"].all()
    assert _said_of(notes) == [TOLD]
    factor = found["energy_j"] / (found["time_s"] * 400)
    # the older board had 50 °C at the end: what it took is what it would take, with the 4 % that its sweep did not see
    assert factor.to_numpy() == pytest.approx((1.04 * 1.02) ** 0.5, rel=0.01)
    assert compare_gpus([*map(str, older[:2]), "--boards", "--out", str(tmp_path), "--tables", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert TOLD in said.splitlines()
    assert f"- {TOLD}" in (tmp_path / "boards.md").read_text().splitlines()
    (kind,) = json.loads((tmp_path / "boards.json").read_text())
    assert kind["energy at 50 °C"]["shared_rows"] == 16


def test_a_merged_run_keeps_its_rows_and_is_summed_up_at_the_reference_temperature(older, tmp_path):
    stored = (older[1] / "records.parquet", older[1] / "journal.jsonl")
    before = [path.read_bytes() for path in stored if path.exists()]
    merged = merge(older[:2], tmp_path / "both")
    assert [path.read_bytes() for path in stored if path.exists()] == before
    assert _said_of(merged.boards) == [TOLD]
    assert any(line.startswith("  energy at 50 °C: boards ") for line in merged.boards)
    kept = load_run(merged.path)
    assert kept["energy_at_reference_j"].notna().sum() == 16
    assert kept[kept["run"] == "old"]["energy_at_reference_j"].isna().all()
    (kind,) = json.loads((merged.path / "summary.json").read_text())["boards"]
    assert "energy as measured" not in kind


def test_a_run_that_cannot_be_told_is_named_with_the_reason(older):
    _, notes = rows_of_types(load_runs([older[0], older[2]]))
    told, without = _said_of(notes)
    assert told.endswith("type: 12 of 16 rows of run held (cccccccc)")
    assert without == (
        "run held (cccccccc): 4 of 16 rows have no energy at 50 °C and are compared as measured: clocks were held down "
        "(sw_power_cap) (4)"
    )
    # a run alone is compared with nothing
    assert _said_of(rows_of_types(load_runs([older[0]]))[1]) == []


def test_runs_at_two_reference_temperatures_say_so(older, tmp_path):
    other = fleet_run(tmp_path, "cool", "GPU-dddddddd-0000", device="H200", celsius=40.0)
    found, notes = rows_of_types(load_runs([older[0], other]))
    assert "energy is at 40 and 50 °C: rows at different temperatures are compared as they were measured" in notes
    (table,) = ratio_tables(comparisons_of(found)[0])
    assert "energies are not compared where one is at 40 °C and the other at 50 °C (16 rows)" in table.notes


def test_notes_of_ratios_explain_only_what_is_shown(rows, tmp_path):
    of_ratio = "±: of the ratio of both types' means, the root of the sum of squares of their intervals"
    (table,) = ratio_tables(comparisons_of(rows[0])[0])
    assert "±" not in table.header
    assert of_ratio not in table.notes
    # two boards of each type: there are intervals
    runs = [
        fleet_run(tmp_path, f"{device}-{letter}", f"GPU-{letter * 8}-{device}", device=device, factor=factor)
        for device in ("H100", "H200")
        for letter, factor in (("a", 1.0), ("b", 1.01))
    ]
    (table,) = ratio_tables(comparisons_of(rows_of_types(load_runs(runs))[0])[0])
    assert "±" in table.header
    assert of_ratio in table.notes


def test_notes_of_boards_explain_only_what_is_shown(tmp_path):
    pair = [fleet_run(tmp_path, n, f"GPU-{n * 8}-0000", device="H200", factor=f) for n, f in (("a", 1.0), ("b", 1.03))]
    (device,) = boards_of(pd.concat([load_run(run) for run in pair], ignore_index=True))
    of_boards, of_pairs, left_out = board_tables(device)
    assert of_boards.notes
    assert [note.split(":")[0] for note in of_pairs.notes][2:] == [
        "different by a factor",
        "energy as measured is that of boards at the temperatures that they had, which differ too",
    ]
    # nothing is known of this type besides the one board that is left
    assert {row[-1] for _, section in left_out.sections for row in section} == {"one board is left"}
    assert not left_out.notes


@pytest.mark.parametrize("columns", [80, 100])
def test_names_of_boards_are_whole_in_every_table_of_a_narrow_terminal(fleet, columns):
    frame = pd.concat([load_run(run) for run in fleet["h100"]], ignore_index=True)
    (device,) = boards_of(frame)
    for table in board_tables(device):
        console = Console(width=columns, file=io.StringIO(), force_terminal=False)
        console.print(table.to_rich())
        shown = console.file.getvalue()
        assert "…" not in shown
        for _, section in table.sections:
            for row in section:
                assert all(name in shown for name in row[0].split())
                assert all(word in shown for word in row[-1].split())


def test_surfaces_of_several_boards_show_energy_at_the_reference_temperature_and_say_so(older):
    frame = pd.concat([load_run(run) for run in older[:2]], ignore_index=True)
    chosen = Selection(metrics=["energy", "flops_per_j", "time"], phases=["forward"])
    energy, efficiency, time = surface_sets(frame, chosen)
    assert energy.energy_at == efficiency.energy_at == 50.0
    assert interval_of(energy) == "of the type (2 boards)"
    for surfaces in (energy, efficiency):
        _, second = _texts(draw_surfaces(surfaces, log=True))
        assert "energy by simulated, at 50 °C" in second
        assert "mean of 2 boards" in second
    assert np.isnan(time.energy_at)
    # one of the boards has no energy at 50 °C in two of the cells: none of the figure is shown at it
    frame = pd.concat([load_run(older[0]), load_run(older[2])], ignore_index=True)
    raw, _, _ = surface_sets(frame, chosen)
    assert np.isnan(raw.energy_at)
    assert "energy by simulated, as measured" in _texts(draw_surfaces(raw, log=False))[1]
    measured = frame[frame["phase"] == "forward"].groupby(["width", "tokens"])["energy_j"]
    assert raw.grids[0].values.T.ravel() == pytest.approx(np.exp(measured.agg(lambda e: np.log(e).mean())), rel=1e-3)
    # one board alone is shown as it was measured
    alone, _, _ = surface_sets(load_run(older[0]), chosen)
    assert "energy by simulated, as measured" in _texts(draw_surfaces(alone, log=False))[1]
    assert "mean of" not in _texts(draw_surfaces(alone, log=False))[1]


def test_a_surface_with_means_in_some_cells_says_in_how_many(tmp_path):
    a = fleet_run(tmp_path, "a", "GPU-aaaaaaaa-0000", factor=1.0)
    b = fleet_run(tmp_path, "b", "GPU-bbbbbbbb-0000", factor=1.02, widths=(256, 512))
    frame = pd.concat([load_run(a), load_run(b)], ignore_index=True)
    # two more boards, whose shards share no row with these
    chosen = Selection(metrics=["energy"], phases=["forward"])
    (surfaces,) = surface_sets(frame, chosen)
    assert surfaces.intervals == {OF_TYPE: 8}  # the factors of both boards are known from the rows that they share
    c = fleet_run(tmp_path, "c", "GPU-cccccccc-0000", widths=(4096,))
    (surfaces,) = surface_sets(pd.concat([frame, load_run(c)], ignore_index=True), chosen)
    assert sum(surfaces.intervals.values()) == 10
    assert surfaces.intervals[OF_TYPE] in (8, 10)
    assert surfaces.energy_at == 50.0


def _texts(figure):
    """The title of a figure and the line below it."""
    return figure.get_suptitle(), " ".join(figure.texts[-1].get_text().split()) if figure.texts else ""


def test_energy_of_the_typical_board_takes_the_factor_of_standard_loads_out(tmp_path):
    runs = [
        fleet_run(tmp_path, name, f"GPU-{name * 8}-0000", factor=factor, by_loads=factor, seed=seed)
        for seed, (name, factor) in enumerate((("a", 0.98), ("b", 1.03)))
    ]
    frame = pd.concat([load_run(run) for run in runs], ignore_index=True)
    expected = frame["energy_at_reference_j"] / frame["board_factor"]
    assert frame["energy_typical_board_j"].to_numpy() == pytest.approx(expected.to_numpy())
    assert frame["energy_typical_board_rel_error"].to_numpy() == pytest.approx((0.012**2 + 0.016**2) ** 0.5)
    assert frame["energy_typical_board_reason"].isna().all()
    (device,) = boards_of(frame)
    pairs_table = list(board_tables(device))[1]
    apart = {title: section[0][4] for title, section in pairs_table.sections}
    assert abs(float(apart["energy of the typical board at 50 °C"].rstrip("%"))) < 0.5
    assert abs(float(apart["energy at 50 °C"].rstrip("%"))) == pytest.approx(5.1, abs=0.5)
    assert any(note.startswith("energy of the typical board: ") for note in pairs_table.notes)


def test_a_row_without_a_factor_or_an_energy_says_why_it_has_none_of_the_typical_board(older):
    without = load_run(older[0])
    assert without["energy_typical_board_j"].isna().all()
    assert set(without["energy_typical_board_reason"]) == {NO_FACTOR}
    old = load_run(older[1])
    assert set(old["energy_typical_board_reason"]) == {NO_REFERENCE}
    some = open_run(older[0]).load(["energy_typical_board_reason"])
    assert set(some["energy_typical_board_reason"]) == {NO_FACTOR}
    assert "energy_typical_board_j" not in open_run(older[0]).load(["energy_j"])


def test_a_loaded_run_that_was_written_as_a_table_is_understood_by_the_audit(older, tmp_path, capsys):
    load_run(older[0]).to_csv(tmp_path / "rows.csv", index=False)
    audit_table([str(tmp_path / "rows.csv")])
    said = capsys.readouterr().out
    assert "Audit of" in said
    assert "energy_typical_board" not in said


def test_a_workload_cannot_have_a_column_that_is_computed_for_every_run():
    class Own(Description):
        name = "own"
        columns = (Column(name="energy_typical_board_j", type=float),)

    with pytest.raises(SpecError, match="energy_typical_board_j is computed when any run is loaded"):
        RecordSchema(Own())
