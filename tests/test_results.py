"""The results page says what its runs say: every table, every figure's command, every number that is checked."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def make_results() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        return importlib.import_module("make_results")


@pytest.fixture(scope="module")
def page(make_results) -> str:
    return make_results.PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_tables_figures_and_text_are_what_the_runs_say(make_results, page):
    assert make_results.differences(page) == []


def test_the_readme_has_the_measured_numbers_of_its_run(make_results):
    text = make_results.README.read_text(encoding="utf-8")
    assert make_results.unsaid(text, make_results.made.readme_statements()) == []


def test_the_predictions_are_those_of_this_gpu_and_not_of_the_published_one(page):
    assert "| fp32 forward | 13 % (51 %) | 3.4 % (38 %) | 6.4 % (35 %) | 0.75 % (26 %) |" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("| 718 % |", "| 719 % |", "table overheads is not what the runs give"),
        ("(44 of 168)", "(45 of 168)", "the page does not: (44 of 168)"),
        ("| the same: counters | 43 s |", "| the same: counters | 34 s |", "table mixed is not what the runs give"),
        ("13 to 18 % per token", "13 to 19 % per token", "the page does not: 13 to 18 % per token"),
        ("<!-- table mixed -->\n", "", "no command makes the table that begins '| sweep | time | ncu processes"),
        ("](llama_pareto.png)", "](llama_best.png)", "no command of make_results.py draws llama_best.png"),
    ],
)
def test_a_page_that_drifts_from_its_runs_is_told(make_results, page, monkeypatch, right, wrong, told):
    tables = {name: make_results.made.TABLES[name] for name in ("overheads", "mixed")}
    monkeypatch.setattr(make_results.made, "TABLES", tables)
    monkeypatch.setattr(make_results, "_body", _told_once(make_results, page))
    assert right in page
    found = make_results.differences(page.replace(right, wrong))
    assert any(told in line for line in found), found


def _told_once(make_results: ModuleType, page: str):
    """The tables of the present page, except the small ones that this test makes again."""
    bodies = {match[1]: match[2] for match in make_results._BLOCK.findall(page)}
    made = make_results._body
    return lambda name: made(name) if name in ("overheads", "mixed") else bodies[name]


def test_a_figure_whose_command_is_not_on_the_page_is_named(make_results, page, monkeypatch):
    monkeypatch.setattr(make_results, "_body", _told_once(make_results, page))
    found = make_results.differences(page.replace("bench/energy_ticks.py", "bench/else.py"))
    assert found == [
        "the page does not say `python bench/energy_ticks.py docs/results/h100_energy_ticks.json`, which draws "
        "energy_ticks.png"
    ]
