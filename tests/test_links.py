"""Links of the documentation that point into the repository lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


def test_the_tour_names_modules():
    assert len(re.findall(r"\.\./flopray/\S+\.py", (ROOT / "docs" / "architecture.md").read_text())) > 15


def test_the_way_of_one_point_is_short():
    """A newcomer who follows one point from the command line to its row opens these modules."""
    tour = (ROOT / "docs" / "architecture.md").read_text()
    modules = re.findall(r"^\| \d+ \| \[`\S+`\]\(\.\./(\S+)\) \|", tour, re.MULTILINE)
    assert modules[0] == "flopray/cli/main.py"
    assert modules[-1] == "flopray/store/table.py"
    assert len(modules) == len(set(modules)) <= 32
