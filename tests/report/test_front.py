"""The Pareto front: which points are on it, and that the figure shows them."""

import numpy as np
import pytest

from flopray.report.front import Candidates, Objective, draw_front, front_of

TIME, ENERGY = Objective("time", "s", True), Objective("energy", "J", True)
RATE = Objective("rate", "FLOP/s", False)


def brute(costs):
    """By definition: no other point is better in one quantity and not worse in any."""

    def beaten(point):
        return any((other <= point).all() and (other < point).any() for other in costs)

    return {place for place, point in enumerate(costs) if not beaten(point)}


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_front_is_what_its_definition_says(objectives):
    rng = np.random.default_rng(objectives)
    for _ in range(20):
        costs = rng.integers(0, 6, (30, objectives)).astype(float)  # with ties and equal points
        assert set(front_of(costs).tolist()) == brute(costs)


def test_the_front_begins_with_the_best_in_the_first_objective():
    costs = np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0], [2.0, 2.5]])
    assert front_of(costs).tolist() == [1, 2, 0]
    assert front_of(costs[:0]).tolist() == []


def candidates(objectives=(TIME, ENERGY), k=40, seed=3):
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(-7, 1, (k, len(objectives))))
    return Candidates([f"n={i} d=512" for i in range(k)], objectives, values, np.full(values.shape, 0.05))


def of(axes, gid):
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def test_the_figure_shows_all_points_and_numbers_those_of_the_front():
    found = candidates()
    front = front_of(found.costs())
    figure = draw_front(found, "Pareto front of r")
    (axes,) = figure.axes
    (line,) = [line for line in axes.get_lines() if line.get_gid() == "front line"]
    assert line.get_drawstyle() == "steps-post"
    assert np.allclose(line.get_xydata()[1:-1], found.values[front])
    numbers = [text.get_text() for text in axes.texts]
    assert numbers == [str(number) for number in range(1, len(front) + 1)]
    said = [text.get_text() for text in figure.texts]
    assert any(f"{len(front)} of 40 points on the front" in text and "lower left is better" in text for text in said)
    assert f"1 {found.labels[front[0]]}" in said
    assert axes.get_xlabel().startswith("time (")


def test_what_is_better_when_larger_turns_the_front_around():
    found = candidates((RATE, ENERGY))
    front = front_of(found.costs())
    assert found.values[front[0], 0] == found.values[:, 0].max()
    figure = draw_front(found, "r")
    assert any("lower right is better" in text.get_text() for text in figure.texts)


@pytest.mark.parametrize("objectives", [(TIME, ENERGY, RATE), (TIME, ENERGY, RATE, Objective("use", "", False))])
def test_each_pair_of_objectives_has_a_panel(objectives):
    figure = draw_front(candidates(objectives), "r")
    assert len(figure.axes) == len(objectives) * (len(objectives) - 1) // 2
    assert not any(of(axes, "front line") for axes in figure.axes), "in one panel of three the front is no line"


@pytest.mark.parametrize(("k", "spread"), [(1, 1.0), (2, 1.0), (30, 0.0)])
def test_one_point_or_equal_ones_can_be_drawn(k, spread):
    values = np.full((k, 2), 2e-3) * (1 + spread * np.arange(k)[:, None])
    found = Candidates(["n=1"] * k, (TIME, ENERGY), values, np.full((k, 2), np.nan))
    figure = draw_front(found, "r")
    low, high = figure.axes[0].get_xlim()
    assert low < 2e-3 < high
    figure.canvas.draw()
