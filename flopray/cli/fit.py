"""Models of time and energy fitted to runs, and their errors on unseen rows: `flopray fit RUN ...`.

python analysis/predict.py RUN [RUN ...] [--out model.json] [--held-out n,d,m,board]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pandas as pd
from rich.console import Console

from flopray.cli.endings import carry_out, results_console
from flopray.cli.parser import SettingsParser
from flopray.description import Description
from flopray.errors import InputError
from flopray.predict.judging import Judgement
from flopray.predict.predictor import Predictor, fit
from flopray.report.plot.figures import formats_setting, paper_style, save_figure
from flopray.report.prediction.figure import draw_predicted
from flopray.report.prediction.tables import LEGEND, constants_table, overall_table, sets_table
from flopray.settings import MeasureSettings, check_settings, same_setting, setting
from flopray.store import atomic
from flopray.store.location import open_run
from flopray.store.manifests import workload_in
from flopray.units import counted
from flopray.workloads.registry import BUILT_IN

_EXAMPLES = """examples:
  flopray fit results/mlp
      four models for each type of device, precision and execution, and their errors on held-out rows
  flopray fit results/mlp results/counters --out model.json
      a run with counters shows which kernels products get; the models as JSON, for flopray.predict
  flopray fit results/h100 results/h200 --held-out d,board
      only widths and boards are held out in turn
  flopray fit results/models --leave-out llama-3.2-1b
      no row of that model is used, so that its cost is predicted as that of a new one

what is held out: whole values of a dimension in turn, whole models, whole boards; never single rows.
exit codes: 0 fitted, 2 bad input."""


def _kinds(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is fitted, what is held out, and where models and figures go.

    Raises:
        SettingError: a value that cannot be.
    """

    runs: tuple[str, ...] = setting(
        doc="runs of any clusters: folders, URIs or reference:NAME",
        many=True,
        positional=True,
        metavar="RUN",
        distinct=False,
    )
    out: Path | None = setting(None, doc="write the models as JSON", kind=Path, metavar="FILE")
    held_out: list[str] | None = setting(
        None,
        doc="what is held out in turn, such as n,d,m,board,model, or none (default: all that there is)",
        kind=_kinds,
        metavar="KINDS",
    )
    leave_out: tuple[str, ...] = setting((), doc="models whose rows are not used", distinct=False, metavar="MODEL")
    reference_temperature_c: float = same_setting(
        MeasureSettings, "reference_temperature_c", doc="of energies (default {default})"
    )
    constants: bool = setting(False, doc="print the constants of model 3, too")
    held_out_list: Path | None = setting(
        None, doc="write the sets with hashes of their rows", kind=Path, metavar="FILE"
    )
    figures: Path | None = setting(
        None, doc="draw predicted against measured into this folder", kind=Path, metavar="DIR"
    )
    formats: tuple[str, ...] = formats_setting("png")

    def __post_init__(self) -> None:
        check_settings(self)


def fit_runs(console: Console, options: Options) -> None:
    """Do what the command line asks for.

    Raises:
        InputError: a path that is not a run or cannot be written, or nothing that can be fitted.
    """
    for path in (options.out, options.held_out_list):
        if path and not path.parent.is_dir():  # a fit takes minutes
            raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    frames, workloads = load_frames(options.runs)
    predictor = fit(
        frames,
        workloads=workloads,
        kinds=None if options.held_out == ["none"] else options.held_out,
        leave_out=options.leave_out,
        reference_c=options.reference_temperature_c,
        judge=options.held_out != ["none"],
    )
    for group in predictor.groups:
        for table in (sets_table(group), *((constants_table(group),) if options.constants else ())):
            console.print(table.to_rich())
            console.print()
    console.print(overall_table(predictor).to_rich())
    _say(console, f"mean absolute errors in % on rows that a fit did not see; {LEGEND}", *_statements(predictor))
    if options.out:
        predictor.save(options.out)
        _say(console, f"models: {options.out}")
    if options.held_out_list:
        write_held_out(options.held_out_list, predictor)
        _say(console, f"held-out sets: {options.held_out_list}")
    if options.figures:
        _say(console, *(f"figure: {path}" for path in draw(predictor, options.figures, options.formats)))


def load_frames(runs: Sequence[str]) -> tuple[list[pd.DataFrame], dict[str, Description]]:
    """Records of runs, and the descriptions of their workloads.

    Raises:
        InputError: a path is not a run.
    """
    frames, described = [], {}
    for run in dict.fromkeys(map(str, runs)):
        folder = open_run(run)
        frames.append(folder.load())
        found = workload_in(folder.manifest)
        if found.name not in BUILT_IN:
            described.setdefault(found.name, found)
    return frames, described


def write_held_out(path: Path, predictor: Predictor) -> None:
    """The sets with the hashes of their rows, one a line.

    Raises:
        InputError: the file cannot be written.
    """
    sets = [one.held_out for group in predictor.groups for one in group.judged]
    lines = ",\n".join(msgspec.json.encode(one).decode() for one in sets)
    try:
        atomic.write(path, f"[\n{lines}\n]\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def draw(predictor: Predictor, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Figures of predicted against measured, one for each group that was judged.

    Raises:
        InputError: the folder cannot be written.
    """
    paths: list[Path] = []
    for group in predictor.groups:
        if not group.errors:
            continue
        where = group.where
        name = f"predicted_{where.family}_{where.device_type}_{where.precision}_{where.execution}"
        with paper_style():
            figure = draw_predicted(group)
        try:
            paths += save_figure(figure, folder / name, formats)
        except OSError as error:
            raise InputError(f"cannot write {error.filename or folder}: {error.strerror or error}") from error
    return paths


def _statements(predictor: Predictor) -> list[str]:
    """What was held out, and what a group cannot answer."""
    lines = [f"energy at {predictor.reference_c:g} °C"]
    lines += [f"not fitted, {counted(count, 'row')}: {reason}" for reason, count in predictor.left_out.items()]
    for group in predictor.groups:
        where = group.where
        label = where.title
        if where.carried_from:
            said = f"no rows: constants of the {where.carried_from}, scaled by datasheets"
            lines.append(f"{label}: {said}; errors are of other work carried in the same way")
            continue
        if not group.judged:
            lines.append(f"{label}: nothing could be held out, so its errors are not known and it gives no intervals")
        if group.fit.energy is None:
            lines.append(f"{label}: no energy was measured")
        if group.fit.time_residual is None:
            lines.append(f"{label}: too few rows to learn a residual, so model 4 is model 3")
        lines += _outside(label, group.judged)
    return lines


def _outside(label: str, judged: Sequence[Judgement]) -> list[str]:
    edges = [one.held_out.label for one in judged if one.inside == 0]
    return [f"{label}: predicted beyond all other rows: {', '.join(edges)}"] if edges else []


def build_parser() -> SettingsParser:
    """The command line of this script."""
    return SettingsParser(
        Options,
        prog="flopray fit",
        description="Fit models of time and energy to runs, and state their errors on unseen rows.",
        epilog=_EXAMPLES,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return carry_out(build_parser(), argv, lambda options: fit_runs(results_console(), options))


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
