"""How far joules per step after some seconds of steps are from the mean of the 40 s around them. Needs a GPU.

    python bench/watch_accuracy.py --loop conv --out DIR          # an eager convolutional net, 4 minutes
    python bench/watch_accuracy.py --loop trainer --out DIR       # the Trainer of transformers with EnergyCallback
    python bench/watch_accuracy.py --loop lightning --out DIR     # a fit of Lightning with EnergyMonitor
    python bench/watch_accuracy.py --against-run --into FILE      # `flopray run`, `watch` and a sweep: 80 s
    python bench/watch_accuracy.py --read DIR                     # judge series that were kept before

A loop is watched for `--seconds`. Then windows are cut from its series at random moments, each is estimated only
from its own data, and the truth is the energy of the 40 s around it over their steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import flopray
from flopray.energy.curve import EnergyCurve
from flopray.energy.meter import Characteristics, Reading
from flopray.energy.nvml_meter import NvmlCounterMeter
from flopray.energy.source import open_gpu_meter
from flopray.energy.ticks import Ticks, find_ticks
from flopray.errors import FloprayError
from flopray.watching.series import Series, load_series
from flopray.watching.step_energy import StepEnergy, energy_per_step
from flopray.watching.timeline import Timeline

AROUND_S = 40.0
#: Steps of the first seconds are left out: the board warms up.
FIRST_S = 10.0


def conv(seconds: float, folder: Path) -> None:
    """An ordinary loop: a convolutional net, autocast to bf16, AdamW, launched operation by operation."""
    layers: list[torch.nn.Module] = []
    for channels in (3, 64, 128, 256):
        layers += [torch.nn.Conv2d(channels, max(64, 2 * channels), 3, padding=1), torch.nn.GELU()]
        layers += [torch.nn.BatchNorm2d(max(64, 2 * channels)), torch.nn.MaxPool2d(2)]
    net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.LazyLinear(100)).cuda()
    x, y = torch.randn(256, 3, 64, 64, device="cuda"), torch.randint(100, (256,), device="cuda")
    net(x[:2])
    adam = torch.optim.AdamW(net.parameters())
    end_s = time.perf_counter() + seconds
    with flopray.watch(save=folder) as w:
        while time.perf_counter() < end_s:
            with w.step():
                adam.zero_grad()
                with torch.autocast("cuda", torch.bfloat16):
                    loss = torch.nn.functional.cross_entropy(net(x), y)
                loss.backward()
                adam.step()
                if w.step_count % 50 == 0:
                    loss.item()
    print(w.summary())
    w.plot(folder / "figure")


def trainer(seconds: float, folder: Path) -> None:
    """A Llama of 0.2 billion parameters in the Trainer, which logs every 20 steps and evaluates every 400.

    With a much smaller one launching takes longer than computing, and the host determines how even its steps are.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from flopray.integrations.transformers import EnergyCallback

    end_s = time.perf_counter() + seconds

    class Until(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            del args, state, kwargs
            control.should_training_stop = time.perf_counter() > end_s

    config = LlamaConfig(
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=12,
        num_attention_heads=16,
        num_key_value_heads=8,
        vocab_size=8192,
    )
    # a list works as a dataset, which the stubs do not know
    rows: Any = [{"input_ids": ids, "labels": ids} for ids in torch.randint(8192, (512, 512))]
    arguments = TrainingArguments(
        output_dir=str(folder / "trained"),
        max_steps=10**6,
        per_device_train_batch_size=32,
        logging_steps=20,
        eval_strategy="steps",
        eval_steps=400,
        save_strategy="no",
        bf16=True,
        report_to="none",
        disable_tqdm=True,
    )
    energy = EnergyCallback(save=folder)
    callbacks = [energy, Until()]
    made = Trainer(LlamaForCausalLM(config), arguments, train_dataset=rows, eval_dataset=rows, callbacks=callbacks)
    made.train()
    print(energy.summary)
    print(*made.state.log_history[-3:], sep="\n")


def lightning(seconds: float, folder: Path) -> None:
    """A network of linear layers, fitted by Lightning."""
    import lightning as library

    from flopray.integrations.lightning import EnergyMonitor

    class Net(library.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            layers = [layer for _ in range(12) for layer in (torch.nn.Linear(2048, 2048), torch.nn.GELU())]
            self.net = torch.nn.Sequential(*layers)

        def training_step(self, batch: Any, _: int) -> Any:
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters())

    batches: Any = [(torch.randn(4096, 2048),) for _ in range(4)] * 100
    data = torch.utils.data.DataLoader(batches, batch_size=None)
    energy = EnergyMonitor(save=folder)
    fit = library.Trainer(
        max_time={"seconds": int(seconds)},
        max_epochs=-1,
        precision="bf16-mixed",
        callbacks=[energy],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        log_every_n_steps=50,
    )
    fit.fit(Net(), data)
    print(energy.summary)
    print(fit.callback_metrics)


LOOPS: dict[str, Callable[[float, Path], None]] = {
    "conv": conv,
    "trainer": trainer,
    "lightning": lightning,
}


def ticks_of(series: Series, uuid: str, shift_s: float = 0.0) -> Ticks:
    """Ticks of one device of a series, on the clock of the watch or shifted."""
    rows = series.ticks[series.ticks["uuid"] == uuid]
    columns = [np.asarray(rows[name]) for name in ("before_s", "after_s", "energy_j", "slept")]
    return find_ticks([Reading(b + shift_s, a + shift_s, e, bool(s)) for b, a, e, s in zip(*columns, strict=True)])


def timeline_of(series: Series) -> Timeline:
    steps = series.steps
    inside = Timeline(steps["start_s"].to_numpy(), steps["end_s"].to_numpy(), steps["step"].to_numpy())
    return inside.with_pauses()


def estimate(ticks: Ticks, timeline: Timeline, meter: Characteristics) -> StepEnergy:
    """The estimate of `watch`."""
    return energy_per_step(ticks, timeline, meter)


def characteristics_of(uuid: str) -> Characteristics:
    """Characteristics of a GPU's counter, or of NVML's counter in general if the GPU is not here."""
    try:
        meter = open_gpu_meter(uuid)
    except FloprayError:
        return NvmlCounterMeter.characteristics
    try:
        return meter.characteristics
    finally:
        meter.close()


@dataclass(frozen=True)
class Judged:
    """Windows of one length against the seconds around them.

    Attributes:
        errors: estimate / truth - 1, shape (windows,).
        stated: half widths of the stated intervals, relative, shape (windows,).
    """

    errors: np.ndarray
    stated: np.ndarray

    @property
    def held(self) -> int:
        """Windows whose interval contains the truth."""
        return int(np.sum(np.abs(self.errors) <= self.stated))

    @property
    def rms(self) -> float:
        """Root mean square of the errors."""
        return float(np.sqrt(np.mean(np.square(self.errors))))


def judged(series: Series, windows: int, seconds: Sequence[float]) -> dict[float, Judged]:
    """Windows at random moments, by their length; the moments are the same for each call."""
    (uuid,) = {device["uuid"] for device in series.about["summary"]["devices"]}
    ticks, timeline, meter = ticks_of(series, uuid), timeline_of(series), characteristics_of(uuid)
    curve, rng = EnergyCurve(ticks), np.random.default_rng(0)
    low_s, high_s = float(timeline.start_s[0]) + FIRST_S, float(timeline.end_s[-1])
    by_length = {}
    for length_s in seconds:
        errors, stated = [], []
        for start_s in rng.uniform(low_s + (AROUND_S - length_s) / 2, high_s - (AROUND_S + length_s) / 2, windows):
            seen = (timeline.start_s >= start_s) & (timeline.end_s <= start_s + length_s)
            whole = np.unique(timeline.step[seen], return_inverse=True)[1]
            inside = (ticks.after_s >= start_s) & (ticks.before_s <= start_s + length_s)
            found = estimate(ticks.where(inside), Timeline(timeline.start_s[seen], timeline.end_s[seen], whole), meter)
            edges_s = start_s + length_s / 2 + np.array([-AROUND_S / 2, AROUND_S / 2])
            near = (timeline.start_s >= edges_s[0]) & (timeline.end_s <= edges_s[1])
            errors.append(found.energy_j / _energy_of_spans(curve, timeline, near) - 1)
            stated.append(found.rel_error)
        by_length[length_s] = Judged(np.array(errors), np.array(stated, dtype=float))
    return by_length


def judge(series: Series, windows: int, seconds: Sequence[float]) -> None:
    """Print RMS, coverage and stated width for windows of some lengths."""
    for length_s, found in judged(series, windows, seconds).items():
        print(
            f"{length_s:g} s: {found.held} of {windows} intervals contain the mean of {AROUND_S:g} s; "
            f"RMS {found.rms:.2%}, mean {np.mean(found.errors):+.2%}, "
            f"stated {np.median(found.stated):.2%} in the median"
        )


def _energy_of_spans(curve: EnergyCurve, timeline: Timeline, near: np.ndarray) -> float:
    """Energy of the spans of steps over the number of steps, without pauses above 0.3 s."""
    span = timeline.spans()[near]
    start_s, end_s, step = timeline.start_s[near], timeline.end_s[near], timeline.step[near]
    first = np.flatnonzero(np.diff(span, prepend=span[0] - 1))
    last = np.append(first[1:], len(span)) - 1
    energy_j = sum(curve.between(float(start_s[a]), float(end_s[b]))[0] for a, b in zip(first, last, strict=True))
    return energy_j / len(np.unique(step))


def main() -> None:
    """Watch a loop and judge it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", choices=list(LOOPS), help="the loop to watch")
    parser.add_argument("--against-run", action="store_true", help="see bench/against_run.py")
    parser.add_argument("--into", type=Path, metavar="FILE", help="file that keeps the values of --against-run")
    parser.add_argument("--read", type=Path, metavar="DIR", help="a folder of kept series")
    parser.add_argument("--out", type=Path, default=Path("results/watch"), metavar="DIR", help="folder for the series")
    parser.add_argument("--seconds", type=float, default=240.0, help="how long a loop is watched")
    parser.add_argument("--windows", type=int, default=20, help="number of windows at random moments; 0 judges none")
    parser.add_argument("--lengths", nargs="+", type=float, default=[0.5, 1.0, 2.0, 5.0], help="of windows, in seconds")
    args = parser.parse_args()
    if args.read:
        judge(load_series(args.read), args.windows, tuple(args.lengths))
    elif args.against_run:
        from against_run import against_run

        against_run(args.out, args.seconds, args.into)
    elif args.loop:
        LOOPS[args.loop](args.seconds, args.out / args.loop)
        if args.windows:
            judge(load_series(args.out / args.loop), args.windows, tuple(args.lengths))
    else:
        parser.error("name a --loop, --against-run or --read DIR")


if __name__ == "__main__":
    main()
