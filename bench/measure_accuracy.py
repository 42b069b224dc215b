"""How far windows of `flopray.measure` are from the mean of 30 s of the same step. Needs a GPU.

    python bench/measure_accuracy.py --out measured.json              # four steps, eager and as graphs: 10 minutes
    python bench/measure_accuracy.py --works conv --executions graph  # one of them
    python bench/measure_accuracy.py --read measured.json             # judge kept windows

A step warms up the board. Half of the windows come before and half after a window of 30 s, with random pauses between
them, so that they begin at random phases of the counter. Board and step stay the same but temperature does not, so
energies are compared as measured and at the reference temperature. A point of the built-in MLP is also measured as in a
sweep.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import flopray
from flopray.measurement.result import Measurement

MLP_SHAPE = {"n_layers": 8, "width": 1024, "tokens": 256}
#: Longest pause between two windows; the counter ticks every 0.1 s.
PAUSE_S = 0.3


def training(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, *, captured: bool) -> Callable[[], object]:
    """A whole step: autocast to bf16, cross entropy, AdamW with an ordinary learning rate."""
    adam = torch.optim.AdamW(net.parameters(), lr=1e-4, capturable=captured)

    def step() -> None:
        adam.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=not captured):
            loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        adam.step()

    return step


def conv(captured: bool) -> Callable[[], object]:
    """A convolutional net on images."""
    layers: list[torch.nn.Module] = []
    for channels, wider in ((3, 64), (64, 128), (128, 256), (256, 512)):
        layers += [torch.nn.Conv2d(channels, wider, 3, padding=1), torch.nn.GELU()]
        layers += [torch.nn.BatchNorm2d(wider), torch.nn.MaxPool2d(2)]
    net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(512 * 16, 100)).cuda()
    images, labels = torch.randn(256, 3, 64, 64, device="cuda"), torch.randint(100, (256,), device="cuda")
    return training(net, images, labels, captured=captured)


def transformer(captured: bool, sequences: int = 64) -> Callable[[], object]:
    """A small transformer that classifies sequences of embeddings; eagerly, its launches take longer than its work."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = torch.nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
            self.encoder, self.head = torch.nn.TransformerEncoder(layer, 6), torch.nn.Linear(512, 100)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.encoder(x)[:, 0])

    x, y = torch.randn(sequences, 128, 512, device="cuda"), torch.randint(100, (sequences,), device="cuda")
    return training(Net().cuda(), x, y, captured=captured)


def transformer_large_batch(captured: bool) -> Callable[[], object]:
    """The same transformer on so many sequences that its work takes longer than its launches."""
    return transformer(captured, 512)


def mlp(captured: bool) -> Callable[[], object]:
    """The phase `train_step` of a built-in MLP, launched as in a sweep."""
    from flopray.workloads.phases import BuiltPoint

    del captured
    point = flopray.workloads.MLP(**MLP_SHAPE).point(device_type="GPU", precision="bf16", execution="graph")
    return BuiltPoint(point, device="cuda:0", seed=0).launched("train_step")


WORKS: dict[str, Callable[[bool], Callable[[], object]]] = {
    "conv": conv,
    "transformer": transformer,
    "transformer_large_batch": transformer_large_batch,
    "mlp": mlp,
}


def numbers(m: Measurement) -> dict[str, Any]:
    """The numbers of a measurement that are kept."""
    at = m.at_reference
    return {
        "time_s": m.time.time_s,
        "time_rel_error": m.time.rel_error,
        "energy_j": m.energy.energy_j,
        "energy_rel_error": m.energy.rel_error,
        "reference_j": at.energy_j if at else None,
        "reference_rel_error": at.rel_error if at else None,
        "temperature_c": m.energy.temperature_c,
        "window_s": m.time.window_s,
    }


def windows_of(step: Callable[[], object], execution: str, count: int, truth_s: float) -> dict[str, Any]:
    """Windows before and after a long one, which is the truth."""
    rng = np.random.default_rng(0)

    def window() -> dict[str, Any]:
        time.sleep(rng.uniform(0, PAUSE_S))
        return numbers(flopray.measure(step, instruments=("time", "energy"), execution=execution))

    flopray.measure(step, instruments=("time",), execution=execution, target_error=1e-6, max_seconds=6)
    before = [window() for _ in range(count // 2)]
    long = {"instruments": ("time", "energy"), "target_error": 1e-6, "max_seconds": truth_s}
    truth = numbers(flopray.measure(step, execution=execution, **long))
    return {"windows": before + [window() for _ in range(count - count // 2)], "truth": truth}


def as_a_sweep() -> dict[str, Any]:
    """The same MLP's step, measured as in a sweep."""
    made = flopray.workloads.MLP(**MLP_SHAPE)
    (record,) = flopray.profile(made, precision="bf16", execution="graph", phases=("train_step",))
    return {name: value for name, value in record.columns().items() if name.startswith(("time", "energy", "temp"))}


def judge(kept: dict[str, Any]) -> None:
    """Print for each step and quantity how many intervals contain the long window's value."""
    print(f"{kept['device']}, driver {kept['driver']}, torch {kept['torch']}")
    for name, one in kept["steps"].items():
        truth = one["truth"]
        for what, error in (
            ("time_s", "time_rel_error"),
            ("energy_j", "energy_rel_error"),
            ("reference_j", "reference_rel_error"),
        ):
            pairs = [(w[what], w[error]) for w in one["windows"] if w[what] is not None and w[error] is not None]
            if not pairs or truth[what] is None:
                print(f"{name:<18} {what:<12} missing")
                continue
            off = np.array([value for value, _ in pairs]) / truth[what] - 1
            stated = np.array([error for _, error in pairs])
            print(
                f"{name:<18} {what:<12} {np.sum(np.abs(off) <= stated):>2} of {len(off)} hold {truth[what]:.5g}; RMS "
                f"{np.sqrt(np.mean(off**2)):.2%}, mean {off.mean():+.2%}, stated {np.median(stated):.2%} in the median"
            )
    if (sweep := kept.get("sweep")) and (one := kept["steps"].get("mlp graph")):
        compare_with_sweep(sweep, one["windows"])


def compare_with_sweep(sweep: dict[str, Any], windows: list[dict[str, Any]]) -> None:
    """Print how many windows of the MLP agree with the sweep's value, which means within both intervals."""
    at = {name: sweep.get(f"energy_at_reference_{name}") for name in ("j", "rel_error")}
    values = {
        "time_s": (sweep.get("time_s"), sweep.get("time_rel_error")),
        "energy_j": (sweep.get("energy_j"), sweep.get("energy_rel_error")),
        "reference_j": (at["j"], at["rel_error"]),
    }
    for what, (value, error) in values.items():
        name = what[: what.rindex("_")] + "_rel_error"
        pairs = [(w[what], w[name]) for w in windows if w[what] is not None and w[name] is not None]
        if value is None or error is None or not pairs:
            print(f"mlp as in a sweep  {what:<12} missing")
            continue
        off = np.array([found for found, _ in pairs]) / value - 1
        allowed = np.array([found * stated for found, stated in pairs]) / value + error
        print(
            f"mlp as in a sweep  {what:<12} {np.sum(np.abs(off) <= allowed):>2} of {len(off)} agree with {value:.5g} ± "
            f"{error:.2%} within both intervals; {off.min():+.2%} to {off.max():+.2%}, median {np.median(off):+.2%}"
        )


def main() -> None:
    """Measure, keep and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS), help="steps")
    parser.add_argument("--executions", nargs="+", choices=["eager", "graph"], default=["eager", "graph"])
    parser.add_argument("--windows", type=int, default=20, help="of each step")
    parser.add_argument("--truth-seconds", type=float, default=30.0, help="length of the long window")
    parser.add_argument("--out", type=Path, default=Path("results/measured.json"), metavar="FILE")
    parser.add_argument("--read", type=Path, metavar="FILE", help="judge windows of a kept file")
    args = parser.parse_args()
    if args.read:
        judge(json.loads(args.read.read_text()))
        return
    import pynvml

    pynvml.nvmlInit()
    kept: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "uuid": str(torch.cuda.get_device_properties(0).uuid),
        "driver": pynvml.nvmlSystemGetDriverVersion(),
        "torch": torch.__version__,
        "steps": {},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for work in args.works:
        for execution in args.executions:
            step = WORKS[work](execution == "graph")
            kept["steps"][f"{work} {execution}"] = windows_of(step, execution, args.windows, args.truth_seconds)
            args.out.write_text(json.dumps(kept, indent=1) + "\n")
            del step
            torch.cuda.empty_cache()
    if "mlp" in args.works:
        kept["sweep"] = as_a_sweep()
        args.out.write_text(json.dumps(kept, indent=1) + "\n")
    judge(kept)


if __name__ == "__main__":
    main()
