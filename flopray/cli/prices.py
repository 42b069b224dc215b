"""What `flopray ask` assumes of a building, its grid and prices: one table of flags, and the prices that they make."""

from __future__ import annotations

import argparse

from flopray.errors import InputError
from flopray.footprint.assumptions import PUE, SERVER, Assumption, given
from flopray.footprint.bill import Prices
from flopray.footprint.country import grid_of

#: Flag, name, help, least value, unit.
PRICES = (
    ("--pue", "PUE", "power of the building over that of its servers", 1.0, ""),
    ("--server-factor", "server over boards", "power of a server over that of its boards", 1.0, ""),
    ("--grid-intensity", "grid", "g CO2e per kWh of your grid", 0.0, "g CO2e/kWh"),
    ("--price-per-kwh", "electricity", "in any currency", 0.0, "a kWh"),
    ("--price-per-gpu-hour", "rent", "of one GPU, in any currency", 0.0, "a GPU hour"),
)


def prices_of(options: argparse.Namespace) -> Prices:
    """What is assumed of overheads and prices.

    Raises:
        InputError: a number that cannot be, or a country that is not known.
    """
    named: dict[str, Assumption] = {}
    for flag, name, _, least, unit in PRICES:
        value = getattr(options, flag[2:].replace("-", "_"))
        if value is not None:
            named[flag] = given(name, flag, value, unit, least=least)
    if options.country is not None and "--grid-intensity" in named:
        raise InputError("--country and --grid-intensity name the same: leave one out")
    grid = named.get("--grid-intensity") or (grid_of(options.country) if options.country is not None else None)
    return Prices(
        server=named.get("--server-factor", SERVER),
        pue=named.get("--pue", PUE),
        grid=grid,
        price_per_kwh=named.get("--price-per-kwh"),
        price_per_gpu_hour=named.get("--price-per-gpu-hour"),
    )
