"""`python analysis/compare_flops.py`: what it prints, writes and draws, and what it refuses."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from flopray.cli.compare_flops import main
from flopray.flops.executed.overheads import overheads
from flopray.records import KERNEL_CLASSES, PhaseRecord
from flopray.report.flops.data import extra_flops, groups_of, holes, load_published_group, load_runs, reconstructed
from flopray.report.flops.maps import draw_maps
from flopray.report.flops.ratio_plots import draw_excess, draw_extra
from flopray.report.flops.tiles import rounded_up
from flopray.store.run import RunFolder
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point

ROOT = Path(__file__).resolve().parents[2]
LAYERS, WIDTHS, TOKENS, PHASES = (2, 4), (128, 256, 512, 1024), (16, 48, 64, 128), ("forward", "backward")
HEADER = (
    "n,d,m,ncu_total_flops_fwd,theoretical_total_flops_fwd,ncu_total_flops_bwd,theoretical_total_flops_bwd,"
    "omega_fwd,rho_fwd,kappa_fwd,omega_bwd,rho_bwd,kappa_bwd\n"
)


def classes(n: int, d: int, m: int, phase: str) -> dict[str, int]:
    """Executed FLOPs by class of a chip with tiles of (128, 32) that splits products of small outputs."""
    products = n if phase == "forward" else 2 * n - 1
    tiled = 2 * int(rounded_up(np.float64(d), 128) * rounded_up(np.float64(m), 32)) * d
    found = dict.fromkeys(KERNEL_CLASSES, 0)
    found |= {"gemm": products * tiled, "reduction": products * 3 * d * m if d * m < 50_000 else 0}
    return found | {"elementwise": (16 if phase == "forward" else 3) * n * d * m, "other": n * d}


def record(n: int, d: int, m: int, phase: str, precision: str = "fp32", *, counted: bool = True) -> PhaseRecord:
    spec = make_point(workload="mlp", device_type="H100", n_layers=n, width=d, tokens=m, precision=precision)
    closed = MLP().closed_form(spec, phase)
    model = sum(closed.values())
    row: dict = {
        "workload": "mlp",
        "phase": phase,
        "precision": precision,
        "execution": "eager",
        **spec.shape(),
        **closed,
    }
    row |= {"trial_id": spec.id, "device_type": "H100", "device_name": "NVIDIA H100 80GB HBM3"}
    row |= {"model_flops": model, "dispatched_flops": closed["gemm_flops"]}
    row["dispatched_rel_difference"] = closed["gemm_flops"] / model - 1
    if not counted:
        reason = "Nsight Compute may not read counters here"
        return PhaseRecord.of(**row, counters_status="no_counter_permission", counters_reason=reason)
    parts = classes(n, d, m, phase)
    total = sum(parts.values())
    row |= {f"executed_{name}_flops": flops for name, flops in parts.items()}
    row |= {"executed_flops": total, "executed_rel_difference": total / model - 1, "counters_status": "ok"}
    row["executed_other_rel"] = parts["other"] / total
    names = {"gemm": "sm80_xmma_gemm_f32f32", "reduction": "splitKreduce_kernel", "other": "mystery_[kernel]"}
    kernels = (
        {"name": names.get(c, c), "class": c, "launches": n, "tensor_flops": 0, "cuda_flops": flops}
        for c, flops in parts.items()
        if flops
    )
    return PhaseRecord.of(
        **row, **overheads(row, MLP().reduction_elements(spec, phase)), kernels=tuple(map(json.dumps, kernels))
    )


def make_run(storage: Path, name: str = "run", precisions=("fp32",), uncounted=(), shapes=None) -> Path:
    """A run's folder of all shapes; `uncounted` are shapes (n, d, m) whose counters could not be read."""
    shapes = shapes or [(n, d, m) for n in LAYERS for d in WIDTHS for m in TOKENS]
    folder = RunFolder.create(storage, name, {})
    with folder.writer() as writer:
        for precision in precisions:
            writer.append(
                [record(*shape, phase, precision, counted=shape not in uncounted) for phase in PHASES]
                for shape in shapes
            )
    return folder.path


def published_file(folder: Path) -> Path:
    """A table as flopmetrics publishes it, of the same chip."""
    lines = []
    for n in LAYERS:
        for d in WIDTHS:
            for m in TOKENS:
                both = [record(n, d, m, phase) for phase in PHASES]
                flops = [f"{r.executed_flops - r.executed_other_flops},{r.model_flops}" for r in both]
                names = ("gemm_overhead", "splitk_per_element", "activation_overhead")
                lines.append(",".join([f"{n},{d},{m}", *flops, *(repr(getattr(r, c)) for r in both for c in names)]))
    path = folder / "published.csv"
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs"), precisions=("fp32", "bf16"), uncounted=[(4, 1024, 128)])


@pytest.fixture(scope="module")
def compared(run, tmp_path_factory) -> dict[str, str]:
    """What one full command printed, and where it drew."""
    folder = tmp_path_factory.mktemp("out")
    csv, theirs = folder / "rows.csv", published_file(folder)
    command = [str(run), "--published", str(theirs), "--csv", str(csv), "--out", str(folder)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        # As `unrendered`, which is of one test: images take most of the time, and other tests make some.
        patch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).touch())
        assert main(command) == 0
    return {"out": out.getvalue(), "csv": str(csv), "folder": str(folder / "flops")}


@pytest.mark.slow
class TestTable:
    def test_fits_80_columns(self, compared):
        wide = [line for line in compared["out"].splitlines() if len(line) > 80 and "/" not in line]
        assert wide == []

    def test_has_a_part_for_each_device_precision_and_execution(self, compared):
        for precision in ("bf16", "fp32"):
            assert f"NVIDIA H100 80GB HBM3, {precision}, eager" in compared["out"]
        assert "Ampere (published), fp32" in compared["out"]

    def test_counts_the_rows_that_add_up_and_the_holes(self, compared):
        points = len(LAYERS) * len(WIDTHS) * len(TOKENS)
        assert compared["out"].count(f"all {points - 1} ") == 4
        assert compared["out"].count(f"all {points} ") == 2
        assert "without counters: 4 rows, no counter permission: Nsight Compute may not" in compared["out"]

    def test_lists_kernels_and_those_without_a_class(self, compared):
        assert "sm80_xmma_gemm_f32f32" in compared["out"]
        assert "mystery_[kernel]" in compared["out"]

    def test_prints_the_formula_and_its_held_out_errors(self, compared):
        assert compared["out"].count("⌈m/32⌉32") >= 3
        assert "    16       n d m" in compared["out"]
        assert "token counts m" in compared["out"]
        assert "d ≥ 512" in compared["out"]


class TestCsv:
    def test_has_every_row_with_holes_empty(self, compared):
        table = pd.read_csv(compared["csv"])
        points = len(LAYERS) * len(WIDTHS) * len(TOKENS)
        assert len(table) == 3 * 2 * points
        hole = table[(table["n_layers"] == 4) & (table["width"] == 1024) & (table["tokens"] == 128)]
        hole = hole[hole["device_type"] == "H100"]
        assert hole["executed_flops"].isna().all()
        assert hole["reconstructed_flops"].isna().all()
        assert set(hole["counters_status"]) == {"no_counter_permission"}
        counted = table[table["executed_flops"].notna()]
        assert (counted["reconstructed_flops"] == counted["executed_flops"]).all()

    def test_that_cannot_be_written_is_bad_input(self, run, capsys):
        assert main([str(run), "--csv", "/nowhere/at/all.csv"]) == 2
        assert "--csv /nowhere/at/all.csv: cannot be written" in capsys.readouterr().err


class TestFigures:
    def test_are_drawn_for_each_phase_with_filtered_ones_beside(self, compared):
        folder = Path(compared["folder"]) / "H100_fp32_eager"
        names = {path.stem for path in folder.iterdir()}
        for phase in PHASES:
            assert {f"excess_{phase}", f"held_out_{phase}", f"classes_{phase}", f"classes_{phase}_dmin512"} <= names
            for scale in ("linear", "log"):
                assert {f"overheads_{phase}_{scale}", f"overheads_{phase}_{scale}_dmin512"} <= names
        assert {path.name for path in folder.parent.iterdir()} == {"H100_fp32_eager", "H100_bf16_eager"}

    def test_published_maps_have_the_scales_of_ours(self, run, tmp_path):
        groups = [groups_of(load_runs([run]))[1], load_published_group(published_file(tmp_path))]
        figure = draw_maps(groups, "forward", log=True, min_width=0, n_layers=None)
        assert figure is not None
        maps = [axes.collections[0] for axes in figure.axes if axes.get_xlabel() == "width d" or axes.collections]
        ours, theirs = maps[0].get_clim(), maps[2].get_clim()
        assert ours == theirs
        assert [text.get_text() for text in figure.texts[:2]] == [
            "NVIDIA H100 80GB HBM3, fp32, eager, n = 4 layers",
            "Ampere (published), fp32, n = 4 layers",
        ]

    def test_maps_leave_a_hole_where_nothing_was_counted(self, run):
        group = groups_of(load_runs([run]))[0]
        figure = draw_maps([group], "forward", log=False, min_width=0, n_layers=4)
        assert figure is not None
        mesh = figure.axes[0].collections[0]
        assert np.argwhere(np.ma.getmaskarray(mesh.get_array())).tolist() == [[3, 3]]

    def test_a_map_of_one_value_says_which(self, run):
        group = groups_of(load_runs([run]))[0]
        kappa = group.of("forward")["activation_overhead"].unique()
        figure = draw_maps([group], "forward", log=True, min_width=0, n_layers=4)
        assert figure is not None
        texts = [text.get_text() for axes in figure.axes for text in axes.texts if "everywhere" in text.get_text()]
        assert len(kappa) == 1
        assert texts == [f"{kappa[0]:.1f} everywhere"]
        bars = [axes for axes in figure.axes if axes.get_gid() == "colour bar"]
        assert len(bars) == len(figure.axes) - len(bars) - 1 == 2

    def test_colour_bars_end_where_the_values_do(self, run):
        group = groups_of(load_runs([run]))[0]
        rows = group.of("forward").query("n_layers == 4")
        for log in (False, True):
            figure = draw_maps([group], "forward", log=log, min_width=0, n_layers=4)
            assert figure is not None
            bar = next(axes for axes in figure.axes if axes.get_gid() == "colour bar")
            assert bar.get_ylim() == pytest.approx((rows["gemm_overhead"].min(), rows["gemm_overhead"].max()))

    def test_excess_lines_are_the_ratios_of_the_rows(self, run):
        group = groups_of(load_runs([run]))[0]
        figure = draw_excess([group], "forward", n_layers=2)
        line = next(line for line in figure.axes[0].get_lines() if line.get_label() == "m = 48")
        expected = [sum(classes(2, d, 48, "forward").values()) / (2 * 2 * d * d * 48 + 2 * d * 48) - 1 for d in WIDTHS]
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), expected)

    def test_shares_of_extra_flops_add_up_to_all_of_them(self, run):
        group = groups_of(load_runs([run]))[0]
        figure = draw_extra([group], "backward", min_width=0)
        tops = {}
        for bar in figure.axes[0].patches:
            tops[bar.get_x()] = max(tops.get(bar.get_x(), 0.0), bar.get_y() + bar.get_height())
        assert list(tops.values()) == pytest.approx([100.0] * len(WIDTHS))


class TestData:
    def test_extra_flops_are_executed_less_closed_form_by_class(self, run):
        rows = groups_of(load_runs([run]))[0].rows
        extra = extra_flops(rows)
        total = rows["executed_flops"].astype(float) - rows["model_flops"].astype(float)
        np.testing.assert_allclose(extra.sum(axis=1), total)

    def test_every_counted_row_is_reconstructed(self, run):
        rows = groups_of(load_runs([run]))[0].rows
        assert (reconstructed(rows) == rows["executed_flops"]).all()

    def test_holes_are_counted_by_reason(self, run):
        assert list(holes(load_runs([run])).values()) == [4]

    def test_runs_that_share_points_are_counted_once(self, tmp_path):
        paths = [make_run(tmp_path, name, shapes=[(2, 128, 16), (2, 256, 16)]) for name in ("a", "b")]
        assert len(load_runs(paths)) == 4

    def test_published_points_add_up(self, published):
        group = load_published_group(published / "metrics" / "20250922-120007_n2-32_d128-2048_m16-256.csv")
        assert len(group.rows) == 2560
        assert (reconstructed(group.rows) == group.rows["executed_flops"]).all()


class TestCommandLine:
    def test_figures_of_a_run_go_into_its_plots(self, tmp_path, capsys):
        run = make_run(tmp_path, shapes=[(2, 128, 16), (2, 128, 32)])
        assert main([str(run), "--min-width", "0"]) == 0
        assert (run / "plots" / "flops" / "H100_fp32_eager" / "excess_forward.png").stat().st_size > 10_000
        out = capsys.readouterr().out
        assert "compare-flops draws its figures, which takes some seconds ..." in out
        assert f"figures: {run}/plots/flops/H100_fp32_eager/" in out

    def test_published_alone_needs_no_run(self, tmp_path, capsys, unrendered):
        theirs = published_file(tmp_path)
        assert main(["--published", str(theirs)]) == 0
        assert "--out DIR" in capsys.readouterr().out
        assert main(["--published", str(theirs), "--out", str(tmp_path / "out")]) == 0
        assert list((tmp_path / "out" / "flops").glob("Ampere*/excess_backward.png"))

    def test_a_few_points_are_compared_without_a_formula(self, tmp_path, capsys):
        run = make_run(tmp_path, shapes=[(2, 128, 16), (2, 128, 32)])
        assert main([str(run), "--min-width", "0", "--formats", "svg", "--no-html"]) == 0
        assert "no formula: 2 points" in capsys.readouterr().out
        names = {path.name for path in (run / "plots" / "flops" / "H100_fp32_eager").iterdir()}
        assert names == {f"{kind}_{phase}.svg" for kind in ("excess", "classes") for phase in PHASES}

    def test_a_run_without_counters_is_one_line_that_says_how_to_count(self, tmp_path, capsys):
        run = make_run(tmp_path, shapes=[(2, 128, 16)], uncounted=[(2, 128, 16)])
        assert main([str(run)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert "--instruments counters" in captured.err
        assert "may not read counters here (2 rows)" in captured.err

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ([], "at least one RUN"),
            (["{folder}/absent"], "absent"),
            (["--published", "{folder}/absent.csv"], "absent.csv"),
            (["{run}", "--formats", "bmp"], "--formats: unknown 'bmp', choose from png, svg, pdf"),
            (["{run}", "--out", "/proc/flops"], "cannot write"),
            (["{run}", "--html"], "--html: of FLOPs there are figures and no page"),
        ],
    )
    def test_bad_input_is_one_line_and_exit_code_2(self, run, tmp_path, capsys, arguments, says):
        words = [word.format(folder=tmp_path, run=run) for word in arguments]
        try:
            code = main(words)
        except SystemExit as error:
            code = error.code
        assert code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert says in error

    def test_help_teaches_the_words(self, capsys):
        with pytest.raises(SystemExit) as ended:
            main(["--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert "--instruments counters" in shown
        assert "what the words mean" in shown
