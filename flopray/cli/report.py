"""One page of some runs that answers what a step costs: `flopray report RUN [RUN ...]`.

The page works without a network; beside it lie a summary as Markdown, for a pull request, and the tables as LaTeX.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flopray.cli.axes import flag_of
from flopray.cli.endings import carry_out
from flopray.cli.parser import OneLineParser
from flopray.description import Field
from flopray.errors import InputError
from flopray.report.document import build, html, text
from flopray.report.document.data import load
from flopray.store.containment import check_own
from flopray.store.manifests import of_reference
from flopray.store.run import RunFolder
from flopray.workloads.registry import BUILT_IN

FORMATS = ("html", "md", "tex")
_EXAMPLES = """examples:
  flopray report results/RUN
      results/RUN/report.html, report.md and report.tex
  flopray report results/H100_RUN results/H200_RUN --out both
      several runs in one page: both/report.html and so on
  flopray report results/RUN --formats md
      only the summary for a pull request

What the page says, in this order: what a step costs, where its time, joules and FLOPs go, interactive surfaces and
comparisons, how sure the numbers are and on which boards, what the audit found, how to measure it again.
exit codes: 0 written, 2 bad input."""


def write(runs: Sequence[str | Path], out: Path | None, formats: Sequence[str], console: Console) -> list[Path]:
    """Write the report of some runs, and say where it is.

    Args:
        runs: folders or URIs.
        out: folder of the report; None takes that of the first run.
        formats: among `FORMATS`.
        console: for the paths.

    Returns:
        The files.

    Raises:
        InputError: a run cannot be read or has no rows, or the folder cannot be written.
    """
    measured = load(runs)
    folder = out or measured.folders[0].results_path
    document = build.document_of(measured, [*map(command_of, measured.folders), _own_command(runs, out)])
    made = {"html": html.to_html, "md": text.to_markdown, "tex": text.to_latex}
    paths = []
    for name in formats:
        path = folder / f"report.{name}" if out else check_own(folder / f"report.{name}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(made[name](document), encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error
        paths.append(path)
        console.print(f"report: {path}", highlight=False, markup=False, soft_wrap=True)
    return paths


def command_of(folder: RunFolder) -> str:
    """The command that measures the same again; of a run that no sweep made, only its name."""
    if of_reference(folder.manifest):
        return f"# {folder.address} comes with flopray: flopray reference {folder.name} has its commands"
    sweep = folder.manifest.get("sweep")
    if not isinstance(sweep, Mapping) or not isinstance(sweep.get("axes"), Mapping):
        return f"# {folder.name}: made from other runs"
    words = ["flopray", "sweep", str(sweep.get("workload", ""))]
    built_in = BUILT_IN.get(words[2])
    fields = {each.name: each for each in (built_in or folder.workload).fields}
    for name, values in sweep["axes"].items():
        if name == "device_type" or not isinstance(values, list):
            continue
        field = fields.get(name, Field(name=name))
        if not field.implied:
            words += [flag_of(field), *(_word(field, value) for value in values)]
    settings = sweep.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    for name, flag in (("phases", "--phases"), ("instruments", "--instruments")):
        if isinstance(settings.get(name), list):
            words += [flag, *map(str, settings[name])]
    for name, flag in (("target_error", "--target-error"), ("max_seconds", "--max-seconds"), ("seed", "--seed")):
        if settings.get(name) is not None:
            words += [flag, f"{settings[name]:g}"]
    return " ".join(map(shlex.quote, words))


def _word(field: Field, value: Any) -> str:
    """The word of a command line that stands for a value."""
    return next((word for word, known in field.choice_words.items() if known == value), str(value))


def _own_command(runs: Sequence[str | Path], out: Path | None) -> str:
    words = ["flopray", "report", *map(str, runs), *(["--out", str(out)] if out else [])]
    return " ".join(map(shlex.quote, words))


def build_parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = OneLineParser(
        prog="flopray report",
        description="Write one page that says what a step costs, how sure that is, and how to measure it again.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="runs of any clusters: folders, URIs or reference:NAME")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the folder of the first RUN")
    parser.add_argument(
        "--formats",
        nargs="+",
        default=list(FORMATS),
        choices=FORMATS,
        metavar="FORMAT",
        help="html, md, tex (default all)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = build_parser().parse_args(argv)
    return carry_out(lambda console: write(options.runs, options.out, options.formats, console))
