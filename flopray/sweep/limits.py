"""How long and how often a point is tried, and when a sweep stops; a resume may set other limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from flopray.errors import SettingError
from flopray.mappings import Values
from flopray.settings import check_settings, setting


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long and how often something is tried; each field says what it is.

    Raises:
        SettingError: a value that cannot be.
    """

    point_timeout_s: float = setting(
        3600.0,
        doc="end a process that measures one point for longer than this; 0 never (default {default})",
        must="be 0 or more seconds",
        holds=lambda value: value >= 0,
        flag="--trial-timeout",
        metavar="S",
    )
    retries: int = setting(
        2,
        doc="how often to measure a point again if its process ended or its node was lost (default {default})",
        must="be 0 or more",
        holds=lambda value: value >= 0,
        metavar="N",
    )
    #: Failures in a row count, and only if they are alike on every device.
    stop_after: int = setting(
        20,
        doc="stop, resumable, once the last N points on every device failed alike; 0 never (default {default})",
        must="be 0 or more points",
        holds=lambda value: value >= 0,
        metavar="N",
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def to_manifest(self) -> Values:
        """What a resume goes on with."""
        return asdict(self)


def limits_of_run(manifest: Mapping[str, Any], given: Mapping[str, Any]) -> Limits:
    """The limits that a run is resumed with: those that are given now, else those that it began with.

    Args:
        manifest: of the run, which may be a stranger's: what is no limit there is passed over.
        given: now, by field.
    """
    written = manifest.get("limits")
    written = written if isinstance(written, Mapping) else {}
    kept: Values = {}
    for field in fields(Limits):
        value, whole = written.get(field.name), field.type == "int"
        if type(value) is int or (type(value) is float and not whole and math.isfinite(value)):
            kept[field.name] = value
    try:
        return Limits(**{**kept, **given})
    except SettingError:
        return Limits(**given)
