"""The disk of a plan is that of runs that were made, with and without their figures."""

import importlib.util

import pytest

from flopray.cli.flags import parse
from flopray.cli.request import sweep_from
from flopray.sweep import planned_disk
from flopray.workloads.registry import find_workload


def planned(line: str) -> tuple[int, int]:
    """Figures of a sweep on a CPU, and all its bytes with one trial."""
    name, *words = line.split()
    sweep = sweep_from(find_workload(name), parse(find_workload(name), words), ["CPU"], cores=1)
    count, size = planned_disk.figures(sweep, 1)
    trials = sweep.size if sweep.is_drawn or sweep.trial_shape == "point" else 1
    return count, size + planned_disk.A_RUN + planned_disk.table_bytes(sweep.size, trials, len(sweep.settings.phases))


@pytest.mark.skipif(not importlib.util.find_spec("plotly"), reason="the pages of these runs need plotly")
@pytest.mark.parametrize(
    ("line", "figures", "taken"),
    [
        ("mlp --n 2 --d 8192 --m 64", 0, 2_232_671),  # a single point has no axis
        ("mlp --n 2 --d 1024 --m 128 --precision bf16 fp16", 0, 2_386_269),  # nor have two of different kinds
        ("mlp --n 2 4 --d 64 128 --m 16 --phases forward --trial point", 4, 7_914_246),  # lines
        ("mlp --search sobol --samples 12", 32, 14_297_722),  # surfaces
        ("mlp --search optuna --objective hfu --samples 4 --phases forward train_step", 16, 10_777_161),
        ("llama", 4, 7_577_901),
        ("causal_lm --model smollm2-135m --batch 1 --tokens 128 --phases train_step prefill decode", 4, 7_253_998),
        pytest.param(
            "causal_lm --model llama-tiny --batch 1 2 --tokens 16 --adapter none lora:4 --phases train_step",
            4,
            7_248_115,
            marks=pytest.mark.extras("peft"),
        ),
    ],
)
def test_a_run_takes_the_disk_that_was_planned(line, figures, taken):
    """Bytes of whole runs on a CPU, with figures, pages and report."""
    count, size = planned(line)
    assert count == figures
    assert taken / 1.5 < size < taken * 1.5


def test_without_plotly_there_is_no_page(monkeypatch):
    with_page = planned("llama")[1]
    monkeypatch.setattr(planned_disk, "find_spec", lambda _: None)
    without = planned("llama")[1]
    assert with_page - without in (0, planned_disk._PAGE)
    assert without < 3_500_000


def test_more_panels_than_a_figure_holds_are_more_figures():
    assert planned("mlp --n 1 2 3 4 5 --d 64 128 --m 16 32 --phases forward")[0] == 8
    assert planned("mlp --n 1 2 3 4 5 6 --d 64 128 --m 16 32 --phases forward")[0] == 16


@pytest.mark.parametrize(
    ("points", "trials", "phases", "measured"),
    [
        (8, 1, 4, 699_753),
        (8, 2, 4, 1_020_462),
        (2, 1, 1, 201_369),
        (20, 2, 4, 1_401_785),
        (3, 3, 4, 1_113_151),  # of a searcher, whose trials are points
    ],
)
def test_the_disk_is_that_of_sweeps_without_figures(points, trials, phases, measured):
    """Bytes of whole runs on a CPU, whose rows have fewer numbers than those of a GPU; most of them are Tune's."""
    predicted = planned_disk.table_bytes(points, trials, phases) + planned_disk.A_RUN
    assert measured / 1.3 < predicted < measured * 1.5


def test_a_plan_has_as_many_panels_a_figure_as_are_drawn():
    from flopray.report.surface.plots import MAX_PANELS  # matplotlib, which a plan does without

    assert planned_disk._PANELS == MAX_PANELS
