"""Settings: invalid values are refused in one line that names the flag, and a manifest restores the same settings."""

import json

import numpy as np
import pytest

from flopray.cli.flags import told
from flopray.errors import InputError, SettingError, with_names
from flopray.records import TRAINING_PHASES
from flopray.settings import DEFAULT_PHASES, MeasureSettings

PHASES = TRAINING_PHASES

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"phases": ()}, "--phases"),
        ({"phases": ("forward", "forward")}, "--phases"),
        ({"instruments": ()}, "--instruments"),
        ({"instruments": ("time", "watts")}, "--instruments: unknown 'watts'"),
        ({"instruments": ("energy",)}, "--instruments energy needs time too"),
        ({"target_error": 0.0}, "--target-error"),
        ({"target_error": "small"}, "--target-error must be a number, got 'small'"),
        ({"max_seconds": None}, "--max-seconds must be a number, got None"),
        ({"seed": 1.5}, "--seed must be a whole number, got 1.5"),
        ({"cooldown_c": True}, "--cooldown-to must be a number, got True"),
        ({"target_error": -0.1}, "--target-error"),
        ({"target_error": 1.0}, "--target-error"),
        ({"target_error": NAN}, "--target-error"),
        ({"max_seconds": 0.0}, "--max-seconds"),
        ({"max_seconds": -1.0}, "--max-seconds"),
        ({"max_seconds": NAN}, "--max-seconds"),
        ({"max_seconds": INF}, "--max-seconds"),
        ({"sentinel_every_s": -1.0}, "--sentinel-every"),
        ({"sentinel_every_s": NAN}, "--sentinel-every"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**31}, "--seed"),
        ({"cooldown_c": NAN}, "--cooldown-to"),
        ({"cooldown_c": INF}, "--cooldown-to"),
        ({"hold_temperature_c": -1.0}, "--hold-temperature must be a temperature from 0 to 120 Celsius"),
        ({"hold_temperature_c": NAN}, "--hold-temperature"),
        ({"hold_temperature_c": 50.0, "cooldown_c": 40.0}, "--hold-temperature and --cooldown-to exclude each other"),
        ({"hold_temperature_c": 50.0, "instruments": ("counters",)}, "--hold-temperature needs --instruments time"),
        ({"calibrate": True, "instruments": ("time",)}, "--calibrate needs --instruments energy"),
    ],
)
def test_what_cannot_be(fields, flag):
    with pytest.raises(InputError) as error:
        MeasureSettings(**fields)
    assert flag in told(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        MeasureSettings(),
        MeasureSettings(phases=("train_step",), instruments=("time",), target_error=0.3, max_seconds=0.5),
        MeasureSettings(seed=2**31 - 1, sentinel_every_s=0.0, cooldown_c=45.0),
        MeasureSettings(hold_temperature_c=55.0, calibrate=True),
    ],
)
def test_a_manifest_brings_back_the_same_settings(settings):
    assert MeasureSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_a_setting_of_another_version_is_refused_by_name():
    with pytest.raises(InputError, match="'warp'"):
        MeasureSettings.from_dict({**MeasureSettings().to_dict(), "warp": 9})


def test_the_default_phases_are_the_parts_and_the_whole():
    assert set(DEFAULT_PHASES) == set(PHASES) - {"forward_backward", "inference"}


def test_a_setting_with_a_value_is_called_as_its_reader_calls_it():
    told = SettingError("use <execution=eager>, or a larger <max_seconds>; <hold_temperature_c=55> is too warm")
    assert str(told) == "use execution='eager', or a larger max_seconds; hold_temperature_c=55 is too warm"
    flags = {"execution": "--execution", "max_seconds": "--max-seconds", "hold_temperature_c": "--hold-temperature"}
    assert told.told(flags) == "use --execution eager, or a larger --max-seconds; --hold-temperature 55 is too warm"
    assert with_names("use routing='router', not x='y z'", {"x": "--x"}) == "use routing='router', not --x 'y z'"


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array])
def test_numbers_of_numpy_become_those_of_python(kind):
    made = MeasureSettings(target_error=kind(0.25), max_seconds=kind(2), seed=np.int64(3))
    assert made == MeasureSettings(target_error=0.25, max_seconds=2, seed=3)
    assert type(made.target_error) is float
    assert MeasureSettings.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    with pytest.raises(SettingError, match="must be a number, got array"):
        MeasureSettings(target_error=np.array([0.25]))
