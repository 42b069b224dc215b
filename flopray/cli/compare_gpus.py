"""GPUs and models compared by what their phases cost: `python analysis/compare_gpus.py RUN [RUN ...]`.

Merges runs of different clusters, prints time, energy and efficiency of each phase, writes the tables as CSV, Markdown
and LaTeX, and draws them. Several models that did the same work are also set against their sizes. `--published` sets
flopmetrics' published Llama results beside them, audited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from flopray.cli.endings import carry_out, results_console
from flopray.cli.parser import SettingsParser
from flopray.errors import InputError, SettingError
from flopray.point import PRECISIONS
from flopray.report.boards.comparable import of_runs, remarks
from flopray.report.boards.data import boards_of
from flopray.report.boards.files import write_boards
from flopray.report.boards.statement import statement
from flopray.report.boards.table import board_tables
from flopray.report.gpus import published as gpu_published
from flopray.report.gpus.comparison import Comparison, comparisons_of
from flopray.report.gpus.data import EFFICIENCY, MFU, compared_shapes, iter_rows, load_runs, why_missing
from flopray.report.gpus.figures import draw_comparison
from flopray.report.gpus.files import write_tables
from flopray.report.gpus.html import page_path, write_page
from flopray.report.gpus.model_files import write_models
from flopray.report.gpus.models import models_of, models_table
from flopray.report.gpus.table import EXPLANATION, beside_table, ratio_tables, tables_of
from flopray.report.gpus.truth import truth_table
from flopray.report.gpus.types import rows_of_types
from flopray.report.page import page_setting, page_wanted
from flopray.report.plot.figures import formats_setting
from flopray.settings import check_settings, setting
from flopray.store.containment import check_own
from flopray.store.location import local_folder, open_run, results_folder
from flopray.units import counted

#: Most shapes in tables that people read; more (the grid of an MLP) are thinned.
MAX_SHAPES = 8
_EXAMPLES = """examples:
  python sweeps/llama_gpu.py --address auto
      measures Llama on every type of GPU of the running cluster
  flopray compare-gpus results/RUN
      tables, RUN/tables/ and figures in RUN/plots/gpus/
  flopray compare-gpus results/H100_RUN results/A100_RUN --out figures --tables tables
      runs of two clusters as one comparison
  flopray compare-gpus results/RUN --published architecture/results_optimized
      flopmetrics' published results beside ours; what cannot be true is crossed out
  flopray compare-gpus --published architecture/results_optimized --out /tmp/theirs
      theirs alone
  flopray compare-gpus results/RUN --published architecture/results_optimized --truth H100
      only three lines of Markdown: published and measured efficiency of the forward pass
  flopray compare-gpus results/ONE results/TWO --boards
      boards of one type against one another, from runs of the same sweep or a merged run

how to read the figures:
  a marker is a GPU, a colour a precision; filled points were measured, hollow ones published
  red cross      impossible by the audit, such as more FLOP/s than the chip has units for
  orange ring    implausible, such as more FLOPs per joule than peak over board power
  grey mark      a point without a number, with its reason in the legend
  over models    energy of a token over parameters and model FLOPs, where runs have several models
  Pareto front   points that no other point beats in both time and energy per token

exit codes: 0 compared, 2 bad input."""


def _gpu_and_precision(text: str) -> tuple[str, str]:
    gpu, _, precision = text.partition(":")
    precision = precision or "bf16"
    if not gpu or precision not in PRECISIONS:
        raise InputError(f"{text!r} is not GPU[:PRECISION], such as H100 or H100:fp16")
    return gpu, precision


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is compared, and where tables and figures go.

    Raises:
        SettingError: nothing to compare, settings that exclude each other, or an unknown format.
    """

    runs: tuple[str, ...] = setting(
        (), doc="runs of any clusters: folders, URIs or reference:NAME", positional=True, metavar="RUN", distinct=False
    )
    published: Path | None = setting(
        None, doc="flopmetrics' JSON lines, a folder or one file", kind=Path, metavar="DIR"
    )
    truth: tuple[str, str] | None = setting(
        None,
        doc="print only a table for a README: the published forward pass against ours (default precision bf16)",
        kind=_gpu_and_precision,
        metavar="GPU[:PRECISION]",
    )
    boards: bool = setting(
        False,
        doc="compare the boards of each type with one another instead: factors, how far rows agree, each left out",
    )
    tables: Path | None = setting(
        None, doc="default: that of --out, else tables/ of the first RUN", kind=Path, metavar="DIR"
    )
    out: Path | None = setting(
        None, doc="of figures and tables; default: plots/ and tables/ of the first RUN", kind=Path, metavar="DIR"
    )
    formats: tuple[str, ...] = formats_setting("png")
    html: bool | None = page_setting()

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.runs and not self.published:
            raise SettingError("name at least one <runs>, or <published> DIR")
        if self.boards and (self.published or not self.runs):
            raise SettingError("<boards> compares boards of measured runs: name <runs>s, without <published>")
        if self.truth and not self.published:
            raise SettingError("<truth> compares with published results: name them with <published> DIR")


def draw_run(run: Path, console: Console) -> None:
    """Draw and tabulate one run into its own folder, as a sweep does at its end.

    Args:
        run: its folder; gets `plots/gpus/`, `plots/gpus.html` where plotly is installed, and `tables/`.
        console: where the paths of the results are printed.

    Raises:
        InputError: the folder is not a run, has no rows, or cannot be written.
    """
    rows, notes = rows_of_types(load_runs([run]))
    comparisons = comparisons_of(rows)
    _say(console, *notes)
    tables, plots, html = check_own(run / "tables"), check_own(run / "plots"), page_wanted(None)
    _save(console, comparisons, tables, plots, ("png",), html)
    _save_models(console, rows, tables, plots, ("png",), html=html)


def compare(console: Console, options: Options) -> None:
    """Do what the command line asks for.

    Raises:
        InputError: a path that cannot be read or written, or nothing to compare.
    """
    html = page_wanted(options.html)
    parts, notes = [], []
    runs = [local_folder(run) for run in options.runs]
    if options.boards:
        _compare_boards(console, runs, options)
        return
    if runs:
        rows, notes = rows_of_types(load_runs(runs))
        parts.append(rows)
    if options.published:
        parts.append(gpu_published.load(options.published))
    rows = pd.concat(parts, ignore_index=True)
    if options.truth:
        # plain text, so that it can be piped into a file
        print(truth_table(rows, *options.truth))
        return
    comparisons = comparisons_of(rows)
    _say(console, *notes)
    _print_tables(console, comparisons)
    for group in models_of(rows):
        table = models_table(group)
        console.print()
        console.print(table.to_rich())
        _say(console, *table.notes)
    folder = results_folder(options.runs[0]) if runs else None
    tables = options.tables or options.out or (check_own(folder / "tables") if folder else None)
    out_dir = options.out or (check_own(folder / "plots") if folder else None)
    _save(console, comparisons, tables, out_dir, options.formats, html)
    _save_models(console, rows, tables, out_dir, options.formats, html=html)


def _compare_boards(console: Console, runs: Sequence[Path], options: Options) -> None:
    """Compare the boards of each type with one another: tables, a figure for each type, JSON with all figures.

    Raises:
        InputError: no run, no rows that are ok, or a folder that cannot be written.
    """
    frame = of_runs([open_run(run) for run in dict.fromkeys(runs)])
    devices = list(boards_of(frame)) if len(frame) else []
    if not devices:
        raise InputError(f"{', '.join(map(str, runs))}: no rows that are ok")
    tables = [table for device in devices for table in board_tables(device)]
    said = list(remarks(frame))
    for device in devices:
        _say(console, *statement(device))
    _say(console, *said)
    for table in tables:
        console.print()
        console.print(table.to_rich())
        _say(console, *table.notes)
    folder = results_folder(options.runs[0])
    tables_folder = options.tables or options.out or check_own(folder / "tables")
    plots = options.out or check_own(folder / "plots")
    paths = write_boards(devices, tables, tables_folder, plots, options.formats, said)
    _say(console, *(f"written: {path}" for path in paths))


def build_parser() -> SettingsParser:
    """The command line of this script."""
    return SettingsParser(
        Options,
        prog="flopray compare-gpus",
        description="Compare GPUs by time, energy and efficiency of each phase of a model, and models by their tokens.",
        epilog=_EXAMPLES,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return carry_out(build_parser(), argv, lambda options: compare(results_console(), options))


def _shapes_shown(comparison: Comparison) -> list[str]:
    return compared_shapes(comparison.rows, comparison.shapes, MAX_SHAPES)


def _print_tables(console: Console, comparisons: Sequence[Comparison]) -> None:
    console.print(EXPLANATION, highlight=False, markup=False)
    for comparison in comparisons:
        shown = _shapes_shown(comparison)
        if len(shown) < len(comparison.shapes):
            _say(console, f"{len(shown)} of {counted(len(comparison.shapes), 'shape')} are shown; the CSV has all")
        further = *ratio_tables(comparison, shown), beside_table(comparison)
        for table in (*tables_of(comparison, shown), *(table for table in further if table)):
            console.print()
            console.print(table.to_rich())
            for note in table.notes:
                console.print(note, highlight=False, markup=False)


def _save(
    console: Console,
    comparisons: Sequence[Comparison],
    tables: Path | None,
    out_dir: Path | None,
    formats: Sequence[str],
    html: bool,
) -> None:
    """Write tables, figures and the page where a folder is given, and say where they are."""
    if tables is not None:
        write_tables(comparisons, tables, {each.folder: _shapes_shown(each) for each in comparisons})
        _say(console, f"tables: {tables}/gpus.{{csv,md,tex}}")
    if out_dir is None:
        _say(console, "no figures: no run's folder could get them; name one with --out DIR")
        return
    for comparison in comparisons:
        paths, missing = draw_comparison(comparison, out_dir, formats)
        if paths:
            _say(console, f"{counted(len(paths), 'figure')}: {out_dir / 'gpus' / comparison.folder}/")
        if missing:
            _say(console, f"no values for {', '.join(missing)} of {comparison.title} ({_reasons(comparison)})")
    if html:
        try:
            _say(console, f"interactive page: {write_page(comparisons, page_path(out_dir))}")
        except OSError as error:
            raise InputError(f"cannot write {error.filename or out_dir}: {error.strerror or error}") from error


def _save_models(
    console: Console,
    rows: pd.DataFrame,
    tables: Path | None,
    out_dir: Path | None,
    formats: Sequence[str],
    *,
    html: bool,
) -> None:
    """Where several models did the same work, also compare them with one another."""
    paths = write_models(models_of(rows), tables, out_dir, formats, html=html)
    figures = [path for path in paths if path.suffix.removeprefix(".") in formats]
    if figures:
        _say(console, f"{counted(len(figures), 'figure')} over models: {figures[0].parent}/")
    _say(console, *(f"models: {path}" for path in paths if path not in figures))


def _reasons(comparison: Comparison) -> str:
    """The two most frequent reasons why rows have no efficiency or MFU."""
    rows = list(iter_rows(comparison.rows))
    said = Counter(reason for row in rows for metric in (EFFICIENCY, MFU) if (reason := why_missing(row, metric)))
    return "; ".join(reason for reason, _ in said.most_common(2)) or "too few phases or shapes"


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
