"""What `flopray ask` assumes of a building, its grid and prices: settings, and the prices that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flopray.errors import SettingError
from flopray.footprint.assumptions import PUE, SERVER, Assumption, given
from flopray.footprint.bill import Prices
from flopray.footprint.country import grid_of
from flopray.settings import check_settings, setting, settings_of

_HEADING = "carbon and money"
#: Name and unit of each number in the list of what was assumed.
_SAID = {
    "pue": ("PUE", ""),
    "server_factor": ("server over boards", ""),
    "grid_intensity": ("grid", "g CO2e/kWh"),
    "price_per_kwh": ("electricity", "a kWh"),
    "price_per_gpu_hour": ("rent", "a GPU hour"),
}


def _factor(doc: str) -> Any:
    """A setting that multiplies an energy by what is lost on the way."""
    must = "be a number from 1 (a data centre takes at least what its servers take)"
    known = {"must": must, "holds": lambda value: value >= 1, "metavar": "X", "group": _HEADING}
    return setting(None, doc=doc, kind=float, **known)


def _price(doc: str) -> Any:
    """A setting that is a price, in money or in carbon."""
    known = {"must": "be 0 or a positive number", "holds": lambda value: value >= 0, "metavar": "X", "group": _HEADING}
    return setting(None, doc=doc, kind=float, **known)


@dataclass(frozen=True, kw_only=True)
class Overheads:
    """What is said of a building, its grid and prices. Factors have published values by default, prices none.

    Raises:
        SettingError: a number that cannot be, or a grid that is named twice.
    """

    pue: float | None = _factor("power of the building over that of its servers")
    server_factor: float | None = _factor("power of a server over that of its boards")
    grid_intensity: float | None = _price("g CO2e per kWh of your grid")
    price_per_kwh: float | None = _price("in any currency")
    price_per_gpu_hour: float | None = _price("of one GPU, in any currency")
    country: str | None = setting(
        None, doc="its grid, such as FRA, by the data of codecarbon", metavar="CODE", group=_HEADING
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.country is not None and self.grid_intensity is not None:
            raise SettingError("<country> and <grid_intensity> name the same: leave one out")

    def prices(self) -> Prices:
        """The prices, each with its source.

        Raises:
            SettingError: a country that is not known.
        """
        grid = self._said("grid_intensity")
        return Prices(
            server=self._said("server_factor") or SERVER,
            pue=self._said("pue") or PUE,
            grid=grid if self.country is None else grid_of(self.country),
            price_per_kwh=self._said("price_per_kwh"),
            price_per_gpu_hour=self._said("price_per_gpu_hour"),
        )

    def _said(self, setting_name: str) -> Assumption | None:
        """A number as the user gave it; None where it was not."""
        value: float | None = getattr(self, setting_name)
        name, unit = _SAID[setting_name]
        return None if value is None else given(name, settings_of(Overheads)[setting_name].option, value, unit)
