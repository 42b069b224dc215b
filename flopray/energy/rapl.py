"""Energy of CPU packages and their memory from the kernel's powercap files (RAPL, Intel and AMD).

Kernel documentation: https://www.kernel.org/doc/html/latest/power/powercap/powercap.html. Top zones `intel-rapl:N` are
packages, or `psys`, the whole platform, which contains the packages and is left out. Their sub-zones `core` and
`uncore` are parts of the package and are left out too; `dram` is not in the package and is added. `intel-rapl-mmio:N`
is another way to the same packages.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from flopray.energy.meter import Characteristics, Reading
from flopray.energy.ticks import FROZEN_AFTER_S
from flopray.errors import MeterError, NoEnergySource

#: Where Linux keeps the zones.
POWERCAP_ROOT = Path("/sys/class/powercap")


#: More than a socket with its memory can draw; a step that would need more is not a wrap-around.
_MOST_W = 5000.0
#: A counter that wraps around was in the upper part of its range before.
_NEAR_RANGE = 0.5


@dataclass
class _Zone:
    """One counter in microjoules, last read as `last_uj` at `last_s`; it wraps around at `range_uj`.

    `changed_s` is when it last advanced, as far as was read.
    """

    name: str
    file: Path
    range_uj: int
    last_uj: int
    last_s: float
    changed_s: float

    def step_uj(self, now_uj: int, now_s: float) -> int | None:
        """Energy since the last read; None where the counter went back and no wrap-around explains it."""
        step_uj, passed_s = now_uj - self.last_uj, now_s - self.last_s
        was_near = self.last_uj >= _NEAR_RANGE * self.range_uj
        if step_uj != 0:
            self.changed_s = now_s
        self.last_uj, self.last_s = now_uj, now_s
        if step_uj >= 0:
            return step_uj
        step_uj += self.range_uj
        most_uj = _MOST_W * 1e6 * max(passed_s, 1e-3)
        return step_uj if was_near and 0 <= step_uj <= most_uj else None


class RaplMeter:
    """Sum of the package and DRAM zones. It sees whole sockets: everything that runs on the machine counts.

    A wrap-around is added up if at least one read falls into each round, which at 200 W takes about 20 minutes. A
    counter that goes back for another reason (a reset, a machine that slept) starts a new segment.

    Args:
        root: the powercap folder.

    Raises:
        NoEnergySource: no package zone, or one that this process may not read.
    """

    source = "rapl"
    read_cost_s = 0.0001
    changes_on_read = False
    characteristics = Characteristics(
        quantum_j=61e-6,  # in most processors, 15 uJ in some (Intel SDM volume 3, MSR_RAPL_POWER_UNIT)
        settle_s=0.05,
        power_noise_rel=0.01,  # power of a CPU follows everything the machine does
        seen_share=1.0,
    )

    def __init__(self, root: Path | str = POWERCAP_ROOT) -> None:
        self._zones = [_open_zone(path) for path in _zone_paths(Path(root))]
        self._total_uj = 0
        if not any(zone.name.startswith("package") for zone in self._zones):
            raise NoEnergySource(
                f"no RAPL package zone below {root}: a virtual machine has none; on a real machine load the kernel's "
                "module (sudo modprobe intel_rapl_msr)"
            )

    def read(self) -> Reading:
        """See `flopray.energy.meter.Meter`; counted from the making of the meter."""
        before_s, went_back = time.perf_counter(), False
        for zone in self._zones:
            try:
                now_uj = int(zone.file.read_text())
            except (OSError, ValueError) as error:
                raise MeterError(f"RAPL zone {zone.name} cannot be read any more: {error}") from error
            step_uj = zone.step_uj(now_uj, time.perf_counter())
            if step_uj is None:
                went_back = True
            else:
                self._total_uj += step_uj
        self._refuse_frozen()
        if went_back:
            # What was missed is unknown: a total that falls begins a new segment (`flopray.energy.ticks`).
            self._total_uj = 0 if self._total_uj > 0 else self._total_uj - 1
        return Reading(before_s, time.perf_counter(), self._total_uj / 1e6)

    def _refuse_frozen(self) -> None:
        """A package that stands still while another zone advances would be missing in the sum without a word.

        Raises:
            MeterError: naming it.
        """
        latest_s = max(zone.changed_s for zone in self._zones)
        for zone in self._zones:
            still_s = latest_s - zone.changed_s
            if zone.name.startswith("package") and still_s >= FROZEN_AFTER_S:
                raise MeterError(
                    f"RAPL zone {zone.name} is frozen: it did not change in {still_s:.2g} s, in which others did"
                )

    def temperature_c(self) -> None:
        """None: this counter is not corrected for a processor's temperature."""

    def close(self) -> None:
        """Nothing to release: the files are opened for each read."""


def _zone_paths(root: Path) -> list[Path]:
    """Folders of the package and DRAM zones, each once, whether the tree is flat (sysfs class) or nested (devices).

    Raises:
        NoEnergySource: the name of a zone cannot be read; it may be a package, without which the sum would be too low.
    """
    folders = {
        path.name: path for pattern in ("intel-rapl:*", "intel-rapl:*/intel-rapl:*") for path in root.glob(pattern)
    }
    wanted = []
    for name, folder in sorted(folders.items()):
        zone, top = _name_in(folder), name.count(":") == 1
        if (top and zone.startswith("package")) or (not top and zone == "dram"):
            wanted.append(folder)
    return wanted


def _open_zone(folder: Path) -> _Zone:
    """Reads a zone for the first time.

    Raises:
        NoEnergySource: it cannot be read; the message has the remedy.
    """
    file, limit = folder / "energy_uj", folder / "max_energy_range_uj"
    range_uj = _number_in(limit)
    if range_uj <= 0:
        raise NoEnergySource(
            f"{limit} says {range_uj}: without the range of a RAPL counter it is unknown when it wraps"
        )
    last_uj, now_s = _number_in(file), time.perf_counter()
    if not 0 <= last_uj <= range_uj:
        raise NoEnergySource(
            f"{file} says {last_uj}, which is not in the range that {limit.name} says (0 to {range_uj})"
        )
    name = _name_in(folder)
    return _Zone(name=name, file=file, range_uj=range_uj, last_uj=last_uj, last_s=now_s, changed_s=now_s)


def _name_in(folder: Path) -> str:
    """The name of a zone.

    Raises:
        NoEnergySource: naming the file.
    """
    file = folder / "name"
    try:
        return file.read_text().strip()
    except (OSError, ValueError) as error:
        raise NoEnergySource(f"{file} does not give a name: {getattr(error, 'strerror', None) or error}") from error


def _number_in(file: Path) -> int:
    """The whole number that a file of the kernel holds.

    Raises:
        NoEnergySource: naming the file; without permission, with what gives it.
    """
    try:
        return int(file.read_text())
    except PermissionError as error:
        raise NoEnergySource(
            f"no permission to read {file}: `sudo chmod a+r {file.parent.parent}/intel-rapl:*/{file.name}` gives it "
            "until the next reboot, a udev rule or a group of that file for good; or measure as root"
        ) from error
    except (OSError, ValueError) as error:
        raise NoEnergySource(f"{file} does not give a number: {getattr(error, 'strerror', None) or error}") from error
