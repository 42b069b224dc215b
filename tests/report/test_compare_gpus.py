"""GPUs compared: merging, tables, figures, published and measured rows, and the messages about holes and marks."""

import dataclasses
import importlib.util
import io
import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from flopray.audit.hardware import peak_flops_per_s
from flopray.cli.compare_gpus import draw_run, main
from flopray.errors import InputError
from flopray.records import PhaseRecord
from flopray.report.gpus import published as gpu_published
from flopray.report.gpus.comparison import comparisons_of
from flopray.report.gpus.data import (
    EFFICIENCY,
    ENERGY,
    MEASURED,
    MFU,
    PUBLISHED,
    REST,
    TIME,
    compared_shapes,
    load_runs,
    some_of,
    tidy,
    why_missing,
)
from flopray.report.gpus.dots import ceiling_of, draw_dots
from flopray.report.gpus.figures import draw_comparison
from flopray.report.gpus.lines import draw_lines
from flopray.report.gpus.pareto import draw_pareto, front_of
from flopray.report.gpus.scatter import clusters_of, draw_scatter, pairs
from flopray.report.gpus.table import beside_table, tables_of
from flopray.report.gpus.truth import truth_table
from flopray.report.gpus.types import rows_of_types
from flopray.report.text_table import TextTable, latex
from flopray.store.run import RunFolder
from flopray.workloads.base import closed_columns
from flopray.workloads.registry import make_point

H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"
POWER_W = {"H100": 600.0, "A100": 350.0}
PHASES = ("inference", "forward", "backward", "optimizer_step", "train_step", "prefill", "decode")
LENGTHS = (256, 512, 1024)


def record(gpu, precision, tokens, phase, *, mfu=0.4, ended=1000.0, run="run", **changes):
    """A row whose time follows from an MFU; forward, backward and optimizer add up to the step."""
    spec = make_point(
        workload="llama",
        device_type=gpu,
        precision=precision,
        model="llama-3.2-1b",
        weights="random",
        attention="auto",
        checkpointing=False,
        batch_size=8,
        sequence_length=tokens,
    )
    device = {"H100": H100, "A100": A100}[gpu]
    row = {"run": run, "trial_id": spec.id, "phase": phase, "device_name": device, **spec.fields()}
    row |= closed_columns(spec, phase)
    time_s = 0.005 if phase == "optimizer_step" else row["model_flops"] / (mfu * peak_flops_per_s(device, precision))
    energy_j = time_s * POWER_W[gpu]
    made = {"optimizer_step": None, "decode": 8}.get(phase, 8 * tokens)
    row |= {"time_s": time_s, "time_rel_error": 0.004, "energy_j": energy_j, "energy_rel_error": 0.01}
    row |= {"energy_status": "ok", "power_w": POWER_W[gpu], "tokens_per_iteration": made, "ended_unix_s": ended}
    row |= {"flops_per_s": row["model_flops"] / time_s, "flops_per_j": row["model_flops"] / energy_j}
    if phase != "optimizer_step":
        row |= {"mfu": mfu, "hfu": mfu, "energy_per_token_j": energy_j / made}
    return PhaseRecord.of(**(row | changes))


def out_of_memory(whole):
    """The same row as one that did not fit."""
    kept = ("run", "trial_id", "phase", "device_name", "workload", "device_type", "precision", "execution", "model")
    kept += ("weights", "attention", "checkpointing", "batch_size", "sequence_length", "model_flops", "ended_unix_s")
    fields = {name: getattr(whole, name) for name in kept}
    return PhaseRecord.of(**fields, status="out_of_memory", status_reason="CUDA out of memory. Tried to allocate 2 GiB")


def point(gpu, precision, tokens, **changes):
    return [record(gpu, precision, tokens, phase, **changes) for phase in PHASES]


def make_run(storage, name, points):
    folder = RunFolder.create(storage, name, {})
    with folder.writer() as writer:
        writer.append([[dataclasses.replace(row, run=name) for row in rows] for rows in points])
    return folder.path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of two clusters: an H100, and an A100 on which one point did not fit."""
    storage = tmp_path_factory.mktemp("runs")
    ours = [point("H100", kind, tokens) for kind in ("fp32", "bf16") for tokens in LENGTHS]
    other = [point("A100", kind, tokens, mfu=0.5) for kind in ("fp32", "bf16") for tokens in LENGTHS]
    other[2] = [out_of_memory(row) if row.phase in ("backward", "train_step") else row for row in other[2]]
    return make_run(storage, "h100", ours), make_run(storage, "a100", other)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """flopmetrics' lines of an H100 in bf16: a forward pass that costs the same at 4 times the FLOPs."""
    folder = tmp_path_factory.mktemp("published")
    lines = []
    for name, tokens in zip(("small", "mid", "large"), LENGTHS, strict=True):
        flops = 2 * 1_235_746_816 * 8 * tokens
        line = {"config_name": name, "batch_size": 8, "input_length": tokens, "gpu_config": "h100", "precision": "bf16"}
        line |= {"forward_flops_sum": flops, "forward_gpu_time_mean": 12_000.0, "forward_gpu_time_sem": 50.0}
        line |= {"forward_energy_mean": 6.0, "forward_energy_sem": 0.1}
        if name != "large":
            line |= {"backward_flops_sum": 2 * flops, "backward_gpu_time_mean": 40_000.0 * tokens / 256}
            line |= {"backward_energy_mean": 20.0 * tokens / 256, "backward_energy_sem": 0.3}
        lines.append(json.dumps(line))
    (folder / "h100_bf16_llama3.2_1b_all_configs_results.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def both(runs, theirs):
    """One comparison of measured and published rows."""
    rows = pd.concat([rows_of_types(load_runs(runs))[0], gpu_published.load(theirs)], ignore_index=True)
    (comparison,) = comparisons_of(rows)
    return comparison


def one(rows, **values):
    """The only row with these values."""
    for name, value in values.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def marks(figure, gid):
    return [artist for axes in figure.axes for artist in axes.get_children() if artist.get_gid() == gid]


def legend_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


class TestRows:
    def test_of_several_runs_are_one_table(self, runs):
        rows, notes = rows_of_types(load_runs(runs))
        assert len(rows) == 2 * 2 * 3 * len(PHASES)
        assert set(rows["gpu"]) == {"H100", "A100"}
        assert [note for note in notes if not note.startswith(" ")] == [
            f"{gpu}: the rows do not say on which board they were measured: taken as one board"
            for gpu in ("A100", "H100")
        ]
        assert set(rows["config"]) == {"small", "mid", "large"}

    def test_a_point_measured_again_is_kept_once_and_said(self, tmp_path):
        old = make_run(tmp_path, "old", [point("H100", "bf16", 256, ended=1.0)])
        new = make_run(tmp_path, "new", [point("H100", "bf16", 256, ended=2.0, mfu=0.5)])
        for order in ((old, new), (new, old)):
            rows, notes = rows_of_types(load_runs(order))
            assert len(rows) == len(PHASES)
            assert set(rows["mfu"].dropna()) == {0.5}
            note = notes[-1]
            assert f"left out are {len(PHASES)} of old" in note

    def test_a_run_named_twice_is_read_once(self, runs):
        rows, notes = rows_of_types(load_runs([runs[0], runs[0]]))
        assert len(rows) == 6 * len(PHASES)
        assert not any("more than once" in note for note in notes)

    def test_boards_of_one_type_with_different_names_stay_apart(self, tmp_path):
        sxm = make_run(tmp_path, "sxm", [point("H100", "bf16", 256)])
        pcie = make_run(tmp_path, "pcie", [point("H100", "bf16", 256, device_name="NVIDIA H100 PCIe")])
        rows, notes = rows_of_types(load_runs([sxm, pcie]))
        assert set(rows["gpu"]) == {"H100 80GB HBM3", "H100 PCIe"}
        assert not any("more than once" in note for note in notes)

    def test_have_the_findings_they_came_with_and_those_of_the_whole_table(self, tmp_path):
        doubtful = point("H100", "bf16", 256, findings=("implausible:additivity", "note:throttled"))
        impossible = point("H100", "bf16", 512, mfu=1.6)
        rows, _ = rows_of_types(load_runs([make_run(tmp_path, "r", [doubtful, impossible])]))
        first, second = one(rows, phase="forward", config="small"), one(rows, phase="forward", config="mid")
        assert (first["findings"], first["severity"]) == (("implausible:additivity",), "implausible")
        assert "impossible:rate_above_limit" in second["findings"]
        assert second["severity"] == "impossible"

    def test_say_why_a_value_is_missing(self, runs):
        rows, _ = rows_of_types(load_runs(runs))
        hole = one(rows, gpu="A100", precision="fp32", phase="backward", config="large")
        assert why_missing(hole, EFFICIENCY) == "out of memory"
        assert why_missing(one(rows, gpu="H100", precision="bf16", phase="forward", config="mid"), EFFICIENCY) == ""
        failed = hole.to_dict() | {"status": "failed", "status_reason": "no_backward: kernel crashed"}
        assert why_missing(failed, EFFICIENCY) == "no backward: kernel crashed"
        no_meter = hole.to_dict() | {"status": "ok", "energy_status": "no_energy_source"}
        assert why_missing(no_meter, EFFICIENCY) == "no energy source"

    def test_of_different_executions_are_compared_apart(self, tmp_path):
        eager, graph = (point("H100", "bf16", 256, execution=how) for how in ("eager", "graph"))
        graph = [dataclasses.replace(row, trial_id="f" * 16) for row in graph]
        rows, _ = rows_of_types(load_runs([make_run(tmp_path, "r", [eager, graph])]))
        assert [each.title for each in comparisons_of(rows)] == ["llama-3.2-1b, eager", "llama-3.2-1b, graph"]

    def test_models_have_files_of_their_own_whatever_they_are_called(self, tmp_path):
        names = ["modèle", "modéle", "a b", "a/b", "🚀", "..", "x" * 300, "x" * 299 + "y", "llama-3.2-1b"]
        points = [
            [dataclasses.replace(row, trial_id=f"{place:016x}", extra={**row.extra, "model": name}) for row in rows]
            for place, (name, rows) in enumerate((name, point("H100", "bf16", 256)) for name in names)
        ]
        rows, _ = rows_of_types(load_runs([make_run(tmp_path, "r", points)]))
        folders = [each.folder for each in comparisons_of(rows)]
        assert len({folder.lower() for folder in folders}) == len(names)
        assert "llama-3.2-1b_eager" in folders
        for folder in folders:
            assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,150}", folder)

    def test_shapes_are_thinned_evenly_with_both_ends(self):
        assert some_of(list("abcdefg"), 3) == ["a", "d", "g"]
        assert some_of(list("ab"), 3) == ["a", "b"]

    def test_shapes_that_all_gpus_have_come_before_those_of_one(self):
        """A large grid of one GPU, and two shapes that both GPUs have, one of them in both precisions."""
        shapes = [f"d={width}" for width in range(1, 31)]
        rows = [("H100", "fp32", shape, "ok") for shape in shapes] + [("H200", "fp32", "d=7", "ok")]
        rows += [(gpu, precision, "d=11", "ok") for gpu in ("H100", "H200") for precision in ("fp32", "bf16")]
        rows += [("H200", "fp32", "d=20", "out_of_memory")]
        frame = pd.DataFrame(rows, columns=["gpu", "precision", "shape", "status"])
        assert compared_shapes(frame, shapes, 1) == ["d=11"]
        assert compared_shapes(frame, shapes, 2) == ["d=7", "d=11"]
        assert compared_shapes(frame, shapes, 4) == ["d=1", "d=7", "d=11", "d=30"]
        assert compared_shapes(frame, shapes, 40) == shapes
        assert compared_shapes(frame[frame["gpu"] == "H100"], shapes[11:], 3) == ["d=12", "d=21", "d=30"]

    def test_choosing_among_many_shapes_takes_no_work_by_shape(self):
        """A grid of 16,384 points once took minutes of pandas in a loop over its shapes."""

        def calls(count: int) -> int:
            shapes = [f"d={width}" for width in range(count)]
            frame = pd.DataFrame({"gpu": "H100", "precision": "fp32", "shape": shapes, "status": "ok"})
            seen = 0

            def count_call(*_: object) -> None:
                nonlocal seen
                seen += 1

            sys.setprofile(count_call)
            try:
                assert len(compared_shapes(frame, shapes, 10)) == 10
            finally:
                sys.setprofile(None)
            return seen

        calls(100)
        assert (calls(1000) - calls(100)) / 900 < 50


class TestPublished:
    def test_has_our_names_and_what_follows_from_its_columns(self, theirs):
        rows = gpu_published.load(theirs)
        row = one(rows, phase="forward", config="small")
        assert (row["gpu"], row["model"], row["source"]) == ("H100", "llama-3.2-1b", PUBLISHED)
        assert row["tokens_per_s"] == pytest.approx(8 * 256 / 0.012)
        assert row["energy_per_token_j"] == pytest.approx(6.0 / (8 * 256))
        assert row["mfu"] == pytest.approx(row["flops_per_s"] / 989.4e12)

    def test_a_step_is_the_sum_of_both_phases(self, theirs):
        rows = gpu_published.load(theirs)
        step = one(rows, phase="train_step", config="mid")
        assert step["energy_j"] == pytest.approx(6.0 + 40.0)
        assert step["time_s"] == pytest.approx(0.012 + 0.080)
        assert step["energy_rel_error"] == pytest.approx(1.96 * np.hypot(0.1, 0.3) / 46.0)
        assert step["flops_per_j"] == pytest.approx(step["model_flops"] / 46.0)
        hole = one(rows, phase="train_step", config="large")
        assert (hole["status"], np.isnan(hole["energy_j"])) == ("failed", True)
        assert "no backward published" in hole["status_reason"]

    def test_is_audited(self, theirs):
        rows = gpu_published.load(theirs)
        assert one(rows, phase="forward", config="large")["severity"] == "impossible"
        assert "implausible:launch_window" in one(rows, phase="forward", config="small")["findings"]
        assert set(rows.loc[rows["phase"] == REST, "severity"]) == {""}

    def test_stands_beside_the_same_model_and_never_beside_checkpointing(self, both, theirs, tmp_path):
        assert both.title == "llama-3.2-1b, eager"
        assert set(both.rows["source"]) == {MEASURED, PUBLISHED}
        again = make_run(tmp_path, "again", [point("H100", "bf16", 256, checkpointing=True, hfu=0.5)])
        rows = pd.concat([rows_of_types(load_runs([again]))[0], gpu_published.load(theirs)], ignore_index=True)
        assert [each.title for each in comparisons_of(rows)] == [
            "llama-3.2-1b, eager, checkpointing",
            "llama-3.2-1b, eager, published",
        ]

    def test_the_real_set_shows_what_is_known_of_it(self, published):
        rows = gpu_published.load(published / "architecture" / "results_optimized")
        forward = rows[rows["phase"] == "forward"]["severity"].value_counts()
        assert dict(forward) == {"impossible": 36, "implausible": 9}
        assert set(rows.loc[rows["phase"] == REST, "severity"]) == {""}
        step = rows[(rows["phase"] == "train_step") & (rows["severity"] == "impossible")]
        assert set(zip(step["gpu"], step["precision"], strict=True)) == {("A100", "fp32")}


class TestTables:
    def test_have_a_part_for_each_gpu_precision_and_source(self, both):
        titles = [table.title for table in tables_of(both)]
        assert titles[:2] == ["A100, fp32, llama-3.2-1b, eager", "A100, bf16, llama-3.2-1b, eager"]
        assert "H100, bf16, llama-3.2-1b, eager, published by flopmetrics" in titles
        assert len(titles) == 5

    def test_keep_failed_points_with_their_reason(self, both):
        table = next(iter(tables_of(both)))
        rows = dict(table.sections)["large 8 × 1024"]
        assert next(row for row in rows if row[0] == "backward")[:3] == ["backward", "OOM", ""]
        assert any("out of memory: CUDA out of memory" in note and "8 × 1024 backward" in note for note in table.notes)

    def test_show_values_with_their_errors_and_the_mark_of_the_audit(self, both):
        table = next(t for t in tables_of(both) if "published" in t.title)
        row = next(row for row in dict(table.sections)["large 8 × 1024"] if row[0] == "forward")
        assert row[:5] == ["forward", "12.0 ms", "0.8%", "6.00 J", "3.3%"]
        assert row[-1] == "✗"
        assert any(note.startswith("✗ rate above limit") for note in table.notes)

    def test_show_hfu_only_where_it_differs(self, tmp_path):
        def header_of(name, hfu):
            rows, _ = rows_of_types(load_runs([make_run(tmp_path, name, [point("H100", "bf16", 256, hfu=hfu)])]))
            table = next(tables_of(comparisons_of(rows)[0]))
            return table.header[7], table.sections[0][1][0][7]

        assert header_of("same", 0.4) == ("MFU", "40%")
        assert header_of("more", 0.5) == ("MFU/\nHFU", "40/50%")

    def test_fit_80_columns(self, both):
        said = io.StringIO()
        for table in [*tables_of(both), beside_table(both)]:
            Console(file=said, width=80).print(table.to_rich())
        assert max(map(len, said.getvalue().splitlines())) <= 80
        assert "…" not in said.getvalue()

    def test_beside_one_another_are_only_rows_that_both_have(self, both):
        table = beside_table(both)
        assert [title for title, _ in table.sections] == [f"H100 bf16 8 × {tokens}" for tokens in LENGTHS]
        steps = [row for _, rows in table.sections for row in rows if row[0] == "train_step"]
        assert len(steps) == 2
        ours = one(both.of("forward", source=MEASURED), gpu="H100", precision="bf16", config="large")
        forward = table.sections[2][1][0]
        assert forward[5] == f"{6.0 / ours['energy_j']:.2f}"

    def test_markdown_and_latex_escape_what_they_would_read_as_commands(self):
        table = TextTable("a_b", ["Phase", "x|y", ""], [("s", [["p_q", "5%", "✗"]])], ["50 % & more"])
        assert "| s | p_q | 5% | ✗ |" in table.to_markdown()
        assert "| Configuration | Phase | x\\|y | audit |" in table.to_markdown()
        assert r"p\_q & 5\% & $\times$ \\" in table.to_latex()
        assert r"\caption{a\_b. 50 \% \& more.}" in table.to_latex()
        assert latex("8 × 256 ± µ") == r"8 $\times$ 256 $\pm$ \textmu{}"


class TestFigures:
    def test_mark_findings_holes_and_ceilings(self, both):
        figure = draw_dots(both, EFFICIENCY, ("forward", "backward"))
        rows = both.of("forward", "backward", REST)
        counts = rows["severity"].value_counts()
        assert len(marks(figure, "impossible")) == counts["impossible"]
        assert len(marks(figure, "implausible")) == counts["implausible"]
        assert len(marks(figure, "hole")) == (rows["status"] != "ok").sum() == 2
        assert marks(figure, "ceiling")
        legend = legend_of(figure)
        assert {"fp32", "bf16", "audit: impossible", "no value: out of memory (1)"} <= set(legend)
        assert "no value: no backward published for this configuration (1)" in legend

    def test_what_lies_far_below_its_ceiling_is_on_a_logarithmic_scale(self, tmp_path):
        near, far = (
            comparisons_of(
                rows_of_types(load_runs([make_run(tmp_path, name, [point("H100", "bf16", 256, mfu=mfu)])]))[0]
            )[0]
            for name, mfu in (("near", 0.4), ("far", 0.01))
        )
        scales = [{axes.get_yscale() for axes in draw_dots(each, MFU, ("decode",)).axes} for each in (near, far)]
        assert scales == [{"linear"}, {"log"}]

    def test_a_panel_is_no_wider_than_its_points_need(self, both, tmp_path):
        alone = comparisons_of(rows_of_types(load_runs([make_run(tmp_path, "r", [point("H100", "bf16", 256)])]))[0])[0]
        (panel,) = draw_dots(alone, TIME, ("decode",)).axes
        left, right = panel.get_position().x0, panel.get_position().x1
        assert right - left < 0.25
        assert left > 1 - right  # in the middle, with room for its labels
        assert all(axes.get_position().x1 <= 1 for axes in draw_dots(both, TIME, ("forward", "backward")).axes)

    def test_phases_have_the_same_names_in_all_figures(self, both):
        for figure in (draw_dots(both, TIME, ("train_step",)), draw_pareto(both)):
            words = {axes.get_ylabel().splitlines()[0] for axes in figure.axes if axes.get_ylabel()}
            assert "training step" in words
            assert "train_step" not in words
        assert "batch × tokens of a sequence" in " ".join(text.get_text() for text in draw_pareto(both).texts)

    def test_efficiency_is_held_against_the_same_chip_at_the_same_precision(self, both):
        row = one(both.of("forward", source=MEASURED), gpu="A100", precision="bf16", config="mid").to_dict()
        assert ceiling_of(row, EFFICIENCY) == pytest.approx(312e12 / 400)
        assert ceiling_of(row, MFU) == 1.0
        assert ceiling_of(row | {"device_name": "", "device_type": "CPU"}, EFFICIENCY) is None

    @pytest.mark.slow
    def test_without_values_there_is_none(self, tmp_path):
        unmetered = {"energy_j": None, "energy_rel_error": None, "flops_per_j": None, "energy_per_token_j": None}
        unmetered |= {"power_w": None, "energy_status": "no_energy_source"}
        points = [point("H100", "bf16", tokens, **unmetered) for tokens in LENGTHS]
        (comparison,) = comparisons_of(rows_of_types(load_runs([make_run(tmp_path, "r", points)]))[0])
        paths, missing = draw_comparison(comparison, tmp_path / "out")
        assert {path.stem for path in paths} == {"time_training", "time_generating", "mfu_training", "mfu_generating"}
        assert {"flops_per_j_training", "forward_backward", "pareto", "energy_over_length"} <= set(missing)

    def test_pareto_front_is_what_no_other_point_beats(self):
        rows = pd.DataFrame(
            {
                "time_per_token_s": [1, 2, 3, 2.5, 0.1],
                "energy_per_token_j": [9.0, 4.0, 1.0, 5.0, 0.1],
                "severity": ["", "", "", "", "impossible"],
                "source": MEASURED,
            }
        )
        assert front_of(rows).tolist() == [0, 1, 2]
        assert front_of(rows.assign(source=[PUBLISHED, *[MEASURED] * 4])).tolist() == [1, 2]
        assert front_of(rows.assign(source=PUBLISHED)).tolist() == [0, 1, 2]

    def test_pareto_has_a_panel_for_each_whole_phase_and_shape(self, both):
        figure = draw_pareto(both)
        assert [axes.get_title() for axes in figure.axes if axes.get_title()] == both.shapes
        phases = [axes.get_ylabel().splitlines()[0] for axes in figure.axes if axes.get_ylabel()]
        assert phases == ["inference", "forward", "training step", "prefill", "decode"]
        assert len(marks(figure, "front")) == 5 * 3

    def test_layers_of_different_sizes_compete_by_flops(self, tmp_path):
        points = []
        for width, time_s, energy_j in ((256, 1e-5, 1e-3), (2048, 1e-4, 2e-2)):
            spec = make_point(workload="mlp", device_type="H100", n_layers=2, width=width, tokens=64)
            row = {"trial_id": spec.id, "phase": "forward", "device_name": H100, **spec.fields()}
            row |= closed_columns(spec, "forward") | {"time_s": time_s, "energy_j": energy_j, "energy_status": "ok"}
            row |= {"tokens_per_iteration": 64, "flops_per_s": row["model_flops"] / time_s}
            points.append([PhaseRecord.of(**row, flops_per_j=row["model_flops"] / energy_j)])
        (comparison,) = comparisons_of(rows_of_types(load_runs([make_run(tmp_path, "r", points)]))[0])
        figure = draw_pareto(comparison)
        (axes,) = figure.axes
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("rate (TFLOP/s)", "efficiency (GFLOP/J)")
        best = comparison.rows.sort_values("width").iloc[1]  # a token through the small layers would have won
        (front,) = marks(figure, "front")
        assert front.get_xdata()[0] == best["flops_per_s"]
        assert front.get_ydata()[-1] == best["flops_per_j"]

    @pytest.mark.slow
    def test_one_figure_has_one_unit_for_a_quantity(self, both):
        for metric in (EFFICIENCY, TIME, ENERGY):
            figure = draw_dots(both, metric, ("forward", "backward", "optimizer_step", "train_step"))
            units = {axes.get_ylabel().rpartition("(")[2] for axes in figure.axes if axes.get_ylabel()}
            assert len(units) == 1
        figure = draw_lines(both)
        for side in (0, 1):
            assert len({axes.get_ylabel().rpartition("(")[2] for axes in figure.axes[side::2]}) == 1

    def test_no_column_is_empty_where_only_others_published(self, runs, theirs):
        rows = pd.concat(
            [rows_of_types(load_runs(runs))[0], gpu_published.load(theirs).assign(gpu="V100")], ignore_index=True
        )
        (comparison,) = comparisons_of(rows)
        assert comparison.gpus == ["A100", "H100", "V100"]
        names = [
            [label.get_text() for label in draw_dots(comparison, TIME, phases).axes[-1].get_xticklabels()]
            for phases in (("inference", "decode"), ("forward", "backward"))
        ]
        assert names == [["A100", "H100"], ["A100", "H100", "V100"]]

    def test_scatter_pairs_forward_with_backward_of_the_same_point(self, both):
        points = pairs(both)
        assert len(points) == 11 + 2  # one point of the A100 and one published line have no backward pass
        published = points[points["source"] == PUBLISHED]
        assert set(published["severity"]) == {"implausible"}
        assert sum(len(mark.get_xdata()) for mark in marks(draw_scatter(both), "implausible")) == 2

    def test_clusters_are_chains_of_near_points_without_a_mark(self):
        places = [1.0, 1.3, 1.6, 10.0, 12.0, 100.0, 1.4]
        points = pd.DataFrame({"flops_per_j": places, "flops_per_j_backward": places})
        points["severity"] = [""] * 6 + ["impossible"]
        assert [group.tolist() for group in clusters_of(points)] == [[0, 1, 2], [3, 4]]

    def test_lines_run_over_the_lengths_of_each_gpu_and_precision(self, both):
        figure = draw_lines(both)
        drawn = [line for line in figure.axes[2].get_lines() if line.get_linestyle() != "None"]
        lines = [line for line in drawn if line.get_gid() != "bars"]
        assert len(lines) == 5  # two precisions on two GPUs, and the published one
        assert "no value: out of memory (1)" in legend_of(figure)  # counted once, though drawn in both panels


class TestTruth:
    def test_is_three_lines_of_markdown(self, both):
        lines = truth_table(both.rows, "h100", "bf16").splitlines()
        assert [line.split(":")[0] for line in lines[2:5]] == ["| small", "| mid", "| large"]
        assert all(line.count("|") == 7 for line in lines[:5])
        assert "**impossible**: 1.7 x peak FLOP/s" in lines[4]
        ours = one(both.of("forward", source=MEASURED), gpu="H100", precision="bf16", config="large")
        assert lines[4].endswith(f"{ours['flops_per_j'] / 1e12:.2f} T ± 1.0% | 6.0 | {ours['energy_j']:.1f} ± 1.0% |")

    def test_says_what_was_not_measured(self, theirs):
        assert truth_table(gpu_published.load(theirs), "H100", "bf16").count("not measured") == 6

    def test_of_an_unknown_gpu_names_those_that_there_are(self, both):
        with pytest.raises(InputError, match=r"truth B200:bf16: nothing published; there is H100"):
            truth_table(both.rows, "B200", "bf16")


class TestCommand:
    @pytest.mark.slow
    def test_writes_tables_and_figures(self, runs, theirs, tmp_path, capsys, unrendered):
        command = [*map(str, runs), "--published", str(theirs), "--out", str(tmp_path), "--tables", str(tmp_path / "t")]
        assert main(command) == 0
        said = capsys.readouterr()
        assert "Published beside measured" in said.out
        assert said.err == ""
        table = pd.read_csv(tmp_path / "t" / "gpus.csv")
        assert len(table) == 2 * 2 * 3 * len(PHASES) + 9
        hole = table[table["status"] == "out_of_memory"]
        assert hole["time_s"].isna().all()
        assert hole["status_reason"].str.contains("CUDA out of memory").all()
        assert set(table["severity"].dropna()) == {"impossible", "implausible"}
        names = {path.stem for path in (tmp_path / "gpus" / "llama-3.2-1b_eager").iterdir()}
        assert {"flops_per_j_training", "time_generating", "forward_backward", "pareto"} <= names
        assert {"energy_over_length", "mfu_training"} <= names
        assert r"\begin{tabular}" in (tmp_path / "t" / "gpus.tex").read_text()
        assert (tmp_path / "gpus.html").exists() == (importlib.util.find_spec("plotly") is not None)

    @pytest.mark.slow
    def test_everything_goes_to_the_folder_that_is_named(self, runs, tmp_path, unrendered):
        def tree():
            return {path for path in runs[0].rglob("*") if path.is_file()}

        before = tree()
        assert main([str(runs[0]), "--out", str(tmp_path / "cg"), "--no-html"]) == 0
        assert {"gpus.csv", "gpus.md", "gpus.tex", "gpus"} <= {path.name for path in (tmp_path / "cg").iterdir()}
        assert tree() == before

    @pytest.mark.slow
    def test_published_alone_needs_a_place_for_its_figures(self, theirs, tmp_path, capsys):
        assert main(["--published", str(theirs)]) == 0
        assert "name one with --out DIR" in capsys.readouterr().out
        assert main(["--published", str(theirs), "--out", str(tmp_path)]) == 0
        assert (tmp_path / "gpus" / "llama-3.2-1b_eager_published" / "pareto.png").exists()
        assert (tmp_path / "gpus.md").exists()

    def test_truth_prints_nothing_else(self, runs, theirs, capsys):
        assert main([str(runs[0]), "--published", str(theirs), "--truth", "H100"]) == 0
        assert capsys.readouterr().out.startswith("| llama-3.2-1b, bf16, H100, forward |")

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ([], "name at least one RUN"),
            (["RUN", "--truth", "H100"], "name them with --published DIR"),
            (["--published", "THEIRS", "--truth", "H100:int8"], "'H100:int8' is not GPU[:PRECISION]"),
            (["RUN", "--formats", "bmp"], "--formats: unknown 'bmp', choose from png, svg, pdf"),
            (["/nowhere"], "/nowhere"),
            (["--published", "/nowhere"], "no .jsonl file of flopmetrics"),
            (["RUN", "--tables", "/dev/null/x"], "/dev/null/x: tables cannot be written"),
            (["RUN", "--tables", "OUT", "--out", "/dev/null/x"], "cannot write /dev/null/x"),
        ],
    )
    def test_bad_input_is_one_line_and_exit_code_2(self, words, says, runs, theirs, tmp_path, capsys):
        places = {"RUN": str(runs[0]), "THEIRS": str(theirs), "OUT": str(tmp_path)}
        try:
            code = main([places.get(word, word) for word in words])
        except SystemExit as stop:
            code = stop.code
        error = capsys.readouterr().err
        assert code == 2
        assert says in error
        assert len(error.splitlines()) == 1

    def test_help_teaches(self, capsys):
        with pytest.raises(SystemExit) as stop:
            main(["--help"])
        assert stop.value.code == 0
        said = capsys.readouterr().out
        for words in ("--published", "Pareto front", "red cross", "exit codes"):
            assert words in said


class TestEndOfASweep:
    @pytest.mark.slow
    def test_draws_and_tabulates_into_the_run(self, tmp_path, unrendered):
        run = make_run(tmp_path, "r", [point("H100", "bf16", tokens) for tokens in LENGTHS])
        said = io.StringIO()
        draw_run(run, Console(file=said, width=200))
        assert {path.name for path in (run / "tables").iterdir()} == {"gpus.csv", "gpus.md", "gpus.tex"}
        assert len(list((run / "plots" / "gpus").rglob("*.png"))) == 11
        assert "figures: " in said.getvalue()

    def test_a_run_without_rows_is_bad_input(self, tmp_path):
        with pytest.raises(InputError, match="no rows yet"):
            draw_run(RunFolder.create(tmp_path, "r", {}).path, Console(file=io.StringIO()))

    def test_an_mlp_is_compared_too_with_its_shapes_thinned(self, tmp_path, capsys, unrendered):
        points = []
        for tokens in range(32, 352, 32):
            spec = make_point(workload="mlp", device_type="H100", n_layers=2, width=256, tokens=tokens)
            row = {"trial_id": spec.id, "phase": "forward", "device_name": H100, **spec.fields()}
            row |= closed_columns(spec, "forward")
            row |= {"time_s": 1e-5, "energy_j": 1e-3, "flops_per_j": row["model_flops"] / 1e-3, "energy_status": "ok"}
            points.append([PhaseRecord.of(**row)])
        assert main([str(make_run(tmp_path, "r", points))]) == 0
        said = capsys.readouterr().out
        assert "8 of 10 shapes are shown; the CSV has all" in said
        assert "n=2 d=256 m=320" in said
        assert len(pd.read_csv(tmp_path / "r" / "tables" / "gpus.csv")) == 10
        assert (tmp_path / "r" / "plots" / "gpus" / "MLP_eager" / "pareto.png").exists()


def test_rows_with_few_columns_are_tidied_all_the_same():
    """Tables of other tools have no findings, no errors and no status."""
    frame = pd.DataFrame({"workload": ["llama"], "phase": ["forward"], "precision": ["bf16"], "device_type": ["H100"]})
    frame = frame.assign(batch_size=8, sequence_length=256, model_flops=1e15, time_s=0.1, flops_per_s=1e16)
    row = tidy(frame, MEASURED).iloc[0]
    assert (row["status"], row["severity"], row["config"]) == ("ok", "impossible", "small")
