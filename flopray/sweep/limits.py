"""How long and how often a point is tried before it, or the whole sweep, is given up; a resume may set other limits."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from flopray.errors import SettingError
from flopray.settings import check_number


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long and how often something is tried.

    Attributes:
        point_timeout_s: a point that takes longer loses its process, which may hang; 0 waits for ever.
        retries: how often a point is tried again whose process died or whose node was lost.
        stop_after: the sweep stops once so many points in a row failed alike on every device; 0 never stops it.

    Raises:
        SettingError: a value that cannot be.
    """

    point_timeout_s: float = 3600.0
    retries: int = 2
    stop_after: int = 20

    def __post_init__(self) -> None:
        check_number("point_timeout_s", self.point_timeout_s)
        check_number("retries", self.retries, whole=True)
        check_number("stop_after", self.stop_after, whole=True)
        if not (math.isfinite(self.point_timeout_s) and self.point_timeout_s >= 0):
            raise SettingError(f"<point_timeout_s> must be 0 or more seconds, got {self.point_timeout_s:g}")
        if self.retries < 0:
            raise SettingError(f"<retries> must be 0 or more, got {self.retries}")
        if self.stop_after < 0:
            raise SettingError(f"<stop_after> must be 0 or more points, got {self.stop_after}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return dataclasses.asdict(self)
