"""The commands of docs/tutorial.md run as written, and print what the page shows."""

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
def test_the_tutorial_prints_what_it_says(warm_python, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    import make_tutorial

    def python(arguments, folder, environment):
        return warm_python.run(*arguments, cwd=folder, env=environment)

    monkeypatch.setattr(make_tutorial, "python", python)
    text = make_tutorial.PAGE.read_text(encoding="utf-8")
    assert "```text\n```" not in text
    new = make_tutorial.written(text)
    assert new == text, "the outputs have changed: python docs/make_tutorial.py writes them"
