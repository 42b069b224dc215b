"""A board's factor: how much more energy one board takes than a typical one of its type, for the same work.

Boards of one type differ by a constant factor, which all kinds of work share, and by a smaller scatter of single works
about it. Standard loads, measured at the reference temperature, give the factor of a board against its type:

    ln E(board, load) = ln R(load) + ln f(board) + scatter + error of the window

R is the mean over the boards of the reference. Its own error is the spread of boards over the root of their number, so
that a reference of one board says little of the type. The spread and the scatter are known from pairs of boards that
ran the same sweep (docs/method.md) and are updated by the boards of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtrit

from flopray.energy.calibration import Calibration, LoadResult
from flopray.energy.type_reference import PRIOR_DEGREES, TypeReference

#: Half widths of 95 % intervals over standard deviations.
_HALF_WIDTH = 1.96
#: A load whose iteration is longer or shorter than the reference's by this share is different work: the library chose
#: other kernels, or the clocks differed.
MOST_TIME_DIFFERENCE = 0.05


@dataclass(frozen=True, kw_only=True)
class BoardFactor:
    """Energy of a board over that of its type's typical board.

    Attributes:
        factor: common to all works; None with a reason.
        rel_error: half width of its 95 % interval: windows, single loads, and how few boards the type is known by.
        work_rel_error: half width of the 95 % interval for one work, which departs from the common factor.
        loads: factor and half width, relative, of each load that could be compared: against the mean board, whose own
            error is not in it.
        boards: of the type's reference.
        reason: why there is no factor.
    """

    factor: float | None = None
    rel_error: float | None = None
    work_rel_error: float | None = None
    loads: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    boards: int = 0
    reason: str | None = None


def factor_of(calibration: Calibration, reference: TypeReference | None) -> BoardFactor:
    """The factor of a board against its type.

    Args:
        calibration: of the board.
        reference: of its type; None where no board of it was measured.
    """
    if reference is None:
        return BoardFactor(reason=f"no reference for {calibration.device_name}: this is the first board")
    if (reason := _not_comparable(calibration, reference)) is not None:
        return BoardFactor(boards=reference.boards, reason=reason)
    loads, logs, variances, left_out = {}, [], [], []
    tau, n = reference.work_spread, reference.boards
    for load in calibration.loads:
        if (reason := _load_not_comparable(load, reference)) is not None:
            left_out.append(reason)
            continue
        known = reference.loads[load.load]
        assert load.energy_at_reference_j is not None
        assert load.rel_error is not None
        variance = (load.rel_error / _HALF_WIDTH) ** 2
        variance += ((known.rel_error / _HALF_WIDTH) ** 2 + tau**2) / n
        ratio = load.energy_at_reference_j / known.energy_at_reference_j
        loads[load.load] = ratio, _HALF_WIDTH * math.sqrt(variance)
        logs.append(math.log(ratio))
        variances.append(variance + tau**2)
    if not logs:
        return BoardFactor(boards=n, reason="no load can be compared: " + "; ".join(left_out))
    weights = 1 / np.array(variances)
    own = 1 / float(weights.sum())
    of_boards = float(stdtrit(PRIOR_DEGREES + n - 1, 0.975)) * reference.board_spread / math.sqrt(n)
    common = math.hypot(_HALF_WIDTH * math.sqrt(own), of_boards)
    return BoardFactor(
        factor=math.exp(float(weights @ np.array(logs)) * own),
        rel_error=common,
        work_rel_error=math.hypot(common, _HALF_WIDTH * tau),
        loads=loads,
        boards=n,
    )


def _not_comparable(calibration: Calibration, reference: TypeReference) -> str | None:
    if calibration.loads_version != reference.loads_version:
        return (
            f"measured with version {calibration.loads_version} of the standard loads, and the reference with version "
            f"{reference.loads_version}: run `flopray calibrate` again"
        )
    if calibration.reference_temperature_c != reference.reference_temperature_c:
        return (
            f"measured at {calibration.reference_temperature_c:g} °C, and the reference is for "
            f"{reference.reference_temperature_c:g} °C: calibrate at that temperature"
        )
    return None


def _load_not_comparable(load: LoadResult, reference: TypeReference) -> str | None:
    """Why a load is not used for the factor; None where it is."""
    if load.time_s is None or load.energy_at_reference_j is None or load.rel_error is None:
        return f"{load.load}: {load.reason or 'its error is not known'}"
    known = reference.loads.get(load.load)
    if known is None:
        return f"{load.load}: the reference has no such load"
    difference = load.time_s / known.time_s - 1
    if abs(difference) > MOST_TIME_DIFFERENCE:
        return f"{load.load}: an iteration takes {difference:+.0%} of the reference's time, so it is different work"
    return None
