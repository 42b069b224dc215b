"""Writes docs/results/prediction.md: how wrong fitted models are on rows that they have not seen.

python docs/make_prediction.py --held-out   write the list of held-out sets; commit it before the first fit
python docs/make_prediction.py --fit        fit to the runs, refuse rows that are not on the list, draw the figures
                                            and write the models that come with flopray (some minutes)
python docs/make_prediction.py              write the page from these models
python docs/make_prediction.py --check      write nothing; exit code 1 where the page, the list or the runs differ

The runs are those of docs/results, or those named after `--runs`, such as `reference:h100-mlp`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))
from flopray.cli.fit import draw, load_frames
from flopray.description import Description
from flopray.predict.held_out import BOARD, HeldOut, held_out_sets
from flopray.predict.kernel_choice import distinct
from flopray.predict.measured import Measured, measured_rows
from flopray.predict.predictor import Group, Predictor, fit
from flopray.predict.shipped import PATH as SHIPPED
from flopray.report.prediction.tables import LEGEND, constants_tables, overall, overall_table, sets_table
from flopray.report.text_table import TextTable
from flopray.settings import MeasureSettings
from flopray.store.location import open_run
from flopray.sweep.planned_energy import PlannedEnergy, planned_energy
from flopray.sweep.prediction import rates_of
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import BUILT_IN, point_from

RESULTS = Path(__file__).with_name("results")
PAGE = RESULTS / "prediction.md"
FOLDER = RESULTS / "prediction"
LIST = FOLDER / "held_out.json"
BOARDS = tuple(f"boards/{name}" for name in ("h100_7b5b", "h100_d3fe", "h200_4bc7", "h200_7757", "h200_0f8e"))
SPREAD, MODELS_RUN = "reference/h200-mlp-spread/spread_97ae", "reference/h200-lm/lm_97ae"
RUNS = tuple(
    str(RESULTS / name)
    for name in ("h100_mlp_fp32", "h100_mlp_bf16", *BOARDS, SPREAD, MODELS_RUN, "h200_causal_lm")
)
#: Runs with hardware counters only: they say which kernels cuBLAS chose for products.
COUNTED = tuple(str(RESULTS / name) for name in ("h100_counters_fp32", "h100_counters_bf16", "h200_counters_bf16"))
#: Left out of the fit, so that predictions for it can be compared with its measurement.
LEFT_OUT = ("llama-3.2-1b",)

_HEAD = """\
# Prediction of time and energy

<!-- written by docs/make_prediction.py -->

The cost of a phase that was not measured can be predicted: `flopray fit RUN...` fits four models, and
`flopray.predict` answers with them. This page says how large their errors are. Energy is at {celsius:g} °C.

1. **Constant** FLOP/s and FLOPs/J for each phase: the method of flopmetrics.
2. **Power law** in the sizes of the workload, for each phase.
3. **Roofline with launch**, kernel by kernel. Time is made of launches, the longer of computing and moving bytes, and
   tiles and waves of tiles on the processors. Energy is made of power at rest, joules per FLOP and joules per byte,
   none of them negative ([formulas](../../flopray/predict/roofline.py)).
4. **Learned residual**: model 3, and a Gaussian process on its residuals.

## How the models are judged

Whole values of n, d and m are held out in turn, including the smallest and the largest, and so are whole boards. Single
rows are never held out. The [list of the sets](prediction/held_out.json) holds the SHA-256 of the keys of their rows.
It was written from these keys alone and was committed before the first fit. When two more H200s were added, it was
written anew and committed before the fit to them. All {sets} sets are below. A value is held out on all types of device
at once, since H100 and H200 learn from each other. {outside} of {rows} predictions lie outside the range of the rows
that were left to the fit; `edge` marks sets that lie outside by construction.

The form of models 3 and 4 was chosen by looking at errors on these sets, and so were the starting values of the
constants. The errors are therefore optimistic for data that nobody has looked at. The constants themselves are fitted
only to the rows that are left. Two rules of the energy fit (rows at the power limit count as measured; priors are weak)
were made after a look at Llama 3.2 1B, whose rows are in no fit. One rule of the intervals was made after the fit to
three H200s, and changed no error: intervals are made from the errors of shapes that were held out, and from those of
whole boards only where no shape was held out. When a board is held out, the fit still has other boards at exactly its
shapes. By the errors of boards alone, the H200 would have stated 1.8 % in time for shapes that no H200 was measured at.
Which kernel cuBLAS runs for a product (tile, split of the inner dimension) comes from hardware counters. It was counted
for all shapes, held-out ones included, and says nothing about time or energy.

## All held-out rows together

{overall}
The goal is 5 %. {goal}

By what was held out, model 4, time and energy in %:

{kinds}

## Boards that were not in the fit

Model 4, in %. Coverage is that of 90 % intervals, without the spread between boards of the type, which answers include.

{boards}

For each of these boards, the fit had other boards of the type, measured at the same shapes. Only `GPU-ae2d` and
`GPU-ec14` had mostly shapes that were measured on no other board.

{history}
"""
_HISTORY = """\
## With one H200

The same models before a second and a third H200 were measured: 46 sets, none of a whole H200. Errors are those of
model 4, with model 3 in brackets; coverage is by the rule of that time. The H100's rows are the same; its errors differ
because types learn from each other.

| GPU | time MAPE | time coverage | energy MAPE | energy coverage |
|---|---|---|---|---|
| H100 bf16 | 4.2 (5.0) | 90 (90) | 4.6 (5.3) | 90 (90) |
| H200 bf16 | 5.9 (6.9) | 86 (86) | 8.1 (8.0) | 88 (90) |
| H100 fp32 | 4.4 (5.0) | 89 (89) | 3.7 (4.3) | 89 (90) |
| H200 fp32 | 4.5 (4.5) | 89 (89) | 4.6 (5.2) | 81 (91) |

The mean over all sets would be smaller even without better models: sets of whole boards were added, and these are easy.
On the values of n, d and m, which both fits share, the errors of model 4 on the H200 in time and energy
are now {shapes}; before, they were 5.9 and 8.1 % in bf16, 4.5 and 4.6 %
in fp32. A model of a type cannot describe the differences between its three boards.
"""
_PUBLISHED = """\
## Compared with published results

| work | energy | what for |
|---|---|---|
| SBAC-PAD 2025 | 4.1 % (time 3.1 %, power 5.8 %) | training on 1 and 4 A100 |
| [arXiv 2506.14551](https://arxiv.org/abs/2506.14551) | 11.4 % | training on 8 H100 |
| [Wattchmen, arXiv 2603.26435](https://arxiv.org/abs/2603.26435) | 11 to 14 % | GPU kernels |
| [arXiv 2604.20105](https://arxiv.org/abs/2604.20105) | 7 to 8 % of power | |
| [arXiv 2605.14249](https://arxiv.org/abs/2605.14249) | 9 to 13 % | inference on several GPUs |
| [arXiv 2607.02391](https://arxiv.org/abs/2607.02391) | median 3.4 % offline, 13.5 % as a server | inference |
{ours}

The figures of others are those of their abstracts. These state no interval, and say what was held out only for the 11
to 14 %, which are of held-out work. They are for other work on other devices, so the table does not rank anything. Ours
are for steps of MLPs.

"""
_PLANS = """\
## Plans compared with sweeps

`--dry-run` plans seconds and joules with these models. The energy that a sweep took is the power of each row times its
window and warm-up, plus the power of the waiting board for the rest of the time between the first row and the last.

| sweep | time planned | time taken | energy planned | energy taken |
|---|---|---|---|---|
{plans}

A plan does not foresee windows that miss their target and run on to `--max-seconds`: in the order of the table, 22, 2,
8, 0 and 1 of the 64 rows did.

"""
_FOOT = """\
## Where the errors are

- **Choices of cuBLAS.** In fp32 a product of width 128 takes longer than one of width 256: cuBLAS splits it and adds
  the parts in a separate kernel. Where kernels are not counted, tiles are guessed by a rule of thumb. With that rule,
  in the fit with one H200, the error of model 4 on the H100's sets of d and m was 6.9 % in time and 7.3 % in energy in
  fp32 (5.9 and 5.7 % in bf16), and 17 and 18 % for width 128 in fp32.
- **Outside the measured range.** With width 2048 held out in bf16, no other row is bound by computing, and the rate is
  a guess from the datasheet. An answer there says that it lies outside, and has a wider interval; more than a factor of
  2 outside, it has none.
- **Steps with the optimizer** were measured at only 8 shapes, on five boards. With one width held out, only one width
  is left to separate the launches of AdamW from its bytes.
- **The cache.** Between 20 and 30 MB of weights, an H100 begins to fetch them from memory in each iteration. The
  weights of n = 8 lie in this range when it is held out.
- **Unusually slow kernels.** In fp32, the forward pass at width 1024 with 16 and 32 tokens takes 10 and 28 % longer
  than model 3 predicts, even when the fit has these rows.

## How to repeat this

```
flopray fit docs/results/h100_mlp_fp32 docs/results/h100_counters_fp32 --held-out d,m --out model.json
python docs/make_prediction.py --fit
```
"""


def measured(runs: Sequence[str]) -> tuple[Measured, dict[str, Description]]:
    """The rows of runs that can be fitted, and the descriptions of their workloads."""
    frames, workloads = load_frames(runs)
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
    judged = [one for group in predictor.groups for one in group.judged]
    rows = sum(one.held_out.rows for one in judged)
    outside = sum(round((1 - one.inside) * one.held_out.rows) for one in judged)
    head = _HEAD.format(
        celsius=predictor.reference_c,
        sets=len(judged),
        rows=rows,
        outside=outside,
        overall=_plain(overall_table(predictor)),
        goal=goal_line(predictor),
        kinds=_by_kind(predictor),
        boards=_boards(predictor),
        history=_HISTORY.format(shapes=_of_shapes(predictor)),
    )
    body = [head, "## Each set\n\n", f"Mean absolute error in %. {LEGEND}.\n\n"]
    for group in predictor.groups:
        body.append(_plain(sets_table(group)))
        body.append(f"![{_title(group)}](prediction/{_figure(group)})\n\n")
    body += ["## Constants of model 3\n\n", _plain(constants_tables(predictor.groups))]
    body += [_PUBLISHED.format(ours=_ours(predictor)), _PLANS.format(plans=_plan_lines())]
    return "".join([*body, _FOOT])


def goal_line(predictor: Predictor) -> str:
    """Which groups reach 5 %, and which do not."""
    reached, missed = [], []
    for label, target, mape in overall_errors(predictor):
        (reached if mape <= 0.05 else missed).append(f"{label} {target} {100 * mape:.1f} %")
    line = f"Model 4 reaches it for {', '.join(reached)}." if reached else "No group reaches it."
    return line + (f" It misses it for {', '.join(missed)}." if missed else "")


def _by_kind(predictor: Predictor) -> str:
    kinds = list(dict.fromkeys(one.held_out.kind for group in predictor.groups for one in group.judged))
    lines = ["| GPU | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for group in predictor.groups:
        cells = []
        for kind in kinds:
            judged = [one for one in group.judged if one.held_out.kind == kind]
            scores = [overall(judged, target, "learned") for target in ("time", "energy")]
            cells.append(", ".join(f"{100 * score.mape:.1f}" for score in scores if score) or "-")
        lines.append(f"| {group.where.device_type} {group.where.precision} | " + " | ".join(cells) + " |")
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
            cells = [f"{group.where.device_type} {group.where.precision}", f"`{one.held_out.values[0][:8]}`"]
            cells.append(str(one.held_out.rows))
            for target in ("time", "energy"):
                score = one.scores[target]["learned"]
                covered = "-" if score.coverage is None else f"{100 * score.coverage:.0f}"
                cells += [f"{100 * score.mape:.1f}", f"{100 * score.bias:+.1f}", covered]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _of_shapes(predictor: Predictor) -> str:
    """Errors of model 4 on the sets of shapes of the H200, in words."""
    found = []
    for group in predictor.groups:
        if group.where.device_type != "H200":
            continue
        judged = [one for one in group.judged if one.held_out.kind != BOARD]
        scores = [overall(judged, target, "learned") for target in ("time", "energy")]
        time, energy = (f"{100 * score.mape:.1f}" for score in scores if score)
        found.append(f"{time} and {energy} % in {group.where.precision}")
    return ", ".join(found)


def overall_errors(predictor: Predictor) -> list[tuple[str, str, float]]:
    """Group, target and MAPE of model 4 over all held-out rows."""
    return [
        (f"{group.where.device_type} {group.where.precision}", target, score.mape)
        for group in predictor.groups
        for target in ("time", "energy")
        if (score := overall(group.judged, target, "learned")) is not None
    ]


def _ours(predictor: Predictor) -> str:
    lines = []
    for group in predictor.groups:
        found = {target: mape for label, target, mape in overall_errors(Predictor([group]))}
        kinds = dict.fromkeys("board" if one.held_out.kind == "board" else one.held_out.kind for one in group.judged)
        energy, time = (f"{100 * found[target]:.1f} %" for target in ("energy", "time"))
        label = f"{group.where.device_type} {group.where.precision}"
        lines.append(f"| flopray, {label} | {energy} (time {time}) | MLPs; whole {', '.join(kinds)} held out |")
    return "\n".join(lines)


def plan_of(run: Path) -> tuple[PlannedEnergy, float, float]:
    """What the models plan for the sweep of a run, and what it took: seconds, and joules of the board."""
    folder = open_run(run)
    frame: Any = folder.load()  # the stubs of pandas do not know whether a column is a Series or a DataFrame
    settings = folder.manifest["sweep"]["settings"]  # type: ignore[index]
    names = ("workload", "device_type", "precision", "execution", *(f.name for f in MLP.fields))
    points = {row["trial_id"]: point_from({key: row[key] for key in names}) for row in frame.to_dict("records")}
    kept = {key: settings[key] for key in ("target_error", "max_seconds", "sentinel_every_s")}
    asked = MeasureSettings(phases=tuple(settings["phases"]), instruments=tuple(settings["instruments"]), **kept)
    planned = planned_energy(asked, list(points.values()), rates_of(str(frame["device_type"].iloc[0])))
    assert planned is not None
    busy_s = frame["window_s"] + frame["warmup_s"]
    span_s = float(frame["ended_unix_s"].max() - frame["started_unix_s"].min())
    waiting_j = (span_s - busy_s.sum()) * frame["awake_idle_power_w"].mean()
    return planned, span_s, float((busy_s * frame["power_w"]).sum() + waiting_j)


def _plan_lines() -> str:
    lines = []
    for name in BOARDS:
        planned, took_s, spent_j = plan_of(RESULTS / name)
        ours, theirs = (f"{value / 1e3:.1f} kJ" for value in (planned.energy_j, spent_j))
        lines.append(f"| `{name}` | {planned.seconds:.0f} s | {took_s:.0f} s | {ours} | {theirs} |")
    return "\n".join(lines)


def _plain(table: TextTable) -> str:
    return table.to_markdown().replace("### ", "**", 1).replace("\n\n", "**\n\n", 1) + "\n"


def _title(group: Group) -> str:
    return f"Predicted over measured, {group.where.device_type} {group.where.precision}"


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
    frames, _ = load_frames(runs)
    made = fit(frames, workloads=workloads, leave_out=LEFT_OUT, counted=rows.counted)
    draw(made, FOLDER, ("png",))
    Predictor(made.groups, distinct(made.counted), made.reference_c).save(SHIPPED)


def check(runs: Sequence[str]) -> list[str]:
    """What differs between runs, list, models and page."""
    rows, workloads = measured(runs)
    lines = differing(sets_of(rows, workloads))
    predictor = Predictor.load(SHIPPED)
    reported = {one.held_out for group in predictor.groups for one in group.judged}
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
    what.add_argument("--check", action="store_true", help="only say what differs")
    parser.add_argument("--runs", nargs="+", default=RUNS, metavar="RUN", help="default: those of docs/results")
    parser.add_argument("--counted", nargs="*", default=COUNTED, metavar="RUN", help="runs with counters")
    options = parser.parse_args(argv)
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
