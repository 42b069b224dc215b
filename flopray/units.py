"""Numbers as people read them: three digits and an SI prefix, or a count. Everything else stays in plain SI units."""

from __future__ import annotations

import math

#: Scales with their prefixes, the largest first.
PREFIXES = (
    *((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")),
    *((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f")),
)


def prefixed(value: float | None, unit: str) -> str:
    """A number with three significant digits and an SI prefix; a missing one is a dash.

    >>> prefixed(12.34e12, "FLOP/s")
    '12.3 TFLOP/s'
    >>> prefixed(0.00065, "J")
    '650 µJ'
    >>> prefixed(8.92e-13, "J/FLOP")
    '892 fJ/FLOP'
    >>> prefixed(999.96, "W")
    '1 kW'
    >>> prefixed(None, "J")
    '-'
    """
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return f"0 {unit}"
    for scale, prefix in PREFIXES:
        if abs(value) >= 0.9995 * scale:  # from there on three digits round up to the next prefix
            return f"{value / scale:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def counted(count: float, noun: str, several: str = "") -> str:
    """A count with its noun, in the singular where there is one.

    Args:
        count: a whole number.
        noun: in the singular.
        several: its plural, where that is not the noun with an s.

    >>> counted(1, "row"), counted(2, "row"), counted(0, "entry", "entries")
    ('1 row', '2 rows', '0 entries')
    """
    return f"{count:.0f} {noun if count == 1 else several or f'{noun}s'}"
