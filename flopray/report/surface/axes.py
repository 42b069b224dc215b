"""Which dimensions of a workload are the axes of its surfaces, and their names."""

from __future__ import annotations

from dataclasses import dataclass

from flopray.description import Description, Field
from flopray.errors import InputError

#: The missing axis of a workload with fewer dimensions than a surface has axes: one value, no name.
NO_AXIS = Field(name="no_axis")


@dataclass(frozen=True)
class SurfaceAxes:
    """The axes of a workload's surfaces.

    Attributes:
        panel: a surface for each of its values; `NO_AXIS` where there is no such dimension.
        x: to the right.
        y: to the back, or upwards; `NO_AXIS` where there is no such dimension.
        others: further dimensions and choices, each of whose values has separate figures.
    """

    panel: Field
    x: Field
    y: Field
    others: tuple[Field, ...] = ()

    @classmethod
    def of(cls, workload: Description) -> SurfaceAxes:
        """The last two dimensions are x and y, the one before is that of the panels.

        Raises:
            InputError: the workload has no dimensions.
        """
        dimensions = workload.dimensions
        if not dimensions:
            raise InputError("the run does not say what its workload's dimensions are: nothing can be drawn")
        panel, x, y = (NO_AXIS, *dimensions, NO_AXIS) if len(dimensions) == 1 else (NO_AXIS, *dimensions)[-3:]
        choices = tuple(f for f in workload.choices if not f.implied)
        return cls(panel, x, y, (*dimensions[:-3], *choices))

    @property
    def columns(self) -> tuple[str, str, str]:
        """Columns of the panel, of x and of y."""
        return self.panel.name, self.x.name, self.y.name

    @property
    def present(self) -> tuple[Field, ...]:
        """Those of the three that the workload has."""
        return tuple(axis for axis in (self.panel, self.x, self.y) if axis is not NO_AXIS)

    def panel_text(self, value: int) -> str:
        """Such as `n = 8 layers`; empty where there are no panels."""
        if self.panel is NO_AXIS:
            return ""
        label = self.panel.label or self.panel.name.replace("_", " ")
        if value == 1 and label.endswith("s"):
            label = label[:-1]
        return f"{letter_of(self.panel)} = {value} {label}"


def letter_of(axis: Field) -> str:
    """The short name of an axis; empty for `NO_AXIS`."""
    return "" if axis is NO_AXIS else axis.letter or axis.name


def equation(axis: Field, value: object) -> str:
    """Such as `m = 64`; empty for `NO_AXIS`."""
    return "" if axis is NO_AXIS else f"{letter_of(axis)} = {value}"


def joined(*parts: str) -> str:
    """The parts that are not empty, joined by commas."""
    return ", ".join(part for part in parts if part)
