"""Settings: what can be chosen, stated once, as fields of dataclasses; and how points are measured.

A field made by `setting` carries its default, its help and what values it takes. Its check, its flag and its line in
`--help` are made from these, and no other module states them again. Standard library only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flopray.errors import InputError, SettingError, plain, spaced
from flopray.mappings import Values
from flopray.records import INSTRUMENTS

#: The parts of a training step and the whole, so that the parts can be checked against the whole.
DEFAULT_PHASES = ("forward", "backward", "optimizer_step", "train_step")
#: The key of a setting in the metadata of its field.
_KEY = "setting"
#: What a value that is no number may be, by the kind of its setting, and how a message says so.
_TYPES: Mapping[Any, tuple[tuple[type, ...], str]] = MappingProxyType(
    {str: ((str,), "a text"), bool: ((bool,), "True or False"), Path: ((str, Path), "a path")}
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting: its default, help, check and flag.

    Attributes:
        name: in messages and from Python; the name of its field, unless that is another one.
        doc: one line for `--help`, in which `{default}` and `{choices}` stand for these.
        default: None where it follows from something else, or where leaving the setting out has a meaning of its own.
        required: whether it must be given.
        kind: of a value: `float`, `int`, `str`, `Path`, another function that makes it of a word, or `bool` for what
            is on or off.
        many: whether it takes several words.
        repeats: whether its flag may be given several times, which adds up.
        distinct: whether each word may appear only once.
        noun: what messages call one of the words.
        choices: the words that it takes; empty takes any.
        must: what a number must be, in words that follow "must".
        holds: whether a number is as `must` says; that it is finite is checked anyway.
        flag: of the command line; empty makes it from the name.
        also: other spellings of the flag, which are not in the help.
        positional: whether it has no flag, and is known by its place.
        metavar: what `--help` calls a value; None takes the name.
        group: heading in `--help`.
    """

    name: str = ""
    doc: str
    default: Any = None
    required: bool = False
    kind: Callable[..., Any] = str
    many: bool = False
    repeats: bool = False
    distinct: bool = True
    noun: str = "value"
    choices: Sequence[str] = ()
    must: str = "be finite"
    holds: Callable[[Any], bool] = lambda _: True
    flag: str = ""
    also: tuple[str, ...] = ()
    positional: bool = False
    metavar: str | None = None
    group: str = ""

    @property
    def option(self) -> str:
        """Its flag, such as `--max-seconds`, or what `--help` calls a setting without one."""
        if self.positional:
            return self.metavar or self.name.upper()
        return self.flag or "--" + self.name.replace("_", "-")

    def described(self, *, choices: Sequence[str] | None = None, default: str | None = None) -> str:
        """The line for `--help`.

        Args:
            choices: instead of its own, where the workload knows them.
            default: in words, instead of its own.
        """
        known = self.choices if choices is None else choices
        return self.doc.format(choices=", ".join(known), default=_shown(self.default) if default is None else default)

    def check(self, value: Any, *, choices: Sequence[str] | None = None) -> None:
        """Refuse a value that cannot be.

        Args:
            value: of the setting; a mapping where it is set by type of device.
            choices: instead of its own, where the workload knows them.

        Raises:
            SettingError: naming the setting.
        """
        known = self.choices if choices is None else choices
        if value is None and self.default is None:
            return
        if self.many and value == self.default == ():
            return
        if self.many or known:
            self._check_words(value if self.many else (value,), known)
        elif self.kind in (int, float):
            for number in value.values() if isinstance(value, Mapping) else (value,):
                self._check_number(number)
        elif self.kind in _TYPES:
            types, what = _TYPES[self.kind]
            for one in value if isinstance(value, tuple) else (value,):
                if not isinstance(one, types):
                    raise SettingError(f"<{self.name}> must be {what}, got {one!r:.60}")

    def _check_words(self, given: Any, known: Sequence[str]) -> None:
        if not given:
            of_these = f" of: {', '.join(known)}" if known else ""
            raise SettingError(f"<{self.name}> needs at least one {self.noun}{of_these}")
        for word in given:
            if self.kind is str and not isinstance(word, str):
                raise SettingError(f"<{self.name}>: a {self.noun} must be a text, got {word!r:.60}")
            if known and word not in known:
                hint = spaced(f"<{self.name}>", word)
                raise SettingError(f"<{self.name}>: unknown {word!r}, choose from {', '.join(known)}{hint}")
        if self.distinct and len(set(given)) != len(given):
            raise SettingError(f"<{self.name}> has a {self.noun} twice")

    def _check_number(self, value: Any) -> None:
        kinds, what = ((int,), "a whole number") if self.kind is int else ((int, float), "a number")
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise SettingError(f"<{self.name}> must be {what}, got {value!r:.60}")
        if not (math.isfinite(value) and self.holds(value)):
            raise SettingError(f"<{self.name}> must {self.must}, got {_shown(value)}")


def setting(default: Any = MISSING, *, doc: str, kind: Callable[..., Any] | None = None, **known: Any) -> Any:
    """A field of a dataclass that is a setting.

    Args:
        default: its default; a tuple takes several words. `MISSING` makes it one that must be given.
        doc: one line for `--help`, see `Setting`.
        kind: of a value, where the default does not show it.
        **known: further attributes of `Setting`.

    Example:
        >>> @dataclass(frozen=True)
        ... class Cup:
        ...     height_m: float = setting(0.1, doc="from foot to rim (default {default})", must="be positive",
        ...                               holds=lambda value: value > 0)
        ...     def __post_init__(self):
        ...         check_settings(self)
        >>> settings_of(Cup)["height_m"].option, settings_of(Cup)["height_m"].described()
        ('--height-m', 'from foot to rim (default 0.1)')
        >>> Cup(-1)
        Traceback (most recent call last):
        flopray.errors.SettingError: height_m must be positive, got -1
    """
    stated = None if default is MISSING else default
    many = isinstance(stated, tuple)
    kind = kind or (str if many or stated is None else type(stated))
    attributes = {"doc": doc, "default": stated, "required": default is MISSING, "kind": kind, "many": many} | known
    return dataclasses.field(default=default, metadata={_KEY: Setting(**attributes)})


def same_setting(cls: type, field: str, *, doc: str) -> Any:
    """A field of a dataclass that is a setting of another one, with its default, flag and check.

    Args:
        cls: the other dataclass.
        field: its field.
        doc: one line for `--help`, of what the setting means here.
    """
    known = dataclasses.replace(settings_of(cls)[field], doc=doc)
    return dataclasses.field(default=known.default, metadata={_KEY: known})


@cache
def settings_of(cls: type) -> Mapping[str, Setting]:
    """The settings of a dataclass, by field, in order."""
    fields = [f for f in dataclasses.fields(cls) if _KEY in f.metadata]
    return {f.name: dataclasses.replace(f.metadata[_KEY], name=f.metadata[_KEY].name or f.name) for f in fields}


def check_settings(instance: Any) -> None:
    """Refuse values that a dataclass's settings cannot have; each setting is checked alone.

    A number of NumPy or torch becomes one of Python, as manifests and tables have them.

    Raises:
        SettingError: naming the first such setting.
    """
    for field, known in settings_of(type(instance)).items():
        given = getattr(instance, field)
        value = plain(given)
        if value is not given:
            object.__setattr__(instance, field, value)  # of a frozen dataclass, which its own checks may do
        known.check(value)


def _shown(value: Any) -> str:
    """A value as one would write it on a command line."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


#: What a sweep takes where there is no GPU. A CPU is shared with the system, so that windows of seconds seldom come to
#: 1 %; these let the default grid end in two minutes on a busy machine too (docs/results/cpu.md).
CPU_DEFAULTS: Mapping[str, float] = MappingProxyType({"target_error": 0.05, "max_seconds": 0.5})


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """What to measure at every point and how precisely; each field says what it is.

    A run's manifest keeps them, so that a resume measures the rest the same way.

    Raises:
        SettingError: a value that cannot be.
    """

    #: Measured in this order; the workload defines them.
    phases: tuple[str, ...] = setting(DEFAULT_PHASES, doc="{choices} (default {default})", noun="name", metavar="PHASE")
    #: Energy and operators need time. Counters and operators take passes of their own, counters Nsight Compute too:
    #: only on request.
    instruments: tuple[str, ...] = setting(
        ("time", "energy"),
        doc="{choices} (default {default}; counters needs Nsight Compute and a GPU, operators is torch.profiler)",
        noun="name",
        choices=INSTRUMENTS,
        metavar="I",
    )
    target_error: float = setting(
        0.01,
        doc=f"stop a window at this relative 95% error (default {{default}} with a GPU, "
        f"{CPU_DEFAULTS['target_error']:g} without)",
        must="lie between 0 and 1 (0.01 is 1 %)",
        holds=lambda value: 0 < value < 1,
        metavar="REL",
    )
    max_seconds: float = setting(
        3.0,
        doc=f"but after this many seconds at the latest (default {{default}} with a GPU, "
        f"{CPU_DEFAULTS['max_seconds']:g} without)",
        must="be a positive number of seconds",
        holds=lambda value: value > 0,
        metavar="S",
    )
    seed: int = setting(
        0,
        doc="of weights, inputs and the order of the points (default {default})",
        must="be between 0 and 2147483647",
        holds=lambda value: 0 <= value < 2**31,
    )
    sentinel_every_s: float = setting(
        60.0,
        doc="re-measure one point at this interval to see drift; 0 never (default {default})",
        must="be 0 or more seconds",
        holds=lambda value: value >= 0,
        flag="--sentinel-every",
        metavar="S",
    )
    reference_temperature_c: float = setting(
        50.0,
        doc="also give the energy of each row at this temperature of the GPU (default {default} °C)",
        must="be a temperature from 0 to 120 Celsius",
        holds=lambda value: 0 <= value <= 120,
        flag="--reference-temperature",
        metavar="CELSIUS",
    )
    cooldown_c: float | None = setting(
        None,
        doc="before each point wait until the GPU is this cool (default off)",
        kind=float,
        must="be a temperature from 0 to 120 Celsius",
        holds=lambda value: 0 <= value <= 120,
        flag="--cooldown-to",
        metavar="CELSIUS",
    )
    hold_temperature_c: float | None = setting(
        None,
        doc="before each window bring the GPU to this temperature, by filler work or pauses (default off)",
        kind=float,
        must="be a temperature from 0 to 120 Celsius",
        holds=lambda value: 0 <= value <= 120,
        flag="--hold-temperature",
        metavar="CELSIUS",
    )
    calibrate: bool = setting(
        False,
        doc="first measure each GPU's factor anew; by default the one that `flopray calibrate` kept is used",
    )

    keep_series: bool = setting(
        False,
        doc="also keep the ticks, power, temperature, clock and memory of each window; flopray series draws them",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.keep_series and "energy" not in self.instruments:
            raise SettingError("<keep_series> needs <instruments> energy: a series is of the energy counter's ticks")
        if "operators" in self.instruments and "time" not in self.instruments:
            raise SettingError(
                "<instruments> operators needs time too: operators are given as shares of a measured time"
            )
        if "energy" in self.instruments and "time" not in self.instruments:
            raise SettingError("<instruments> energy needs time too: energy per iteration is power times time")
        if self.hold_temperature_c is not None and self.cooldown_c is not None:
            raise SettingError("<hold_temperature_c> and <cooldown_c> exclude each other: holding cools down too")
        if self.hold_temperature_c is not None and "time" not in self.instruments:
            raise SettingError(
                "<hold_temperature_c> needs <instruments> time: without it there is no window to hold for"
            )
        if self.calibrate and "energy" not in self.instruments:
            raise SettingError("<calibrate> needs <instruments> energy: the factor of a board is one of energy")

    def to_dict(self) -> dict[str, object]:
        """JSON-ready fields."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> MeasureSettings:
        """The inverse of `to_dict`.

        Raises:
            InputError: this version does not know a field.
        """
        unknown = sorted(set(fields) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise InputError(f"the run's manifest has a setting {unknown[0]!r} that this flopray does not know")
        values: Values = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)


def refuse_on_a_cpu(settings: MeasureSettings) -> None:
    """Refuse what only a GPU has, where every point is for a CPU.

    Raises:
        SettingError: naming the setting.
    """
    if settings.hold_temperature_c is not None:
        raise SettingError("<hold_temperature_c> needs a GPU: the temperature of a CPU cannot be held")
    if settings.cooldown_c is not None:
        raise SettingError("<cooldown_c> needs a GPU: a CPU is not waited for")
    if settings.calibrate:
        raise SettingError("<calibrate> needs a GPU: a board's factor is that of a GPU")
