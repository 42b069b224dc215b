"""The comparison of a type's boards, in a few lines and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from flopray.mappings import Json
from flopray.report.boards.agreement import left_out, pairs
from flopray.report.boards.data import AS_MEASURED, UNKNOWN_BOARD, BoardValues, DeviceBoards, noun_of, short_names
from flopray.report.boards.effects import BoardFit, Floats
from flopray.units import counted


def statement(device: DeviceBoards) -> Iterator[str]:
    """Lines on a type of device: its boards, and for each quantity how far they are apart, and the type's interval."""
    count, one = len(device.boards), noun_of(device.name)
    if device.boards == (UNKNOWN_BOARD,):
        yield f"{device.name}: the rows do not say on which {one} they were measured: taken as one {one}"
    elif count == 1:
        yield f"{device.name}: one {one}: how far {one}s of the type differ was not measured"
    else:
        yield f"{device.name}: {counted(count, one)} ({', '.join(short_names(device.boards).values())})"
    for quantity, part in device.parts.items():
        if said := _about(device.fits[quantity], part, count, one):
            yield f"  {device.label(quantity)}: {said}"
    if device.unknown_rows:
        rows = counted(device.unknown_rows, "row does", "rows do")
        yield f"  {rows} not say on which {one} they were measured and are left out"
    if count > 1 and (differing := device.software()):
        yield f"  not the same everywhere, and so among the causes of the differences: {'; '.join(differing)}"


def _about(fit: BoardFit | None, part: BoardValues, count: int, one: str) -> str:
    if fit is None:
        return "" if count == 1 else f"no row was measured on two {one}s: how far they differ is not known"
    type_interval = f"the type's mean is known to {_percent(_median(fit.type_errors))} (median of rows)"
    if fit.boards == 1:
        assert fit.prior is not None
        return f"by the spread of {fit.prior.boards} other boards of the type ({fit.prior.spread:.1%}) {type_interval}"
    before = ""
    if fit.prior is not None:
        before = f" (with {counted(fit.prior.boards, 'board')} known before; these alone {fit.own_spread:.1%})"
    elif fit.prior_left_out:
        before = " (these differ from the boards known before, which are left out)"
    alone = len(part.boards) - fit.boards
    apart = f"; {alone} of the boards share no row with these" if alone else ""
    return (
        f"boards {fit.spread:.1%} apart{before}, {part.shared()} shared rows scatter by {fit.residual:.1%} RMS about "
        f"that; {type_interval}{apart}"
    )


def summary_of(device: DeviceBoards) -> Json:
    """A type in a run's `summary.json`: its boards, and factors and fit of each quantity; None where unknown."""
    found = {
        device.label(quantity): {"boards": _boards(part, device.fits[quantity]), "fit": _fit(device.fits[quantity])}
        for quantity, part in device.parts.items()
    }
    return {"type": device.name, "device": device.device_name, "boards": list(device.boards), **found}


def as_json(device: DeviceBoards) -> Json:
    """Everything as JSON: boards, fits, pairs and each board left out in turn; unknown values are None."""
    found = {}
    parts = device.compared_parts()
    if device.as_measured is not None:  # of all rows, so that it can be compared with the reference
        parts[AS_MEASURED] = device.as_measured
    for quantity, part in parts.items():
        fit = device.fits[quantity] if part is device.parts.get(quantity) else device.fit(part)
        found[device.label(quantity)] = {
            "rows": len(part.keys),
            "shared_rows": part.shared(),
            "boards": _boards(part, fit),
            "fit": _fit(fit),
            "pairs": [asdict(pair) for pair in pairs(part, fit)],
            "left_out": [_plain(asdict(each)) for each in left_out(part, device.prior(quantity))],
        }
    return {"device": device.device_name, "boards": list(device.boards), "software": device.software(), **found}


def _boards(part: BoardValues, fit: BoardFit | None) -> Json:
    factors = [None] * len(part.boards) if fit is None else fit.factors.tolist()
    errors = [None] * len(part.boards) if fit is None else fit.factor_errors.tolist()
    return {
        board: _plain({"factor": factor, "error": error, "rows": int(np.isfinite(part.values[:, place]).sum())})
        for place, (board, factor, error) in enumerate(zip(part.boards, factors, errors, strict=True))
    }


def _fit(fit: BoardFit | None) -> Json | None:
    if fit is None:
        return None
    return _plain(
        {
            "spread": fit.spread,
            "spread_of_these": fit.own_spread if fit.boards > 1 else None,
            "scatter": fit.scatter,
            "residual": fit.residual,
            "degrees_of_freedom": fit.degrees,
            "type_rel_error_median": _median(fit.type_errors),
            "other_board_rel_error_median": _median(fit.other_board_errors),
            "prior": asdict(fit.prior) if fit.prior else None,
            "prior_left_out": fit.prior_left_out,
        }
    )


def _plain(values: Json) -> Json:
    """NaN and infinity become None, as JSON has no word for them."""
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in values.items()
    }


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _percent(ratio: float) -> str:
    return f"{ratio:.0%}" if ratio >= 0.0995 else f"{ratio:.1%}"
