"""Choices of a point that are no size: only those that were measured are answered."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from flopray.description import Description, Field
from flopray.errors import SettingError
from flopray.predict.choices import Choices, measured_choices
from flopray.predict.domain import Domain
from flopray.predict.shipped import shipped
from flopray.predict.work import Work, work_of
from flopray.settings import MeasureSettings
from flopray.sweep.planned_energy import planned_energy, why_not_planned
from flopray.sweep.prediction import rates_of
from flopray.workloads.causal_lm.workload import CausalLM
from flopray.workloads.llama import Llama
from flopray.workloads.mlp import MLP

#: Shapes of Llama 3.2 1B that the shipped models answer.
WHERE = {"device_type": "H200", "precision": "bf16", "execution": "graph"}
USUAL = {
    "model": "llama-3.2-3b",
    "weights": "random",
    "attention": "auto",
    "checkpointing": False,
    "batch_size": 8,
    "sequence_length": 256,
}
OTHERS = {
    "weights": "pretrained",
    "attention": "math",
    "checkpointing": True,
    "routing": "router",
    "adapter": "lora:16",
}


class Activated(Description):
    """A workload of a user, as a class or as its manifest describes it."""

    name = "activated"
    fields = (
        Field(name="activation", type=str, values=("relu",), words={"relu": "relu", "gelu": "gelu"}),
        Field(name="fused", type=bool, values=("off",)),
        Field(name="width", values=(64,)),
    )
    phases = ("forward",)


def of(**values) -> Choices:
    return Choices.of(Activated(), {"activation": "relu", "fused": False, **values})


def point_of(cls, **changed):
    values = USUAL if cls is Llama else {**USUAL, "routing": "uniform", "adapter": None}
    return cls().point(**WHERE, **{**values, **changed})


def cases():
    for cls in (CausalLM, Llama):
        there = [
            field.name for field in cls.fields if not (field.is_dimension or field.implied or field.name == "model")
        ]
        yield from ((cls, name) for name in there)


@pytest.mark.parametrize(("cls", "name"), [pytest.param(*case, id=f"{case[0].name}-{case[1]}") for case in cases()])
def test_each_choice_that_nobody_measured_is_refused_by_its_name(cls, name):
    if name == "adapter":
        pytest.importorskip("peft")
    assert shipped().predict(point_of(cls), "forward").energy_j is not None
    with pytest.raises(
        SettingError, match=f"^{name}='{'on' if OTHERS[name] is True else OTHERS[name]}' was not"
    ) as error:
        shipped().predict(point_of(cls, **{name: OTHERS[name]}), "forward")
    assert error.value.told({name: "--its-flag"}).startswith("--its-flag ")


def test_only_the_usual_choices_were_measured_where_a_file_says_nothing():
    group = shipped().groups[0]
    content = msgspec.to_builtins(next(iter(group.fit.domains.values())))
    del content["choices"]
    assert msgspec.convert(content, Domain).choices == [{}]


def test_what_was_measured_is_kept_and_answered():
    works = [
        Work("activated", "forward", "bf16", "graph", {"width": 64.0}, (), 8.0, 8.0, 8.0, of(**choices))
        for choices in ({}, {"activation": "gelu", "fused": True})
    ]
    domain = msgspec.json.decode(msgspec.json.encode(Domain.of(works)), type=Domain)
    assert domain.choices == [{}, {"activation": "gelu", "fused": "on"}]
    assert all(work.choices.why_not_measured(domain.choices) is None for work in works)
    assert of(fused=True).why_not_measured(domain.choices) == ("<activation=relu>, <fused=on>: not measured together")
    assert of().why_not_measured(domain.choices[1:]) == ("<activation=relu> was not measured, but <activation=gelu>")
    assert domain.why_outside(works[0]) == domain.why_outside(works[1]) is None  # sizes alone decide there


def test_a_run_of_which_only_the_manifest_is_known_covers_its_own_choices():
    """A manifest has no defaults, and the question comes with the code, which has them."""
    described = Description.from_dict(Activated().to_dict())
    measured = measured_choices([Choices.of(described, {"activation": "relu", "fused": False, "width": 64})])
    assert measured == [{"activation": "relu", "fused": "off"}]
    assert of().why_not_measured(measured) is None
    assert of(fused=True).why_not_measured(measured) == "<fused=on> was not measured, but <fused=off>"


def test_a_choice_that_rows_do_not_have_is_as_it_was_before_there_was_the_field():
    assert Choices.of(Activated(), {"activation": "relu", "width": 64}).unusual == {}


def test_a_default_grid_with_several_values_has_no_default():
    class Several(Activated):
        fields = (Field(name="activation", type=str, values=("relu", "gelu"), words={"relu": "relu", "gelu": "gelu"}),)

    assert Choices.of(Several(), {"activation": "relu"}).unusual == {"activation": "relu"}


def test_sizes_and_models_are_no_choices():
    one = work_of(MLP(n_layers=8, width=1024, tokens=128).point(**WHERE), "forward")
    assert one.choices == Choices()
    assert "model" not in work_of(point_of(CausalLM), "forward").choices.words


def test_a_plan_has_no_joules_of_a_choice_that_nobody_measured():
    pytest.importorskip("peft")
    settings = MeasureSettings(phases=("forward",))
    usual, other = point_of(CausalLM), point_of(CausalLM, adapter="lora:16")
    rates = rates_of("H200")
    planned = planned_energy(settings, [usual], rates)
    assert planned is not None
    assert planned.unknown == 0
    assert planned_energy(settings, [other], rates) is None
    assert why_not_planned(settings, [usual, other]).startswith("adapter='lora:16' was not measured")
    mixed = planned_energy(settings, [*[usual] * 9, other], rates)
    assert mixed is not None
    assert mixed.unknown == pytest.approx(0.1)
    assert mixed.line("H200").endswith("; 10% of it was not measured and counts as waiting")


def test_work_of_another_family_is_not_refused_for_its_choices():
    """It is answered without an interval, and says so."""
    work = replace(work_of(MLP(n_layers=8, width=1024, tokens=128).point(**WHERE), "forward"), family="activated")
    answer = shipped().predict(replace(work, choices=of(fused=True)), device_type="H200")
    assert answer.outside == "activated was not measured: answered by the fit of mlp"
    assert answer.time_s.low is None
