"""Error of the energy of a short window, by method, against the GPU time that it takes. Needs a GPU with a counter.

For each workload: the truth is the counter's slope over 60 s of load at steady temperature, cut into slices before,
between and after the short windows, with linear interpolation in time: a board's power drifts, and sometimes jumps, by
half a percent within minutes, which two long windows around all the short ones would miss. Short windows start at
random phases of the counter; between them the same load goes on, so that the temperature stays the same. All methods
see the same stretch of load, which is `window` plus `settle` long: the tick-aligned method drops the ticks of the first
`settle`, the others use all of it.

* ticks: flopray, slope over the counter's ticks, polled by a thread.
* begin_end: read the counter, run, synchronise, read again.
* zeus: `ZeusMonitor.begin_window` / `end_window` of the zeus package, if it is installed (`flopray[bench]`).
* power_average, power_instant: NVML's power, polled every 100 ms, mean times duration.

    python bench/energy_windows.py --out results/bench                          # everything, about 12 minutes
    python bench/energy_windows.py --workloads small --out results/bench        # one workload, about 4 minutes
    python bench/energy_windows.py --smoke --out /tmp/bench                     # does it run? half a minute
    python bench/energy_windows.py --report results/bench/*.json                # tables again, no GPU needed
    python bench/energy_windows.py --plot results/bench/*.json --out docs       # error against window length, PNG

Ctrl-C and SIGTERM end it after the current round of windows, within a quarter of a minute; all results are written.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from energy_loads import WORKLOADS, GraphLoad, Load, SleepingLoad
from energy_report import plot_errors, print_report

from flopray.energy.estimator import estimate_energy, measure_tick_period
from flopray.energy.load import LoadSpan
from flopray.energy.meter import Meter, Reading
from flopray.energy.nvml import Gpu
from flopray.energy.nvml_meter import NvmlCounterMeter, NvmlPowerMeter
from flopray.energy.poller import Poller
from flopray.energy.ticks import find_ticks
from flopray.errors import FloprayError, InputError, WindowTooShort
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import SimulatedMeter


class Bench:
    """A device, its meters and the options."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.rng = random.Random(args.seed)
        self.stop = False
        self.gpu: Gpu | None = None
        self.zeus: Any = None
        self.info: dict[str, Any] = {"device_name": "simulated"}
        self.samplers: dict[str, Any] = {}
        if args.device == "simulated":
            self.meter: Meter = SimulatedMeter(ConstantPower(300.0), seed=1)
            # the same counter read by another thread: same truth, other ticks
            self.begin_end: Meter = SimulatedMeter(ConstantPower(300.0), seed=1)
            return
        self._open_gpu(int(args.device))

    def _open_gpu(self, device: int) -> None:
        import torch

        if not torch.cuda.is_available():
            raise InputError("this bench needs a CUDA GPU; --device simulated checks the bench itself")
        self.gpu = Gpu.from_uuid(str(torch.cuda.get_device_properties(device).uuid))
        self.info = {**self.gpu.info(), "torch_version": torch.__version__, "cuda_version": torch.version.cuda}
        self.meter, self.begin_end = NvmlCounterMeter(self.gpu), NvmlCounterMeter(self.gpu)
        for name, instant in (("power_average", False), ("power_instant", True)):
            sensor = NvmlPowerMeter(self.gpu)
            if instant and not sensor.instant:
                continue
            sensor.instant = instant
            self.samplers[name] = sensor
        try:
            from zeus.monitor import ZeusMonitor

            self.zeus = ZeusMonitor(gpu_indices=[device], cpu_indices=[])
            self.zeus_gpu = device
        except Exception as error:
            print(f"zeus is not measured: {error!r}", file=sys.stderr)

    def end_after_this_round(self, *_: object) -> None:
        """On Ctrl-C and SIGTERM, write what was measured; a round takes about a quarter of a minute."""
        self.stop = True

    def load(self, name: str) -> Load:
        """The load of a workload on this device."""
        if self.gpu is None:
            return SleepingLoad()
        return GraphLoad(WORKLOADS[name], int(self.args.device), self.gpu)


class PowerSampler:
    """Polls power sensors every 100 ms in a thread, as CodeCarbon and hand-written scripts do."""

    def __init__(self, sensors: dict[str, Any]) -> None:
        self.samples: dict[str, list[tuple[float, float]]] = {name: [] for name in sensors}
        self._sensors = sensors
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PowerSampler:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        next_s = time.perf_counter()
        while not self._stop.is_set():
            for name, sensor in self._sensors.items():
                self.samples[name].append((time.perf_counter(), sensor.power_w()))
            next_s = max(next_s + 0.1, time.perf_counter())
            self._stop.wait(next_s - time.perf_counter())

    def mean_w(self, name: str, start_s: float, end_s: float) -> float | None:
        """Mean of the samples of a window, or the last one before its end if it has none."""
        inside = [w for t, w in self.samples[name] if start_s <= t <= end_s]
        before = [w for t, w in self.samples[name] if t <= end_s]
        return sum(inside) / len(inside) if inside else (before[-1] if before else None)


def raw(readings: list[Reading]) -> list[list[float]]:
    return [[r.before_s, r.after_s, r.energy_j] for r in readings]


def measure_truth(bench: Bench, load: Load, period_s: float) -> dict[str, Any]:
    """Energy per iteration of a slice of the truth, from only its first and last tick, without an estimator."""
    with Poller(bench.meter, period_s) as poller:
        first_c = load.temperature_c()
        span = load.drive(bench.args.truth_seconds / (bench.args.repeats + 1))
        last_c = load.temperature_c()
        readings = poller.stop()
    ticks = find_ticks(readings)
    ticks = ticks.where((ticks.after_s > span.start_s + 0.5) & (ticks.before_s < span.end_s))
    power_w = (ticks.energy_j[-1] - ticks.energy_j[0]) / (ticks.time_s[-1] - ticks.time_s[0])
    return {
        **asdict(span),
        "power_w": float(power_w),
        "energy_j": float(power_w * span.time_s),
        "temperature_c": [first_c, last_c],
        "readings": raw(readings),
    }


def measure_window(
    bench: Bench, load: Load, window_s: float, period_s: float, sampler: PowerSampler, methods: set[str], swap: bool
) -> dict[str, Any]:
    """One stretch of load at a random phase of the counter, seen by all `methods` at once."""
    poller = Poller(bench.meter, period_s)
    if "ticks" in methods:
        poller.start()
    load.drive(bench.rng.uniform(0.1, 0.3))  # two periods of the counter: all phases are equally likely
    outer, inner = ("zeus", "begin_end") if swap else ("begin_end", "zeus")
    before: dict[str, float] = {}

    def begin(method: str) -> None:
        if method in methods:
            if method == "zeus":
                bench.zeus.begin_window("window")
            else:
                before[method] = bench.begin_end.read().energy_j

    def end(method: str) -> None:
        if method in methods:
            if method == "zeus":
                energy_j[method] = float(bench.zeus.end_window("window").gpu_energy[bench.zeus_gpu])
            else:
                energy_j[method] = bench.begin_end.read().energy_j - before[method]

    energy_j: dict[str, float] = {}
    begin(outer)
    begin(inner)
    span = load.drive(window_s + bench.args.settle)
    end(inner)
    end(outer)
    result: dict[str, Any] = {
        **asdict(span),
        "window_s": window_s,
        "outer": outer,
        "temperature_c": load.temperature_c(),
        "energy_j": {method: value / span.iterations for method, value in energy_j.items()},
    }
    for name in sampler.samples:
        mean_w = sampler.mean_w(name, span.start_s, span.end_s)
        if mean_w is not None and name in methods:
            result["energy_j"][name] = mean_w * (span.end_s - span.start_s) / span.iterations
    if "ticks" in methods:
        add_ticks(bench, result, poller.stop(), period_s)
    return result


def add_ticks(bench: Bench, result: dict[str, Any], readings: list[Reading], period_s: float) -> None:
    """Adds flopray's estimate to a window, or notes that it has too few ticks."""
    result["readings"] = raw([r for r in readings if r.after_s > result["start_s"] - 0.5])
    try:
        got = estimate_energy(
            readings,
            LoadSpan(result["start_s"], result["end_s"]),
            time_per_iteration_s=result["time_s"],
            time_rel_error=0.0,
            meter=replace(bench.meter.characteristics, settle_s=bench.args.settle),
            tick_period_s=period_s,
        )
    except WindowTooShort as error:
        result["too_short"] = error.needed_s
        return
    result["energy_j"]["ticks"] = got.energy_j
    result["estimate"] = asdict(got)


def measure_overhead(bench: Bench, load: Load, period_s: float) -> dict[str, float]:
    """Relative change of time per iteration by the polling thread, median of alternating pairs; graph and eager."""
    result = {}
    seconds = 0.3 if bench.args.smoke else 0.5
    for name, eager in (("graph", False), ("eager", True)):
        ratios = []
        for _ in range(2 if bench.args.smoke else 5):
            plain = load.drive(seconds, eager)
            with Poller(bench.meter, period_s):
                polled = load.drive(seconds, eager)
            ratios.append(polled.time_s / plain.time_s - 1)
        result[name] = sorted(ratios)[len(ratios) // 2]
    return result


def warm_up(bench: Bench, load: Load) -> list[float | None]:
    """Runs the load until its temperature changes by at most 1 K in 10 s, or the cap."""
    temperatures = [load.temperature_c()]
    step_s = min(5.0, bench.args.warm_seconds / 2)
    begin_s = time.perf_counter()
    while time.perf_counter() - begin_s < bench.args.warm_seconds:
        load.drive(step_s)
        temperatures.append(load.temperature_c())
        before, now = temperatures[-3:][0], temperatures[-1]
        if len(temperatures) > 2 and before is not None and now is not None and abs(now - before) <= 1:
            break
    return temperatures


def measure_workload(bench: Bench, name: str) -> dict[str, Any]:
    """Slices of the truth with one short window of each length, in a random order, between two of them."""
    args = bench.args
    load = bench.load(name)
    with Poller(bench.meter) as poller:
        temperatures = warm_up(bench, load)
        period = measure_tick_period(poller.stop())
    result: dict[str, Any] = {
        "workload": asdict(WORKLOADS[name]),
        "info": bench.info,
        "settle_s": args.settle,
        "separate": args.separate,
        "seed": args.seed,
        "started_unix_s": time.time(),
        "warm_up_c": temperatures,
        "tick_period": asdict(period),
        "overhead": measure_overhead(bench, load, period.period_s),
        "windows": [],
        "truths": [],
    }
    groups = [{"ticks"}, {"begin_end", "zeus"}] if args.separate else [{"ticks", "begin_end", "zeus"}]
    groups[-1] |= set(bench.samplers)
    if bench.zeus is None:
        groups = [group - {"zeus"} for group in groups]
    with PowerSampler(bench.samplers) as sampler:
        for number in range(args.repeats):
            if bench.stop:
                break
            result["truths"].append(measure_truth(bench, load, period.period_s))
            for window_s in bench.rng.sample(args.windows, len(args.windows)):
                for group in groups:
                    for _ in range(10):
                        window = measure_window(bench, load, window_s, period.period_s, sampler, group, number % 2 == 1)
                        result["windows"].append(window)
                        if "too_short" not in window:
                            break
        result["truths"].append(measure_truth(bench, load, period.period_s))
        result["power_samples"] = sampler.samples
    result["ended_unix_s"] = time.time()
    return result


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--workloads", nargs="+", choices=sorted(WORKLOADS), default=list(WORKLOADS))
    add("--windows", nargs="+", type=float, default=[0.3, 0.5, 1.0, 2.0, 5.0], help="seconds")
    add("--repeats", type=int, default=12, help="windows of each length")
    add("--truth-seconds", type=float, default=60.0, help="all slices together")
    add("--warm-seconds", type=float, default=60.0, help="at most; warming up ends when the temperature is steady")
    add("--settle", type=float, default=0.15, help="seconds of load whose ticks are dropped")
    add("--separate", action="store_true", help="tick polling and begin/end reads in separate windows")
    add("--device", default="0", help="index of the CUDA device, or `simulated`")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("results/bench"), help="folder for JSON or PNG")
    add("--smoke", action="store_true", help="half a minute: short truth, two windows of 0.3 and 0.5 s")
    add("--report", nargs="+", type=Path, metavar="JSON", help="print only the tables of earlier runs")
    add("--plot", nargs="+", type=Path, metavar="JSON", help="only draw earlier runs into OUT/energy_windows.png")
    args = parser.parse_args(argv)
    if args.smoke:
        args.windows, args.repeats, args.truth_seconds, args.warm_seconds = [0.3, 0.5], 2, 4.5, 1.0
    if args.repeats < 1 or min(args.windows) <= 0 or args.truth_seconds < args.repeats + 1:
        parser.error("--repeats and --windows must be positive, --truth-seconds more than a second for each repeat")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.report or args.plot:
        runs = [json.loads(path.read_text()) for path in args.report or args.plot]
        if args.report:
            print_report(runs)
        if args.plot:
            args.out.mkdir(parents=True, exist_ok=True)
            print(plot_errors(runs, args.out / "energy_windows.png"))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        bench = Bench(args)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, bench.end_after_this_round)
        for name in args.workloads:
            if bench.stop:
                break
            run = measure_workload(bench, name)
            path = args.out / f"energy_windows_{name}_{args.device}_{args.seed}.json"
            path.write_text(json.dumps(run))
            print_report([run])
            print(f"raw values: {path}", flush=True)
    except FloprayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
