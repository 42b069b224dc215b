"""Surfaces: they show the values of the records, holes are visible, and bad input ends in one line."""

from __future__ import annotations

import io
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection, QuadMesh
from mpl_toolkits.mplot3d.art3d import Path3DCollection
from rich.console import Console

from flopray.cli import surfaces
from flopray.errors import InputError
from flopray.records import PhaseRecord
from flopray.report import page
from flopray.report.plot.figures import paper_style
from flopray.report.plot.scales import ValueScale, axis_ticks, cell_edges, cell_unit, display_unit, spacing_of
from flopray.report.surface.data import NOT_MEASURED, SurfaceSet, surface_sets
from flopray.report.surface.html import page_text
from flopray.report.surface.lines import draw_lines
from flopray.report.surface.plots import MAX_PANELS, draw_surfaces, font_pt_for
from flopray.report.surface.selection import METRICS, Selection
from flopray.store.run import RunFolder
from flopray.workloads.registry import make_point

LAYERS, WIDTHS, TOKENS = (2, 8), (128, 256, 512, 1024), (16, 64, 256)
POWER_W = 300.0


def flops_of(n: int, d: int, m: int) -> int:
    return 2 * n * d * d * m + n * d * m


def time_of(n: int, d: int, m: int) -> float:
    return 5e-6 * n + flops_of(n, d, m) / 4e13


def record(n: int, d: int, m: int, phase: str = "forward", **changes: object) -> PhaseRecord:
    """A measured row by formula: launch time plus FLOPs at a fixed rate, at constant power."""
    flops, time_s = flops_of(n, d, m), time_of(n, d, m)
    spec = make_point(workload="mlp", device_type="H100", n_layers=n, width=d, tokens=m)
    columns: dict = {
        "trial_id": spec.id,
        "phase": phase,
        "workload": "mlp",
        "device_type": "H100",
        "precision": "fp32",
        "execution": "eager",
        "n_layers": n,
        "width": d,
        "tokens": m,
        "device_name": "NVIDIA H100 80GB HBM3",
        "ended_unix_s": 1.0,
        "model_flops": flops,
        "dispatched_flops": 2 * n * d * d * m,
        "dispatched_rel_difference": 2 * n * d * d * m / flops - 1,
        "time_s": time_s,
        "time_rel_error": 0.01,
        "flops_per_s": flops / time_s,
        "mfu": flops / time_s / 6.7e13,
        "energy_status": "ok",
        "energy_source": "nvml_counter",
        "energy_j": POWER_W * time_s,
        "energy_rel_error": 0.02,
        "flops_per_j": flops / time_s / POWER_W,
    }
    return PhaseRecord.of(**{**columns, **changes})


HOLE = {"time_s": None, "flops_per_s": None, "mfu": None, "energy_j": None, "flops_per_j": None}
OOM = {**HOLE, "status": "out_of_memory", "energy_status": "not_requested"}


def frame_of(records: list[PhaseRecord]) -> pd.DataFrame:
    return pd.DataFrame([r.columns() for r in records])


def grid(layers=LAYERS, widths=WIDTHS, tokens=TOKENS, phases=("forward",), special=None) -> pd.DataFrame:
    """Records of a full grid; `special` maps (n, d, m) to changed columns."""
    special = special or {}
    return frame_of(
        [
            record(n, d, m, phase, **special.get((n, d, m), {}))
            for n in layers
            for d in widths
            for m in tokens
            for phase in phases
        ]
    )


def one_set(frame: pd.DataFrame, metric: str, **selection) -> SurfaceSet:
    found = list(surface_sets(frame, Selection(metrics=[metric], **selection)))
    assert len(found) == 1
    return found[0]


def meshes(figure) -> list[QuadMesh]:
    """The heat maps of a figure, without its colour bar."""
    return [
        artist
        for axes in figure.axes
        if axes.get_xlabel() == "width d"
        for artist in axes.collections
        if isinstance(artist, QuadMesh)
    ]


def legend_texts(figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class TestHeatMap:
    def test_colours_are_the_values_of_the_frame_in_si_units(self):
        figure = draw_surfaces(one_set(grid(), "time"), log=False)
        for mesh, n in zip(meshes(figure), LAYERS, strict=True):
            expected = [[time_of(n, d, m) for d in WIDTHS] for m in TOKENS]
            np.testing.assert_array_equal(mesh.get_array(), expected)

    def test_cells_lie_at_their_width_and_tokens(self):
        special = {(8, 512, 64): {"time_s": 1.0}}
        figure = draw_surfaces(one_set(grid(special=special), "time"), log=False)
        mesh = meshes(figure)[1]
        row, column = np.argwhere(mesh.get_array() == 1.0)[0]
        corners = mesh.get_coordinates()
        low, high = corners[row, column], corners[row + 1, column + 1]
        assert low[0] < 512 < high[0]
        assert low[1] < 64 < high[1]

    def test_a_hole_is_masked_and_the_legend_names_its_reason(self):
        figure = draw_surfaces(one_set(grid(special={(8, 1024, 256): OOM}), "time"), log=True)
        masks = [np.ma.getmaskarray(mesh.get_array()) for mesh in meshes(figure)]
        assert not masks[0].any()
        assert np.argwhere(masks[1]).tolist() == [[2, 3]]
        assert "out of memory (1)" in legend_texts(figure)

    def test_a_hole_is_hatched_where_it_lies(self):
        figure = draw_surfaces(one_set(grid(layers=(8,), special={(8, 1024, 256): OOM}), "time"), log=True)
        axes = next(axes for axes in figure.axes if axes.get_xlabel() == "width d")
        (patches,) = [a for a in axes.collections if isinstance(a, PatchCollection)]
        (path,) = patches.get_paths()
        box = path.get_extents()
        assert patches.get_hatch()
        assert box.x0 < 1024 < box.x1
        assert box.y0 < 256 < box.y1

    def test_a_point_without_a_row_is_not_measured(self):
        frame = grid().query("not (n_layers == 2 and width == 256 and tokens == 64)")
        figure = draw_surfaces(one_set(frame, "time"), log=False)
        assert np.ma.getmaskarray(meshes(figure)[0].get_array())[1, 1]
        assert f"{NOT_MEASURED} (1)" in legend_texts(figure)

    def test_without_holes_and_findings_there_is_no_legend(self):
        assert legend_texts(draw_surfaces(one_set(grid(), "time"), log=False)) == []

    def test_small_grids_are_annotated_with_three_digits(self):
        figure = draw_surfaces(one_set(grid(layers=(2,)), "time"), log=False)
        texts = {text.get_text() for axes in figure.axes for text in axes.texts}
        microseconds = time_of(2, 1024, 256) * 1e6
        assert f"{microseconds:.1f}" in texts
        assert len(texts) >= len(WIDTHS)

    def test_numbers_of_all_panels_have_as_many_digits_and_do_not_touch(self):
        # at 7.5 ms beside 19 µs microseconds are short, and each panel's numbers have the digits of the widest panel's
        slow = {(8, d, m): {"time_s": 7.537e-3} for d in WIDTHS for m in TOKENS}
        fast = {(2, d, m): {"time_s": 19.42e-6} for d in WIDTHS for m in TOKENS}
        figure = draw_surfaces(one_set(grid(layers=(2, 8), special=slow | fast), "time"), log=False)
        texts = {text.get_text() for axes in figure.axes if axes.get_xlabel() == "width d" for text in axes.texts}
        assert texts == {"19.4", "7537"}
        signed = {(n, d, m): {"dispatched_rel_difference": -0.000976} for n in LAYERS for d in WIDTHS for m in TOKENS}
        figure = draw_surfaces(one_set(grid(special=signed), "dispatched"), log=False)
        FigureCanvasAgg(figure).draw()
        for axes in (axes for axes in figure.axes if axes.get_xlabel() == "width d"):
            ends = [text.get_window_extent() for text in axes.texts]
            rows = {round(box.y0) for box in ends}
            for row in rows:
                line = sorted((box for box in ends if round(box.y0) == row), key=lambda box: box.x0)
                assert all(right.x0 - left.x1 > 4 for left, right in itertools.pairwise(line))

    def test_large_grids_are_not_annotated(self):
        frame = grid(layers=(2,), widths=range(128, 2049, 128), tokens=range(16, 257, 16))
        figure = draw_surfaces(one_set(frame, "time"), log=False)
        axes = next(axes for axes in figure.axes if axes.get_xlabel() == "width d")
        assert not axes.texts


class TestScales:
    def test_log_colours_are_logarithmic_and_shared_by_all_layers(self):
        figure = draw_surfaces(one_set(grid(), "energy"), log=True)
        first, second = (mesh.norm for mesh in meshes(figure))
        assert isinstance(first, colors.LogNorm)
        assert (first.vmin, first.vmax) == (second.vmin, second.vmax)
        everything = [POWER_W * time_of(n, d, m) for n in LAYERS for d in WIDTHS for m in TOKENS]
        assert (first.vmin, first.vmax) == pytest.approx((min(everything), max(everything)))

    def test_few_layers_are_not_flat_beside_many(self):
        frame = grid(layers=(2, 32))
        linear, log = (draw_surfaces(one_set(frame, "energy"), log=log) for log in (False, True))
        for n, axes in zip((2, 32), (axes for axes in linear.axes if axes.name == "3d"), strict=True):
            energies = [POWER_W * time_of(n, d, m) for d in WIDTHS for m in TOKENS]
            assert axes.get_zlim() == pytest.approx((min(energies), max(energies)))
        assert "own heights for each n" in " ".join(text.get_text() for text in linear.texts)
        assert len({axes.get_zlim() for axes in log.axes if axes.name == "3d"}) == 1

    @pytest.mark.slow
    def test_a_colour_bar_ends_where_the_values_do(self):
        frame = grid(special={(2, 128, 16): {"dispatched_rel_difference": 0.001}})
        for metric, log in itertools.product(("energy", "mfu", "dispatched"), (False, True)):
            surfaces_drawn = one_set(frame, metric)
            figure = draw_surfaces(surfaces_drawn, log=log)
            values = surfaces_drawn.values()
            assert figure.axes[-1].get_ylim() == pytest.approx((values.min(), values.max()))

    def test_linear_colours_are_linear(self):
        norm = meshes(draw_surfaces(one_set(grid(), "energy"), log=False))[0].norm
        assert type(norm) is colors.Normalize

    @pytest.mark.parametrize("log", [False, True])
    def test_heights_of_the_surface_are_on_the_same_scale(self, log):
        figure = draw_surfaces(one_set(grid(layers=(2,)), "time"), log=log)
        axes = next(axes for axes in figure.axes if axes.name == "3d")
        dots = next(a for a in axes.collections if isinstance(a, Path3DCollection))
        heights = np.unique(np.round(dots._offsets3d[2], 12))
        values = np.array([time_of(2, d, m) for d in WIDTHS for m in TOKENS])
        expected = np.unique(np.round(np.log10(values) if log else values, 12))
        np.testing.assert_allclose(heights, expected)

    def test_ticks_of_the_colour_bar_carry_the_prefix_and_the_data_does_not(self):
        figure = draw_surfaces(one_set(grid(), "flops_per_s"), log=False)
        bar = next(axes for axes in figure.axes if "FLOP/s" in axes.get_ylabel())
        assert bar.get_ylabel() == "rate (TFLOP/s)"
        for place, label in zip(bar.get_yticks(), bar.get_yticklabels(), strict=True):
            assert float(label.get_text()) == pytest.approx(place / 1e12)

    def test_log_spaced_axes_are_logarithmic_and_ticks_are_measured_values(self):
        figure = draw_surfaces(one_set(grid(), "time"), log=False)
        axes = next(axes for axes in figure.axes if axes.get_xlabel() == "width d")
        assert axes.get_xscale() == axes.get_yscale() == "log"
        assert axes.get_xticks().tolist() == list(WIDTHS)

    def test_a_signed_metric_keeps_its_sign_on_a_log_scale(self):
        frame = grid(special={(2, 128, 16): {"dispatched_rel_difference": 0.25}})
        figure = draw_surfaces(one_set(frame, "dispatched"), log=True)
        norm = meshes(figure)[0].norm
        assert isinstance(norm, colors.AsinhNorm)
        assert norm(0.0) == pytest.approx(0.5)  # zero is the middle of a diverging map
        assert meshes(figure)[0].get_array().max() == 0.25

    def test_equal_values_still_have_a_scale(self):
        scale = ValueScale.fitting(np.full((2, 2), 3.0), log=True, signed=False)
        assert scale.low < 3.0 < scale.high
        assert len(scale.ticks()) >= 1

    @pytest.mark.parametrize(
        "values",
        [[-0.00775, -0.00518], [-0.00775], [-6.1, -6.0], [0.0301, 0.0302], [-2.2, 3.4], [-1e-9, 1e9], [0.0, 0.4]],
    )
    @pytest.mark.parametrize("log", [True, False])
    def test_a_signed_scale_has_ticks_wherever_its_values_lie(self, values, log):
        scale = ValueScale.fitting(np.array(values), log=log, signed=True)
        ticks = scale.ticks()
        assert len(ticks) >= 2
        assert (np.diff(scale.place(ticks)) > 0).all()
        assert ticks[0] >= scale.low - 1e-9
        assert ticks[-1] <= scale.high + 1e-9

    @pytest.mark.parametrize("log", [False, True])
    def test_no_difference_anywhere_is_a_flat_zero(self, log):
        figure = draw_surfaces(one_set(grid(special=all_points(dispatched_rel_difference=0.0)), "dispatched"), log=log)
        (mesh, _) = meshes(figure)
        assert (mesh.get_array() == 0).all()
        assert mesh.norm(0.0) == pytest.approx(0.5)
        bar = next(axes for axes in figure.axes if axes.get_ylabel() == "difference (%)")
        assert "0" in [label.get_text() for label in bar.get_yticklabels()]

    @pytest.mark.parametrize(
        ("values", "spacing"),
        [
            ((128, 256, 512, 1024), "log"),
            (range(128, 2049, 128), "linear"),
            ((16, 1024), "log"),
            ((100, 120), "linear"),
            ((7,), "linear"),
        ],
    )
    def test_spacing_follows_the_measured_values(self, values, spacing):
        assert spacing_of(np.array(values)) == spacing

    @pytest.mark.parametrize("spacing", ["linear", "log"])
    def test_each_cell_holds_its_value(self, spacing):
        values = np.array([3.0, 5.0, 40.0, 41.0])
        edges = cell_edges(values, spacing)
        assert len(edges) == 5
        assert (edges[:-1] < values).all()
        assert (values < edges[1:]).all()

    def test_ticks_are_thinned_from_the_largest_down(self):
        assert axis_ticks(np.arange(128, 2049, 128), "linear", 0.2).tolist() == [512, 1024, 1536, 2048]

    @pytest.mark.parametrize(
        ("unit", "largest", "label", "factor"),
        [
            ("s", 3e-5, "µs", 1e-6),
            ("s", 1.0, "s", 1.0),
            ("J", 0.9999, "mJ", 1e-3),
            ("FLOP/s", 4e13, "TFLOP/s", 1e12),
            ("%", 0.4, "%", 0.01),
            ("s", 0.0, "s", 1.0),
        ],
    )
    def test_prefixes(self, unit, largest, label, factor):
        assert (display_unit(unit, largest).label, display_unit(unit, largest).factor) == (label, factor)

    @pytest.mark.parametrize(
        ("unit", "values", "label"),
        [
            ("s", [19.4e-6, 7.54e-3], "µs"),
            ("s", [0.1e-3, 7.54e-3], "ms"),
            ("J", [0.0109, 1.56], "mJ"),
            ("s", [1e-6, 0.1], "ms"),
            ("FLOP/s", [1e9, 20e9], "GFLOP/s"),
            ("%", [1e-4, 0.9], "%"),
            ("s", [np.nan, 0.0], "s"),
        ],
    )
    def test_cells_have_the_unit_in_which_all_numbers_are_short(self, unit, values, label):
        assert cell_unit(unit, np.array(values)).label == label


class TestMissing:
    def test_energy_says_no_energy_source_and_time_is_drawn(self):
        blind = {"energy_j": None, "flops_per_j": None, "energy_status": "no_energy_source", "energy_source": None}
        frame = grid(special={(n, d, m): blind for n in LAYERS for d in WIDTHS for m in TOKENS})
        assert one_set(frame, "energy").hole_counts() == {"no energy source": 24}
        assert one_set(frame, "time").hole_counts() == {}

    def test_a_rate_without_flops_says_that_no_closed_form_is_stated(self):
        blind = {"model_flops": None, "flops_per_s": None, "model_flops_reason": "the workload states no closed form"}
        frame = grid(special={(n, d, m): blind for n in LAYERS for d in WIDTHS for m in TOKENS})
        assert one_set(frame, "flops_per_s").hole_counts() == {"the workload states no closed form": 24}
        assert one_set(frame, "time").hole_counts() == {}

    def test_a_failed_point_is_failed_for_energy_too(self):
        frame = grid(special={(2, 128, 16): {**HOLE, "status": "failed", "energy_status": "not_requested"}})
        assert one_set(frame, "energy").hole_counts() == {"failed": 1}

    def test_a_metric_without_values_gives_no_figure_but_one_line(self, tmp_path, unrendered):
        frame = grid(phases=("forward", "backward"), special=all_points(mfu=None, mfu_reason="no peak is known"))
        console, selection = quiet(), Selection(metrics=["time", "mfu"])
        paths = surfaces.draw(frame, tmp_path, selection=selection, html=False, formats=["png"], console=console)
        assert not [path for path in paths if "mfu" in path.name]
        assert said(console).count("mfu") == 1
        assert "no figure of mfu for H100 fp32 eager (forward, backward): no peak is known" in said(console)

    def test_a_long_reason_is_whole_in_the_line_and_short_in_a_legend(self, tmp_path, unrendered):
        reason = "the peak of matrix products does not apply here, " * 3
        console = quiet()
        selection = Selection(metrics=["mfu"])
        surfaces.draw(
            grid(special=all_points(mfu=None, mfu_reason=reason)), tmp_path, selection=selection, console=console
        )
        assert reason.strip() in said(console)
        figure = draw_surfaces(
            one_set(grid(special={(2, 128, 16): {"mfu": None, "mfu_reason": reason}}), "mfu"), log=True
        )
        (label,) = legend_texts(figure)
        assert len(label) < 70
        assert label.endswith("… (1)")

    @pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), 1e308, 5e-324])
    def test_an_impossible_value_is_a_hole(self, value):
        found = one_set(grid(special={(2, 128, 16): {"time_s": value}}), "time")
        assert np.isnan(found.grids[0].values[0, 0])
        assert sum(found.hole_counts().values()) == 1

    def test_the_scale_does_not_see_holes(self):
        frame = grid(special={(8, 1024, 256): {"time_s": 0.0}})
        norm = meshes(draw_surfaces(one_set(frame, "time"), log=True))[0].norm
        assert norm.vmax == pytest.approx(max(time_of(8, 1024, 64), time_of(8, 512, 256)))

    def test_the_latest_of_repeated_rows_is_drawn(self):
        again = frame_of([record(2, 128, 16, time_s=9.0, ended_unix_s=5.0)])
        found = one_set(pd.concat([again, grid()]), "time")
        assert found.grids[0].values[0, 0] == 9.0


def all_points(**changes):
    return {(n, d, m): changes for n in LAYERS for d in WIDTHS for m in TOKENS}


class TestFindings:
    def test_a_finding_is_marked_on_its_cell_and_in_the_legend(self):
        frame = grid(special={(8, 256, 64): {"findings": ("impossible:rate_above_limit",)}})
        figure = draw_surfaces(one_set(frame, "flops_per_s"), log=False)
        marks = [
            (index, tuple(artist.get_offsets()[0]))
            for index, axes in enumerate(a for a in figure.axes if a.get_xlabel() == "width d")
            for artist in axes.collections
            if artist.get_gid() == "finding"
        ]
        ((panel, (x, y)),) = marks
        assert panel == 1
        assert 181 < x < 362  # the geometric borders of the cell of 256
        assert 32 < y < 128
        assert "audit: rate above limit (impossible, 1)" in legend_texts(figure)

    def test_a_finding_of_all_points_is_stated_once_and_marked_nowhere(self):
        figure = draw_surfaces(one_set(grid(special=all_points(findings=("note:no_limit_known",))), "time"), log=False)
        assert not [a for axes in figure.axes for a in axes.collections if a.get_gid() == "finding"]
        assert legend_texts(figure) == ["audit: no limit known (note, all points)"]

    def test_many_findings_share_a_mark(self):
        special = {(2, d, m): {"findings": (f"note:rule_{d}_{m}",)} for d in WIDTHS for m in TOKENS}
        texts = legend_texts(draw_surfaces(one_set(grid(special=special), "time"), log=False))
        assert len(texts) == 5
        assert "other findings (8)" in texts

    def test_counted_flops_have_no_findings_of_the_measurement(self):
        frame = grid(special={(8, 256, 64): {"findings": ("implausible:throttled",)}})
        assert legend_texts(draw_surfaces(one_set(frame, "dispatched"), log=False)) == []

    def test_a_finding_of_holes_alone_is_neither_drawn_nor_named(self):
        special = {
            (2, 128, 16): {**OOM, "findings": ("note:no_limit_known",)},
            (8, 256, 16): {"findings": ("note:sentinel_drift",)},
        }
        whole, line = (one_set(grid(special=special, **axes), "time") for axes in ({}, {"tokens": (16,)}))
        for figure in (draw_surfaces(whole, log=False), draw_lines(line)):
            assert [text for text in legend_texts(figure) if text.startswith("audit")] == [
                "audit: sentinel drift (note, 1)"
            ]

    def test_the_legend_counts_what_is_drawn(self):
        special = {
            (2, 128, 16): {**OOM, "findings": ("note:sentinel_drift",)},
            (2, 256, 16): {"findings": ("note:sentinel_drift", "impossible:rate_above_limit")},
            (8, 256, 16): {"findings": ("note:sentinel_drift",)},
        }
        figure = draw_surfaces(one_set(grid(special=special), "time"), log=False)
        assert set(legend_texts(figure)) == {
            "out of memory (1)",
            "audit: rate above limit (impossible, 1)",
            "audit: sentinel drift (note, 1)",
        }
        drawn = [a for axes in figure.axes for a in axes.collections if a.get_gid() == "finding"]
        assert len(drawn) == 2


class TestErrors:
    """Cells whose error is above the target are marked, for the metric that the error is of."""

    def marks_of(self, figure) -> list[tuple[float, float]]:
        axes = [axes for axes in figure.axes if axes.get_xlabel() == "width d"]
        found = [a for part in axes for a in part.collections if a.get_gid() == "imprecise"]
        return [tuple(artist.get_offsets()[0]) for artist in found]

    def frame(self) -> pd.DataFrame:
        special = all_points(target_error=0.02)
        missed = {"energy_rel_error": 0.05, "findings": ("note:target_error_missed",)}
        special[8, 256, 64] = {"target_error": 0.02, **missed}
        return grid(special=special)

    def test_the_cell_is_marked_and_the_legend_says_the_target(self):
        figure = draw_surfaces(one_set(self.frame(), "energy"), log=True)
        ((x, y),) = self.marks_of(figure)
        assert 181 < x < 362  # the geometric borders of the cell of 256
        assert 32 < y < 128
        assert legend_texts(figure) == ["error above the target of 2 % (1 of 24 points)"]

    def test_time_is_not_marked_for_the_error_of_energy(self):
        figure = draw_surfaces(one_set(self.frame(), "time"), log=True)
        assert self.marks_of(figure) == []
        assert legend_texts(figure) == []

    def test_an_error_at_its_target_and_a_hole_are_not_marked(self):
        special = all_points(target_error=0.02)
        special[8, 256, 64] = {**OOM, "target_error": 0.02, "energy_rel_error": 0.05}
        assert self.marks_of(draw_surfaces(one_set(grid(special=special), "energy"), log=False)) == []

    def test_an_error_that_nobody_knows_is_marked_as_well_and_said(self):
        special = all_points(target_error=0.02)
        special[8, 256, 64] = {"target_error": 0.02, "energy_rel_error": float("nan")}
        figure = draw_surfaces(one_set(grid(special=special), "energy"), log=True)
        assert len(self.marks_of(figure)) == 1
        assert legend_texts(figure) == ["error above the target of 2 % or not known (1 of 24 points)"]

    def test_lines_mark_it_at_its_point(self):
        frame = self.frame()
        figure = draw_lines(one_set(frame[frame.tokens == 64], "energy"))
        marks = [a for a in figure.axes[0].collections if a.get_gid() == "imprecise"]
        ((x, y),) = (tuple(mark.get_offsets()[0]) for mark in marks)
        assert (x, y) == (256, POWER_W * time_of(8, 256, 64))
        assert "error above the target of 2 % (1 of 8 points)" in legend_texts(figure)


class TestLines:
    def test_one_value_of_m_gives_lines_over_d_with_error_bars(self):
        figure = draw_lines(one_set(grid(tokens=(64,)), "energy"))
        linear, log = figure.axes
        assert (linear.get_yscale(), log.get_yscale()) == ("linear", "log")
        assert linear.get_xlabel() == "width d"
        for bars, n in zip(linear.containers, LAYERS, strict=True):
            line, _, (segments,) = bars
            expected = np.array([POWER_W * time_of(n, d, 64) for d in WIDTHS])
            np.testing.assert_array_equal(line.get_xdata(), WIDTHS)
            np.testing.assert_array_equal(line.get_ydata(), expected)
            ends = np.array([segment[:, 1] for segment in segments.get_segments()])
            np.testing.assert_allclose(ends, np.stack([expected * 0.98, expected * 1.02], axis=1))

    def test_one_value_of_d_gives_lines_over_m(self):
        figure = draw_lines(one_set(grid(widths=(512,)), "time"))
        assert figure.axes[0].get_xlabel() == "tokens m"
        assert "d = 512" in " ".join(text.get_text() for text in figure.texts)

    def test_one_value_of_both_gives_a_line_over_n(self):
        figure = draw_lines(one_set(grid(layers=(2, 4, 8), widths=(512,), tokens=(64,)), "time"))
        ((line, *_),) = figure.axes[0].containers
        assert line.get_xdata().tolist() == [2, 4, 8]
        np.testing.assert_array_equal(line.get_ydata(), [time_of(n, 512, 64) for n in (2, 4, 8)])

    def test_a_hole_breaks_the_line_and_is_marked(self):
        figure = draw_lines(one_set(grid(layers=(8,), tokens=(64,), special={(8, 512, 64): OOM}), "time"))
        ((line, *_),) = figure.axes[0].containers
        assert np.isnan(line.get_ydata()[2])
        (mark,) = [a for a in figure.axes[0].collections if a.get_gid() == "hole"]
        assert mark.get_offsets()[0][0] == 512
        assert "out of memory (1)" in legend_texts(figure)

    def test_a_signed_metric_has_no_error_bars_and_negative_values(self):
        figure = draw_lines(one_set(grid(tokens=(64,)), "dispatched"))
        assert figure.axes[1].get_yscale() == "asinh"
        assert not figure.axes[0].containers[0].has_yerr
        assert max(figure.axes[0].containers[0][0].get_ydata()) < 0

    @pytest.mark.slow
    def test_which_figures_a_run_gets(self, tmp_path):
        paths = surfaces.draw(grid(tokens=(64,)), tmp_path, html=False, formats=["svg"], console=quiet())
        assert {path.name for path in paths} == {f"{metric}_lines.svg" for metric in METRICS}

    def test_a_single_point_is_said_and_not_drawn(self, tmp_path):
        console = quiet()
        frame = grid(layers=(2,), widths=(128,), tokens=(16,))
        assert surfaces.draw(frame, tmp_path, html=False, console=console) == []
        assert "a single point" in said(console)
        assert "nothing was drawn" in said(console)


class TestSelection:
    def test_the_filter_removes_small_shapes_and_rescales(self):
        found = one_set(grid(), "time", x_min=512, y_min=64)
        assert found.xs.tolist() == [512, 1024]
        assert found.ys.tolist() == [64, 256]
        norm = meshes(draw_surfaces(found, log=False))[0].norm
        assert norm.vmin == pytest.approx(time_of(2, 512, 64))

    def test_the_filter_is_in_titles_and_file_names(self, tmp_path):
        selection = Selection(metrics=["time"], x_min=512, y_min=64, panels=[8])
        paths = surfaces.draw(grid(), tmp_path, selection=selection, formats=["png"], html=False, console=quiet())
        assert {p.name for p in paths} == {f"time_{k}_n8_dmin512_mmin64.png" for k in ("linear", "log")}
        figure = draw_surfaces(one_set(grid(), "time", x_min=512, y_min=64), log=False)
        assert "d ≥ 512, m ≥ 64" in " ".join(text.get_text() for text in figure.texts)

    @pytest.mark.parametrize(
        ("selection", "said"),
        [
            ({"x_min": 1024, "y_min": 64}, "m ≥ 64"),  # one width is left, and the title has it
            ({"x_min": 128, "y_min": 16}, ""),  # leaves nothing out
            ({"x_min": 256, "y_min": 17}, "d ≥ 256, m ≥ 17"),
        ],
    )
    def test_a_title_has_only_bounds_that_say_something(self, selection, said):
        assert one_set(grid(), "time", **selection).filtered == said

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"metrics": ["speed"]}, "metrics: unknown 'speed', choose from time,"),
            ({"phases": ["train_step"]}, "phases train_step: the run has only forward"),
            ({"panels": [3]}, "panels 3: the run has only 2, 8"),
            ({"x_min": 5000}, "x_min 5000 leaves no points: the largest that the run has is 1024"),
            ({"y_min": 5000}, "y_min 5000 leaves no points"),
        ],
    )
    def test_what_the_run_does_not_have_is_an_error(self, arguments, message):
        with pytest.raises(InputError, match=re.escape(message)):
            list(surface_sets(grid(), Selection(**arguments)))

    def test_an_empty_run_and_another_workload_are_errors(self):
        with pytest.raises(InputError, match="no records yet"):
            list(surface_sets(grid().iloc[:0], Selection()))
        with pytest.raises(InputError, match="no rows with n_layers, width, tokens"):
            list(surface_sets(grid().assign(width=None), Selection()))

    def test_devices_precisions_and_executions_are_drawn_apart(self):
        others = ({}, {"precision": "bf16"}, {"device_type": "A100"}, {"execution": "graph"})
        frame = pd.concat([grid().assign(**other) for other in others])
        sets = list(surface_sets(frame, Selection(metrics=["time"])))
        assert len({(s.device_type, s.precision, s.execution) for s in sets}) == 4


class TestTitles:
    def test_title_names_metric_phase_device_precision_execution_and_source(self):
        figure = draw_surfaces(one_set(grid(layers=(8,)), "energy"), log=True)
        text = " ".join([figure.get_suptitle(), *(t.get_text() for t in figure.texts)])
        for part in ("Energy per iteration", "forward pass", "NVIDIA H100 80GB HBM3", "fp32", "eager", "n = 8 layers"):
            assert part in text
        assert "energy by nvml_counter" in text

    def test_a_device_name_is_never_a_formula(self, tmp_path):
        frame = grid(layers=(8,)).assign(device_name="a $\\frac{1$ b_c")
        selection = Selection(metrics=["time"])
        paths = surfaces.draw(frame, tmp_path, selection=selection, formats=["png"], html=False, console=quiet())
        assert all(path.stat().st_size > 10_000 for path in paths)

    @pytest.mark.slow
    def test_no_text_leaves_the_figure_or_meets_another_title(self):
        longest = ["dispatched"]  # the title of this metric is the longest
        # Five panels leave most room for a title: there the other metrics differ by the unit at the colour bar alone.
        widest = [*longest, max(METRICS, key=lambda name: len(METRICS[name].unit)), "time"]
        for layers, metrics in (((8,), METRICS), ((2, 8), longest), ((2, 4, 8), longest), ((2, 4, 8, 16, 32), widest)):
            special = {(8, 1024, 256): OOM, (8, 128, 16): {"findings": ("implausible:launch_window",)}}
            frame = grid(layers=layers, widths=(*WIDTHS, 2048), special=special)
            for metric in metrics:
                with paper_style(font_pt_for(len(layers))):
                    figure = draw_surfaces(one_set(frame, metric), log=True)
                    figure.draw_without_rendering()
                assert_readable(figure)


def assert_readable(figure) -> None:
    """Every title, label, tick and legend lies within the figure, and ticks of one axis do not overlap."""
    whole = figure.bbox
    texts = [t for t in [figure._suptitle, *figure.texts] if t.get_text()]
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [text.get_window_extent() for text in texts] + [legend.get_window_extent() for legend in figure.legends]
    for box in boxes:
        assert box.x0 >= whole.x0
        assert box.x1 <= whole.x1
        assert box.y0 >= whole.y0
        assert box.y1 <= whole.y1
    for axes in (a for a in figure.axes if a.get_xlabel() == "width d"):
        spans = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        for left, right in itertools.pairwise(spans):
            assert left.x1 < right.x0


class TestDraw:
    def test_files_are_where_they_are_said_to_be(self, tmp_path):
        console = quiet()
        frame = grid(layers=(8,), widths=(128, 256), phases=("forward", "backward"))
        paths = surfaces.draw(frame, tmp_path, selection=Selection(metrics=["energy"]), html=False, console=console)
        assert len(paths) == len(set(paths)) == 2 * 2 * 2  # phases, scales, formats
        assert all(path.is_file() and path.stat().st_size > 1000 for path in paths)
        assert tmp_path / "surfaces/H100_fp32_eager/backward/energy_log.svg" in paths
        assert f"4 figures (png svg): {tmp_path}/surfaces/H100_fp32_eager/{{forward,backward}}/" in said(console)

    def test_images_are_what_their_names_say(self, tmp_path):
        frame, selection, formats = grid(layers=(8,)), Selection(metrics=["time"]), ["png", "svg", "pdf"]
        paths = surfaces.draw(frame, tmp_path, selection=selection, formats=formats, html=False, console=quiet())
        magic = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
        assert {path.suffix for path in paths} == set(magic)
        assert all(path.read_bytes().startswith(magic[path.suffix]) for path in paths)

    def test_the_same_records_give_the_same_svg(self, tmp_path):
        drawn = []
        for name in ("a", "b"):
            selection = Selection(metrics=["time"])
            paths = surfaces.draw(
                grid(), tmp_path / name, selection=selection, formats=["svg"], html=False, console=quiet()
            )
            drawn.append([path.read_bytes() for path in paths])
        assert drawn[0] == drawn[1]

    @pytest.mark.slow
    def test_many_layers_are_split_over_figures(self, tmp_path, unrendered):
        layers = tuple(range(1, MAX_PANELS + 3))
        frame = grid(layers=layers)
        paths = surfaces.draw(
            frame, tmp_path, selection=Selection(metrics=["time"]), formats=["png"], html=False, console=quiet()
        )
        names = {path.name for path in paths}
        assert names == {f"time_{k}_n{part}.png" for k in ("linear", "log") for part in ("1-4", "5-7")}

    def test_names_from_data_cannot_leave_the_folder(self, tmp_path, unrendered):
        frame, out_dir = grid().assign(device_type="../../evil", phase=".."), tmp_path / "plots"
        selection = Selection(metrics=["time"])
        paths = surfaces.draw(frame, out_dir, selection=selection, formats=["png"], html=False, console=quiet())
        assert len(paths) == 2
        assert all(path.resolve().is_relative_to(out_dir) for path in paths)

    def test_each_phase_has_figures_of_each_metric_in_both_scales_and_formats(self, tmp_path, unrendered):
        frame, metrics = grid(phases=("forward", "train_step")), ["time", "mfu"]
        assert {drawn.metric.name for drawn in surface_sets(frame, Selection())} == set(METRICS)
        selection = Selection(metrics=metrics)
        paths = surfaces.draw(frame, tmp_path, selection=selection, html=False, console=quiet())
        assert len(paths) == 2 * len(metrics) * 2 * 2

    def test_an_unknown_format_and_a_file_in_the_way_are_errors(self, tmp_path):
        with pytest.raises(InputError, match="unknown format 'bmp': choose from png, svg, pdf"):
            surfaces.draw(grid(), tmp_path, formats=["bmp"], console=quiet())
        (tmp_path / "surfaces").write_text("in the way")
        with pytest.raises(InputError, match="cannot write"):
            surfaces.draw(grid(), tmp_path, html=False, console=quiet())


class TestPlanned:
    """A run that is not complete is drawn on the axes that it will have."""

    def test_what_is_planned_and_not_measured_is_a_hole(self):
        frame = grid()
        part = frame[(frame.width != WIDTHS[1]) & (frame.n_layers == 2)]
        planned = {"n_layers": [2, 8], "width": list(WIDTHS), "tokens": list(TOKENS)}
        (drawn,) = surface_sets(part, Selection(metrics=["time"]), planned)
        assert drawn.xs.tolist() == sorted(WIDTHS)
        assert [cells.panel for cells in drawn.grids] == [2, 8]
        assert drawn.hole_counts() == {"not measured": len(TOKENS) * (1 + len(WIDTHS))}

    def test_filters_hold_for_the_plan_too(self):
        planned = {"n_layers": [2, 8, 16], "width": [8, *WIDTHS], "tokens": list(TOKENS)}
        selection = Selection(metrics=["time"], panels=[2], x_min=WIDTHS[1])
        (drawn,) = surface_sets(grid(), selection, planned)
        assert drawn.xs.tolist() == sorted(WIDTHS)[1:]
        assert [cells.panel for cells in drawn.grids] == [2]

    def test_a_failed_point_is_a_hole_also_where_its_flops_could_be_counted(self):
        frame = grid(special={(8, 1024, 256): OOM})
        (drawn,) = surface_sets(frame, Selection(metrics=["dispatched"]))
        assert drawn.hole_counts() == {"out of memory": 1}


class TestPage:
    def data_of(self, page: str) -> list[dict]:
        return json.loads(re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[-1])

    @pytest.mark.extras("html")
    def test_data_stands_in_the_page(self):
        frame = grid(special={(8, 1024, 256): OOM})
        data = self.data_of(page_text(list(surface_sets(frame, Selection(metrics=["time"])))))
        assert data[0]["grids"][0]["values"] == [[time_of(2, d, m) for d in WIDTHS] for m in TOKENS]
        assert data[0]["grids"][1]["values"][2][3] is None
        assert data[0]["grids"][1]["reasons"][2][3] == "out of memory"

    @pytest.mark.extras("html")
    def test_the_page_needs_no_network(self):
        page = page_text(list(surface_sets(grid(), Selection(metrics=["time"]))))
        assert not re.search(r"<(script|link|img|iframe)\b[^>]*\b(src|href)\s*=", page)
        assert len(page) > 1_000_000  # plotly.js itself

    @pytest.mark.extras("html")
    def test_a_name_cannot_become_markup(self):
        name = "</script><script>alert(1)</script>"
        page = page_text(list(surface_sets(grid().assign(device_name=name), Selection(metrics=["time"]))))
        assert name not in page
        assert name in self.data_of(page)[0]["subtitle"]

    @pytest.mark.extras("html")
    def test_a_metric_without_values_keeps_its_reason(self):
        frame = grid(special=all_points(mfu=None, mfu_reason="no peak is known"))
        (data,) = self.data_of(page_text(list(surface_sets(frame, Selection(metrics=["mfu"])))))
        assert data["holes"] == {"no peak is known": 24}
        assert "grids" not in data

    @pytest.mark.extras("html")
    def test_what_holds_for_all_points_is_said_once_and_marks_none(self):
        special = all_points(findings=["note:no_limit_known"])
        special[8, 1024, 256] = {"findings": ["note:no_limit_known", "impossible:rate_above_limit"]}
        (data,) = self.data_of(page_text(list(surface_sets(grid(special=special), Selection(metrics=["time"])))))
        assert data["everywhere"] == ["note:no_limit_known"]
        marks = [mark for cells in data["grids"] for row in cells["marks"] for mark in row]
        assert sorted(set(marks)) == ["", "impossible:rate_above_limit"]
        assert marks.count("impossible:rate_above_limit") == 1

    def test_asking_for_the_page_without_plotly_names_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=re.escape("pip install 'flopray[html]'")):
            surfaces.draw(grid(), tmp_path, html=True, console=quiet())
        paths = surfaces.draw(grid(), tmp_path, selection=Selection(metrics=["time"]), formats=["png"], console=quiet())
        assert not [path for path in paths if path.suffix == ".html"]


@pytest.fixture
def run_folder(tmp_path) -> RunFolder:
    """A real run of one phase with a hole, written by the store."""
    folder = RunFolder.create(tmp_path, "run", {"space": {}})
    with folder.writer() as writer:
        shapes = itertools.product(LAYERS, WIDTHS, TOKENS)
        writer.append([[record(*shape, **(OOM if shape == (8, 1024, 256) else {}))] for shape in shapes])
    return folder


class TestCommand:
    def test_a_run_of_the_store_is_drawn_into_its_plots(self, run_folder, capsys):
        code = surfaces.main([str(run_folder.path), "--metrics", "time", "--formats", "png", "--no-html"])
        assert code == 0
        folder = run_folder.plots_path / "surfaces/H100_fp32_eager/forward"
        assert sorted(path.name for path in folder.iterdir()) == ["time_linear.png", "time_log.png"]
        assert "2 figures" in capsys.readouterr().err

    def test_values_survive_the_store(self, run_folder):
        stored = one_set(run_folder.load(), "energy")
        expected = one_set(grid(special={(8, 1024, 256): OOM}), "energy")
        np.testing.assert_array_equal(stored.values(), expected.values())
        assert stored.hole_counts() == expected.hole_counts()

    def test_a_warning_of_the_store_is_one_line(self, run_folder, capsys, unrendered):
        with run_folder.journal_path.open("ab") as stream:
            stream.write(b"damaged line\n")
        assert surfaces.main([str(run_folder.path), "--metrics", "time", "--formats", "png", "--no-html"]) == 0
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 2
        assert lines[0].startswith("warning: ")

    @pytest.mark.slow
    def test_the_end_of_a_sweep_draws_the_same(self, run_folder, unrendered):
        paths = surfaces.draw_run(run_folder.path, quiet())
        assert {path.suffix for path in paths} >= {".png", ".svg"}
        assert all(path.is_relative_to(run_folder.plots_path) for path in paths)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--metrics", "speed"], "--metrics: unknown 'speed', choose from time,"),
            (["--phases", "sideways"], "--phases sideways"),
            (["--n", "7"], "--n 7: the run has only 2, 8"),
            (["--n", "two"], "'two' is not a whole number"),
            (["--d-min", "9999"], "--d-min 9999"),
            (["--formats", "bmp"], "--formats: unknown 'bmp', choose from png, svg, pdf"),
            (["--out", "/proc/no/such/place"], "cannot write"),
        ],
    )
    def test_bad_input_is_one_line_and_exit_code_2(self, run_folder, capsys, arguments, message):
        try:
            code = surfaces.main([str(run_folder.path), *arguments])
        except SystemExit as stop:  # argparse's own checks
            code = stop.code
        lines = capsys.readouterr().err.strip().splitlines()
        assert code == 2
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert message in lines[0]
        assert not run_folder.plots_path.exists()

    def test_a_folder_that_is_no_run_is_one_line(self, tmp_path, capsys):
        assert surfaces.main([str(tmp_path / "nothing")]) == 2
        assert capsys.readouterr().err.startswith("error: ")

    @pytest.mark.slow
    def test_the_script_runs_by_its_path_from_anywhere(self, run_folder, tmp_path):
        flags = ("--metrics", "time", "--formats", "png", "--no-html")
        command = [
            sys.executable,
            str(Path(__file__).parents[2] / "analysis" / "surfaces.py"),
            str(run_folder.path),
            *flags,
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert (run_folder.plots_path / "surfaces/H100_fp32_eager/forward/time_log.png").is_file()

    def test_help_teaches_with_examples(self, capsys):
        with pytest.raises(SystemExit):
            surfaces.main(["--help"])
        text = capsys.readouterr().out
        assert text.startswith("usage: flopray surfaces ")
        assert text.count("  flopray surfaces ") >= 3
        assert all(flag in text for flag in ("--d-min", "--m-min", "--metrics", "--phases", "--html", "--out"))

    @pytest.mark.slow
    def test_neither_torch_nor_ray_nor_pyplot_is_imported(self):
        code = (
            "import sys, flopray.cli.surfaces as s; s.build_parser(); import flopray.store.run;"
            "print([m for m in ('torch', 'ray', 'plotly', 'matplotlib.pyplot') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.strip() == "[]", done.stderr


def test_the_full_grid_of_flopmetrics_is_drawn(published):
    table = pd.read_csv(published / "metrics/20250922-120007_n2-32_d128-2048_m16-256.csv")
    records = []
    for n, d, m, model, executed in table[
        ["n", "d", "m", "theoretical_total_flops_fwd", "ncu_total_flops_fwd"]
    ].itertuples(index=False):
        time_s = executed / 1e13
        changes = {"model_flops": int(model), "time_s": time_s, "flops_per_s": model / time_s}
        records.append(record(int(n), int(d), int(m), **changes))
    figure = draw_surfaces(one_set(frame_of(records), "flops_per_s"), log=False)
    shown = {n: mesh.get_array() for n, mesh in zip((2, 4, 8, 16, 32), meshes(figure), strict=True)}
    assert {array.shape for array in shown.values()} == {(16, 16)}
    row = table.query("n == 16 and d == 640 and m == 48").iloc[0]
    expected = row["theoretical_total_flops_fwd"] / (row["ncu_total_flops_fwd"] / 1e13)
    assert shown[16][2, 4] == pytest.approx(expected)
