"""Numbers as people read them."""

import pytest

from flopray.report.plot.scales import display_unit
from flopray.units import counted, prefixed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_400, "999 kB"),
        (999_900, "1 MB"),
        (1.234e9, "1.23 GB"),
        (45.6e12, "45.6 TB"),
        (989.4e15, "989 PB"),
        (-7.46e-12, "-7.46 pB"),
        (8.92e-13, "892 fB"),
        (9.999e-13, "1 pB"),
        (3e-16, "3e-16 B"),
        (None, "-"),
    ],
)
def test_numbers_have_three_digits_and_a_prefix(value, text):
    assert prefixed(value, "B") == text


@pytest.mark.parametrize(
    ("largest", "label"), [(0.0, "J"), (8.92e-13, "fJ"), (7e-12, "pJ"), (0.05, "mJ"), (2e19, "EJ")]
)
def test_figures_have_the_same_prefixes(largest, label):
    assert display_unit("J", largest).label == label


def test_one_has_no_plural():
    assert [counted(count, "row") for count in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
