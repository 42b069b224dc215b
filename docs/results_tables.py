"""Tables and statements of docs/results/README.md, made from the runs in the same folder."""

from __future__ import annotations

import functools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flopray.audit import audit
from flopray.cli.report import command_of
from flopray.report.boards.agreement import left_out, pairs
from flopray.report.boards.data import AT_REFERENCE, TIME, DeviceBoards, boards_of, short_names
from flopray.report.flops.adjusted import held_out
from flopray.report.flops.data import groups_of, load_runs, reconstructed
from flopray.report.flops.held_out import METHODS, summarised
from flopray.store.location import load_run, open_run
from flopray.watching.series import load_series

RESULTS = Path(__file__).with_name("results")
sys.path.append(str(RESULTS.parents[1] / "bench"))
import energy_report  # noqa: E402  (the line above makes modules of bench importable)
from boards import of_rows, told_at_reference  # noqa: E402
from watch_accuracy import judged  # noqa: E402

#: A pandas DataFrame; its stubs do not know whether a selection of one is a DataFrame too.
Frame = Any
_PHASES = ("forward", "backward")
_LLAMA_KEY = ["precision", "sequence_length", "phase"]
_LLAMA_BOARDS = {"h100_llama": "NVIDIA H100 80GB HBM3", "h200_llama": "NVIDIA H200"}
#: What tells rows of language models apart here.
_WORK = ["model", "precision", "phase", "execution"]
#: Flags that say the same as none.
_DEFAULTS = (
    *("--weights random", "--attention auto", "--routing uniform", "--checkpointing off", "--adapter none"),
    *("--instruments time energy", "--seed 0"),
)
#: Longest line of a command.
_LINE = 105
_WINDOW_METHODS = ("ticks", "begin_end", "zeus", "power_instant", "power_average")


@functools.cache
def rows(run: str) -> Frame:
    """All rows of a run of this folder."""
    frame = load_run(RESULTS / run)
    floats = [name for name in frame if pd.api.types.is_float_dtype(frame[name])]
    return frame.astype(dict.fromkeys(floats, float))


def table(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(header)
    rule = "|" + "---|" * len(head)
    first, *others = ("| " + " | ".join(cells) + " |" for cells in (head, *map(list, lines)))
    return "\n".join([first, rule, *others])


def percent(ratio: float) -> str:
    """Two digits: `0.45 %`, `2.0 %`, `23 %`; three from 100 % on; empty for NaN and infinity."""
    if not np.isfinite(ratio):
        return ""
    digits = 3 if abs(ratio) >= 0.995 else 2
    return f"{ratio * 100:#.{digits}g}".rstrip(".") + " %"


def si(value: float, unit: str, digits: int = 3) -> str:
    """A number with an SI prefix, such as `56.5 mJ`."""
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("k", 1e3), ("", 1.0), ("m", 1e-3), ("µ", 1e-6)):
        if abs(value) >= scale * (1000 if prefix == "k" else 1) * 0.9995:
            shown = value / scale
            return f"{shown:,.0f} {prefix}{unit}" if shown >= 100 else f"{shown:#.{digits}g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def _with_error(value: float, error: float, unit: str) -> str:
    return si(value, unit) + (f" ± {percent(error)}" if np.isfinite(error) else "")


def mlp_fp32() -> str:
    """Time, energy and rates of some layers on an H100 in fp32."""
    frame = rows("h100_mlp_fp32").set_index(["n_layers", "width", "tokens", "phase"])
    lines = []
    for shape in ((2, 128, 16), (8, 512, 64), (8, 1024, 128), (32, 1024, 256)):
        for phase in _PHASES:
            row: Any = frame.loc[(*shape, phase)]
            cells = [
                *map(str, shape),
                phase,
                si(row["time_s"], "s"),
                _with_error(row["energy_j"], row["energy_rel_error"], "J"),
            ]
            cells += [
                f"{row['power_w']:.0f} W",
                f"{row['flops_per_s'] / 1e12:#.3g} T",
                f"{row['flops_per_j'] / 1e9:#.3g} G",
            ]
            lines.append([*cells, f"{row['mfu']:.1%}".replace("%", " %")])
    return table(["n", "d", "m", "phase", "time", "energy", "power", "FLOP/s", "FLOPs/J", "MFU"], lines)


def _fp32_over_bf16() -> Frame:
    key = ["n_layers", "width", "tokens", "phase"]
    return rows("h100_mlp_fp32").merge(rows("h100_mlp_bf16"), on=key, suffixes=("", "_bf16"))


def mlp_bf16() -> str:
    """The cost in fp32 over the cost in bf16, for each width."""
    both = _fp32_over_bf16()
    lines = []
    for width in sorted(both["width"].unique()):
        cells = [str(width)]
        for phase in _PHASES:
            part = both[(both["width"] == width) & (both["phase"] == phase)]
            for column in ("energy_j", "time_s"):
                ratio = part[column] / part[f"{column}_bf16"]
                cells.append(f"{ratio.median():.1f} ({ratio.min():.1f} to {ratio.max():.1f})")
        lines.append(cells)
    header = ["d", "forward: fp32 / bf16 energy, median (range)", "time", "backward: energy", "time"]
    return table(header, lines)


@functools.cache
def _windows(name: str) -> Any:
    return json.loads((RESULTS / "energy_windows" / f"{name}.json").read_text())


#: The loads of the energy windows, in the order of their table.
WINDOWS = ("h100_small", "h100_large", "h200_small", "h200_capped")


def energy_windows() -> str:
    """RMS error of windows against the truth, for each load, length and method."""
    lines = []
    for name in WINDOWS:
        run = _windows(name)
        shape, found = run["workload"], energy_report.errors(run)
        energy_j = float(np.mean([truth["energy_j"] for truth in run["truths"]]))
        load = f"{shape['name']}: n={shape['n_layers']} d={shape['width']} m={shape['tokens']} {shape['dtype']}, "
        load += f"{si(energy_j, 'J')}, {si(run['truths'][0]['time_s'], 's')}"
        for place, length_s in enumerate(sorted(found["ticks"])):
            cells = [found[how].get(length_s) if how in found else None for how in _WINDOW_METHODS]
            said = [percent(energy_report.rms(errors)) if errors is not None else "" for errors in cells]
            lines.append([*((load, name[:4].upper()) if place == 0 else ("", "")), f"{length_s:g} s", *said])
    header = ["load", "board", "window", "ticks", "begin / end", "ZeusMonitor", "instant power, 100 ms"]
    return table([*header, "average power, 100 ms"], lines)


_LLAMA_LINES = (
    *((precision, phase) for precision in ("fp32", "tf32", "bf16") for phase in (*_PHASES, "train_step")),
    *(("bf16", "prefill"), ("bf16", "decode"), ("fp16", "train_step")),
)


def llama() -> str:
    """The phases of Llama 3.2 1B at 8 x 1024 tokens on both GPUs."""
    frames = [rows(run).set_index(_LLAMA_KEY) for run in _LLAMA_BOARDS]
    lines = []
    for precision, phase in _LLAMA_LINES:
        cells = [precision, phase]
        for frame in frames:
            row: Any = frame.loc[(precision, 1024, phase)]
            cells += [_with_error(row["time_s"], row["time_rel_error"], "s")]
            cells += [_with_error(row["energy_j"], row["energy_rel_error"], "J"), percent(row["mfu"])]
            cells += [si(row["energy_per_token_j"], "J")]
        lines.append(cells)
    names = [f"{gpu}{word}" for gpu in ("H100: ", "H200: ") for word in ("time", "energy", "MFU", "J/token")]
    return table(["8 x 1024 tokens", "phase", *names], lines)


@functools.cache
def causal_lm() -> str:
    """Energy per token of language models, by phase and precision, with the stated error of the window.

    A star marks what was measured again in longer windows; models of another execution than the others say it.
    """
    again = set(rows("h200_causal_lm_longer")[_WORK].itertuples(index=False, name=None))
    frame = rows("h200_causal_lm").query("status == 'ok'")
    sizes = frame.groupby(["execution", "model"])["parameters"].first().sort_values()
    cells = {
        (row.execution, row.model, row.phase, row.precision): _with_error(
            row.energy_per_token_j, row.energy_rel_error, "J"
        )
        + (" *" if (row.model, row.precision, row.phase, row.execution) in again else "")
        for row in frame.itertuples()
    }
    columns = [(phase, precision) for phase in ("train_step", "prefill", "decode") for precision in ("bf16", "fp8")]
    lines = [
        [
            model if execution == "compile_graph" else f"{model}, `{execution}`",
            f"{count / 1e6:,.0f} M",
            *(cells.get((execution, model, *column), "") for column in columns),
        ]
        for (execution, model), count in sizes.items()
    ]
    return table(["model", "parameters", *(f"{phase}, {precision}" for phase, precision in columns)], lines)


def causal_lm_sweeps() -> str:
    """The commands that measured the language models, of all sweeps that were merged."""
    return _commands("h200_causal_lm")


def causal_lm_longer_sweeps() -> str:
    """The commands of the longer windows."""
    return _commands("h200_causal_lm_longer")


def _commands(run: str) -> str:
    """What measures a run's rows again, as shell commands in short lines, without flags that say the same as none."""
    commands = []
    for command in command_of(open_run(RESULTS / run)).splitlines():
        flags = [flag for flag in command.split(" --") if f"--{flag}" not in _DEFAULTS]
        lines = [flags[0]]
        for flag in flags[1:]:
            if len(lines[-1]) + len(flag) > _LINE:
                lines.append(f"   --{flag}")
            else:
                lines[-1] += f" --{flag}"
        commands.append(" \\\n ".join(lines))
    return "```bash\n" + "\n".join(commands) + "\n```"


def causal_lm_longer() -> str:
    """The same work in windows of up to 10 s, beside those of up to 2 s."""
    key = _WORK
    before, lines = rows("h200_causal_lm").set_index(key), []
    for row in rows("h200_causal_lm_longer").sort_values(["execution", "phase", *key[:2]]).itertuples():
        where, cells = (row.model, row.precision, row.phase, row.execution), ["", ""]
        if where in before.index:
            then: Any = before.loc[where]
            cells = [_with_error(then["energy_j"], then["energy_rel_error"], "J"), f"{then['window_s']:.1f} s"]
        cells += [_with_error(row.energy_j, row.energy_rel_error, "J"), f"{row.window_s:.1f} s"]
        lines.append([row.model, f"{row.phase}, {row.precision}", row.execution, *cells])
    return table(["model", "phase", "execution", "at most 2 s", "window", "longer", "window"], lines)


def adapters() -> str:
    """A training step of Qwen3 0.6B in full and with an adapter."""
    frame = rows("h200_lora")
    lines = [
        [
            "all weights" if pd.isna(row.adapter) else f"`{row.adapter}`",
            f"{row.trained_parameters / 1e6:,.1f} M",
            f"{row.model_flops / 1e12:.1f} TFLOP",
            _with_error(row.time_s, row.time_rel_error, "s"),
            _with_error(row.energy_j, row.energy_rel_error, "J"),
            f"{row.memory_peak_bytes / 1e9:.1f} GB",
        ]
        for row in frame.sort_values("trained_parameters", ascending=False).itertuples()
    ]
    return table(["trained", "parameters of it", "FLOPs", "time", "energy", "peak memory"], lines)


def experts() -> str:
    """Phases of a mixture of experts, as a graph and launched eagerly."""
    frame = rows("h200_experts").set_index(["phase", "execution"])
    lines = []
    for phase in ("forward", "prefill", "decode"):
        cells = [phase, f"{frame.loc[(phase, 'graph'), 'model_flops'] / 1e12:.3g} TFLOP"]
        for execution in ("graph", "eager"):
            row: Any = frame.loc[(phase, execution)]
            cells += [_with_error(row["time_s"], row["time_rel_error"], "s")]
            cells += [_with_error(row["energy_j"], row["energy_rel_error"], "J"), si(row["energy_per_token_j"], "J")]
        lines.append(cells)
    names = [f"{execution}: {word}" for execution in ("graph", "eager") for word in ("time", "energy", "J/token")]
    return table(["phase", "FLOPs", *names], lines)


def _told(run: str) -> Frame:
    """All rows of a run, with energy at the reference temperature wherever it can be computed."""
    return told_at_reference(rows(run)).copy()


@functools.cache
def _again(run: str) -> Frame:
    """The second run over the first, row by row, on one type of GPU."""
    later = _told("llama_again")
    both = later[later["device_name"] == _LLAMA_BOARDS[run]].merge(_told(run), on=_LLAMA_KEY, suffixes=("", "_then"))
    columns = {"time": "time_s", "energy": "energy_j", "at_reference": "energy_at_reference_j"}
    return both.copy().assign(**{name: both[column] / both[f"{column}_then"] for name, column in columns.items()})


def _kinds(frame: Frame) -> dict[str, Frame]:
    decode, short = frame["phase"] == "decode", frame["sequence_length"] == 256
    wide = frame["precision"].isin(["fp32", "tf32"])
    chosen: dict[str, Any] = {
        "512 and 1,024 tokens, all phases but decode": ~decode & ~short,
        "256 tokens, fp32 and tf32": ~decode & short & wide,
        "256 tokens, bf16 and fp16": ~decode & short & ~wide,
        "decode": decode,
    }
    return {name: frame[mask] for name, mask in chosen.items()}


def llama_again() -> str:
    """The second run over the first."""
    found = [_kinds(_again(run)) for run in _LLAMA_BOARDS]
    lines = []
    for name, part in found[0].items():
        cells = [name, str(len(part))]
        for kinds in found:
            for what in ("time", "energy", "at_reference"):
                ratio = kinds[name][what].dropna()
                low, high = ratio.quantile([0.05, 0.95])
                count = f"; {len(ratio)} rows" if what == "at_reference" else ""
                cells.append(f"{ratio.median():.3f} ({low:.3f} to {high:.3f}{count})")
        lines.append(cells)
    return table(["", "rows", *(f"{gpu}{what}" for gpu in ("H100: ", "H200: ") for what in _COMPARED)], lines)


_COMPARED = ("time", "energy as measured", "energy at 50 °C")


def _apart(part: Frame) -> list[tuple[float, int]]:
    """RMS of the differences of rows with energy at 50 °C in both runs, and how many agree: as measured, and at 50 °C.

    A row agrees if its values are no further apart than both stated errors allow; a row without stated errors does not.
    """
    both = part[part["at_reference"].notna()]
    found = []
    for what, error in (("energy", "energy_rel_error"), ("at_reference", "energy_at_reference_rel_error")):
        apart = np.log(both[what])
        agree = apart.abs() <= np.hypot(both[error], both[f"{error}_then"])
        found.append((float(np.sqrt(np.mean(apart**2))), int(agree.sum())))
    return found


def llama_apart() -> str:
    """How far the two runs are apart in the rows that have energy at 50 °C in both."""
    found = [_kinds(_again(run)) for run in _LLAMA_BOARDS]
    lines = []
    for name in found[0]:
        cells = [name]
        for part in (kinds[name] for kinds in found):
            cells.append(f"{part['at_reference'].notna().sum()} of {len(part)}")
            cells += [f"{percent(rms)} ({agree})" for rms, agree in _apart(part)]
        lines.append(cells)
    names = ("rows with both", "as measured, RMS (rows that agree)", "at 50 °C")
    return table(["energy", *(f"{gpu}{what}" for gpu in ("H100: ", "H200: ") for what in names)], lines)


#: The runs of the 64 rows that were measured on several boards of a type.
_BOARDS = {"H100": ("h100_7b5b", "h100_d3fe"), "H200": ("h200_4bc7", "h200_7757", "h200_0f8e")}
#: Runs with energy.
_WITH_ENERGY = (
    *("h100_mlp_fp32", "h100_mlp_bf16", "h100_llama", "h200_llama", "llama_again"),
    *(f"boards/{name}" for names in _BOARDS.values() for name in names),
)


def references() -> str:
    """How many rows of each run have energy at the reference temperature, and why the others have none."""
    lines = []
    for run in _WITH_ENERGY:
        frame, told = rows(run), _told(run)
        there = told["energy_at_reference_j"].notna()
        own = int(frame["energy_at_reference_j"].notna().sum())
        reasons = told.loc[~there, "energy_at_reference_reason"]
        held, limit = (int(reasons.str.startswith(words).sum()) for words in ("clocks were held", "the board took"))
        if held + limit != len(reasons):
            raise ValueError(
                f"{run}: rows without energy at the reference temperature for a reason that has no column in the table"
            )
        ends = told["temperature_end_c"]
        error = told.loc[there, "energy_at_reference_rel_error"] / told.loc[there, "energy_rel_error"]
        cells = [f"{len(frame)}", f"{ends.min():.0f} to {ends.max():.0f}", f"{there.sum()}"]
        told_by = "its own sweep" if own else "the prior, later"
        lines.append([f"`{run}`", *cells, told_by, str(held), str(limit), f"{error.median():.2f}"])
    head = [
        "run",
        "rows with energy",
        "°C at their end",
        "rows with energy at 50 °C",
        "from",
        "none: clocks held down",
        "none: at the power limit",
    ]
    return table([*head, "stated error at 50 °C over that of the window, median"], lines)


#: Later part of the stated time error on a GPU (`flopray.measurement.phase`), which the kept windows do not have.
_PREPARED_AGAIN = 0.003


@functools.cache
def _boards_of(gpu: str) -> DeviceBoards:
    frame = pd.concat([_told(f"boards/{name}") for name in _BOARDS[gpu]], ignore_index=True)
    (device,) = boards_of(frame)
    return device


def boards() -> str:
    """Boards of a type in pairs, compared by the rows that both have."""
    lines = []
    for gpu in _BOARDS:
        device = _boards_of(gpu)
        names = short_names(device.boards)
        energy = device.parts[AT_REFERENCE]
        assert device.as_measured is not None
        raw = of_rows(device.as_measured, energy.keys)
        kinds = [
            pairs(part, fit)
            for part, fit in (
                (device.parts[TIME], device.fits[TIME]),
                (raw, device.fit(raw)),
                (energy, device.fits[AT_REFERENCE]),
            )
        ]
        for time, measured, told in zip(*kinds, strict=True):
            cells = [gpu, " and ".join(sorted(names[board] for board in told.boards)), str(told.rows)]
            cells += [percent(time.rms), percent(time.rms_without_factor), percent(measured.rms)]
            cells += [f"{percent(told.rms)} ({percent(told.agree)})", percent(abs(told.factor))]
            cells += [f"{percent(told.rms_without_factor)} ({percent(told.agree_without_factor)})"]
            lines.append(cells)
    head = ["", "boards", "rows", "time, RMS", "time, factor out, RMS", "energy as measured, RMS"]
    head += [
        "energy at 50 °C, RMS (rows that agree)",
        "energy at 50 °C, factor",
        "energy at 50 °C, factor out, RMS (rows that agree)",
    ]
    return table(head, lines)


def boards_left_out() -> str:
    """Each board in turn, compared with the intervals from the other boards of its type."""
    lines = []
    for gpu in _BOARDS:
        device = _boards_of(gpu)
        names = short_names(device.boards)
        for quantity, label in ((TIME, "time"), (AT_REFERENCE, "energy at 50 °C")):
            for one in left_out(device.parts[quantity], device.prior(quantity)):
                cells = [gpu, label, names[one.board], str(one.others), f"{one.median:+.2%}".replace("%", " %")]
                lines.append([*cells, percent(one.in_type), percent(one.in_other_board)])
    head = ["", "quantity", "left out", "others", "its median row over their mean"]
    return table([*head, "rows in the interval of the type", "rows in the interval of another board"], lines)


def measured() -> str:
    """Windows of `flopray.measure` against 30 s of the same step."""
    lines = []
    for name in ("h200_steps", "h200_mlp", "h200_transformer", "h200_transformer_large_batch"):
        for step, one in json.loads((RESULTS / "measured" / f"{name}.json").read_text())["steps"].items():
            windows: Frame = pd.DataFrame(one["windows"])
            truth = one["truth"]
            cells = [step, str(len(windows))]
            for what, error in (("time_s", "time"), ("energy_j", "energy"), ("reference_j", "reference")):
                off, stated = windows[what] / truth[what] - 1, windows[f"{error}_rel_error"]
                held = [int((off.abs() <= stated).sum())]
                if what == "time_s":
                    held.append(int((off.abs() <= np.hypot(stated, _PREPARED_AGAIN)).sum()))
                shown = ", ".join(map(str, held))
                cells.append(f"{shown}; {percent(float(np.sqrt((off**2).mean())))} ({percent(stated.median())})")
            lines.append(cells)
    kinds = ("time, and with 0.3 % added", "energy", "energy at 50 °C")
    return table(["step", "windows", *(f"{kind}: hold; RMS (stated, median)" for kind in kinds)], lines)


_WATCHED = {
    "h200_conv": "convolutional net, eager",
    "h200_lightning": "Lightning, 12 linear layers",
    "h200_trainer": "Trainer, a small Llama",
    "h200_trainer_large": "Trainer, a Llama of 0.2 billion parameters",
    "h200_lightning_again": "Lightning again, on another board",
}
_WATCHED_WINDOWS, _WATCHED_S = 20, (2.0, 5.0)


def watched() -> str:
    """Windows of watched loops against the 40 s around them."""
    lines = []
    for name, label in _WATCHED.items():
        found = judged(load_series(RESULTS / "watched" / name), _WATCHED_WINDOWS, _WATCHED_S)
        cells = [f"{one.held}; {percent(one.rms)} ({percent(float(np.median(one.stated)))})" for one in found.values()]
        lines.append([f"{label} (`{name}`)", *cells])
    return table(["loop", *(f"{length_s:g} s: hold; RMS (stated, median)" for length_s in _WATCHED_S)], lines)


def _mixed() -> dict[str, Any]:
    return json.loads((RESULTS / "mixed_sweep_h200.json").read_text())


def mixed() -> str:
    """What counting costs beside measuring, by sweep."""
    labels = {
        "measured": "16 MLPs in fp32 and bf16, four phases: time and energy",
        "counted": "the same: counters",
        "mixed": "the same: all three",
        "grid": "grid of 1,280 MLPs in bf16, forward and backward: counters",
    }
    lines = []
    for name, label in labels.items():
        run = _mixed()[name]
        span = f"{run['ncu_span_s']:.0f} s" if run["ncu_processes"] else ""
        lines.append([label, f"{run['seconds']:.0f} s", str(run["ncu_processes"]), span])
    return table(["sweep", "time", "ncu processes", "from the start of the first to the end of the last"], lines)


_COUNTERS = {"fp32": "h100_counters_fp32", "bf16": "h100_counters_bf16"}


def counters() -> str:
    """Rows and kernel launches counted on the whole grid."""
    frames = [rows(run) for run in _COUNTERS.values()]
    exact = [int((reconstructed(frame) == frame["executed_flops"].astype("int64")).sum()) for frame in frames]
    rows_said = [f"{number:,} of {len(frame):,}" for number, frame in zip(exact, frames, strict=True)]
    launches = [f"{frame['kernel_launches'].sum():,}, {frame['kernel_launches_counted'].sum():,}" for frame in frames]
    lines = [["rows counted, and reproduced exactly by closed form and overheads", *rows_said]]
    lines += [["kernel launches, and those whose counters were read", *launches]]
    return table(["", *_COUNTERS], lines)


def predictions() -> str:
    """Errors of predicted FLOPs on shapes that were held out."""
    lines = []
    for precision, run in _COUNTERS.items():
        group = groups_of(load_runs([RESULTS / run]))[0]
        for phase in _PHASES:
            judged = summarised(held_out(group.of(phase), ways=["shapes"])).set_index("method")
            said = (judged.loc[method] for method in METHODS)
            cells = [f"{percent(row['median'])} ({percent(row['p95'])})" for row in said]
            lines.append([f"{precision} {phase}", *cells])
    header = ["", "closed form", "interpolation between counted shapes", "one formula of padded tiles for all shapes"]
    return table([*header, "the formula fitted around each shape"], lines)


def overheads() -> str:
    """Executed FLOPs over the closed form of a few layers, and what causes the excess."""
    shapes = [("fp32", 128, 16), ("fp32", 1024, 16), ("fp32", 1024, 128), ("bf16", 1024, 16), ("bf16", 1024, 128)]
    lines = []
    for precision, width, tokens in shapes:
        frame = rows(_COUNTERS[precision]).set_index(["n_layers", "width", "tokens", "phase"])
        for phase in _PHASES:
            row: Any = frame.loc[(2, width, tokens, phase)]
            parts = [f"{row[name]:.3g}" for name in ("gemm_overhead", "splitk_per_element", "activation_overhead")]
            lines.append([precision, f"{width}, {tokens}", phase, percent(row["executed_rel_difference"]), *parts])
    return table(["precision", "d, m", "phase", "executed / model - 1", "omega", "rho", "kappa"], lines)


#: Every table of the page by its name there.
TABLES: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        *(mlp_fp32, mlp_bf16, energy_windows, llama, llama_again, llama_apart, references),
        *(causal_lm, causal_lm_sweeps, causal_lm_longer, causal_lm_longer_sweeps),
        *(adapters, experts, boards, boards_left_out, measured, watched),
        *(counters, predictions, overheads, mixed),
    )
}


def statements() -> list[str]:
    """The numbers in the text of the page, with the words around them."""
    return [
        *_of_mlp(),
        *_of_llama(),
        *_of_counters(),
        *_of_windows(),
        *_of_boards(),
        *_of_models(),
        *_of_longer(),
        *_of_mixed(),
    ]


def readme_statements() -> list[str]:
    """The measured cells of README.md's table: the forward pass of Llama in bf16 on the H100."""
    frame = rows("h100_llama")
    chosen = frame[(frame["phase"] == "forward") & (frame["precision"] == "bf16")].sort_values("sequence_length")
    errors = [f"± {error * 100:.1f} %" for error in chosen["energy_rel_error"]]
    rates = [f"| {rate / 1e12:.2f} T {error} |" for rate, error in zip(chosen["flops_per_j"], errors, strict=True)]
    return rates + [f"{joules:.1f} {error} |" for joules, error in zip(chosen["energy_j"], errors, strict=True)]


def _span_s(frame: Frame) -> float:
    return frame["ended_unix_s"].max() - frame["started_unix_s"].min()


def _of_mlp() -> list[str]:
    frame, bf16, both = rows("h100_mlp_fp32"), rows("h100_mlp_bf16"), _fp32_over_bf16()
    error, x = frame["energy_rel_error"] * 100, frame.set_index(["phase", "n_layers", "width", "tokens"])["energy_j"]
    time_s = frame[frame["n_layers"] == 2].pivot(index=["width", "tokens"], columns="phase", values="time_s")
    ratio = time_s["backward"] / time_s["forward"]
    wide = both[both["width"] == 1024].groupby("phase")[["power_w", "power_w_bf16"]].median()
    at_target = int((bf16["energy_rel_error"] <= bf16["target_error"]).sum())
    return [
        f"All {len(frame)} rows have time and energy and reached the target error: energy to {error.min():.1f} to "
        f"{error.max():.1f} % (median {error.median():.1f} %)",
        f"time to {percent(frame['time_rel_error'].max())} or better",
        f"Measuring took {_span_s(frame):.0f} s, of which {frame['window_s'].sum() / _span_s(frame):.0%}".replace(
            "%", " %"
        ),
        f"the board was at {frame['temperature_start_c'].min():.0f} to {frame['temperature_end_c'].max():.0f} °C",
        f"idle power was {frame['idle_power_w'].median():.0f} W ({frame['awake_idle_power_w'].median():.0f} W between",
        f"{frame['flops_per_j'].min() / 1e9:.2f} to {frame['flops_per_j'].max() / 1e9:.0f} GFLOP/J over this grid",
        f"{x['forward', 32, 128, 128] * 1e3:.1f} against {x['forward', 32, 128, 64] * 1e3:.1f} mJ forward",
        f"takes {ratio.min():.1f} to {ratio.max():.1f} times as long",
        f"{_span_s(bf16):.0f} s of measuring: {len(bf16)} rows with time and energy, all with time to "
        f"{percent(bf16['time_rel_error'].max())} or better and {at_target} with energy to 2 %",
        f"{wide.loc['forward', 'power_w_bf16']:.0f} against {wide.loc['forward', 'power_w']:.0f} W forward, "
        f"{wide.loc['backward', 'power_w_bf16']:.0f} against {wide.loc['backward', 'power_w']:.0f} W backward",
        f"MFU is {bf16['mfu'].max():.0%} at best".replace("%", " %"),
        f"where fp32 reaches {frame['mfu'].max():.0%}".replace("%", " %"),
    ]


def _of_llama() -> list[str]:
    h100, h200, again = rows("h100_llama"), rows("h200_llama"), rows("llama_again")
    counts = [Counter(code for codes in frame["findings"] for code in codes) for frame in (h100, h200)]
    time_s, energy_j = (
        h100.pivot(index=_LLAMA_KEY[:2], columns="phase", values=name) for name in ("time_s", "energy_j")
    )
    parts = ["forward", "backward", "optimizer_step"]
    whole = [frame["train_step"] / frame[parts].sum(axis=1) for frame in (time_s, energy_j)]
    tokens = [
        f.pivot(index=_LLAMA_KEY[:2], columns="phase", values="energy_per_token_j").loc["bf16"] for f in (h100, h200)
    ]
    times = [(frame["decode"] / frame["prefill"]) for frame in tokens]
    step = h100.set_index(_LLAMA_KEY)["energy_per_token_j"]
    ratios = [h200.set_index(_LLAMA_KEY)[name] / h100.set_index(_LLAMA_KEY)[name] for name in ("time_s", "energy_j")]
    spans = [_span_s(part) for _, part in again.groupby("device_type")]
    drift = again["sentinel_energy_drift"].groupby(again["device_type"]).agg(["min", "max"]) * 100
    tf32 = [f.set_index(_LLAMA_KEY)["flops_per_j"].loc["tf32"].xs("forward", level=1) / 1e9 for f in (h100, h200)]
    return [
        f"{_span_s(h100):.0f} s and {_span_s(h200):.0f} s of measuring",
        f"{counts[0]['note:throttled']} and {counts[1]['note:throttled']} rows were held down",
        f"and {counts[1]['note:target_error_missed']} missed the target error of 1 %",
        f"({step['bf16', 1024, 'train_step'] * 1e3:.1f} against {step['fp32', 1024, 'train_step'] * 1e3:.0f} mJ a "
        "token",
        f"in {ratios[0]['bf16', 1024, 'train_step']:.0%} of the time and for ".replace("%", " %")
        + f"{ratios[1]['bf16', 1024, 'train_step']:.0%} of the energy".replace("%", " %"),
        f"took {whole[0].min():.3f} to {whole[0].max():.3f} of the sum of its parts in time, and "
        f"{whole[1].min():.3f} to {whole[1].max():.3f} in energy",
        f"costs {min(map(min, times)):.0f} to {max(map(max, times)):.0f} times what reading one costs",
        *_of_llama_at_reference(),
        *(f"{f['decode'].min() * 1e3:.0f} to {f['decode'].max() * 1e3:.0f} against" for f in tokens),
        ", ".join(f"{value:.0f}" for value in tf32[0]) + " GFLOPs/J forward at 256, 512, 1,024 tokens on the H100",
        f"(measuring took {spans[0]:.0f} s) and two other H200s ({spans[1]:.0f} s)",
        f"rose by {drift.loc['H100', 'min']:.1f} to {drift.loc['H100', 'max']:.1f} % on the H100",
        f"by {drift.loc['H200', 'min']:.1f} to {drift.loc['H200', 'max']:.1f} % on the H200s",
        f"({int((again['energy_rel_error'] <= 0.01).sum())} of {len(again)})",
        f"took up to {max(_kinds(_again(run))['decode']['time'].max() for run in _LLAMA_BOARDS):.2f} times as long",
    ]


def _of_llama_at_reference() -> list[str]:
    again = _told("llama_again")
    kinds = [_kinds(_again(run)) for run in _LLAMA_BOARDS]
    busy, decode = ([_apart(each[name]) for each in kinds] for name in (next(iter(kinds[0])), "decode"))
    there = [each[next(iter(kinds[0]))].dropna(subset="at_reference") for each in kinds]
    medians = [[percent(abs(frame[name].median() - 1)) for name in ("energy", "at_reference")] for frame in there]
    return [
        f"{again['energy_at_reference_j'].isna().sum()} of {len(again)} rows have no energy at 50 °C",
        f"from {percent(busy[0][0][0])} to {percent(busy[0][1][0])} RMS on the H100s, "
        f"from {percent(busy[1][0][0])} to {percent(busy[1][1][0])} on the H200s",
        f"median difference from {medians[0][0]} to {medians[0][1]} and from {medians[1][0]} to {medians[1][1]}",
        f"{len(there[0])} and {len(there[1])} of 48 rows, of which "
        + " and ".join(str(int((frame["phase"] == "optimizer_step").sum())) for frame in there)
        + " are optimizer steps; the others are "
        + ", ".join(sorted({p for f in there for p in f.loc[f["phase"] != "optimizer_step", "precision"]})),
        f"from {percent(decode[0][0][0])} to {percent(decode[0][1][0])} and "
        f"from {percent(decode[1][0][0])} to {percent(decode[1][1][0])} RMS",
    ]


def _of_counters() -> list[str]:
    fp32, bf16, h200 = (rows(run) for run in (*_COUNTERS.values(), "h200_counters_bf16"))
    above = [
        f.groupby("phase")["executed_rel_difference"].median().loc[list(_PHASES)].map(percent).tolist()
        for f in (fp32, bf16)
    ]
    most = [frame["executed_rel_difference"].max() + 1 for frame in (fp32, bf16)]
    exact = [int(((bf16["phase"] == phase) & (bf16["gemm_overhead"] == 0)).sum()) for phase in _PHASES]
    split = [int(((fp32["phase"] == phase) & (fp32["splitk_per_element"] > 0)).sum()) for phase in _PHASES]
    key = ["n_layers", "width", "tokens", "phase"]
    both = bf16.merge(h200, on=key, suffixes=("", "_h200"))
    same = [
        int(((both["phase"] == phase) & (both["executed_flops"] == both["executed_flops_h200"])).sum())
        for phase in _PHASES
    ]
    return [
        f"in the median {above[0][0]} forward and {above[0][1]} backward in fp32, "
        f"{above[1][0]} and {above[1][1]} in bf16",
        f"at most {most[0]:.1f} times the closed form (fp32) and {most[1]:.1f} times (bf16)",
        f"{exact[0]:,} of 1,280 forward rows and {exact[1]:,} of 1,280 backward rows have no GEMM overhead",
        f"occur in {split[0]:,} of 1,280 forward rows and {split[1]:,} of 1,280 backward rows",
        f"executed the same in {same[0]:,} of 1,280 forward rows and {same[1]:,} of 1,280 backward rows",
    ]


def _of_windows() -> list[str]:
    spans = []
    for name in WINDOWS:
        energy_j = np.array([truth["energy_j"] for truth in _windows(name)["truths"]])
        spans.append(f"{np.ptp(energy_j) / energy_j.mean():.1%}".replace("%", " %"))
    return [f"its slices span {spans[0]} (small, H100", *(f"{span} (" for span in spans[1:])]


def _of_boards() -> list[str]:
    first, second = (rows(f"boards/{name}") for name in ("h200_7757", "h200_0f8e"))
    counts = [int((frame["energy_rel_error"] <= frame["target_error"]).sum()) for frame in (first, second)]
    shares = {
        f"{json.loads((RESULTS / 'boards' / name / 'summary.json').read_text())['measured_fraction']:.0%}"
        for name in ("h200_7757", "h200_0f8e")
    }
    (share,) = shares
    return [
        f"{counts[0]} and {counts[1]} of the rows reached 1 % in energy, and all rows reached it in time; "
        f"{share.replace('%', ' %')} of their device time was measured in windows"
    ]


def _of_models() -> list[str]:
    frame = rows("h200_causal_lm").query("execution == 'compile_graph' and status == 'ok'")
    energy, time_s = (
        frame.pivot_table(name, index=["phase", "model"], columns="precision")
        for name in ("energy_per_token_j", "time_s")
    )
    ratio = energy["fp8"] / energy["bf16"]
    large = ("llama-3.2-1b", "olmo-2-1b", "qwen3-1.7b", "smollm3-3b")
    saved = 1 - ratio["train_step"].loc[list(large)]
    prefill = 1 - ratio["prefill"]
    two = prefill.loc[["qwen3-1.7b", "smollm3-3b"]]
    more = time_s.loc[("prefill", "smollm2-135m"), "fp8"] / time_s.loc[("prefill", "smollm2-135m"), "bf16"] - 1
    reached = frame["energy_rel_error"] <= 0.02
    capped = int(frame.loc[~reached, "throttle_end"].str.contains("sw_power_cap").sum())
    step = frame.query("model == 'llama-3.2-1b' and phase == 'train_step'").set_index("precision")
    said = [
        f"{row['energy_j']:.1f} J ± {percent(row['energy_rel_error'])} and {row['time_s'] * 1e3:.0f} ms"
        for row in (step.loc[precision] for precision in ("bf16", "fp8"))
    ]
    decode = energy.xs("decode")["bf16"] * 1e3
    lm = rows("reference/h200-lm/lm_97ae")
    known = lm["time_s"].notna() & lm["energy_j"].notna()
    window = f"{lm['window_s'].sum() / _span_s(lm):.0%}".replace("%", " %")
    return [
        f"{saved.min() * 100:.0f} to {saved.max() * 100:.0f} % per token",
        f"takes {prefill['llama-3.1-8b'] * 100:.0f} % less energy with Llama 3.1 8B, and {two.min() * 100:.0f} to "
        f"{two.max() * 100:.0f} % less with Qwen3 1.7B and SmolLM3 3B",
        f"135M takes {more * 100:.0f} % more time",
        f"takes {ratio['decode'].min():.1f} to {ratio['decode'].max():.1f} times as much energy",
        f"Llama 3.2 1B makes a token for {decode['llama-3.2-1b']:.0f} mJ, Qwen3 0.6B for {decode['qwen3-0.6b']:.0f} mJ",
        f"{reached.sum()} of the {len(frame)} rows as a graph reach 2 % in energy; prefill in bf16 states up to "
        f"{percent(frame['energy_rel_error'].max())}. Of the other {(~reached).sum()} rows, {capped} ended",
        f"Measured: {said[0]}, {said[1]}",
        _audited("h200_causal_lm"),
        _audited("reference/h200-lm/lm_97ae"),
        _not_again(),
        f"{known.sum()} of {len(lm)} rows have time and energy",
        f"{window} of {_span_s(lm):.0f} s were in measured windows",
        f"{(known & lm['energy_at_reference_j'].isna()).sum()} rows have no energy at the reference temperature",
    ]


def _audited(run: str) -> str:
    """What the audit says of a run, and its notes with how many rows each is about."""
    frame = rows(run)
    findings = [finding for finding in audit(frame) if finding.rule != "not_judged"]
    severities = Counter(str(finding.severity) for finding in findings)
    counts = [f"{severities[word]} {word}" for word in ("impossible", "implausible")]
    notes = Counter(finding.rule for finding in findings if finding.severity == "note")
    named = " and ".join(f"{count} `{rule}`" for rule, count in sorted(notes.items()))
    return f"The audit of its {len(frame)} rows: {', '.join(counts)}, and {severities['note']} notes ({named})"


def _not_again() -> str:
    """Rows with an error of 20 % or more that no longer window measured again."""
    frame, longer = rows("h200_causal_lm"), rows("h200_causal_lm_longer")
    again = set(longer[_WORK].itertuples(index=False, name=None))
    wide = frame[frame["energy_rel_error"] >= 0.2]
    left = [row for row in wide.itertuples() if tuple(getattr(row, name) for name in _WORK) not in again]
    named = " and ".join(
        f"{row.model} in {row.phase}, {row.precision} (± {percent(row.energy_rel_error)})"
        for row in sorted(left, key=lambda row: row.model, reverse=True)
    )
    return f"of {len(wide)} rows with an error of 20 % or more, {len(left)} were not measured again: {named}"


def _of_longer() -> list[str]:
    """What longer windows make of prefill at the power limit."""
    longer = rows("h200_causal_lm_longer").query("execution == 'compile_graph'")
    then = rows("h200_causal_lm").set_index(["model", "precision", "phase", "execution"])
    before = then.loc[list(longer[["model", "precision", "phase", "execution"]].itertuples(index=False, name=None))]
    ratio = longer["energy_j"].to_numpy() / before["energy_j"].to_numpy() - 1
    energy = longer.pivot_table("energy_per_token_j", index="model", columns="precision")
    saved = 1 - energy["fp8"] / energy["bf16"]
    return [
        f"All {len(longer)} rows of prefill as a graph reach 2 % in windows of {longer['window_s'].min():.1f} to "
        f"{longer['window_s'].max():.1f} s",
        f"differ from the first ones by {abs(ratio).min() * 100:.1f} to {abs(ratio).max() * 100:.1f} %",
        f"fp8 saves {saved.min() * 100:.0f} to {saved.max() * 100:.0f} % there",
        _audited("h200_causal_lm_longer"),
    ]


def _of_mixed() -> list[str]:
    run = _mixed()
    every = run["every_launch"]
    return [
        f"together take {run['ratio']:.2f} times the sum of the other two",
        f"all {every['rows'] - len(every['differ'])} rows were the same",
    ]
