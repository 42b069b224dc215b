"""What the manifest of a sweep says: its workload, and its fields as a stranger's file may have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from flopray.description import Description
from flopray.mappings import Arguments
from flopray.settings import MeasureSettings
from flopray.workloads.base import Workload
from flopray.workloads.package import package_of


def described(workload: Description) -> dict[str, object]:
    """What a manifest says of the workload: its description, and its file with hash and text, or its package."""
    content: dict[str, object] = {"workload": workload.to_dict()}
    if isinstance(workload, Workload) and (source := workload.source):
        content["workload_source"] = {
            "path": source.path,
            "class_name": source.class_name,
            "sha256": source.sha256,
            "lines": source.text.split("\n"),
        }
    elif isinstance(workload, Workload) and (package := package_of(workload)):
        content["workload_package"] = package.to_dict()
    return content


def difference(one: Description, other: Description) -> str | None:
    """Which part gives two workloads different points, columns or phases; None where only texts for people differ."""
    first, second = one.to_dict(), other.to_dict()
    parts = ("name", "fields", "columns", "phases")
    return next((part for part in parts if _told_apart(first[part]) != _told_apart(second[part])), None)


def _told_apart(part: Any) -> Any:
    """The part of a description that decides points and columns; labels and documentation may change."""
    return [(item["name"], item["type"]) if isinstance(item, dict) else item for item in part]


_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Measuring(msgspec.Struct):
    """The settings of a manifest whose types other checks rely on; `MeasureSettings` checks the rest."""

    seed: int = 0


class Fields(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of a sweep as a manifest has them: a command line gives no other types, a stranger's file may."""

    workload: str
    axes: dict[str, tuple[str | int | float | bool | None, ...]]
    settings: dict[str, object]
    cpus_per_trial: dict[str, int]
    search: str = "grid"
    samples: int | None = None
    points_per_trial: int | None = None
    trial: str | None = None
    #: Older runs have one text, not several.
    objective: str | tuple[str, ...] | None = None
    implied: dict[str, dict[str, dict[str, object]]] = {}
    shards: tuple[str, ...] = ()
    log_to: tuple[str, ...] | None = None
    #: Runs were written so before an axis could imply fields.
    model_configs: dict[str, object] | None = None

    def arguments(self, workload: Description, axes: Sequence[str]) -> Arguments:
        """What makes the sweep of them.

        Args:
            workload: of the manifest.
            axes: that it has.

        Raises:
            KeyError, TypeError, InputError: they are not of the workload, or contradict one another.
            ValueError: a name that is not a text.
        """
        if set(self.axes) != set(axes):
            raise KeyError("axes")
        if not set(self.implied) <= set(self.axes):
            raise TypeError("a field follows from a missing axis")
        msgspec.convert([*self.axes["device_type"], *self.axes.get("model", ())], list[_Text])
        msgspec.convert(self.settings, _Measuring)
        configs = self.model_configs or {}
        former = {"model": {name: {"model_config": config} for name, config in configs.items()}}
        return {
            "workload": workload,
            "axes": self.axes,
            "settings": MeasureSettings.from_dict(self.settings),
            "search": self.search,
            "samples": self.samples,
            "objective": (self.objective,) if isinstance(self.objective, str) else self.objective,
            "cpus_per_trial": self.cpus_per_trial,
            "points_per_trial": self.points_per_trial,
            "implied": former if configs else self.implied,
            "shards": self.shards,
            "trial": self.trial,
            "log_to": self.log_to or None,
        }
