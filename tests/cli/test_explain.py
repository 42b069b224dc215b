"""`python -m flopray explain` and `--version`: every rule is explained, and neither needs torch or Ray."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.cells import cell_len

import flopray
from flopray.audit import RULES, Severity
from flopray.audit.explanations import EXPLANATIONS, explain
from flopray.cli.main import main
from flopray.cli.terminal import LineConsole
from flopray.errors import InputError


def test_each_rule_has_an_explanation_and_no_other_has():
    assert set(EXPLANATIONS) == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_an_explanation_says_what_how_and_what_to_do(rule):
    text = explain(rule)
    assert text.startswith(f"{rule} (")
    assert [line.partition(":")[0] for line in text.splitlines()[1:]] == [
        *("what it means", "how it is judged", "what to do")
    ]
    assert any(severity in EXPLANATIONS[rule].severity for severity in Severity)
    assert all(len(line.partition(": ")[2].split()) >= 5 for line in text.splitlines()[1:])


@pytest.mark.parametrize(
    ("rule", "tolerance"),
    [
        *(("inconsistent_columns", "5%"), ("power_above_limit", "5%"), ("power_below_idle", "5%")),
        *(("additivity", "25% on a CPU"), ("sentinel_drift", "beyond 3% is a note, beyond 10%")),
        *(("unclassified_kernels", "1%"), ("launch_window", "3.5 times"), ("error_not_usable", "below 100%")),
    ],
)
def test_it_states_the_tolerance_that_the_rule_uses(rule, tolerance):
    assert tolerance in EXPLANATIONS[rule].judged


def test_the_code_of_a_finding_is_a_name_too(capsys):
    assert main(["explain", "note:not_understood"]) == 0
    assert capsys.readouterr().out.startswith("not_understood (note)")


def test_python_reads_settings_and_the_command_line_flags(capsys):
    assert "hold_temperature_c brings it to a temperature" in explain("throttled")
    assert "or with execution='graph'" in explain("additivity")
    assert main(["explain", "throttled", "additivity"]) == 0
    told = capsys.readouterr().out
    assert "--hold-temperature brings it to a temperature" in told
    assert "or with --execution graph" in told


def test_without_a_rule_all_are_listed(capsys):
    assert main(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[: len(RULES)]] == list(RULES)


def test_an_unknown_rule_is_refused_in_one_line(capsys):
    assert main(["explain", "aditivity"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: explain: unknown rule 'aditivity'")
    assert error.count("\n") == 1
    with pytest.raises(InputError):
        explain("")


@pytest.mark.parametrize("words", [["--version"], ["explain"]])
def test_neither_imports_ray_or_torch(words):
    code = (
        "import sys\nfrom flopray.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    assert not end.code\nprint(sorted({'ray', 'torch', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    if words == ["--version"]:
        assert done.stdout.splitlines()[0] == f"flopray {flopray.__version__}"


def printed(line: str, *, terminal: bool, columns: int = 80) -> str:
    console = LineConsole(file=io.StringIO(), width=columns, force_terminal=terminal, markup=False, color_system=None)
    console.print(line, highlight=False, soft_wrap=True)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("columns", [80, 50, 20])
def test_a_message_without_long_words_fits_a_terminal(columns):
    line = "the journal has a torn line in the middle, 日本語 🚀 " * 4
    shown = printed(line, terminal=True, columns=columns).splitlines()
    assert len(shown) > 1
    assert max(map(cell_len, shown)) <= columns
    assert " ".join(shown).split() == line.split()


def test_a_message_breaks_between_words_in_a_terminal_and_not_at_all_in_a_pipe():
    path = "/scratch/" + "a-long-name/" * 9
    line = (
        f"warning: the journal has a torn line in the middle, which was passed over; it is kept beside {path} as it was"
    )
    shown = printed(line, terminal=True).splitlines()
    assert [word for row in shown for word in row.split()] == line.split()
    assert [row.rstrip() for row in shown if path in row] == [path]
    assert [row for row in shown if len(row.rstrip()) > 80] == [row for row in shown if path in row]
    assert printed(line, terminal=False) == line + "\n"
