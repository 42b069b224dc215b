"""The calibration of a board: what standard loads took on it, at one time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flopray.errors import InputError
from flopray.mappings import Arguments, Json

#: Version of the set of standard loads; values of another set are not comparable.
LOADS_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """What one standard load took on one board.

    Attributes:
        load: its name.
        time_s: of one iteration; None where the load could not run.
        time_rel_error: half width of its 95 % interval over `time_s`.
        power_w: mean over the windows.
        temperature_c: mean over the windows.
        power_at_reference_w: power at the reference temperature; None with a reason.
        energy_at_reference_j: of one iteration.
        rel_error: half width of the 95 % interval of either, relative: windows, their repetition, coefficient and
            temperature.
        reason: why there is no value at the reference temperature.
        windows: power in W and temperature in Celsius of each window.
    """

    load: str
    time_s: float | None = None
    time_rel_error: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    power_at_reference_w: float | None = None
    energy_at_reference_j: float | None = None
    rel_error: float | None = None
    reason: str | None = None
    windows: tuple[tuple[float | None, float | None], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The standard loads of one board at one time.

    Attributes:
        device_name, device_uuid, driver_version, power_limit_w, node: of the board.
        torch_version, cuda_version, flopray_version: of the software, which chooses kernels.
        measured_unix_s: when it ended, seconds since 1970 UTC.
        seconds: that it took.
        loads_version: of the set of loads.
        reference_temperature_c: of the loads' values.
        loads: their results.
    """

    device_name: str
    device_uuid: str
    driver_version: str | None
    power_limit_w: float | None
    node: str | None
    torch_version: str
    cuda_version: str | None
    flopray_version: str
    measured_unix_s: float
    seconds: float
    reference_temperature_c: float
    loads: tuple[LoadResult, ...]
    loads_version: int = LOADS_VERSION

    def to_dict(self) -> Json:
        """JSON-ready fields."""
        return asdict(self) | {"loads": [asdict(load) for load in self.loads]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_dict`; fields that a later version added are left out.

        Raises:
            InputError: it is not a calibration.
        """
        try:
            loads = tuple(_load(load) for load in fields["loads"])
            made = cls(**{**_known(cls, fields), "loads": loads})
            numbers = [made.measured_unix_s, made.reference_temperature_c]
            numbers += [v for load in loads for v in (load.time_s, load.energy_at_reference_j, load.rel_error) if v]
            if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
                raise TypeError("a field that must be a number is not")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not a calibration: {error}") from error
        return made


def _load(fields: Mapping[str, Any]) -> LoadResult:
    windows = tuple((power_w, temperature_c) for power_w, temperature_c in fields.get("windows", ()))
    return LoadResult(**{**_known(LoadResult, fields), "windows": windows})


def _known(cls: type, fields: Mapping[str, Any]) -> Arguments:
    return {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}
