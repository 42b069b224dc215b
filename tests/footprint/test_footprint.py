"""Energy becomes kilowatt-hours at the wall, CO2e and money, with ranges and sources."""

import json
import sys

import pytest

from flopray.errors import InputError
from flopray.footprint import country
from flopray.footprint.assumptions import PUE, SERVER, Ranged, given
from flopray.footprint.bill import Prices, bill_of


def test_a_bill_by_hand():
    """2 boards for 10 h at 500 W: 10 kWh; x 1.5 x 1.3 = 19.5 kWh; at 400 g 7.8 kg; at 0.2 a kWh 3.9; 20 h at 3: 60."""
    prices = Prices(
        grid=given("grid", "--grid-intensity", 400.0, "g CO2e/kWh"),
        price_per_kwh=given("price", "--price-per-kwh", 0.2),
        price_per_gpu_hour=given("rent", "--price-per-gpu-hour", 3.0),
    )
    bill = bill_of(Ranged(3.6e7, 3.24e7, 3.96e7), Ranged(72_000.0, 68_400.0, 75_600.0), prices)
    assert bill.board_kwh.value == pytest.approx(10)
    assert bill.server_kwh.value == pytest.approx(15)
    assert bill.building_kwh.value == pytest.approx(19.5)
    assert bill.co2e_kg.value == pytest.approx(7.8)
    assert bill.electricity.value == pytest.approx(3.9)
    assert bill.rent.value == pytest.approx(60)
    # ends: 9 kWh x 1.38 x 1.1 and 11 kWh x 1.82 x 1.58
    assert (bill.building_kwh.low, bill.building_kwh.high) == pytest.approx((13.662, 31.6316))
    assert (bill.rent.low, bill.rent.high) == pytest.approx((57, 63))


def test_what_is_not_known_stays_unknown():
    bill = bill_of(None, Ranged(3600.0), Prices(grid=given("grid", "", 400.0)))
    assert (bill.board_kwh, bill.building_kwh, bill.co2e_kg, bill.rent) == (None, None, None, None)
    bill = bill_of(Ranged(3.6e6), Ranged(3600.0), Prices())
    assert bill.building_kwh.value == pytest.approx(1.95)
    assert bill.building_kwh.low is None  # an energy without an interval gives none
    assert (bill.co2e_kg, bill.electricity) == (None, None)


@pytest.mark.parametrize("assumption", [SERVER, PUE])
def test_every_default_has_a_range_and_a_source(assumption):
    assert assumption.ranged.low < assumption.ranged.value < assumption.ranged.high
    assert "https://" in assumption.line


@pytest.fixture
def codecarbon(tmp_path, monkeypatch):
    """A package of that name with data in its form; numbers of our own."""
    data = tmp_path / "codecarbon" / "data" / "private_infra"
    data.mkdir(parents=True)
    (tmp_path / "codecarbon" / "__init__.py").write_text("raise ImportError('it must not be imported')")
    (tmp_path / "codecarbon-9.8.dist-info").mkdir()
    (tmp_path / "codecarbon-9.8.dist-info" / "METADATA").write_text("Name: codecarbon\nVersion: 9.8\n")
    mix = {
        "FRA": {"carbon_intensity": 50.0, "country_name": "France", "year": 2023},
        "FRO": {"carbon_intensity": 404.0, "country_name": "Faroe Islands", "year": 2023},
        "CAF": {"carbon_intensity": None, "country_name": "Central African Republic", "year": 2022},
    }
    (data / "global_energy_mix.json").write_text(json.dumps(mix))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "codecarbon", raising=False)
    country._mix.cache_clear()
    yield
    country._mix.cache_clear()


@pytest.mark.usefixtures("codecarbon")
@pytest.mark.parametrize("name", ["FRA", "fra", "France", " france "])
def test_a_country_with_year_and_source(name):
    found = country.grid_of(name)
    assert found.ranged.value == 50.0
    assert found.line == "grid of France: 50 g CO2e/kWh; mean of 2023, Our World in Data by codecarbon 9.8"


@pytest.mark.usefixtures("codecarbon")
def test_a_code_of_two_letters(tmp_path):
    (tmp_path / "pycountry" / "databases").mkdir(parents=True)
    (tmp_path / "pycountry" / "__init__.py").write_text("raise ImportError('it must not be imported')")
    codes = {"3166-1": [{"alpha_2": "FO", "alpha_3": "FRO"}, {"alpha_2": "FR", "alpha_3": "FRA"}]}
    (tmp_path / "pycountry" / "databases" / "iso3166-1.json").write_text(json.dumps(codes))
    assert country.grid_of("fr").ranged.value == 50.0
    with pytest.raises(InputError, match=r"^country 'DE': write its code of three letters"):
        country.grid_of("DE")


@pytest.mark.usefixtures("codecarbon")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Frnce", r"did you mean FRA \(France\)\? If not, write its code"),
        ("CAF", "no intensity"),
        ("", "^country '': write its code of three letters"),
        ("XF", "^country 'XF': write its code of three letters"),  # the Faroe Islands are not meant
        ("GER", "^country 'GER': write its code of three letters"),
    ],
)
def test_a_country_that_is_not_known(name, said):
    with pytest.raises(InputError, match=said) as error:
        country.grid_of(name)
    assert "grid_intensity" in str(error.value)


def test_without_codecarbon_the_message_says_what_to_do(monkeypatch):
    country._mix.cache_clear()
    monkeypatch.setattr(country, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'flopray\[carbon\]', or name grid_intensity"):
        country.grid_of("FRA")
    country._mix.cache_clear()


@pytest.mark.usefixtures("codecarbon")
def test_a_country_that_is_not_known_is_told_every_form():
    with pytest.raises(InputError, match="its code of three letters, such as FRA, or its English name, such as france"):
        country.grid_of("XF")
