"""Records the power of several kinds of work while a board warms up and cools down again.

    python bench/thermal_record.py --out h100.json                        # one GPU, about six minutes
    CUDA_VISIBLE_DEVICES=1 python bench/thermal_record.py --out other.json

`bench/thermal.py` judges the files. Windows have the same length and follow each other without a pause. The order of
the works is random in each cycle, so that no work always follows the same other one. While the board warms up, a
product of large matrices runs between the windows; while it cools down, the board rests.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import flopray
from flopray.energy.idle import idle_power
from flopray.energy.meter import Meter, Reading
from flopray.energy.nvml import Gpu, library
from flopray.measurement.device import Device
from flopray.measurement.phase import measure_phase
from flopray.settings import MeasureSettings
from flopray.workloads.execution import Work, captured
from flopray.workloads.phases import BuiltPoint
from flopray.workloads.registry import find_workload

#: Seconds between two reads of the temperatures.
_SAMPLE_EVERY_S = 0.05
#: Idle seconds before awake idle power is measured: the counter still shows a load for this long after its end.
_AFTER_LOAD_S = 0.15
#: The 1B model takes some 15 GB with its optimizer's moments.
_LLAMA = {
    **{"model": "llama-3.2-1b", "weights": "random", "attention": "auto", "checkpointing": False},
    **{"batch_size": 2, "sequence_length": 512},
}


class Recording:
    """A meter that keeps the readings at which its counter changed."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.source, self.read_cost_s = meter.source, meter.read_cost_s
        self.changes_on_read, self.characteristics = meter.changes_on_read, meter.characteristics
        self.kept: list[tuple[float, float, float]] = []
        self._last: Reading | None = None

    def read(self) -> Reading:
        """See `Meter`."""
        reading, last = self._meter.read(), self._last
        if last is not None and reading.energy_j != last.energy_j:
            self.kept += [(r.before_s, r.after_s, r.energy_j) for r in (last, reading)]
        self._last = reading
        return reading

    def temperature_c(self) -> float | None:
        """See `Meter`."""
        return self._meter.temperature_c()

    def close(self) -> None:
        """See `Meter`."""


class Temperatures:
    """Reads the temperatures of the GPU and of its memory in a thread."""

    def __init__(self, gpu: Gpu) -> None:
        self._nvml, self._gpu = library(), gpu
        self.samples: list[tuple[float, float | None, float | None]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Temperatures:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def between(self, start_s: float, end_s: float) -> list[tuple[float, float | None, float | None]]:
        """Samples (host time, GPU, memory) within a period."""
        return [sample for sample in list(self.samples) if start_s <= sample[0] <= end_s]

    def _run(self) -> None:
        while not self._over.wait(_SAMPLE_EVERY_S):
            self.samples.append((time.perf_counter(), self._gpu.state().temperature_c, self._memory_c()))

    def _memory_c(self) -> float | None:
        nvml = self._nvml
        try:
            value = nvml.nvmlDeviceGetFieldValues(self._gpu.handle, [nvml.NVML_FI_DEV_MEMORY_TEMP])[0]
        except nvml.NVMLError:
            return None
        return float(value.value.uiVal) if value.nvmlReturn == nvml.NVML_SUCCESS else None


def kinds() -> dict[str, Callable[[], Work]]:
    """The kinds of work by name, each with the function that builds it."""
    llama = _built("llama", _LLAMA, "bf16", "eager").phase("train_step")
    return {
        "mlp_fp32": lambda: _mlp("fp32", 6, 1000, 200),
        "mlp_tf32": lambda: _mlp("tf32", 6, 2048, 256),
        "mlp_fp16": lambda: _mlp("fp16", 6, 1024, 512),
        "mlp_bf16_small": lambda: _mlp("bf16", 3, 1000, 100),
        "mlp_bf16_large": lambda: _mlp("bf16", 8, 2048, 256),
        "mlp_train_bf16": lambda: _mlp("bf16", 4, 2048, 1024, phase="train_step"),
        "small_launches": lambda: _mlp("bf16", 16, 128, 32, execution="eager"),
        "streaming": _streaming,
        "attention": _attention,
        "power_limit": _product,
        "llama_train_step": lambda: llama,
    }


def _mlp(precision: str, n: int, d: int, m: int, phase: str = "forward", execution: str = "graph") -> Work:
    return _built("mlp", {"n_layers": n, "width": d, "tokens": m}, precision, execution).phase(phase)


def _built(name: str, values: dict[str, Any], precision: str, execution: str) -> BuiltPoint:
    point = find_workload(name).point(device_type="GPU", precision=precision, execution=execution, **values)
    return BuiltPoint(point, device="cuda:0", seed=0)


def _streaming() -> Work:
    source, target = torch.zeros(2, 256 * 1024 * 1024, device="cuda").unbind()
    return captured(lambda: target.copy_(source))


def _attention() -> Work:
    q, k, v = torch.randn(3, 8, 16, 1024, 64, device="cuda", dtype=torch.bfloat16).unbind()
    return captured(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))


def _product() -> Work:
    a, b, out = torch.randn(3, 8192, 8192, device="cuda", dtype=torch.bfloat16).unbind()
    return lambda: torch.mm(a, b, out=out)


def record(args: argparse.Namespace) -> dict[str, Any]:
    """All windows of one board."""
    device = Device("GPU")
    meter = Recording(device.open_meter())
    gpu = Gpu.from_uuid(str(torch.cuda.get_device_properties(0).uuid))
    settings = MeasureSettings(instruments=("time", "energy"), target_error=1e-6, max_seconds=args.window)
    idle = idle_power(meter, 1.0)
    head = device.columns() | {"flopray_version": flopray.__version__, "torch_version": torch.__version__}
    head |= {"idle_power_w": idle.power_w, "window_s": args.window, "started_unix_s": time.time()}
    builders = kinds()
    built: dict[str, Work] = {}
    burn = _product()
    draw = random.Random(args.seed)
    windows: list[dict[str, Any]] = []
    with Temperatures(gpu) as temperatures:

        def window(name: str, cycle: int, way: str) -> None:
            meter.kept.clear()
            start_s = time.perf_counter()
            if name == "awake_idle":
                time.sleep(_AFTER_LOAD_S)
                power = idle_power(meter, args.window)
                row: dict[str, Any] = {"power_w": power.power_w, "power_rel_error": power.power_rel_error}
            else:
                if args.rebuild or name not in built:
                    built[name] = builders[name]()
                result = measure_phase(built[name], device, meter, settings, tick_period_s=idle.tick_period_s)
                after = result.state.end
                row = {
                    "power_w": result.energy.power_w,
                    "energy_j": result.energy.energy_j,
                    "energy_rel_error": result.energy.rel_error,
                    "time_s": result.timing.time_s,
                    "time_rel_error": result.timing.rel_error,
                    "throttle": after.throttle if after else None,
                    "sm_clock_hz": after.sm_clock_hz if after else None,
                }
            end_s = time.perf_counter()
            seen = temperatures.between(start_s - 3, end_s)
            row |= {"work": name, "cycle": cycle, "way": way, "start_s": start_s, "end_s": end_s}
            row["samples"] = [[round(t - end_s, 3), core, memory] for t, core, memory in seen]
            row["readings"] = [
                [round(before - end_s, 6), round(after - end_s, 6), j] for before, after, j in meter.kept
            ]
            windows.append(row)
            if args.rebuild:
                built.clear()
                gc.collect()
                torch.cuda.empty_cache()

        _cycles(args, [*builders, "awake_idle"], draw, window, burn)
    return {"device": head, "windows": windows}


def _cycles(
    args: argparse.Namespace,
    names: list[str],
    draw: random.Random,
    window: Callable[[str, int, str], None],
    burn: Work,
) -> None:
    """Warm up, with a product between the windows, and cool down, with rests."""
    begin = time.monotonic()
    for cycle in range(args.up + args.down):
        way = "up" if cycle < args.up else "down"
        for name in draw.sample(names, len(names)):
            if way == "up":
                _run(burn, args.burn * cycle / args.up)
            else:
                time.sleep(args.rest)
            window(name, cycle, way)
        if way == "up":
            _run(burn, 4.0 * cycle / args.up)
        else:
            time.sleep(4.0)
        print(f"cycle {cycle} {way} {time.monotonic() - begin:.0f} s {torch.cuda.temperature()} °C", flush=True)
        if time.monotonic() - begin > args.max_seconds:
            return


def _run(work: Work, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in range(8):
            work()
        torch.cuda.synchronize()


def main() -> None:
    """Record and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--window", type=float, default=0.8, help="seconds of a window (%(default)s)")
    parser.add_argument("--up", type=int, default=10, help="cycles while warming up (%(default)s)")
    parser.add_argument("--down", type=int, default=9, help="cycles while cooling down (%(default)s)")
    parser.add_argument("--burn", type=float, default=1.0, help="most seconds of product before a window (%(default)s)")
    parser.add_argument("--rest", type=float, default=0.25, help="seconds of rest before a window (%(default)s)")
    parser.add_argument("--max-seconds", type=float, default=345.0, help="begin no further cycle after these seconds")
    parser.add_argument("--rebuild", action="store_true", help="build a work anew for each window, as a sweep does")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    result = record(args)
    args.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
