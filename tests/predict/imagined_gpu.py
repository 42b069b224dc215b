"""Rows of an imagined GPU, with known costs from the formulas of model 3 and chosen constants."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from flopray.predict.arrays import works_as_arrays
from flopray.predict.device import device_of
from flopray.predict.energy import EnergyModel, start_of
from flopray.predict.kernel_choice import KernelChoices
from flopray.predict.roofline import TimeModel
from flopray.predict.roofline import start_of as time_start
from flopray.predict.work import work_of
from flopray.workloads.mlp import MLP

NAMES = {"H100": "NVIDIA H100 80GB HBM3", "H200": "NVIDIA H200"}
#: Differences from where a fit starts, in logarithms.
SHIFTS = {
    **{"product_launch_s": 0.2, "pass_launch_s": -0.2, "step_s": 0.3, "processor_macs_per_s": -0.1},
    "crossing_factor": 1.0,
}


def truth(device_type: str, precision: str) -> tuple[TimeModel, EnergyModel]:
    """The model of the imagined GPU."""
    device = device_of(device_type, NAMES[device_type], None, [], [])
    model = TimeModel(device, time_start(device, precision))
    constants = {name: value * np.exp(SHIFTS.get(name, 0.0)) for name, value in model.constants.items()}
    return TimeModel.of_constants(device, constants), EnergyModel(1.3 * start_of(device, precision))


def made_frame(
    *,
    layers=(2, 4, 8),
    widths=(256, 512, 1024),
    tokens=(16, 64, 256),
    phases=("forward", "backward"),
    device_type="H100",
    precision="bf16",
    boards=("GPU-a",),
    noise=0.0,
    seed=0,
) -> pd.DataFrame:
    """Records of MLPs, as `flopray.load_run` gives them."""
    random = np.random.default_rng(seed)
    time, energy = truth(device_type, precision)
    mlp, rows = MLP(), []
    for n, d, m, phase, board in itertools.product(layers, widths, tokens, phases, boards):
        point = mlp.point(
            device_type=device_type, precision=precision, execution="graph", n_layers=n, width=d, tokens=m
        )
        works = works_as_arrays([work_of(point, phase)], time.device, KernelChoices())
        seconds = time.times(works) * np.exp(noise * random.normal())
        joules = energy.energies(time, works, seconds)
        row: dict[str, Any] = {**point.fields(), "phase": phase, "trial_id": point.id, "status": "ok"}
        row |= {"device_name": NAMES[device_type], "device_uuid": board, "time_s": seconds[0], "findings": []}
        row |= {"energy_j": joules[0], "energy_at_reference_j": joules[0], "reference_temperature_c": 50.0}
        row |= {"power_w": joules[0] / seconds[0], "temperature_end_c": 50.0, "throttle_end": ""}
        rows.append(row)
    return pd.DataFrame(rows)
