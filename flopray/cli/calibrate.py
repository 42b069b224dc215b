"""Measure the factor of a board: `flopray calibrate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from flopray.cli.endings import carry_out
from flopray.cli.parser import SettingsParser
from flopray.cli.terminal import LineConsole
from flopray.errors import InputError, NoEnergySource, SettingError
from flopray.mappings import Json
from flopray.settings import MeasureSettings, check_settings, same_setting, setting
from flopray.units import counted

if TYPE_CHECKING:
    from flopray.energy.board_factor import BoardFactor
    from flopray.energy.calibration import Calibration, LoadResult

_WHAT = """\
Measure a fixed set of short standard loads on one GPU at a known temperature,
and say how much more or less energy this board takes than its type: its factor.
Sweeps on the board use it (columns board_factor, board_factor_rel_error) for
30 days under the same driver. Nothing else may use the GPU meanwhile; it takes
some minutes."""
_EXAMPLES = """\
examples:
  python -m flopray calibrate                        the first GPU
  python -m flopray calibrate --device cuda:1
  python -m flopray calibrate --json > board.json    for bench/board_reference.py
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which board is measured, and at which temperature.

    Raises:
        SettingError: a value that cannot be.
    """

    device: str = setting("cuda:0", doc="a GPU, as torch names it ({default})", metavar="DEVICE")
    reference_temperature_c: float = same_setting(
        MeasureSettings,
        "reference_temperature_c",
        doc="bring the board to this temperature, and state its loads at it ({default} °C)",
    )
    json: bool = setting(False, doc="print one JSON object with everything that was measured")

    def __post_init__(self) -> None:
        check_settings(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = SettingsParser(Options, prog="flopray calibrate", description=_WHAT, epilog=_EXAMPLES)
    return carry_out(parser, argv, run)


def run(options: Options) -> None:
    """Measure, keep and print.

    Raises:
        InputError: there is no such GPU, or it has no energy source.
        MeterError: the meter failed.
        StorageError: the calibration, which was printed, cannot be kept.
    """
    from flopray.energy.board_factor import factor_of
    from flopray.energy.type_reference import reference_for
    from flopray.store.calibrations import keep, kept

    messages = LineConsole(stderr=True, markup=False, highlight=False)
    calibration = _measured(options.device, options.reference_temperature_c, messages.print)
    factor = factor_of(calibration, reference_for(calibration.device_name))
    older, damaged = kept(calibration.device_uuid)
    if options.json:
        print(json.dumps(as_dict(calibration, factor), indent=1, allow_nan=False))
    else:
        print_calibration(LineConsole(markup=False, highlight=False), calibration, factor, older)
    for path in damaged:
        messages.print(f"warning: left out {path}, which is not a calibration of this board", soft_wrap=True)
    path = keep(calibration)
    messages.print(f"kept in {path}", soft_wrap=True)


def _measured(name: str, reference_c: float, tell: Callable[[str], object]) -> Calibration:
    """The calibration of a device.

    Raises:
        InputError: no such GPU, or one that lacks what a calibration needs.
    """
    import torch

    from flopray.measurement.api import device_of
    from flopray.measurement.board_calibration import calibrate

    if not name.startswith("cuda"):
        raise SettingError(f"<device> {name}: a board's factor is that of a GPU, give one such as cuda:0")
    if not torch.cuda.is_available():
        from flopray.energy.nvml import why_nvml_fails

        because = f" ({reason})" if (reason := why_nvml_fails()) else ""
        raise InputError(f"flopray calibrate needs an NVIDIA GPU, and torch {torch.__version__} sees none{because}")
    device = device_of(name)
    state = device.state()
    if state is None or state.temperature_c is None:
        raise InputError(
            f"{name} reports no temperature, without which its loads cannot be stated at {reference_c:g} °C"
        )
    try:
        meter = device.open_meter()
    except NoEnergySource as error:
        raise InputError(f"{name} has no energy source: {error}") from error
    try:
        with torch.cuda.device(device.torch_name):
            return calibrate(device, meter, reference_c=reference_c, tell=tell)
    finally:
        meter.close()


def as_dict(calibration: Calibration, factor: BoardFactor) -> Json:
    """What `--json` prints: the calibration, and the factor against the type."""
    told = {
        "factor": factor.factor,
        "rel_error": factor.rel_error,
        "work_rel_error": factor.work_rel_error,
        "loads": {name: {"factor": value, "rel_error": error} for name, (value, error) in factor.loads.items()},
        "boards": factor.boards,
        "reason": factor.reason,
    }
    return calibration.to_dict() | {"board_factor": told}


def print_calibration(
    console: Console, calibration: Calibration, factor: BoardFactor, older: list[Calibration]
) -> None:
    """A table of the loads, and the factor of the board."""
    at = f"at {calibration.reference_temperature_c:g} °C"
    table = Table("load", "measured", f"power {at}", "factor", box=SIMPLE_HEAD, pad_edge=False)
    for load in calibration.loads:
        table.add_row(load.load, _measured_words(load), _power_words(load), _factor_words(load.load, factor))
    console.print(f"{calibration.device_name}, {calibration.device_uuid}", soft_wrap=True)
    console.print(table)
    for load in calibration.loads:
        if load.reason:
            console.print(f"{load.load}: {load.reason}", soft_wrap=True)
    if factor.factor is None or factor.rel_error is None or factor.work_rel_error is None:
        console.print(factor.reason or "", soft_wrap=True)
    else:
        of = counted(factor.boards, "board")
        console.print(
            f"factor {factor.factor:.4f} ± {factor.rel_error:.1%} against the mean of {of}; of one work "
            f"± {factor.work_rel_error:.1%} (95 % intervals)",
            soft_wrap=True,
        )
    console.print(f"calibrations of this board that were kept before on this machine: {len(older)}", soft_wrap=True)


def _measured_words(load: LoadResult) -> str:
    if load.power_w is None or load.temperature_c is None:
        return "-"
    return f"{load.power_w:.1f} W, {load.temperature_c:.1f} °C"


def _power_words(load: LoadResult) -> str:
    if load.power_at_reference_w is None or load.rel_error is None:
        return "-"
    return f"{load.power_at_reference_w:.1f} W ±{load.rel_error:.1%}"


def _factor_words(name: str, factor: BoardFactor) -> str:
    value, error = factor.loads.get(name, (None, None))
    return "-" if value is None else f"{value:.4f} ±{error:.1%}"
