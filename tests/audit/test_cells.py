"""A column that is read at once gives the same values as its cells one by one."""

import math
import sys
from decimal import Decimal

import hypothesis.strategies as st
import numpy as np
import pandas as pd
from hypothesis import given

from flopray.audit.cells import are_plain_numbers, identities, is_absent, names_of, numbers, rows_of, texts
from flopray.audit.findings import Finding, Severity, identity, number, text

_CELLS = st.lists(
    st.one_of(
        st.sampled_from(
            (
                *(None, True, False, 0, 1, 1.0, -0.0, 0.0, 2, 2.5, math.nan, math.inf, -math.inf, 10**400, 2**53 + 1),
                *("", "1", "1.0", "true", "n/a", " x ", [1], {"a": 1}, Decimal("1"), np.float64(1.0), np.int64(1)),
            )
        ),
        st.floats(),
        st.integers(),
    ),
    max_size=8,
)
_PLAIN = st.lists(st.one_of(st.none(), st.floats(), st.integers(-3, 3)), max_size=8)
_TEXTS = st.lists(st.sampled_from((None, "", "a", "1", "nan")), max_size=8)


@given(st.one_of(_CELLS, _PLAIN, _TEXTS))
def test_a_column_is_read_as_its_cells_are(cells):
    rows = [{"x": cell} for cell in cells]
    assert identities(rows, "x") == [identity(row, "x") for row in rows]
    assert numbers(rows, "x") == [number(row, "x") for row in rows]
    assert texts(rows, "x") == [text(row, "x") for row in rows]
    assert identities(rows, "missing") == [None] * len(rows)


@given(st.one_of(_CELLS, _PLAIN))
def test_plain_numbers_are_those_that_no_rule_has_to_look_at(cells):
    plain = all(cell is None or (type(cell) in (int, float) and not abs(cell) > sys.float_info.max) for cell in cells)
    assert are_plain_numbers(cells) == plain


def test_columns_come_in_the_order_in_which_rows_have_them():
    assert list(names_of([{"b": 1, "a": 2}, {}, {"c": 3, "a": 4}])) == ["b", "a", "c"]


def test_rows_of_a_frame_are_plain_values():
    frame = pd.DataFrame(
        {
            "float": [1.5, math.nan],
            "int": [1, 2],
            "text": pd.array(["a", None], dtype="string"),
            "whole": pd.array([1, None], dtype="Int64"),
            "flag": pd.array([True, None], dtype="boolean"),
            "kind": pd.Categorical(["x", "y"]),
            "mixed": [[1, 2], None],
        }
    )
    first, second = rows_of(frame)
    assert first == {
        **{"float": 1.5, "int": 1, "text": "a", "whole": 1, "flag": True, "kind": "x", "mixed": [1, 2]},
    }
    assert (second["text"], second["whole"], second["flag"], second["mixed"]) == (None, None, None, None)
    assert math.isnan(second["float"])
    assert type(first["int"]) is int
    assert rows_of(pd.DataFrame(index=range(2))) == [{}, {}]


def test_a_measurement_is_named_by_plain_words_and_by_others_with_their_names():
    keys = {"gpu": "H100", "n_layers": 2, "width": "512", "precision": "bf16", "model": "qwen3-0.6b", "run": "7"}
    assert Finding("r", Severity.NOTE, "s", keys=keys).where == "H100 n_layers=2 width=512 bf16 qwen3-0.6b"
    choices = {"device_type": "H100", "attention": "auto", "checkpointing": "False", "phase": "decode"}
    assert Finding("r", Severity.NOTE, "s", keys=choices).where == "H100 attention=auto checkpointing=False decode"


def test_a_cell_is_absent_where_pandas_says_so():
    values = [None, math.nan, np.nan, np.float32("nan"), np.float64("nan"), pd.NA, pd.NaT, np.datetime64("NaT")]
    assert [is_absent(value) for value in values] == [True] * len(values)
    values = [0, 0.0, math.inf, False, "", "nan", "n/a", [], [math.nan], (), np.array([math.nan]), np.int64(0)]
    assert [is_absent(value) for value in values] == [False] * len(values)
