"""The cost of energy and hours of boards: kWh at the boards, servers and the building; CO2e; money.

    server = boards x server over boards          its processors, memory, fans and power supplies
    building = server x PUE                       cooling and what power loses on its way in
    CO2e = building x intensity of the grid
    electricity = building x price of a kWh;  rent = hours x GPUs x price of an hour

Each low end is the product of all low ends, each high end that of all high ends: the range that the energy's interval
and the assumptions give when all are at one end.
"""

from __future__ import annotations

from dataclasses import dataclass

from flopray.footprint.assumptions import JOULES_PER_KWH, PUE, SERVER, Assumption, Ranged


@dataclass(frozen=True)
class Prices:
    """What is assumed.

    Attributes:
        server: power of a server over that of its boards.
        pue: power of the building over that of its servers.
        grid: g CO2e per kWh; None where it was not named.
        price_per_kwh: in any currency; None where it was not named.
        price_per_gpu_hour: of one board; None where it was not named.
    """

    server: Assumption = SERVER
    pue: Assumption = PUE
    grid: Assumption | None = None
    price_per_kwh: Assumption | None = None
    price_per_gpu_hour: Assumption | None = None

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """All that are used."""
        every = (self.server, self.pue, self.grid, self.price_per_kwh, self.price_per_gpu_hour)
        return tuple(one for one in every if one is not None)


@dataclass(frozen=True)
class Bill:
    """The cost of a run; what has no price is None.

    Attributes:
        board_kwh, server_kwh, building_kwh: energy, along the way to the meter; None where no energy is known.
        co2e_kg: emissions of that at the building.
        electricity: price of that at the building.
        rent: price of the hours of the boards.
    """

    board_kwh: Ranged | None
    server_kwh: Ranged | None
    building_kwh: Ranged | None
    co2e_kg: Ranged | None
    electricity: Ranged | None
    rent: Ranged | None


def bill_of(energy_j: Ranged | None, gpu_s: Ranged, prices: Prices) -> Bill:
    """The bill of a run.

    Args:
        energy_j: of all boards together.
        gpu_s: seconds times boards.
        prices: what is assumed.

    Example:
        >>> from flopray.footprint.assumptions import given
        >>> prices = Prices(given("server", "", 1.5), given("PUE", "", 1.2), given("grid", "", 100.0))
        >>> bill = bill_of(Ranged(3.6e6, 3.24e6, 3.96e6), Ranged(3600.0), prices)
        >>> round(bill.building_kwh.value, 6), round(bill.co2e_kg.value, 6), round(bill.co2e_kg.high, 6)
        (1.8, 0.18, 0.198)
    """
    board = None if energy_j is None else energy_j * (1 / JOULES_PER_KWH)
    server = None if board is None else board * prices.server.ranged
    building = None if server is None else server * prices.pue.ranged
    grid, price, hour = prices.grid, prices.price_per_kwh, prices.price_per_gpu_hour
    return Bill(
        board_kwh=board,
        server_kwh=server,
        building_kwh=building,
        co2e_kg=building * grid.ranged * 1e-3 if building and grid else None,
        electricity=building * price.ranged if building and price else None,
        rent=gpu_s * hour.ranged * (1 / 3600) if hour else None,
    )
