"""Links of the documentation that point into the repository lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_architecture import imports, within_project

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


def test_the_tour_names_modules():
    assert len(re.findall(r"\.\./flopray/\S+\.py", (ROOT / "docs" / "architecture.md").read_text())) > 15


def test_the_path_of_one_point_is_short():
    """A newcomer who follows one point from the command line to its row opens these modules, each from one before."""
    tour = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d+) \| \[`(\S+)`\]\(\.\./flopray/(\S+)\.py\) \|", tour, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    modules = [path for _, _, path in rows]
    assert modules == [shown for _, shown, _ in rows]
    assert (modules[0], modules[-1]) == ("cli/main", "store/table")
    assert len(modules) == len(set(modules)) <= 30
    assert f"{len(modules)} modules, in the order in which the point reaches them" in tour
    dotted = [f"flopray.{module.replace('/', '.')}" for module in modules]
    for place, module in enumerate(dotted[1:], 1):
        before = [imports(earlier) for earlier in dotted[:place]]
        assert any(module in within_project(one.at_once | one.later) for one in before), module
