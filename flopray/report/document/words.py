"""Numbers and lists in the words of a document."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flopray.units import prefixed

DASH = "–"


def quantity(value: float, error: float, unit: str) -> str:
    """A number with its unit and its interval, such as `12.3 mJ ± 1.2 %`; a missing one is a dash.

    >>> quantity(0.0123, 0.012, "J"), quantity(0.0123, float("nan"), "J"), quantity(float("nan"), 0.1, "J")
    ('12.3 mJ ± 1.2 %', '12.3 mJ ± ?', '–')
    """
    told = amount(value, unit)
    return told if told == DASH else f"{told} ± {percent(error).replace(DASH, '?')}"


def amount(value: float, unit: str) -> str:
    """A number with its unit; a missing one is a dash."""
    return prefixed(float(value), unit) if value is not None and np.isfinite(value) else DASH


def percent(ratio: float) -> str:
    """Two digits of a ratio, such as `1.2 %`; a missing one is a dash.

    >>> percent(0.0123), percent(0.345), percent(0.00002), percent(float("nan"))
    ('1.2 %', '34 %', '< 0.01 %', '–')
    """
    if ratio is None or not np.isfinite(ratio):
        return DASH
    if 0 < ratio < 1e-4:
        return "< 0.01 %"
    digits = 0 if ratio >= 0.0995 else 1 if ratio >= 0.00995 else 2
    return f"{100 * ratio:.{digits}f} %"


def listed(words: Sequence[str], most: int = 6) -> str:
    """Words of a list in one sentence: `a, b and c`.

    >>> listed(["a", "b", "c"]), listed(["a"]), listed(list("abcd"), 2)
    ('a, b and c', 'a', 'a, b and 2 more')
    """
    if len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def counted(count: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {noun}".replace(",", " ") + ("" if count == 1 else "s")
