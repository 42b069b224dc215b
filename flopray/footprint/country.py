"""The carbon intensity of a country's grid, from the data of codecarbon where that package is installed.

codecarbon (https://github.com/mlco2/codecarbon, MIT) has yearly means of Our World in Data
(https://ourworldindata.org/electricity-mix, CC BY 4.0). They are read from its files; the package is not imported.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from flopray.errors import SettingError
from flopray.footprint.assumptions import Assumption, Ranged
from flopray.mappings import Json

_FILE = Path("data") / "private_infra" / "global_energy_mix.json"
_CODES = Path("databases") / "iso3166-1.json"
_FORMS = "write its code of three letters, such as FRA, or its English name, such as france"
_MEND = "name <grid_intensity> in g/kWh instead, such as that of your utility"


def grid_of(country: str) -> Assumption:
    """The intensity of a country, in g CO2e per kWh, with its year.

    Args:
        country: its ISO code of three letters, or its English name; also its code of two, where pycountry is installed,
            which codecarbon needs.

    Raises:
        InputError: codecarbon is not installed, or does not know the country.
    """
    mix, release = _mix()
    names = {str(entry.get("country_name", "")).lower(): code for code, entry in mix.items()}
    word = country.strip().lower()
    three = _three_letters(word) if len(word) == 2 else word
    code = three.upper() if three.upper() in mix else names.get(word)
    if code is None:  # codes are too short to tell which one was meant
        near = get_close_matches(word, names, n=1) if len(word) > 3 else []
        hint = f"did you mean {names[near[0]]} ({mix[names[near[0]]]['country_name']})? If not, " if near else ""
        raise SettingError(f"<country> {country!r:.40}: {hint}{_FORMS}, or {_MEND}")
    entry = mix[code]
    intensity = entry.get("carbon_intensity")
    if not isinstance(intensity, int | float) or not intensity > 0:
        raise SettingError(f"<country> {code}: codecarbon {release} has no intensity for it; {_MEND}")
    source = f"mean of {entry.get('year', 'an unknown year')}, Our World in Data by codecarbon {release}"
    name = f"grid of {entry.get('country_name', code)}"
    value = float(intensity)
    return Assumption(name, Ranged(value, value, value), "g CO2e/kWh", source)


def _three_letters(code: str) -> str:
    """The code of three letters of a country by that of two, from the data of pycountry; the same without them."""
    found = find_spec("pycountry")
    try:
        places = list(found.submodule_search_locations or ()) if found else []
        entries = json.loads((Path(places[0]) / _CODES).read_text(encoding="utf-8"))["3166-1"]
        return next(entry["alpha_3"] for entry in entries if entry["alpha_2"].lower() == code)
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        return code


@cache
def _mix() -> tuple[dict[str, Json], str]:
    """The data by country, and the version of the package that they come with."""
    found = find_spec("codecarbon")
    places = list(found.submodule_search_locations or ()) if found else []
    if not places:
        raise SettingError(f"<country> needs the data of codecarbon: pip install 'flopray[carbon]', or {_MEND}")
    try:
        release = version("codecarbon")
    except PackageNotFoundError:
        release = "of unknown version"
    try:
        mix = json.loads((Path(places[0]) / _FILE).read_text(encoding="utf-8"))
        return {code: entry for code, entry in mix.items() if isinstance(entry, dict)}, release
    except (OSError, ValueError, AttributeError) as error:
        raise SettingError(f"codecarbon {release} keeps its data elsewhere ({error}); {_MEND}") from error
