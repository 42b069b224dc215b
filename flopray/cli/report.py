"""One page of some runs, with what a step costs: `flopray report RUN [RUN ...]`.

The page works without a network; with it come a summary as Markdown, for a pull request, and the tables as LaTeX.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from flopray.cli.axes import flag_of
from flopray.cli.endings import carry_out, results_console
from flopray.cli.parser import SettingsParser
from flopray.description import Field
from flopray.errors import InputError, SettingError
from flopray.report.document import build, html, text
from flopray.report.document.data import load
from flopray.settings import MeasureSettings, check_settings, setting, settings_of
from flopray.store import atomic
from flopray.store.containment import check_own
from flopray.store.manifests import of_reference
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.workloads.registry import BUILT_IN

FORMATS = ("html", "md", "tex")
#: Settings that the command of a run names even at their defaults, which may change.
_ALWAYS = ("phases", "instruments", "target_error", "max_seconds", "seed")
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
            atomic.write(path, made[name](document))
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error
        paths.append(path)
        console.print(f"report: {path}", highlight=False, markup=False, soft_wrap=True)
    return paths


def command_of(folder: RunFolder) -> str:
    """The command that measures the same again, or the commands, a line each; only the name of a run without a sweep.

    A run that was merged from sweeps with different axes or settings has those of all of them: its own axes are their
    union, of which not every combination was measured.
    """
    if of_reference(folder.manifest):
        return f"# {folder.address} comes with flopray: flopray reference {folder.name} has its commands"
    sweeps = _sweeps_of(folder.manifest)
    if not sweeps:
        return f"# {folder.name}: made from other runs"
    return "\n".join(dict.fromkeys(_command(folder, sweep) for sweep in sweeps))


def _sweeps_of(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The sweeps of a run's rows: its own, or those of its sources where these differ in settings."""
    merged = manifest.get("merged")
    sources = merged.get("from") if isinstance(merged, Mapping) and merged.get("not_resumable") else None
    found: list[Any] = (
        [one.get("sweep") for one in sources if isinstance(one, Mapping)] if isinstance(sources, list) else []
    )
    if not found or not all(map(_is_a_sweep, found)):
        found = [manifest.get("sweep")]
    return [sweep for sweep in found if _is_a_sweep(sweep)]


def _is_a_sweep(sweep: Any) -> bool:
    return isinstance(sweep, Mapping) and isinstance(sweep.get("axes"), Mapping)


def _command(folder: RunFolder, sweep: Mapping[str, Any]) -> str:
    """The command of one sweep, a line for each shard."""
    named = str(sweep.get("workload", ""))
    built_in = BUILT_IN.get(named)
    fields = {each.name: each for each in (built_in or folder.workload).fields}
    axes = {name: values for name, values in sweep["axes"].items() if isinstance(values, list)}
    words = ["sweep", _file_of(folder) or named]
    for name, values in axes.items():
        field = fields.get(name, Field(name=name))
        if name != "device_type" and not field.implied:
            words += [flag_of(field), *(_word(field, value) for value in values)]
    settings = sweep.get("settings")
    words += [*_searching(sweep), *_measuring(settings if isinstance(settings, Mapping) else {})]
    shards = sweep.get("shards")
    parts = [["--shard", str(shard)] for shard in shards] if isinstance(shards, list) and shards else [[]]
    return "\n".join(" ".join(map(shlex.quote, ["flopray", *words, *part])) for part in parts)


def _file_of(folder: RunFolder) -> str | None:
    """`FILE.py:NAME` of a workload that was swept from a file, without the folder of who measured."""
    source = folder.manifest.get("workload_source")
    if not isinstance(source, Mapping) or not source.get("path"):
        return None
    return f"{Path(str(source['path'])).name}:{source.get('class_name')}"


def _searching(sweep: Mapping[str, Any]) -> list[str]:
    """The flags of a search: without them the whole grid would be measured."""
    words = []
    for name in ("search", "samples", "objective"):
        known, value = settings_of(Sweep)[name], sweep.get(name)
        if value not in (None, known.default):
            words += [known.option, *map(str, value if isinstance(value, list) else [value])]
    return words


def _measuring(settings: Mapping[str, Any]) -> list[str]:
    """The flags of how a run was measured: always the usual ones, and others where they are not the default."""
    words = []
    for name, known in settings_of(MeasureSettings).items():
        value = settings.get(name)
        if value is None or (name not in _ALWAYS and value == known.default):
            continue
        if known.many:
            words += [known.option, *map(str, value)] if isinstance(value, list) else []
        elif known.kind is bool:
            words.append(known.option)
        else:
            words += [known.option, f"{value:.12g}" if isinstance(value, float) else str(value)]
    return words


def _word(field: Field, value: Any) -> str:
    """The word of a command line that stands for a value."""
    return next((word for word, known in field.choice_words.items() if known == value), str(value))


def _own_command(runs: Sequence[str | Path], out: Path | None) -> str:
    words = ["flopray", "report", *map(str, runs), *(["--out", str(out)] if out else [])]
    return " ".join(map(shlex.quote, words))


@dataclass(frozen=True, kw_only=True)
class Options:
    """The runs, the folder and the formats.

    Raises:
        SettingError: an unknown format, or a file where a folder is meant.
    """

    runs: tuple[str, ...] = setting(
        doc="runs of any clusters: folders, URIs or reference:NAME",
        many=True,
        positional=True,
        metavar="RUN",
        distinct=False,
    )
    out: Path | None = setting(None, doc="default: the folder of the first RUN", kind=Path, metavar="DIR")
    formats: tuple[str, ...] = setting(
        FORMATS, doc="{choices} (default all)", choices=FORMATS, noun="format", metavar="FORMAT"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.out is not None and self.out.suffix.lstrip(".") in FORMATS:
            folder = self.out.parent
            raise SettingError(
                f"<out>: {self.out} looks like a file: name the folder that gets report.html, such as {folder}"
            )


def build_parser() -> SettingsParser:
    """The command line of this script."""
    return SettingsParser(
        Options,
        prog="flopray report",
        description="Write one page that says what a step costs, how sure that is, and how to measure it again.",
        epilog=_EXAMPLES,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return carry_out(build_parser(), argv, _written)


def _written(options: Options) -> None:
    write(options.runs, options.out, options.formats, results_console())
