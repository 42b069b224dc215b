"""How long and how often a point is tried, and when a sweep stops; a resume may set other limits."""

from __future__ import annotations

from dataclasses import dataclass

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
