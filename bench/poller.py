"""Effect of polling the energy counter on the measured work: time per iteration with and without it.

Needs a GPU. Windows with and without the poller alternate, so that drift affects both equally. Prints the ratio of the
mean times with its 95 % interval, for eager launches (where the polling thread can delay the launching thread) and for
CUDA graphs.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext

import numpy as np

from flopray.energy.poller import Poller
from flopray.measurement.device import Device
from flopray.measurement.statistics import half_widths
from flopray.measurement.window import laps_for, run_window, warm_up
from flopray.workloads.phases import BuiltPoint
from flopray.workloads.registry import make_point


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12, help="windows with and without")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a window")
    parser.add_argument("--device-type", default="GPU", help="label of the GPU in the output")
    args = parser.parse_args()
    device = Device(args.device_type)
    meter = device.open_meter()
    print(f"{device.columns()['device_name']}, driver {device.columns().get('driver_version')}")
    for execution, (n, d, m) in (("eager", (8, 512, 128)), ("graph", (8, 512, 128)), ("graph", (8, 2048, 256))):
        spec = make_point(
            workload="mlp", device_type=args.device_type, execution=execution, n_layers=n, width=d, tokens=m
        )
        work = BuiltPoint(spec, device=device.torch_name, seed=0).phase("forward")
        laps = laps_for(device.torch_name)
        iteration_s = warm_up(work, laps).iteration_s
        ratios = []
        for _ in range(args.pairs):
            means = []
            for poll in (False, True):
                with Poller(meter) if poll else nullcontext():
                    window = run_window(
                        work,
                        laps,
                        iteration_s=iteration_s,
                        max_seconds=args.seconds,
                        enough=lambda _: False,
                        before_end=lambda: None,
                    )
                means.append(np.mean(window.iteration_times_s))
            ratios.append(means[1] / means[0])
        half = half_widths(np.array([ratios]))[
            0
        ]  # pairs are measured one after the other: neighbours may be correlated
        print(f"{spec.label()}: {means[0] * 1e6:.1f} µs; with poller / without = {np.mean(ratios):.4f} +- {half:.4f}")


if __name__ == "__main__":
    main()
