"""Titles of figures stay inside of them."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flopray.report.plot.figures import PNG_DPI, paper_style, write_titles

LONG = "bars: 95 % intervals of the type (H100: 2 boards); of the window (H200: one board); lines join shapes"


@pytest.mark.parametrize("width_in", [3.4, 5.4, 9.0])
@pytest.mark.parametrize("second", [LONG, LONG.replace("; ", "  ·  "), "log scale", "", "x" * 150])
def test_titles_stay_inside_the_figure(width_in, second):
    with paper_style():
        figure = Figure(figsize=(width_in, 4.0), dpi=PNG_DPI)
        write_titles(figure, "Forward against backward, a model with a long name, graph", second)
        renderer = FigureCanvasAgg(figure).get_renderer()
        for text in figure.texts:
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.width


def test_a_title_that_fits_keeps_its_size_and_a_long_one_loses_no_word():
    with paper_style():
        figure = Figure(figsize=(4.0, 4.0))
        write_titles(figure, "Energy", "log scale")
        assert figure.texts[-1].get_fontsize() == 8.0
        write_titles(figure, "Energy", LONG)
    assert figure.texts[-1].get_text().split() == LONG.split()
    assert figure.texts[-1].get_text().count("\n") == 1
    assert float(figure.texts[-1].get_fontsize()) >= 6.0


def test_two_lines_end_above_the_titles_of_panels():
    """Panels' titles are 0.5 in below the edge of the figures that have long second lines."""
    with paper_style():
        figure = Figure(figsize=(7.2, 4.0), dpi=PNG_DPI)
        write_titles(figure, "Energy", f"{LONG}; of the board at 50 °C (L4: one board); lower left is better")
        assert figure.texts[-1].get_text().count("\n") == 1
        low = figure.texts[-1].get_window_extent(FigureCanvasAgg(figure).get_renderer()).y0
    assert figure.bbox.height - low < 0.5 * PNG_DPI
