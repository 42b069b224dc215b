"""How much of each tick does a GPU's energy counter see? A load that is on for a part of a tick tells.

    python bench/sensor_share.py                       # GPU 0, about 40 s
    python bench/sensor_share.py --on 0.1 0.2 0.5      # parts of a period that are under load

The period of the load is 3 % longer than a tick, so that the load moves over the ticks. A counter that adds up all
power then shows nearly the same power in each tick. One that sees the last quarter shows four times the load's part of
a tick where the load lies in that quarter, and none of it elsewhere. What is printed is the part that explains how far
apart the ticks' powers are: the most that `flopray.energy.meter.Characteristics.seen_share` may be for this GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np

from flopray.energy.meter import Meter, Reading
from flopray.energy.poller import Poller
from flopray.energy.ticks import find_ticks, measure_tick_period

#: Periods of the load are longer than a tick by this factor.
LONGER = 1.03
#: Seconds of each load, and what is left out of its beginning.
SECONDS, SETTLE_S = 8.0, 1.0


def powers_of(readings: Sequence[Reading]) -> np.ndarray:
    """Mean power of each tick in W, without those at the beginning; shape (n,)."""
    ticks = find_ticks(readings)
    ticks = ticks.where(ticks.time_s >= readings[0].before_s + SETTLE_S)
    return np.diff(ticks.energy_j) / np.diff(ticks.time_s)


def seen_share(powers_w: np.ndarray, on: float, high_w: float, low_w: float) -> float:
    """What part of a tick a sensor sees, by the range of the powers of ticks; between `on` and 1.

    A sensor that sees the part s of a tick, with a load that is on for the part d of it, shows powers from `low_w` to
    `low_w + (high_w - low_w) * d / s`, where d is less than s. What the period adds to a tick's length is left out.

    Args:
        powers_w: of `powers_of`.
        on: d.
        high_w, low_w: power of the load, and without it.
    """
    widest = (np.percentile(powers_w, 98) - np.percentile(powers_w, 2)) / (high_w - low_w)
    # A counter that adds up all power still sees the load move over the ends of a tick: up to LONGER - 1 of it.
    return float(np.clip(on / max(widest, on), on, 1.0))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", nargs="+", type=float, default=[0.1, 0.2, 0.5], help="parts of a period under load")
    args = parser.parse_args(argv)
    import torch

    from flopray.energy.source import open_gpu_meter

    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here")
    x = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)

    def work(until_s: float) -> None:
        while time.perf_counter() < until_s:
            torch.matmul(x, x)
            torch.cuda.synchronize()

    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    work(time.perf_counter() + 3.0)
    high = polled(open_gpu_meter(uuid), lambda: work(time.perf_counter() + SECONDS))
    low = polled(open_gpu_meter(uuid), lambda: time.sleep(SECONDS))
    tick_s = measure_tick_period(high).period_s
    high_w, low_w = float(np.median(powers_of(high))), float(np.median(powers_of(low)))
    print(
        f"{torch.cuda.get_device_name(0)} {uuid}: a tick every {tick_s * 1e3:.1f} ms, {high_w:.0f} W and {low_w:.0f} W"
    )
    for on in args.on:
        powers_w = powers_of(polled(open_gpu_meter(uuid), lambda on=on: waves(work, LONGER * tick_s, on)))
        spread = " ".join(f"{w:.0f}" for w in np.percentile(powers_w, [2, 25, 50, 75, 98]))
        share = seen_share(powers_w, on, high_w, low_w)
        print(f"on for {on:.0%}: {len(powers_w)} ticks, W at 2, 25, 50, 75, 98 %: {spread}; sees {share:.0%} of a tick")
    return 0


def waves(work: Callable[[float], None], period_s: float, on: float) -> None:
    """A load that is on for a part of each period."""
    begun_s = time.perf_counter()
    for number in range(round(SECONDS / period_s)):
        work(begun_s + (number + on) * period_s)
        time.sleep(max(begun_s + (number + 1) * period_s - time.perf_counter(), 0.0))


def polled(meter: Meter, load: Callable[[], object]) -> list[Reading]:
    """What a poller reads during a load."""
    poller = Poller(meter).start()
    try:
        load()
    finally:
        readings = poller.stop()
        meter.close()
    return readings


if __name__ == "__main__":
    raise SystemExit(main())
