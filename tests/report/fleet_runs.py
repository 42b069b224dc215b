"""Runs of one sweep on several boards of a type, as if they had been measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.workloads.mlp import MLP

#: An H100 whose boards were compared before, an H200 whose boards were not, and an A100 of which nothing is known.
NAMES = {"H100": "NVIDIA H100 80GB HBM3", "H200": "NVIDIA H200 NVL", "A100": "NVIDIA A100-SXM4-80GB"}


def fleet_run(
    storage: Path,
    name: str,
    board: str,
    *,
    device: str = "H100",
    factor: float = 1.0,
    hot: float = 1.0,
    widths: tuple[int, ...] = (256, 512, 1024, 2048),
    tokens: tuple[int, ...] = (64, 128),
    reference: bool = True,
    celsius: float = 50.0,
    limited: int = 0,
    by_loads: float | None = None,
    seed: int = 0,
) -> Path:
    """A run on one board.

    Args:
        storage: gets the run.
        name: of the run.
        board: UUID.
        device: type.
        factor: of the board's energy at the reference temperature.
        hot: energy as measured over that at the reference temperature.
        widths: of the layers.
        tokens: of the batch.
        reference: rows have energy at the reference temperature; else they are older than that, and have the
            temperature at the end of their window.
        celsius: the reference temperature.
        limited: so many points were measured while clocks were held down.
        by_loads: the board's factor by standard loads.
        seed: of the noise, half a percent.
    """
    axes = {"device_type": (device,), "precision": ("bf16",), "execution": ("graph",), "n_layers": (2,)}
    axes |= {"width": widths, "tokens": tokens}
    settings = MeasureSettings(phases=("forward", "backward"))
    sweep = Sweep(workload=MLP(), axes=axes, settings=settings, cpus_per_trial={device: 1})
    folder, rng = RunFolder.create(storage, name, sweep.to_manifest(name, {})), np.random.default_rng(seed)
    with folder.writer() as journal:
        for place, point in enumerate(sweep.points()):
            rows = []
            for phase in settings.phases:
                flops = 4 * point.width**2 * point.tokens
                time_s = flops / 4e14 + 1e-5
                noise = float(np.exp(rng.normal(0, 0.005)))
                energy_j = time_s * 400 * factor * noise
                columns = {"run": name, "trial_id": point.id, **point.fields(), "time_s": time_s, "model_flops": flops}
                columns |= {"device_name": NAMES[device], "device_uuid": board, "node": f"host-{board}"}
                columns |= {"time_rel_error": 0.001, "energy_j": energy_j * hot, "energy_rel_error": 0.01}
                columns |= {"energy_status": "ok", "started_unix_s": 100.0 + place, "ended_unix_s": 101.0 + place}
                columns |= {"flops_per_s": flops / time_s, "flops_per_j": flops / energy_j / hot, "target_error": 0.01}
                columns |= {"temperature_end_c": 50.0, "energy_source": "simulated"}
                columns |= {"throttle_end": "sw_power_cap" if place < limited else None}
                if by_loads is not None:
                    columns |= {"board_factor": by_loads, "board_factor_rel_error": 0.016}
                if reference:
                    columns |= {"energy_at_reference_j": energy_j, "energy_at_reference_rel_error": 0.012}
                    columns |= {"reference_temperature_c": celsius}
                else:
                    columns |= {"power_w": energy_j * hot / time_s}
                rows.append(PhaseRecord.of(phase=phase, **columns))
            journal.append([rows])
    return folder.path
