"""Writes docs/results/prediction.md: how wrong fitted models are on rows that they have not seen.

python docs/make_prediction.py --held-out   write the list of held-out sets; commit it before the first fit
python docs/make_prediction.py --fit        fit to the runs, refuse rows that are not on the list, draw the figures
                                            and write the models that come with flopray (some minutes)
python docs/make_prediction.py              write the page from these models
python docs/make_prediction.py --answers MODELS --runs RUN...
                                            print what other models say of these runs
python docs/make_prediction.py --check      write nothing; exit code 1 where the page, the list or the runs differ

The runs are those of docs/results, or those named after `--runs`, such as `reference:h100-mlp`.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from prediction_text import EARLIER, FOOT, HEAD, HISTORY, PLANS, PUBLISHED, TODAY

from flopray.cli.fit import draw, load_frames
from flopray.description import Description
from flopray.point import Point
from flopray.predict.carried import TYPE
from flopray.predict.fitting import MODELS
from flopray.predict.held_out import BOARD, MODEL, HeldOut, held_out_sets
from flopray.predict.kernel_choice import distinct
from flopray.predict.measured import Measured, measured_rows, plain_rows
from flopray.predict.prediction import Estimate
from flopray.predict.predictor import Group, Predictor, fit
from flopray.predict.shipped import PATH as SHIPPED
from flopray.predict.work import work_of
from flopray.records import Row
from flopray.report.prediction.tables import LEGEND, constants_tables, overall, overall_table, sets_table
from flopray.report.text_table import TextTable
from flopray.settings import MeasureSettings
from flopray.store.location import open_run
from flopray.sweep.planned_energy import PlannedEnergy, planned_energy
from flopray.sweep.prediction import rates_of
from flopray.units import prefixed
from flopray.workloads import mlp
from flopray.workloads.registry import BUILT_IN, point_from

RESULTS = Path(__file__).with_name("results")
PAGE = RESULTS / "prediction.md"
FOLDER = RESULTS / "prediction"
LIST = FOLDER / "held_out.json"
BOARDS = tuple(f"boards/{name}" for name in ("h100_7b5b", "h100_d3fe", "h200_4bc7", "h200_7757", "h200_0f8e"))
SPREAD = tuple(
    f"reference/h200-mlp-spread/{name}"
    for name in (
        "spread_97ae",
        "spread_a8aa",
        "spread_a8aa_tf32_fp16",
        "spread_9f6b_tf32",
        "spread_343b_tf32_fp16",
    )
)
#: Sizes that are no powers of two; most of d and m are no multiples of 64.
ODD = tuple(f"reference/h200-mlp-odd/{name}" for name in ("odd_ab91", "oddh_ab91", "odd_c8c9", "oddh_c8c9"))
#: New shapes on boards that no fit has; their answers were read after the last fit.
BLIND = ("blind/blind_455b", "blind/blind_d463")
#: Rows of odd sizes in this precision are in no fit either: they cost those of other sizes more than they gain.
ODD_LEFT_OUT = "fp32"
MODELS_RUN = "reference/h200-lm/lm_97ae"
MLP_RUNS = ("h100_mlp_fp32", "h100_mlp_bf16", *BOARDS, *SPREAD, *ODD)
RUNS = tuple(str(RESULTS / name) for name in (*MLP_RUNS, MODELS_RUN, "h200_causal_lm"))
#: Runs with hardware counters only: they say which kernels cuBLAS chose for products.
COUNTED = tuple(
    str(RESULTS / name)
    for name in (
        "h100_counters_fp32",
        "h100_counters_bf16",
        "h200_counters_bf16",
        "reference/h200-counters/counters_a8aa",
        "reference/h200-counters/counters_78c1_fp16",
    )
)
#: In no fit: what the models say of it is compared with what was measured.
SLICES = ("reference/h200-mlp-slice/slice_528a", "reference/h200-mlp-slice/slice_0fc4")
#: Sweeps whose plan is compared with what they took: of one board, without a pause, and with models for their kind.
#: Left out: `oddh_ab91` and `oddh_c8c9` stand still for 41 and 45 s, and their files do not say why; `h200_causal_lm`,
#: `h200_causal_lm_longer` and `llama_again` were merged from several sweeps, whose ends are not known;
#: `h100_llama` and `h200_llama` are eager and in part fp32, to which no language model was fitted; runs with counters
#: have no joules.
PLANNED = (*BOARDS, *SPREAD, *ODD[::2], *SLICES, "h200_grid", "h100_mlp_fp32", "h100_mlp_bf16", MODELS_RUN)
MLP, LANGUAGE_MODELS = "mlp", "causal_lm"
LEFT_OUT_RUNS = ("h200_causal_lm", "h100_llama", "llama_again", "h200_llama")
#: Between two rows of a sweep; building and compiling a model are part of a row.
_LONGEST_PAUSE_S = 10.0
#: Left out of the fit, so that predictions for it can be compared with its measurement.
LEFT_OUT = ("llama-3.2-1b",)


def fitted_frames(runs: Sequence[str]) -> tuple[list[Any], dict[str, Description]]:
    """Frames of runs, without the rows that are in no fit."""
    frames, workloads = load_frames(runs)
    odd = {str(RESULTS / name) for name in ODD}
    kept: list[Any] = list(frames)  # the stubs of pandas do not know that a mask keeps a DataFrame
    for place, run in enumerate(runs):
        if run in odd:
            kept[place] = kept[place][kept[place]["precision"] != ODD_LEFT_OUT]
    return kept, workloads


def measured(runs: Sequence[str]) -> tuple[Measured, dict[str, Description]]:
    """The rows of runs that can be fitted, and the descriptions of their workloads."""
    frames, workloads = fitted_frames(runs)
    rows = measured_rows(frames, workloads=workloads, leave_out=LEFT_OUT)
    return rows, {**{name: cls() for name, cls in BUILT_IN.items()}, **workloads}


def sets_of(rows: Measured, workloads: dict[str, Description]) -> list[HeldOut]:
    """All sets of some rows, sorted."""
    found = []
    for name in sorted(set(rows.column("workload"))):
        own = rows.of(rows.column("workload") == name)
        found += [one for one, _ in held_out_sets(own.rows, workloads[name])]
    return found


def listed() -> list[HeldOut]:
    """The sets of the list."""
    return msgspec.json.decode(LIST.read_bytes(), type=list[HeldOut])


def differing(sets: Sequence[HeldOut]) -> list[str]:
    """How the sets of the rows differ from the list, a line each."""
    known, there = set(listed()), set(sets)
    lines = [f"not in {LIST.name}: {_name(one)}" for one in sets if one not in known]
    return lines + [f"only in {LIST.name}: {_name(one)}" for one in known - there]


def page_of(predictor: Predictor) -> str:
    """The page."""
    fitted = Predictor([group for group in predictor.groups if not group.where.carried_from], (), predictor.reference_c)
    judged = [one for group in fitted.groups for one in group.judged]
    rows = sum(one.held_out.rows for one in judged)
    outside = sum(round((1 - one.inside) * one.held_out.rows) for one in judged)
    head = HEAD.format(
        celsius=predictor.reference_c,
        sets=len(judged),
        rows=rows,
        outside=outside,
        overall=_plain(overall_table(fitted)),
        goal=goal_line(fitted),
        kinds=_by_kind(fitted),
        uncounted=_uncounted(fitted),
        boards=_boards(fitted),
        types=_types(predictor),
        left_out=_left_out(predictor),
        slice=answers_of(predictor, [str(RESULTS / one) for one in SLICES]),
        blind=answers_of(predictor, [str(RESULTS / one) for one in BLIND]),
        odd=answers_of(predictor, [str(RESULTS / one) for one in ODD], f"precision == '{ODD_LEFT_OUT}'"),
        history=HISTORY.format(
            mlps=_history(fitted), language_models=" | ".join(_errors_by_group(fitted, LANGUAGE_MODELS).values())
        ),
    )
    body = [head, "## Each set\n\n", f"Mean absolute error in %. {LEGEND}.\n\n"]
    for group in fitted.groups:
        body.append(_plain(sets_table(group)))
        body.append(f"![{_title(group)}](prediction/{_figure(group)})\n\n")
    body += ["## Constants of model 3\n\n", _plain(constants_tables(fitted.groups))]
    body += [PUBLISHED.format(ours=_ours(fitted)), PLANS.format(plans=_plan_lines())]
    return "".join([*body, FOOT.format(ends=_ends(fitted))])


def goal_line(predictor: Predictor) -> str:
    """Which groups reach what is wanted, and which do not."""
    lines = []
    for family, what, wanted in ((MLP, "rows of MLPs", 0.05), (LANGUAGE_MODELS, "language models held out", 0.08)):
        reached, missed = [], []
        for label, target, mape in overall_errors(predictor, family):
            (reached if mape <= wanted else missed).append(f"{label} {target} {100 * mape:.1f} %")
        line = f"The goal for {what} is {100 * wanted:g} %. "
        line += f"Model 4 reaches it for {', '.join(reached)}." if reached else "No group reaches it."
        lines.append(line + (f" It misses it for {', '.join(missed)}." if missed else ""))
    kept = [line.replace(" %", "\u00a0%") for line in lines]  # a number stays on the line of its unit
    return "\n\n".join(textwrap.fill(line, 120).replace("\u00a0", " ") for line in kept)


def _by_kind(predictor: Predictor) -> str:
    kinds = list(dict.fromkeys(one.held_out.kind for group in predictor.groups for one in group.judged))
    lines = ["| GPU | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for group in predictor.groups:
        cells = []
        for kind in kinds:
            judged = [one for one in group.judged if one.held_out.kind == kind]
            scores = [overall(judged, target, "learned") for target in ("time", "energy")]
            cells.append(", ".join(f"{100 * score.mape:.1f}" for score in scores if score) or "-")
        lines.append(f"| {_label(group)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _boards(predictor: Predictor) -> str:
    """A table of the boards that were held out."""
    lines = [
        "| GPU | board | rows | time MAPE | bias | coverage | energy MAPE | bias | coverage |",
        "|---|" + "---|" * 8,
    ]
    for group in predictor.groups:
        for one in group.judged:
            if one.held_out.kind != BOARD:
                continue
            cells = [_label(group), f"`{one.held_out.values[0][:8]}`"]
            cells.append(str(one.held_out.rows))
            for target in ("time", "energy"):
                score = one.scores[target]["learned"]
                covered = "-" if score.coverage is None else f"{100 * score.coverage:.0f}"
                cells += [f"{100 * score.mape:.1f}", f"{100 * score.bias:+.1f}", covered]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _left_out(predictor: Predictor) -> str:
    """A table of the model that is in no fit: answers for graphs beside measurements."""
    head = "| device | measured as | phase | time: answer | measured | energy: answer | measured |"
    lines = [head, "|---|" + "---|" * 6]
    frames, workloads = load_frames([str(RESULTS / name) for name in LEFT_OUT_RUNS])
    rows = measured_rows(frames, workloads=workloads)
    for row, work, time_s, energy_j in zip(
        plain_rows(rows.rows), rows.works, rows.times_s, rows.energies_j, strict=True
    ):
        asked = row["model"] in LEFT_OUT and row["sequence_length"] == 1024 and work.precision in ("bf16", "fp8")
        if not asked or work.phase not in ("train_step", "prefill"):  # eagerly, decode waits for launches
            continue
        execution = "graph" if work.execution == "eager" else work.execution
        answer = predictor.predict(work_of(_point_of(row, execution), work.phase), device_type=row["device_type"])
        cells = [f"{row['device_type']} {work.precision}", work.execution, work.phase]
        for estimate, value, unit in ((answer.time_s, time_s, "s"), (answer.energy_j, energy_j, "J")):
            cells += _beside(estimate, float(value), unit)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _beside(estimate: Estimate | None, value: float, unit: str) -> tuple[str, str]:
    """An answer with its range, and what was measured."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return "-", prefixed(value, unit)
    said = f"{prefixed(estimate.value, unit)} ({prefixed(estimate.low, unit)} to {prefixed(estimate.high, unit)})"
    outside = "" if estimate.low <= value <= estimate.high else ", outside"
    return said, prefixed(value, unit) + outside


def answers_of(
    predictor: Predictor, runs: Sequence[str], where: str = "", without: Sequence[str] = (), model: str = MODELS[-1]
) -> str:
    """A table of what models say of the rows of some runs of one type each, beside what was measured.

    Args:
        predictor: the models.
        runs: one or more lines each, one a precision.
        where: only rows for which this expression of columns is true.
        without: runs; rows at shapes that these have are left out.
        model: one of `MODELS`.
    """
    others = [_shapes(measured_rows(load_frames([run])[0]).rows) for run in without]
    head = "| rows | board | time MAPE | bias | inside | energy MAPE | bias | inside |"
    lines = [head, "|---|" + "---|" * 7]
    for run in runs:
        frames, workloads = load_frames([run])
        rows = measured_rows(frames, workloads=workloads)
        for other in others:
            rows = rows.of(~_shapes(rows.rows).isin(other).to_numpy())
        if where:
            rows = rows.of(rows.rows.eval(where).to_numpy(bool))
        for precision in dict.fromkeys(rows.column("precision")):
            part = rows.of(rows.column("precision") == precision)
            asked = {"device_type": part.first("device_type"), "model": model}
            answers = [predictor.predict(work, **asked) for work in part.works]
            cells = [f"{len(answers)} in {precision}", f"`{part.column('device_uuid')[0][:8]}`"]
            for name, values in (("time_s", part.times_s), ("energy_j", part.energies_j)):
                cells += _errors([getattr(answer, name) for answer in answers], values)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shapes(rows: Any) -> Any:
    """The shapes of an MLP's rows, as texts."""
    return rows[[field.name for field in mlp.MLP.fields]].astype(str).agg(" ".join, axis=1)


def _errors(found: Sequence[Estimate], values: Any) -> list[str]:
    """Mean absolute error, mean error, and the share of values that lie in the range of their answer, in %."""
    errors = np.array([one.value for one in found]) / values - 1
    inside = [
        one.low is not None and one.high is not None and one.low <= value <= one.high
        for one, value in zip(found, values, strict=True)
    ]
    return [f"{100 * np.abs(errors).mean():.1f}", f"{100 * errors.mean():+.1f}", f"{100 * np.mean(inside):.0f}"]


def _ends(predictor: Predictor) -> str:
    """Sets of shapes on H200s that are predicted worst, a precision a line."""
    said = []
    for group in predictor.groups:
        if group.where.family != MLP or group.where.device_type != "H200":
            continue
        sets = []
        for one in group.judged:
            time, energy = (one.scores[target]["learned"].mape for target in ("time", "energy"))
            if one.held_out.kind != BOARD and max(time, energy) > _BAD:
                sets.append(f"{one.held_out.label} ({100 * time:.2g}, {100 * energy:.2g} %)")
        line = f"- {group.where.precision}: {'; '.join(sets) or 'none'}"
        said.append(textwrap.fill(line, 120, initial_indent="  ", subsequent_indent="    "))
    return "\n".join(said)


#: An error that the page points out; its text states it.
_BAD = 0.08


def _point_of(row: Row, execution: str) -> Point:
    """The point of a row of a built-in workload, at another execution."""
    workload = BUILT_IN[row["workload"]]()
    names = ("workload", "device_type", "precision", *(f.name for f in workload.fields))
    return point_from({name: row.get(name) for name in names} | {"execution": execution}, workload)


def _uncounted(predictor: Predictor) -> str:
    """A table of held-out shapes of MLPs as if no kernel of theirs had been counted, beside what is known of them."""
    head = (
        "| GPU | rows | time, counted | time, uncounted | coverage | energy, counted | energy, uncounted | coverage |"
    )
    lines = [head, "|---|" + "---|" * 7]
    for group in predictor.groups:
        sets = [one for one in group.judged if one.held_out.kind != BOARD and one.uncounted]
        if group.where.family != MLP or not sets:
            continue
        rows = [one.held_out.rows for one in sets]
        cells = [_label(group), str(sum(rows))]
        for target in ("time", "energy"):
            blind = [one.uncounted[target] for one in sets]
            mapes = [one.scores[target]["learned"].mape for one in sets], [score.mape for score in blind]
            cells += [f"{100 * np.average(one, weights=rows):.1f}" for one in mapes]
            covered = [(score.coverage, score.rows) for score in blind if score.coverage is not None]
            shares, counts = zip(*covered, strict=True)
            cells.append(f"{100 * np.average(shares, weights=counts):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _types(predictor: Predictor) -> str:
    """A table of the types of device that were held out as a whole."""
    lines = ["| rows | fit of | time MAPE | bias | energy MAPE | bias |", "|---|" + "---|" * 5]
    seen = set()
    for group in predictor.groups:
        for one in group.judged if group.where.carried_from else ():
            held = one.held_out
            key = (held.workload, held.device_type, held.precision, held.execution)
            if key in seen:
                continue
            seen.add(key)
            cells = [f"{held.rows} of {held.workload} on {held.device_type}, {held.precision} {held.execution}"]
            cells.append(held.values[0])
            for target in ("time", "energy"):
                score = one.scores[target]["learned"]
                cells += [f"{100 * score.mape:.1f}", f"{100 * score.bias:+.1f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _history(predictor: Predictor) -> str:
    """A table of this fit's errors on MLPs below those of earlier fits."""
    today = _errors_by_group(predictor, MLP)
    lines = ["| fit | " + " | ".join(today) + " |", "|---|" + "---|" * len(today)]
    for fit_, errors in {**EARLIER, TODAY: today}.items():
        lines.append(f"| {fit_} | " + " | ".join(errors.get(label, "-") for label in today) + " |")
    return "\n".join(lines)


def _errors_by_group(predictor: Predictor, family: str) -> dict[str, str]:
    """Errors of model 4 in each group of a family, time and energy."""
    found: dict[str, list[str]] = {}
    for label, _, mape in overall_errors(predictor, family):
        found.setdefault(label, []).append(f"{100 * mape:.1f}")
    return {label: ", ".join(errors) for label, errors in found.items()}


def _label(group: Group) -> str:
    where = group.where
    way = f" {where.execution} (language models)" if where.family == LANGUAGE_MODELS else ""
    return f"{where.device_type} {where.precision}{way}"


def overall_errors(predictor: Predictor, family: str) -> list[tuple[str, str, float]]:
    """Group, target and MAPE of model 4 over all held-out rows; of language models, over models that were held out."""
    found = []
    for group in predictor.groups:
        judged = [one for one in group.judged if family == MLP or one.held_out.kind == MODEL]
        for target in ("time", "energy"):
            score = overall(judged, target, "learned")
            if group.where.family == family and score is not None:
                found.append((_label(group), target, score.mape))
    return found


def _ours(predictor: Predictor) -> str:
    lines = []
    for family, what in ((MLP, "MLPs; whole n, d, m, board held out"), (LANGUAGE_MODELS, "whole models held out")):
        errors = overall_errors(predictor, family)
        for (label, _, time), (_, _, energy) in zip(errors[::2], errors[1::2], strict=True):
            lines.append(f"| flopray, {label} | {100 * energy:.1f} % (time {100 * time:.1f} %) | {what} |")
    return "\n".join(lines)


def plan_of(run: Path) -> tuple[PlannedEnergy, float, float]:
    """What the models plan for the sweep of a run, and what it took: seconds, and joules of the board."""
    folder = open_run(run)
    frame: Any = folder.load()  # the stubs of pandas do not know whether a column is a Series or a DataFrame
    _check_span(run, frame)
    settings = folder.manifest["sweep"]["settings"]  # type: ignore[index]
    names = ("workload", "device_type", "precision", "execution", *(f.name for f in folder.workload.fields))
    points = {row["trial_id"]: point_from({key: row[key] for key in names}) for row in frame.to_dict("records")}
    kept = {key: settings[key] for key in ("target_error", "max_seconds", "sentinel_every_s")}
    asked = MeasureSettings(phases=tuple(settings["phases"]), instruments=tuple(settings["instruments"]), **kept)
    planned = planned_energy(asked, list(points.values()), rates_of(str(frame["device_type"].iloc[0])))
    assert planned is not None
    busy_s = frame["window_s"] + frame["warmup_s"]
    span_s = float(frame["ended_unix_s"].max() - frame["started_unix_s"].min())
    waiting_j = (span_s - busy_s.sum()) * frame["awake_idle_power_w"].mean()
    return planned, span_s, float((busy_s * frame["power_w"]).sum() + waiting_j)


def _check_span(run: Path, frame: Any) -> None:
    """Refuse a run whose first and last row do not bound one sweep of one board."""
    in_order = frame.sort_values("started_unix_s")
    pause_s = (in_order["started_unix_s"].shift(-1) - in_order["ended_unix_s"]).max()
    if frame["device_uuid"].nunique() > 1 or pause_s > _LONGEST_PAUSE_S:
        raise SystemExit(f"{run} has several boards, or was interrupted: its time is not that of a sweep")


def _plan_lines() -> str:
    lines = []
    for name in PLANNED:
        planned, took_s, spent_j = plan_of(RESULTS / name)
        frame: Any = open_run(RESULTS / name).load()
        missed = int((frame["time_converged"].eq(False) | frame["energy_converged"].eq(False)).sum())
        seconds = f"{planned.seconds:.0f} s | {took_s:.0f} s | {planned.seconds / took_s:.2f}"
        joules = f"{planned.energy_j / 1e3:.1f} kJ | {spent_j / 1e3:.1f} kJ | {planned.energy_j / spent_j:.2f}"
        lines.append(f"| `{name.removeprefix('reference/')}` | {missed} of {len(frame)} | {seconds} | {joules} |")
    return "\n".join(lines)


def _plain(table: TextTable) -> str:
    return table.to_markdown().replace("### ", "**", 1).replace("\n\n", "**\n\n", 1) + "\n"


def _title(group: Group) -> str:
    return f"Predicted over measured, {_label(group)}"


def _figure(group: Group) -> str:
    where = group.where
    return f"predicted_{where.family}_{where.device_type}_{where.precision}_{where.execution}.png"


def _name(one: HeldOut) -> str:
    return f"{one.workload} {one.device_type} {one.precision} {one.execution} {one.label} ({one.rows} rows)"


def fit_and_draw(runs: Sequence[str], counted: Sequence[str]) -> None:
    """Fit to runs, draw, and write the models that come with flopray."""
    rows, workloads = measured([*runs, *counted])
    if lines := differing(sets_of(rows, workloads)):
        sys.exit("\n".join([*lines, "write the list with --held-out and commit it before this fit"]))
    frames, _ = fitted_frames(runs)
    made = fit(frames, workloads=workloads, leave_out=LEFT_OUT, counted=rows.counted)
    draw(made, FOLDER, ("png",))
    judged = [group for group in made.groups if group.judged]  # one model alone cannot say how wrong a fit is
    Predictor(judged, distinct(made.counted), made.reference_c).save(SHIPPED)


def check(runs: Sequence[str]) -> list[str]:
    """What differs between runs, list, models and page."""
    rows, workloads = measured(runs)
    lines = differing(sets_of(rows, workloads))
    predictor = Predictor.load(SHIPPED)
    reported = {one.held_out for group in predictor.groups for one in group.judged if one.held_out.kind != TYPE}
    lines += [f"not reported: {_name(one)}" for one in listed() if one not in reported]
    if PAGE.read_text(encoding="utf-8") != page_of(predictor):
        lines.append(f"{PAGE.name} is not what the models say: run python docs/make_prediction.py")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--held-out", action="store_true", help="write the list of sets")
    what.add_argument("--fit", action="store_true", help="fit, draw, and write models and page")
    what.add_argument("--answers", metavar="MODELS", help="only print what these models say of the runs")
    what.add_argument("--check", action="store_true", help="only say what differs")
    parser.add_argument("--runs", nargs="+", default=RUNS, metavar="RUN", help="default: those of docs/results")
    parser.add_argument("--where", default="", metavar="QUERY", help="with --answers: rows such as 'tokens %% 64 != 0'")
    parser.add_argument("--without", nargs="+", default=(), metavar="RUN", help="with --answers: no shapes of these")
    parser.add_argument("--model", default=MODELS[-1], choices=MODELS, help="with --answers: default %(default)s")
    parser.add_argument("--counted", nargs="*", default=COUNTED, metavar="RUN", help="runs with counters")
    options = parser.parse_args(argv)
    if options.answers:
        print(answers_of(Predictor.load(options.answers), options.runs, options.where, options.without, options.model))
        return 0
    if options.check:
        lines = check(options.runs)
        print("\n".join(lines or ["the page, the list and the runs agree"]))
        return 1 if lines else 0
    if options.held_out:
        sets = sets_of(*measured(options.runs))
        lines = ",\n".join(msgspec.json.encode(one).decode() for one in sets)
        LIST.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        return 0
    if options.fit:
        fit_and_draw(options.runs, options.counted)
    PAGE.write_text(page_of(Predictor.load(SHIPPED)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
