"""Flags are made from the settings: default, help, check and name are stated at the field, and nowhere else."""

import dataclasses
import re
from dataclasses import MISSING

import pytest

from flopray.cli import flags
from flopray.cli.flags import GROUPS, SETTINGS, build_parser, parse, told
from flopray.cli.python import Sweep as SweepFromPython
from flopray.cli.request import Options, Request, request_of, sweep_from
from flopray.description import Field
from flopray.errors import InputError, SettingError
from flopray.measurement import api, profile
from flopray.settings import CPU_DEFAULTS, MeasureSettings, Setting, setting, settings_of
from flopray.sweep.definition import Sweep
from flopray.sweep.limits import Limits
from flopray.workloads.llama import Llama
from flopray.workloads.mlp import MLP

CLASSES = (MeasureSettings, Sweep, Limits, Options)
#: Fields that no flag sets: what a sweep is made of, and what a program decides.
WITHOUT_FLAG = {Sweep: {"workload", "axes", "settings", "implied"}, Options: {"summary"}}
FIELDS = [
    (cls, field) for cls in CLASSES for field in dataclasses.fields(cls) if field.name not in WITHOUT_FLAG.get(cls, ())
]


def actions(workload):
    return {action.option_strings[-1]: action for action in build_parser(workload)._actions}


@pytest.mark.parametrize(("cls", "field"), FIELDS, ids=[f"{cls.__name__}.{field.name}" for cls, field in FIELDS])
def test_every_field_states_its_help_and_is_the_default_of_its_flag(cls, field):
    known = settings_of(cls)[field.name]
    assert known.doc
    assert field.default is MISSING or known.default == field.default
    if known.default not in (None, (), False, True):
        assert "{default}" in known.doc  # so that the help cannot say another one
    action = actions(Llama())[known.option]
    assert action.dest == known.name
    assert action.default is None  # a resume tells what was given
    if "{default}" in known.doc and known.name != "phases":  # those of a workload are its own
        shown = " ".join(known.default) if isinstance(known.default, tuple) else f"{known.default}".removesuffix(".0")
        assert f"default {shown}" in action.help


def test_no_flag_is_without_a_setting_and_no_setting_without_a_group():
    listed = [name for names in GROUPS.values() for name in names]
    assert sorted(listed) == sorted(SETTINGS)
    fields = {field.flag or "--" + field.name.replace("_", "-") for field in MLP().fields}
    other_spellings = {name for known in SETTINGS.values() for name in known.also}
    declared = {known.option for known in SETTINGS.values()} | other_spellings
    assert set(actions(MLP())) - fields - {"--help", "--version"} == declared


def test_a_default_that_changes_changes_the_help_and_the_sweep(monkeypatch):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Shorter(Limits):
        retries: int = setting(7, doc=settings_of(Limits)["retries"].doc)

    monkeypatch.setitem(flags.SETTINGS, "retries", settings_of(Shorter)["retries"])
    assert "(default 7)" in actions(MLP())["--retries"].help
    assert Shorter().retries == 7


def test_nothing_given_is_every_default():
    request = parse(MLP(), [])
    assert request == Request()
    made = sweep_from(MLP(), request, ["CPU"], cores=3)
    assert made.settings == MeasureSettings(**CPU_DEFAULTS)
    assert sweep_from(MLP(), request, ["H100"], cores=3).settings == MeasureSettings()
    assert (request.limits, request.options) == (Limits(), Options())
    for name in ("search", "samples", "objective", "points_per_trial", "shards"):
        assert getattr(made, name) == Sweep.__dataclass_fields__[name].default
    assert made.cpus_per_trial == {"CPU": 3}


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--trial-timeout 5", "limits.point_timeout_s", 5.0),
        ("--retries 0", "limits.retries", 0),
        ("--stop-after 0", "limits.stop_after", 0),
        ("--wait 0", "options.wait_s", 0.0),
        ("--no-plots", "options.plots", False),
        ("--strict", "options.strict", True),
        ("--storage s3://b/p", "options.storage", "s3://b/p"),
        ("--seed 0", "settings.seed", 0),
        ("--cooldown-to 40", "settings.cooldown_c", 40.0),
        ("--hold-temperature 55", "settings.hold_temperature_c", 55.0),
        ("--calibrate", "settings.calibrate", True),
        ("--phases generate", "settings.phases", ("generate",)),
        ("--shard 3/8", "settings.shards", "3/8"),
        ("--accelerators H100 A100", "device_types", ["H100", "A100"]),
    ],
)
def test_a_flag_reaches_its_field(line, field, value):
    found = parse(Llama(), line.split())
    for part in field.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value


NUMBERS = [(cls, name) for cls in CLASSES for name, known in settings_of(cls).items() if known.kind in (int, float)]


@pytest.mark.parametrize(("cls", "field"), NUMBERS, ids=[f"{cls.__name__}.{name}" for cls, name in NUMBERS])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "3", [3]])
def test_a_number_that_is_none_is_refused_by_the_name_of_its_flag(cls, field, value):
    known = settings_of(cls)[field]
    with pytest.raises(SettingError) as raised:
        known.check(value)
    assert told(raised.value).startswith(f"{known.option} must ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_seconds", 0, "--max-seconds must be a positive number of seconds, got 0"),
        ("target_error", 1.0, "--target-error must lie between 0 and 1 (0.01 is 1 %), got 1"),
        ("seed", 2**31, "--seed must be between 0 and 2147483647, got 2147483648"),
        ("sentinel_every_s", -0.5, "--sentinel-every must be 0 or more seconds, got -0.5"),
        ("point_timeout_s", -1.0, "--trial-timeout must be 0 or more seconds, got -1"),
        ("stop_after", -1, "--stop-after must be 0 or more points, got -1"),
        ("wait_s", -1.0, "--wait must be 0 or more seconds, got -1"),
        ("cpus_per_trial", {"CPU": 0}, "--cpus-per-trial must be at least 1, got 0"),
        ("precision", ("fp31",), "--precision: unknown 'fp31', choose from fp32, tf32, bf16, fp16, fp8, fp8_rowwise"),
        ("precision", (), "--precision needs at least one value of: fp32, tf32, bf16, fp16, fp8, fp8_rowwise"),
        ("device_type", (), "--accelerators needs at least one type"),
        ("instruments", ("time", "time"), "--instruments has a name twice"),
        (
            "instruments",
            ("time,energy",),
            "choose from time, energy, counters, operators: write --instruments time energy",
        ),
        ("search", "gird", "--search: unknown 'gird', choose from grid, random, sobol, optuna, active"),
    ],
)
def test_the_check_of_a_setting_names_it_and_what_it_must_be(name, value, message):
    with pytest.raises(SettingError) as raised:
        SETTINGS[name].check(value)
    assert told(raised.value).endswith(message)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_of_settings_checks_them(cls):
    """A check that is stated at a field must be carried out."""
    known = settings_of(cls)
    field = next(name for name, one in known.items() if one.kind in (int, float))
    sweep = {"workload": MLP(), "settings": MeasureSettings(), "cpus_per_trial": {"CPU": 1}}
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    needed = sweep | {"axes": axes | {"n_layers": (1,), "width": (8,), "tokens": (4,)}} if cls is Sweep else {}
    cls(**needed)
    with pytest.raises(InputError, match=known[field].name):
        cls(**{**needed, field: "x"})


def test_python_takes_the_settings_of_the_flags_and_says_so():
    sweep = [s.name for cls in (MeasureSettings, Sweep, Limits) for s in settings_of(cls).values()]
    for name in [*sweep, "precision", "execution", "device_types"]:
        assert f"`{name}`" in str(SweepFromPython.__doc__)
        SweepFromPython("mlp", **{name: None})
    for function in (api.measure, profile.profile):
        for name in ("target_error", "max_seconds"):
            assert function.__kwdefaults__[name] == getattr(MeasureSettings, name)


@pytest.mark.parametrize("flag", ["--seed", "--version", "--precision", "--n", "--help"])
def test_a_field_that_takes_the_flag_of_something_else_is_named(flag):
    class Odd(MLP):
        fields = (*MLP.fields, Field(name="odd", values=(1,), flag=flag))

    with pytest.raises(InputError, match=f"workload mlp, field odd: the flag {flag} is taken: give the field another"):
        build_parser(Odd())


@pytest.mark.parametrize("axis", [{"width": (8,)}, {"precision": ["fp32"]}, {"device_type": ["CPU"]}])
def test_a_resume_takes_no_axis(axis):
    with pytest.raises(InputError, match=r"^--resume takes --(d|precision|accelerators) from the run's manifest"):
        request_of(MLP(), axis, {"resume": "r"})


def test_a_resume_takes_no_setting_of_its_run_and_every_other():
    fixed = [s for cls in (MeasureSettings, Sweep) for s in settings_of(cls).values()]
    free = [s for cls in (Limits, Options) for s in settings_of(cls).values()]
    for known in [*fixed, SETTINGS["name"], SETTINGS["storage"]]:
        with pytest.raises(InputError, match=f"--resume takes {known.option} from the run's manifest"):
            request_of(MLP(), {}, {"resume": "r", known.name: _some(known)})
    for known in free:
        if known.name not in ("name", "storage", "resume"):
            request_of(MLP(), {}, {"resume": "r", known.name: _some(known)})


def _some(known: Setting):
    return {int: 3, float: 3.0, bool: not known.default}.get(known.kind, "x")


def test_no_help_repeats_a_number_that_is_the_default():
    """A default written into the help by hand would be wrong after a change of the field."""
    for known in SETTINGS.values():
        assert not re.search(r"default [0-9]+(\.[0-9]+)?(?! beside)", known.doc), known.name


def test_a_fault_of_flopray_ends_a_sweep_in_a_line(capsys):
    """It says where, and that nothing measured is lost; Python's traceback would say neither."""
    from flopray.cli.main import sweep_command
    from flopray.workloads.mlp import MLP

    def broken(*_: object) -> Request:
        raise KeyError("x")

    assert sweep_command(MLP(), [], broken) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: this failed (KeyError: 'x'; test_flags.py, line ")
    assert line.endswith("a run that had begun has its finished points, and `flopray resume RUN` goes on")
