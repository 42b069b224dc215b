"""Flags of a command are made from the fields of its settings; no flag is stated twice."""

from __future__ import annotations

import argparse
import ast
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from flopray.cli import ask
from flopray.cli.endings import carry_out
from flopray.cli.main import _COMMANDS
from flopray.cli.parser import OneLineParser, SettingsParser
from flopray.cli.prices import Overheads
from flopray.cli.question import Question
from flopray.errors import InputError, SettingError
from flopray.settings import MeasureSettings, check_settings, same_setting, setting, settings_of
from flopray.workloads.mlp import MLP

ROOT = Path(__file__).parents[2]


def pair(word: str) -> tuple[str, str]:
    left, colon, right = word.partition(":")
    if not colon:
        raise InputError(f"{word!r} is not A:B")
    return left, right


@dataclass(frozen=True, kw_only=True)
class Cup:
    """A cup."""

    owners: tuple[str, ...] = setting((), doc="whose", positional=True, metavar="OWNER")
    height_m: float = setting(
        0.1, doc="height ({default})", must="be positive", holds=lambda value: value > 0, flag="--height"
    )
    colours: tuple[str, ...] = setting(("red",), doc="{choices}", choices=("red", "blue"), noun="colour")
    marks: tuple[str, ...] = setting((), doc="on it", repeats=True, distinct=False)
    edge: tuple[str, str] | None = setting(None, doc="at the rim", kind=pair)
    lid: bool | None = setting(None, doc="closed", kind=bool)
    handle: bool = setting(True, doc="none", flag="--no-handle")
    into: Path = setting(doc="where", kind=Path)
    warmth_c: float = same_setting(MeasureSettings, "reference_temperature_c", doc="of the tea")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.lid and not self.handle:
            raise SettingError("<lid> needs <handle>: leave it in")


def read(*words: str) -> Cup:
    (cup,) = SettingsParser(Cup).read([*words, "--into", "shelf"])
    return cup


def test_what_is_not_given_has_the_default_of_its_field():
    assert read() == Cup(into=Path("shelf"))
    assert (read().warmth_c, read().edge) == (settings_of(MeasureSettings)["reference_temperature_c"].default, None)


def test_what_is_given_is_a_value_of_its_kind():
    cup = read("me", "you", "--height", "0.2", "--colours", "blue", "red", "--edge", "a:b", "--no-lid", "--no-handle")
    assert (cup.owners, cup.height_m, cup.colours) == (("me", "you"), 0.2, ("blue", "red"))
    assert (cup.edge, cup.lid, cup.handle, cup.into) == (("a", "b"), False, False, Path("shelf"))
    assert read("--marks", "x", "--marks", "y", "x").marks == ("x", "y", "x")
    assert read("--lid").lid is True


def refusal(capsys, settings, words):
    """What the parser of these settings says of words that it refuses."""
    with pytest.raises(SystemExit) as ended:
        SettingsParser(settings).read(words.split())
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--height 0", "--height must be positive, got 0"),
        ("--height nan", "--height must be positive, got nan"),
        ("--colours green", "--colours: unknown 'green', choose from red, blue"),
        ("--colours red red", "--colours has a colour twice"),
        ("--colours", "--colours needs at least one colour"),
        ("--lid --no-handle", "--lid needs --no-handle: leave it in"),
        ("--reference-temperature 500", "--reference-temperature must be a temperature from 0 to 120 Celsius, got 500"),
        ("me me", "OWNER has a value twice"),
    ],
)
def test_a_class_refuses_by_name_and_the_command_by_flag(capsys, words, said):
    done = []
    assert carry_out(SettingsParser(Cup), [*words.split(), "--into", "x"], done.append) == 2
    assert capsys.readouterr().err == f"error: {said}\n"
    assert done == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--height tall --into x", "argument --height: 'tall' is not a number"),
        ("--edge ab --into x", "argument --edge: 'ab' is not A:B"),
        ("me", "the following arguments are required: --into"),
        ("me --in x", "the following arguments are required: --into; --in is unknown: did you mean --into?"),
        ("me --intos x", "the following arguments are required: --into; --intos is unknown: did you mean --into?"),
        ("--into x --heights", "unrecognized arguments: --heights: did you mean --height?"),
        ("--into x --colour", "unrecognized arguments: --colour: did you mean --colours?"),
        ("--hieght --into x", "unrecognized arguments: --hieght: did you mean --height?"),
    ],
)
def test_words_that_are_no_flags_are_one_line(capsys, words, said):
    assert refusal(capsys, Cup, words) == f"error: {said} (--help lists the flags)\n"


@dataclass(frozen=True, kw_only=True)
class Guests:
    """Who comes."""

    place: str = setting(doc="where", positional=True, metavar="PLACE")
    names: tuple[str, ...] = setting((), doc="who", flag="--guest")
    count: int = setting(0, doc="how many", kind=int, flag="--guests")
    parties: tuple[str, ...] = setting((), doc="with whom")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("home --guests Ann", "argument --guests: 'Ann' is not a whole number: did you mean --guest Ann?"),
        ("home --guests=Ann", "argument --guests: 'Ann' is not a whole number: did you mean --guest Ann?"),
        ("home --guests 2.5", "argument --guests: '2.5' is not a whole number"),
        ("home --party Bob", "unrecognized arguments: --party Bob: did you mean --parties?"),
        (
            "--guest Ann home",
            "the following arguments are required: PLACE: write PLACE first, since --guest takes all words behind it",
        ),
        ("--guests 3", "the following arguments are required: PLACE"),
    ],
)
def test_singular_and_plural_of_a_flag_are_told_apart(capsys, words, said):
    assert refusal(capsys, Guests, words) == f"error: {said} (--help lists the flags)\n"


def test_an_interrupt_and_a_warning_are_lines_too(capsys):
    def work(_: Cup) -> None:
        import warnings

        for _ in range(2):
            warnings.warn("a line was damaged", stacklevel=1)
        raise KeyboardInterrupt

    assert carry_out(SettingsParser(Cup), ["--into", "x"], work) == 130
    assert capsys.readouterr().err == "warning: a line was damaged\ninterrupted\n"


#: Their flags are made of the fields of a workload, too.
_WITH_FIELDS = {"flopray.cli.ask", "flopray.cli.evaluate"}
_MODULES = {"flopray.cli.count_metrics", *(name for _, name in _COMMANDS.values())} - _WITH_FIELDS


@pytest.mark.parametrize("name", sorted(_MODULES))
def test_the_flags_of_every_command_are_settings(monkeypatch, name):
    """No command adds a flag by itself: each is a field with its default, its check and its help."""
    made = []
    module = import_module(name)
    monkeypatch.setattr(module, "carry_out", lambda parser, *_: made.append(parser) or 0)
    assert module.main([]) == 0
    (parser,) = made
    known = {known.option for cls in parser._classes for known in settings_of(cls).values()}
    flags = {next(iter(action.option_strings), action.metavar) for action in parser._actions}
    assert flags - {"-h"} == known


def test_the_flags_of_a_question_are_settings_and_the_fields_of_its_workload():
    parser = ask.build_parser(MLP())
    known = {known.option for cls in (Question, Overheads) for known in settings_of(cls).values()}
    flags = {next(iter(action.option_strings), action.metavar) for action in parser._actions}
    assert flags - {"-h"} == known | {"--n", "--d", "--m"}


def test_only_the_parsers_add_flags():
    # Of a workload, whose flags are made of its fields, and of the commands.
    allowed = {"parser.py", "flags.py", "main.py", "evaluate.py"}
    for path in sorted((ROOT / "flopray").rglob("*.py")):
        calls = [
            node.func.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        ]
        assert path.name in allowed or not {"add_argument", "add_argument_group"} & set(calls), path
    assert argparse.ArgumentParser in SettingsParser.__mro__


def test_help_breaks_between_words_and_keeps_commands_whole(monkeypatch, capsys):
    command = "  python analysis/surfaces.py RUN --metrics time flops_per_j --formats pdf"
    note = "  a note about something that is rather long for it"
    text = f"short\n{note}\n  term     what this term means, in a few words\n{command}"
    monkeypatch.setenv("COLUMNS", "40")
    OneLineParser(prog="x", description="one two three four five six seven eight", epilog=text).print_help()
    said = capsys.readouterr().out
    assert said.splitlines()[2:4] == ["one two three four five six seven eight", ""]
    assert said.splitlines()[-6:] == [
        *["short", "  a note about something that is rather", "  long for it"],
        *["  term     what this term means, in a", "           few words", command],
    ]


@pytest.mark.parametrize(
    ("flag", "word", "said"),
    [
        ("--height", "50%", "argument --height: '50%' is not a number: write 0.5 "),
        ("--height", "2,5", "argument --height: '2,5' is not a number: write 2.5 "),
        ("--height", "1,000", "argument --height: '1,000' is not a number ("),  # a thousand, or one
        ("--height", "1s", "argument --height: '1s' is not a number ("),
        ("--height", "", "argument --height: '' is not a number ("),
        ("--seed", "1e3", "argument --seed: '1e3' is not a whole number: write 1000 "),
        ("--seed", "2.5", "argument --seed: '2.5' is not a whole number ("),
        ("--seed", "nan", "argument --seed: 'nan' is not a whole number ("),
    ],
)
def test_what_is_no_number_is_told_how_to_be_written(flag, word, said, capsys):
    with pytest.raises(SystemExit) as ended:
        SettingsParser(Cup, Sown).read(["--into", "shelf", flag, word])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@dataclass(frozen=True, kw_only=True)
class Sown:
    """A whole number."""

    seed: int = setting(0, doc="of it")


def _other_numbers(flag: str) -> list[str]:
    singular = flag[:-1] if flag.endswith("s") else flag
    return [f"{singular}s"] if singular == flag else [singular]


@pytest.mark.parametrize("name", sorted(_MODULES - {"flopray.cli.count"}))  # whose other flags are the shape
def test_every_flag_in_the_other_number_gets_a_hint(monkeypatch, name, capsys):
    made = []
    module = import_module(name)
    monkeypatch.setattr(module, "carry_out", lambda parser, *_: made.append(parser) or 0)
    module.main([])
    (parser,) = made
    flags = parser._flags()
    slips = {slip: flag for flag in flags for slip in _other_numbers(flag) if slip not in flags}
    for slip, flag in slips.items():
        with pytest.raises(SystemExit):
            parser.parse_args(["a", "b", slip])
        assert f"did you mean {flag}?" in capsys.readouterr().err, slip
