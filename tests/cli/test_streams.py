"""A command's output on a full disk, in a pipe that nobody reads, and on a closed terminal."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from warm_python import WarmProcess

from flopray.cli.streams import Stream, Streams
from flopray.cli.terminal import LineConsole, said_if_slow

FULL = Path("/dev/full")


@pytest.fixture
def full():
    with FULL.open("w") as stream:
        yield stream


def nobody_reads():
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def test_a_full_disk_is_kept_and_silences_what_follows(full):
    stream = Stream(full)
    assert stream.write("words") == 5
    stream.flush()
    assert stream.failure == "No space left on device"
    stream.writelines(["more", "words"])
    stream.flush()
    assert os.fstat(full.fileno()).st_rdev == Path(os.devnull).stat().st_rdev  # Python's flush at the end fails no more


def test_nobody_who_reads_is_no_failure():
    with nobody_reads() as pipe:
        stream = Stream(pipe)
        stream.write("words")
        stream.flush()
        stream.write("words")
        stream.flush()
        assert stream.failure is None


def test_a_terminal_that_is_gone_is_no_failure():
    reading, writing = os.openpty()
    os.close(reading)
    with os.fdopen(writing, "w") as terminal:
        stream = Stream(terminal)
        stream.write("words")
        stream.flush()
        assert stream.failure is None


@pytest.mark.parametrize(("code", "told"), [(0, 5), (3, 3), (130, 130)])
def test_lost_results_have_an_exit_code_and_lost_messages_do_not(full, capsys, code, told):
    output, messages = Stream(full), Stream(sys.stderr)
    output.write("results")
    assert Streams(output, messages).code(code, lost=5) == told
    assert capsys.readouterr().err == "error: standard output cannot be written: No space left on device\n"
    lost = Stream(full)
    lost.write("messages")
    assert Streams(None, lost).code(code, lost=5) == code


def exit_code(python, words, out, err) -> int:
    """Of a command in a process of its own, with these files as its output and error."""
    command = ["-m", "flopray", *words.split()]
    with Path(os.devnull).open() as none:
        return WarmProcess(python.address, command, files=[none.fileno(), out.fileno(), err.fileno()]).wait()


@pytest.mark.slow
@pytest.mark.parametrize("words", ["explain", "status {run} --json", "audit {run}"])
def test_commands_say_that_their_results_were_not_written(words, full, tmp_path, warm_python):
    with (tmp_path / "err").open("w") as err:
        code = exit_code(warm_python, words.format(run="reference:h100-mlp"), full, err)
    said = (tmp_path / "err").read_text()
    assert (code, said) == (2, "error: standard output cannot be written: No space left on device\n")


@pytest.mark.slow
def test_messages_that_cannot_be_written_end_nothing(full, tmp_path, warm_python):
    with (tmp_path / "out").open("w") as out:
        assert exit_code(warm_python, "sweep mlp --dry-run --accelerators H100 --n 1", out, full) == 0
    assert "H100" in (tmp_path / "out").read_text()


@pytest.mark.parametrize(
    ("encoding", "written"), [("ascii", "840 \\xb5s"), ("latin-1", "840 \u00b5s"), ("cp1252", "840 \u00b5s")]
)
def test_characters_that_a_terminal_lacks_are_escaped(encoding, written):
    buffer = io.BytesIO()
    with io.TextIOWrapper(buffer, encoding=encoding) as text:
        stream = Stream(text)
        assert stream.write("840 \u00b5s") == 6
        stream.write(" \ud800")
        stream.flush()
        assert buffer.getvalue().decode(encoding) == f"{written} \\ud800"
    assert stream.failure is None


def test_a_block_is_named_only_if_it_is_slow():
    told = io.StringIO()
    console = LineConsole(file=told)
    with said_if_slow(console, "quick ...", after_s=30.0):
        pass
    said = threading.Event()
    slow = SimpleNamespace(print=lambda *_, **__: said.set())
    with said_if_slow(slow, "slow ...", after_s=0.001):
        assert said.wait(10.0)
    assert told.getvalue() == ""


def test_the_command_that_goes_on_keeps_brackets_and_colons_of_a_name(capsys):
    """Rich takes `[b]` for markup and `:x:` for an emoji; the command named another run."""
    from flopray.cli.session import _say_interrupted

    _say_interrupted("flopray resume 'results/sweep [b] :x: \u00fc'")
    assert "flopray resume 'results/sweep [b] :x: \u00fc'" in capsys.readouterr().err
