"""Energy of a step from `flopray run` around a program, from the watch inside it, and as a sweep measures that step.

    python bench/watch_accuracy.py --against-run --into against_run.json    # 80 s on one GPU
    python bench/against_run.py --read against_run.json                     # print the table of a kept file

One program has two loops, an eager convolutional net and an eager MLP, each of which is a workload. For each of them it
makes steps unwatched until the board is warm, then steps inside a watch, and then `flopray.profile` measures the same
phase of the same point, in the same process: same model, batch, optimizer and launches. `flopray run` is around all of
it. Its ticks and those of the watch are placed on the watch's steps. Temperature is written beside each value, and the
energy at 50 degrees Celsius where the prior of the type of board can tell it.

Without a GPU the shapes are small, times are compared, and energy is missing with its reason.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from watch_accuracy import characteristics_of, estimate, ticks_of, timeline_of

import flopray
from flopray.energy.reference import told_later
from flopray.errors import FloprayError
from flopray.watching.series import Series, load_series
from flopray.workloads import Built, Field, Workload
from flopray.workloads.phases import BuiltPoint

REFERENCE_C = 50.0
#: Seconds of steps before a watch begins, of the watch at most, and of the window of `flopray.profile` at most.
WARM_S, WATCH_S, PROFILE_S = 4.0, 12.0, 15.0
#: The device is waited for after so many steps, as loops do that print a loss.
SYNCHRONISED_EVERY = 50
TARGET_ERROR = 0.01
PHASES = {"conv": "autocast_step", "mlp": "train_step"}


class ConvTraining(Workload):
    """A convolutional net on images of 64 x 64: autocast to bf16, cross entropy, AdamW with its own learning rate."""

    name = "conv_training"
    fields = (Field(name="images", letter="b", doc="images of a batch", values=(256,)),)
    phases = ("forward", PHASES["conv"])
    default_phases = (PHASES["conv"],)

    def build(self, point: Any, *, device: str, dtype: torch.dtype, seed: int) -> Built:
        """The model with a whole step of its training as a further phase."""
        torch.manual_seed(seed)
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        layers: list[torch.nn.Module] = []
        for channels, wider in ((3, 64), (64, 128), (128, 256), (256, 512)):
            layers += [torch.nn.Conv2d(channels, wider, 3, padding=1, **made), torch.nn.GELU()]
            layers += [torch.nn.BatchNorm2d(wider, **made), torch.nn.MaxPool2d(2)]
        net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(512 * 16, 100, **made))
        x, y = torch.randn(point.images, 3, 64, 64, **made), torch.randint(100, (point.images,), device=device)
        adam = torch.optim.AdamW(net.parameters())

        def step() -> torch.Tensor:
            adam.zero_grad()
            with torch.autocast("cuda" if x.is_cuda else "cpu", torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(net(x), y)
            loss.backward()
            adam.step()
            return loss

        return Built(net, x, others={PHASES["conv"]: step})


def workloads(*, small: bool) -> dict[str, tuple[Workload, str]]:
    """Each loop's workload and its precision; on a GPU the work takes longer than its launches."""
    if small:
        shape = {"n_layers": 2, "width": 256, "tokens": 64}
        return {"conv": (ConvTraining(images=4), "fp32"), "mlp": (flopray.workloads.MLP(**shape), "fp32")}
    shape = {"n_layers": 8, "width": 2048, "tokens": 8192}
    return {"conv": (ConvTraining(images=256), "fp32"), "mlp": (flopray.workloads.MLP(**shape), "bf16")}


def looped(step: Callable[[], object], seconds: float, device: str, watch: Any = None) -> None:
    """Steps for some seconds, eagerly, with a synchronisation now and then; in a watch if one is given."""
    end_s = time.perf_counter() + seconds
    for number in itertools.count(1):
        if time.perf_counter() >= end_s:
            return
        if watch is None:
            step()
        else:
            with watch.step():
                step()
        if number % SYNCHRONISED_EVERY == 0 and device != "cpu":
            torch.cuda.current_stream().synchronize()


def inside(folder: Path, seconds: float) -> None:
    """The program: each loop watched, and its step measured as a sweep measures it."""
    on_gpu = torch.cuda.is_available()
    device = "cuda:0" if on_gpu else "cpu"
    for loop, (workload, precision) in workloads(small=not on_gpu).items():
        point = workload.point(device_type="GPU" if on_gpu else "CPU", precision=precision, execution="eager")
        step = BuiltPoint(point, device=device, seed=0).launched(PHASES[loop])
        looped(step, WARM_S if on_gpu else 1.0, device)
        with flopray.watch(save=folder / loop) as w:
            looped(step, seconds, device, w)
        print(w.summary())
        del step
        options: Any = {"precision": precision, "execution": "eager", "phases": (PHASES[loop],)}
        options |= {"target_error": TARGET_ERROR, "max_seconds": PROFILE_S, "threads": torch.get_num_threads()}
        measured = flopray.profile(workload, device=device, **options)
        print(measured)
        kept = {"work": measured.point.label(), "precision": precision, "record": measured[0].columns()}
        (folder / f"{loop}.json").write_text(json.dumps(kept, indent=1, default=str))


def at_reference(row: dict[str, Any], board: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its energy at the reference temperature, by the prior of the type of board for each method alike."""
    names = ("energy_j", "energy_rel_error", "power_w", "temperature_mean_c", "throttle_end", "power_limit_end_w")
    known = {name: row.get(name) for name in names} | dict(board)
    (found,) = told_later([known], REFERENCE_C)
    kept = ("energy_at_reference_j", "energy_at_reference_rel_error", "energy_at_reference_reason")
    return row | {name: found.get(name) for name in kept}


def estimated(by: str, series: Series, shift_s: float, of: Series, uuid: str | None) -> dict[str, Any]:
    """Energy of a watched step from the ticks of a series.

    Args:
        by: which series it is.
        series: that has the ticks.
        shift_s: from its clock to that of the watch.
        of: the watch, which has the steps.
        uuid: of the GPU; None without one.
    """
    summary = of.about["summary"]
    row: dict[str, Any] = {"by": by, "time_s": None, "time_rel_error": None, "energy_j": None, "energy_rel_error": None}
    if series is of and (told := summary["time"]):
        row |= {"time_s": told["time_s"], "time_rel_error": told["rel_error"]}
    if uuid is None:
        return row | {"reason": summary["reason"]}
    timeline = timeline_of(of).since(2)
    try:
        found = estimate(ticks_of(series, uuid, shift_s), timeline, characteristics_of(uuid))
    except FloprayError as error:
        return row | {"reason": str(error)}
    samples = series.samples
    at_s = samples["time_s"].to_numpy() + shift_s
    seen = (samples["uuid"] == uuid) & (at_s >= timeline.start_s[0]) & (at_s <= timeline.end_s[-1])
    mean_c, mean_w = (float(np.mean(samples.loc[seen, name])) for name in ("temperature_c", "power_w"))
    row |= {"energy_j": found.energy_j, "energy_rel_error": found.rel_error}
    return row | {"temperature_mean_c": None if math.isnan(mean_c) else mean_c, "power_w": mean_w}


def compared(folder: Path, outer: Series, loop: str) -> dict[str, Any]:
    """The three values of one loop."""
    kept, watch = json.loads((folder / f"{loop}.json").read_text()), load_series(folder / loop)
    record, devices = kept["record"], watch.about["summary"]["devices"]
    uuid = devices[0]["uuid"] if devices else None
    shift_s = outer.about["origin_s"] - watch.about["origin_s"]
    names = ("time_s", "time_rel_error", "energy_j", "energy_rel_error", "temperature_mean_c", "power_w")
    names += ("window_s", "iterations", "throttle_end", "power_limit_end_w")
    profiled = {"by": "flopray.profile"} | {name: record.get(name) for name in names}
    profiled["reason"] = record.get("energy_reason") or record.get("status_reason")
    rows = [
        estimated("flopray run", outer, shift_s, watch, uuid),
        estimated("watch inside it", watch, 0.0, watch, uuid),
        profiled,
    ]
    board = {name: record.get(name) for name in ("device_name", "power_limit_w")}
    rows = [at_reference(row, board) for row in rows]
    return {"work": kept["work"], "phase": PHASES[loop], "precision": kept["precision"], "rows": rows}


def against_run(folder: Path, seconds: float, into: Path | None) -> None:
    """Measure, print the table, and keep it."""
    began_s, seconds = time.perf_counter(), min(seconds, WATCH_S)
    folder /= datetime.now(UTC).strftime("against_run-%Y%m%d-%H%M%S")
    within = folder / "inside"
    within.mkdir(parents=True, exist_ok=True)
    script = [sys.executable, __file__, "--inside", str(within), "--seconds", f"{seconds:g}"]
    outer = [sys.executable, "-m", "flopray", "run", "--out", str(folder / "outside"), "--", *script]
    subprocess.run(outer, check=True)
    outside = load_series(folder / "outside")
    loops = {loop: compared(within, outside, loop) for loop in PHASES}
    kept = about_this_machine() | {"watch_s": seconds, "took_s": time.perf_counter() - began_s, "loops": loops}
    if into is not None:
        into.parent.mkdir(parents=True, exist_ok=True)
        into.write_text(json.dumps(kept, indent=1, default=str) + "\n")
    show(kept)


def about_this_machine() -> dict[str, Any]:
    """Device, software and date of a kept file."""
    about: dict[str, Any] = {"device": "CPU", "uuid": None, "driver": None, "torch": torch.__version__}
    if torch.cuda.is_available():
        import pynvml

        pynvml.nvmlInit()
        about |= {"device": torch.cuda.get_device_name(), "driver": pynvml.nvmlSystemGetDriverVersion()}
        about["uuid"] = str(torch.cuda.get_device_properties(0).uuid)
    return about | {"date": datetime.now(UTC).date().isoformat()}


def agreement(one: Mapping[str, Any], other: Mapping[str, Any], name: str = "energy") -> dict[str, Any] | None:
    """How far two values are apart, and whether that is within both intervals; None where one is missing.

    Args:
        one, other: rows.
        name: `energy`, `time` or `energy_at_reference`.
    """
    unit = "s" if name == "time" else "j"
    first, second = one.get(f"{name}_{unit}"), other.get(f"{name}_{unit}")
    first_error, second_error = one.get(f"{name}_rel_error"), other.get(f"{name}_rel_error")
    if first is None or second is None or first_error is None or second_error is None:
        return None
    allowed = first * first_error + second * second_error
    return {"difference": second / first - 1, "agree": bool(abs(second - first) <= allowed)}


def show(kept: Mapping[str, Any]) -> None:
    """Print the table of a kept file."""
    device = f"{kept['device']} {kept['uuid']}, driver {kept['driver']}" if kept["uuid"] else kept["device"]
    print(f"{device}, torch {kept['torch']}, {kept['date']}")
    print(f"watched {kept['watch_s']:g} s of each loop; all of it took {kept['took_s']:.0f} s")
    for loop, one in kept["loops"].items():
        print(f"{loop}: {one['work']}, {one['phase']}")
        for row in one["rows"]:
            print(f"  {row['by']:<16} {_line(row)}")
        for first, second in itertools.combinations(one["rows"], 2):
            print(f"  {first['by']} and {second['by']}: {_verdicts(first, second)}")


def _line(row: Mapping[str, Any]) -> str:
    energy = _value(row, "energy", "J a step")
    parts = [energy or f"no energy: {row.get('reason') or 'no interval'}"]
    parts += [value] if (value := _value(row, "time", "s a step")) else []
    parts += [f"{row['temperature_mean_c']:.1f} °C"] if row.get("temperature_mean_c") is not None else []
    if energy:
        at = _value(row, "energy_at_reference", "J") or f"none: {row.get('energy_at_reference_reason')}"
        parts.append(f"at {REFERENCE_C:g} °C {at}")
    return "; ".join(parts)


def _value(row: Mapping[str, Any], name: str, unit: str) -> str | None:
    value, error = row.get(f"{name}_{unit[0].lower()}"), row.get(f"{name}_rel_error")
    if value is None:
        return None
    return f"{value:.5g} {unit} " + ("± unknown" if error is None else f"± {error:.2%}")


def _verdicts(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    said = []
    for name in ("energy", "energy_at_reference", "time"):
        if found := agreement(one, other, name):
            within = "yes" if abs(found["difference"]) <= TARGET_ERROR else "no"
            agree = "yes" if found["agree"] else "no"
            words = name.replace("_at_reference", f" at {REFERENCE_C:g} °C")
            said.append(f"{words} {found['difference']:+.2%}, within both intervals: {agree}, within 1 %: {within}")
    return "; ".join(said) or "nothing to compare"


def main(words: Sequence[str] | None = None) -> None:
    """Run the program that is watched, or print a kept table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", type=Path, metavar="DIR", help="be the program that is watched")
    parser.add_argument("--seconds", type=float, default=WATCH_S, help="of each watch")
    parser.add_argument("--read", type=Path, metavar="FILE", help="print the table of a kept file")
    args = parser.parse_args(words)
    if args.inside:
        inside(args.inside, args.seconds)
    elif args.read:
        show(json.loads(args.read.read_text()))
    else:
        parser.error("name --read FILE, or measure with bench/watch_accuracy.py --against-run")


if __name__ == "__main__":
    main()
