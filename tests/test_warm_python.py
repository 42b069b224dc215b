"""Programs that are forked from a warm Python behave like those in a new one: their end, output and arguments."""

import os
import signal

import pytest
from warm_python import WarmProcess


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("pass", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('no')", 1, "no\n"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("json", 1, "NameError"),  # names of the server are not those of the program
    ],
)
def test_it_ends_as_python_does(warm_python, code, exit_code, said):
    done = warm_python.run("-c", code)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert said in done.stderr


def test_it_has_the_arguments_folder_and_environment_it_was_given(warm_python, tmp_path):
    (tmp_path / "program.py").write_text("import os, sys; print(sys.argv, os.getcwd(), dict(os.environ), __name__)")
    environment = {"ONLY": "this"}
    for command in (("program.py", "a"), ("-c", (tmp_path / "program.py").read_text(), "a"), ("-m", "program", "a")):
        done = warm_python.run(*command, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        assert f"'a'] {tmp_path} {environment} __main__" in done.stdout


def test_what_runs_at_the_end_of_a_process_runs(warm_python):
    code = "import atexit, threading; atexit.register(print, 'end'); threading.Timer(0.1, print, ['late']).start()"
    assert warm_python.run("-c", code).stdout.split() == ["late", "end"]


def test_it_does_not_outlive_whoever_started_it(warm_python):
    reading, writing = os.pipe()
    process = WarmProcess(warm_python.address, ("-c", "import time; time.sleep(600)"), files=(0, writing, 2))
    os.close(writing)
    assert process.poll() is None
    process._answers.close()
    process._connection.close()
    assert os.read(reading, 1) == b""  # its end closes the pipe
    os.close(reading)
