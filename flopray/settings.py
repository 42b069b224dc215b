"""How points are measured: what a run's manifest keeps so that a resume measures the rest the same way."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from flopray.errors import InputError, SettingError, spaced
from flopray.records import INSTRUMENTS

#: The parts of a training step and the whole, so that the parts can be checked against the whole.
DEFAULT_PHASES = ("forward", "backward", "optimizer_step", "train_step")
#: Counters take a pass of their own and Nsight Compute: only on request.
DEFAULT_INSTRUMENTS = ("time", "energy")


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """What to measure at every point and how precisely.

    Attributes:
        phases: phases of the training step, in the order they are measured.
        instruments: of `time`, `energy` (which needs time) and `counters` (hardware FLOP counters, in a pass of their
            own).
        target_error: relative half width of the 95 % interval that ends a window (0.01 is 1 %).
        max_seconds: cap on one phase's window.
        seed: of weights and inputs.
        sentinel_every_s: seconds between measurements of the sentinel point; 0 measures none.
        cooldown_c: wait before each point until the GPU is at most this warm; None does not wait.

    Raises:
        SettingError: a value that cannot be.
    """

    phases: tuple[str, ...] = DEFAULT_PHASES
    instruments: tuple[str, ...] = DEFAULT_INSTRUMENTS
    target_error: float = 0.01
    max_seconds: float = 3.0
    seed: int = 0
    sentinel_every_s: float = 60.0
    cooldown_c: float | None = None

    def __post_init__(self) -> None:
        _check_names("phases", self.phases)
        _check_names("instruments", self.instruments, INSTRUMENTS)
        for name in ("target_error", "max_seconds", "sentinel_every_s"):
            check_number(name, getattr(self, name))
        check_number("cooldown_c", 0.0 if self.cooldown_c is None else self.cooldown_c)
        check_number("seed", self.seed, whole=True)
        if "energy" in self.instruments and "time" not in self.instruments:
            raise SettingError("<instruments> energy needs time too: energy per iteration is power times time")
        if not 0 < self.target_error < 1:
            raise SettingError(f"<target_error> must lie between 0 and 1 (0.01 is 1 %), got {self.target_error:g}")
        if not (math.isfinite(self.max_seconds) and self.max_seconds > 0):
            raise SettingError(f"<max_seconds> must be a positive number of seconds, got {self.max_seconds:g}")
        if not (math.isfinite(self.sentinel_every_s) and self.sentinel_every_s >= 0):
            raise SettingError(f"<sentinel_every_s> must be 0 or more seconds, got {self.sentinel_every_s:g}")
        if self.cooldown_c is not None and not math.isfinite(self.cooldown_c):
            raise SettingError(f"<cooldown_c> must be a temperature in Celsius, got {self.cooldown_c:g}")
        if not 0 <= self.seed < 2**31:
            raise SettingError(f"<seed> must be between 0 and 2147483647, got {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> MeasureSettings:
        """The inverse of `to_dict`.

        Raises:
            InputError: a field is missing its meaning in this version.
        """
        unknown = sorted(set(fields) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise InputError(f"the run's manifest has a setting {unknown[0]!r} that this flopray does not know")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)


def check_number(setting: str, value: object, *, whole: bool = False) -> None:
    """Refuse what is not a number, as a program or a manifest may give it.

    Raises:
        SettingError: it is not one.
    """
    kinds, what = ((int,), "a whole number") if whole else ((int, float), "a number")
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise SettingError(f"<{setting}> must be {what}, got {value!r:.60}")


def _check_names(setting: str, given: tuple[str, ...], known: tuple[str, ...] | None = None) -> None:
    """Which phases there are, the workload knows."""
    if not given:
        of_these = f" of: {', '.join(known)}" if known else ""
        raise SettingError(f"<{setting}> needs at least one{of_these}")
    for name in given:
        if known and name not in known:
            hint = spaced(f"<{setting}>", name)
            raise SettingError(f"<{setting}>: unknown {name!r}, choose from {', '.join(known)}{hint}")
    if len(set(given)) != len(given):
        raise SettingError(f"<{setting}> has a name twice")
