"""What docs/tutorial.md says is run as it stands there, and prints what stands there."""

import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_tutorial_prints_what_it_says():
    sys.path.insert(0, str(DOCS))
    import make_tutorial

    text = make_tutorial.PAGE.read_text(encoding="utf-8")
    assert "```text\n```" not in text
    new = make_tutorial.written(text)
    assert new == text, "the outputs are others now: python docs/make_tutorial.py writes them"
