"""`flopray run`: a program from outside, on a machine without a GPU and with a meter whose truth is known."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flopray.cli.run_program import main
from flopray.errors import InputError
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import SimulatedMeter
from flopray.watching import program_run
from flopray.watching.program_run import run_program
from flopray.watching.recording import DeviceName, Recording
from flopray.watching.run_journal import append_entry
from flopray.watching.series import load_series

PYTHON = sys.executable
POWER_W = 120.0


def read_entries(journal: Path) -> list[dict]:
    return [json.loads(line) for line in journal.read_text().splitlines()]


class Machine:
    """Two GPUs of known power, of which the program uses the second."""

    reason = None

    def __init__(self):
        self.gpus = [type("Use", (), {"uuid": uuid})() for uuid in ("GPU-a", "GPU-b")]

    def look(self, pid):
        assert pid > 0

    def used(self):
        return {"GPU-b": ("its processes", ["python (7)"])}


@pytest.fixture
def machine(monkeypatch):
    def record(uuid):
        power_w = {"GPU-a": 300.0, "GPU-b": POWER_W}[uuid]
        meter = SimulatedMeter(ConstantPower(power_w), period_s=0.05, latency_s=0.0005)
        return Recording(DeviceName("GPU", uuid, "NVIDIA H100"), meter)

    monkeypatch.setattr(program_run, "Usage", Machine)
    monkeypatch.setattr(program_run, "record_gpu", record)


@pytest.mark.slow
def test_energy_is_that_of_the_gpus_that_it_used(machine, tmp_path):
    run, series = run_program([PYTHON, "-c", "import time; time.sleep(0.8)"], tmp_path / "run")
    assert (run.exit_code, run.signal, run.reason) == (0, None, None)
    assert abs(run.energy_j - POWER_W * run.time_s) <= run.energy_error_j + 0.02 * run.energy_j
    assert run.peak_power_w == pytest.approx(POWER_W, rel=0.3)
    assert [gpu.uuid for gpu in run.gpus] == ["GPU-b"]
    assert any("there also ran: python (7)" in line for line in run.lines())
    assert set(series.samples["uuid"]) == {"GPU-b", "CPU"}
    kept = load_series(tmp_path / "run")
    assert kept.about["run"]["energy_j"] == pytest.approx(run.energy_j)
    assert len(kept.samples) == len(series.samples)
    assert np.nanmedian(kept.samples["power_w"]) == pytest.approx(POWER_W, rel=0.1)


def test_a_folder_is_never_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="exists already: nothing that was measured is overwritten"):
        run_program(["true"], tmp_path / "run")


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("import sys; sys.exit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 128 + signal.SIGSEGV),
        ("raise SystemExit", 0),
    ],
)
def test_the_exit_code_is_that_of_the_program(code, exit_code, tmp_path):
    assert main(["--out", str(tmp_path / "run"), "--no-figure", "--", PYTHON, "-c", code]) == exit_code
    (entry,) = read_entries(tmp_path / "programs.jsonl")
    assert entry["exit_code"] == exit_code
    assert entry["time_s"] > 0
    assert entry["energy_j"] is None or entry["energy_j"] > 0
    assert (entry["energy_j"] is None) == bool(entry["reason"])
    assert load_series(tmp_path / "run").about["run"]["exit_code"] == exit_code


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_program_and_what_was_measured_is_kept(number, tmp_path):
    """A signal that is sent only to this process, as by a scheduler; the program ends by itself."""
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "try:\n  print('ready', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n  sys.exit(4)"
    )
    command = [PYTHON, "-m", "flopray", "run", "--out", str(tmp_path / "run"), "--", PYTHON, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 3, signal.SIGINT: 4}[number]
    assert "Traceback" not in errors
    assert load_series(tmp_path / "run").about["run"]["exit_code"] == process.returncode
    assert len(read_entries(tmp_path / "programs.jsonl")) == 1


@pytest.mark.slow
def test_ctrl_c_at_a_terminal_comes_once(tmp_path):
    """The terminal sends it to both; passed on as well, it would interrupt the program while it cleans up."""
    import pty

    program = (
        "import time\nseen = 0\nprint('ready', flush=True)\n"
        "for _ in range(10):\n  try:\n    time.sleep(0.1)\n"
        "  except KeyboardInterrupt:\n    seen += 1\nraise SystemExit(seen)"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.execv(PYTHON, [PYTHON, "-m", "flopray", "run", "--out", str(tmp_path / "run"), "--", PYTHON, "-c", program])
    text = b""
    while b"ready" not in text:
        text += os.read(terminal, 1000)
    time.sleep(0.2)
    os.write(terminal, b"\x03")
    while True:
        try:
            if not os.read(terminal, 1000):
                break
        except OSError:
            break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    os.close(terminal)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name the program behind --"),
        (["--"], "name the program behind --"),
        (["python", "train.py", "--lr", "1"], "write -- before the program: flopray run -- python train.py --lr 1"),
        (["--every", "1", "python"], "write -- before the program: flopray run --every 1 -- python"),
        (["--every", "0", "--", "true"], "--every must be at least 0.02 s"),
        (["--", "no-such-program-here"], "no-such-program-here cannot be run: there is no such program"),
        (["--journal", "/", "--", "true"], "cannot be written"),
        (["--out", "/proc/run", "--", "true"], "cannot write /proc/run"),
    ],
)
def test_bad_input_is_one_line_and_code_2(words, said, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    errors = capfd.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_series_that_cannot_be_written_does_not_take_the_exit_code(tmp_path, monkeypatch, capfd):
    def full(series, folder):
        raise InputError("cannot write series.parquet: No space left on device")

    monkeypatch.setattr(program_run, "save_series", full)
    assert main(["--out", str(tmp_path / "run"), "--", PYTHON, "-c", "raise SystemExit(5)"]) == 5
    assert "No space left on device" in capfd.readouterr().err
    (entry,) = read_entries(tmp_path / "programs.jsonl")
    assert (entry["exit_code"], entry["not_saved"]) == (5, "cannot write series.parquet: No space left on device")


def test_signals_of_this_process_are_as_before(tmp_path):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    run_program(["true"], tmp_path / "run")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before


def test_a_torn_line_of_the_journal_spoils_no_other(tmp_path):
    journal = tmp_path / "programs.jsonl"
    append_entry(journal, {"a": 1})
    journal.write_bytes(journal.read_bytes() + b'{"torn')
    append_entry(journal, {"b": 2})
    assert journal.read_text().splitlines() == ['{"a": 1}', '{"torn', '{"b": 2}']
    assert json.loads(journal.read_text().splitlines()[-1]) == {"b": 2}
