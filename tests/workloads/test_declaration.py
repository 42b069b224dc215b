"""Invalid fields are refused when the class is loaded, and not by later code that uses them."""

from __future__ import annotations

from typing import Any

import pytest

from flopray.description import Column, Field
from flopray.errors import SpecError
from flopray.workloads.base import Workload

YES = {"no": False, "yes": True}
SIZE = Field(name="size", letter="s", values=(1, "2:4:1"))


def declared(*fields: Field, **attributes: Any) -> Workload:
    body = {"name": "own", "fields": (SIZE, *fields), "build": lambda self, point, *, device, dtype, seed: None}
    return type("Own", (Workload,), body | attributes)()


@pytest.mark.parametrize(
    ("field", "said"),
    [
        (Field(name="on", type=bool, words=YES, values=(False,)), "False in values is no word: choose from no, yes"),
        (Field(name="on", type=bool, values=(False,)), "False in values is no word: choose from off, on"),
        (Field(name="on", type=bool, values=("yes",)), "'yes' in values is not one of its words: choose from off, on"),
        (Field(name="on", type=bool, words={"no": 0}), "the word 'no' must stand for True or False, got 0"),
        (Field(name="on", type=str, values=("no", "yes")), "a choice needs words={word: value, ...}, or free=True"),
        (Field(name="on", type=str, words={"a": ""}), "the word 'a' must stand for a text, got ''"),
        (Field(name="on", type=str, words={"-a": "a"}), "a word must be a text that does not begin with -"),
        (Field(name="on", type=str, words=("a", "b")), "words must map each word to its value"),  # type: ignore[arg-type]
        (Field(name="on", type=str, words={"a": "a"}, values="a"), "values must be a tuple such as"),
        (Field(name="on", type=str, words={"a": "a"}, values=("b",)), "'b' in values is not one of its words"),
        (Field(name="on", type=str, words={"a": "a"}, gpu_values=("b",)), "'b' in gpu_values is not one of its words"),
        (Field(name="on", values=(8.5,)), "8.5 in values must be a whole number or first:last:step"),
        (Field(name="on", values=("8-16",)), "'8-16' in values must be a whole number or first:last:step"),
        (Field(name="on", values=(True,)), "True in values must be a whole number"),
        (Field(name="on", values=(0,)), "0 in values must be at least 1"),
        (Field(name="on", values=8), "values must be a tuple such as (1, 2), got 8"),  # type: ignore[arg-type]
        (Field(name="on", words={"all": "8"}), "the word 'all' must stand for a whole number from 1, got '8'"),
        (Field(name="on", flag="on"), "a flag must be written as --name, got 'on'"),
        (Field(name="label"), "the field 'label' has a name that points, records or Python have"),
        (Field(name="shape"), "the field 'shape' has a name"),
        (Field(name="values"), "the field 'values' has a name"),
        (Field(name="class"), "the field 'class' has a name"),
        (Field(name="on", letter="s"), "the fields size and on have the same letter 's'"),
        (Field(name="on", doc="two\nlines"), "is not a short text"),
    ],
)
def test_a_field_that_cannot_be_is_refused_when_the_class_is_loaded(field, said):
    with pytest.raises(SpecError) as error:
        declared(field)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"phases": ("inference",)}, "default_phases: unknown 'forward', choose from inference"),
        ({"default_phases": "forward"}, "default_phases must be a tuple of at least one of"),
        ({"gpu_precisions": ("fp64",)}, "gpu_precisions: unknown 'fp64'"),
        ({"gpu_execution": ("fast", "")}, "gpu_execution: unknown 'fast'"),
        ({"figures": "bars"}, "figures: unknown 'bars', choose from surfaces, comparison"),
        ({"columns": (Column(name="extra", type=int),)}, "the column 'extra' has a name"),
    ],
)
def test_attributes_that_cannot_be_are_refused_when_the_class_is_loaded(attributes, said):
    with pytest.raises(SpecError) as error:
        declared(**attributes)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "field",
    [
        Field(name="on", type=bool, words=YES, values=("no",)),
        Field(name="on", type=bool, values=("off", "on")),
        Field(name="on", type=str, free=True, values=("anything",)),
        Field(name="on", type=str, implied=True),
        Field(name="on", words={"all": 8}, values=("all", 3, "4:8:2")),
        Field(name="on", letter="S"),
        Field(name="on", values=range(2, 5)),
    ],
)
def test_fields_that_can_be(field):
    assert declared(field).fields[1] is field


def test_a_label_tells_dimensions_apart_that_have_no_letter_or_one_like_their_name():
    named = declared(Field(name="k", letter="k"), Field(name="rows"), Field(name="on", type=bool, words=YES))
    assert named.label({"size": 1, "k": 2, "rows": 3, "on": True}) == "s=1 k=2 rows=3"


def test_values_of_a_choice_are_told_from_its_words():
    field = Field(name="residual", type=bool, words=YES)
    for value, said in (
        ("yes", "residual must be True or False, got 'yes': the word 'yes' stands for True"),
        (1, "residual must be True or False, got 1"),
        (None, "residual is missing: it must be True or False"),
    ):
        with pytest.raises(SpecError) as error:
            field.check(value)
        assert str(error.value) == said
