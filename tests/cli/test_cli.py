"""The command line: bad input ends in one clear line and code 2, before Ray starts and with nothing written."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from flopray.cli import flags, session
from flopray.cli.main import sweep_command
from flopray.cli.objective import refuse_objective
from flopray.cli.request import Options, sweep_from
from flopray.cli.results import finish
from flopray.cluster.devices import Cluster
from flopray.errors import (
    ENDING_SIGNALS,
    EXIT_NOT_FINISHED,
    InputError,
    NoEnergySource,
    SettingError,
    StorageError,
    resume_command,
)
from flopray.monitoring.progress import Progress
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.sweep.definition import SEARCHES, Sweep
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point

pytestmark = pytest.mark.usefixtures("calibrated_once")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "sweeps" / "mlp_grid.py"


@pytest.fixture(scope="module")
def script():
    return MLP()


class Outcome:
    def __init__(self, code, captured):
        self.code, self.out, self.err = code, captured.out, captured.err


@pytest.fixture
def command(script, tmp_path, monkeypatch, capsys):
    """Runs the script's command line in this process, in an empty folder; starting Ray is an error."""

    def no_ray(*_, **__):
        pytest.fail("this would have reached for Ray")

    monkeypatch.setattr(session, "connected", no_ray)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])  # messages name what was started
    monkeypatch.chdir(tmp_path)
    handlers, show = {number: signal.getsignal(number) for number in ENDING_SIGNALS}, warnings.showwarning

    def run(line) -> Outcome:
        try:
            code = sweep_command(script, shlex.split(line))
        except SystemExit as end:
            code = end.code
        return Outcome(code, capsys.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    warnings.showwarning = show


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def is_one_line_error(outcome: Outcome, about: str) -> bool:
    assert outcome.code == 2
    assert outcome.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", outcome.err), outcome.err
    assert about in outcome.err
    return True


@pytest.mark.parametrize(
    ("line", "about"),
    [
        ("--n 0", "--n: 0 is below 1"),
        ("--d -16", "--d: -16 is below 1"),
        ("--m 1.5", "--m: '1.5' is not a whole number"),
        ("--m ''", "--m: '' is not a whole number"),
        ("--n", "--n needs at least one value"),
        ("--d 16 32 16", "--d: 16 is named twice"),
        ("--d 64:16:16", "the range is empty"),
        ("--d 16:64", "first:last:step"),
        ("--precision fp64", "--precision: unknown 'fp64', choose from fp32, tf32, bf16, fp16"),
        ("--precision", "--precision needs at least one value"),
        ("--precision fp32 fp32", "--precision"),
        ("--execution turbo", "--execution: unknown 'turbo', choose from eager, graph, compile"),
        ("--phases sideways", "--phases: unknown 'sideways', choose from inference"),
        ("--phases", "--phases needs at least one"),
        ("--phases forward forward", "--phases has a name twice"),
        ("--wait 5", "--wait needs --accelerators or --gpu-type"),
        ("--wait -1 --accelerators H100", "--wait must be 0 or more seconds"),
        ("--wait nan --accelerators H100", "--wait must be 0 or more seconds"),
        ("--instruments energy", "--instruments energy needs time too"),
        ("--instruments time scales", "--instruments: unknown 'scales'"),
        ("--target-error 0", "--target-error must lie between 0 and 1"),
        ("--target-error -1", "--target-error must lie between 0 and 1"),
        ("--target-error 1", "--target-error must lie between 0 and 1"),
        ("--target-error nan", "--target-error must lie between 0 and 1"),
        ("--target-error little", "--target-error: 'little' is not a number"),
        ("--max-seconds 0", "--max-seconds must be a positive number"),
        ("--max-seconds inf", "--max-seconds must be a positive number"),
        ("--sentinel-every -1", "--sentinel-every must be 0 or more"),
        ("--trial-timeout -1", "--trial-timeout must be 0 or more seconds"),
        ("--trial-timeout inf", "--trial-timeout must be 0 or more seconds"),
        ("--retries -1", "--retries must be 0 or more"),
        ("--stop-after -1", "--stop-after must be 0 or more points"),
        ("--cooldown-to nan", "--cooldown-to must be a temperature"),
        ("--hold-temperature 500", "--hold-temperature must be a temperature from 0 to 120"),
        ("--hold-temperature 50 --cooldown-to 40", "--hold-temperature and --cooldown-to exclude each other"),
        (
            "--hold-temperature 50 --accelerators CPU",
            "--hold-temperature needs a GPU: the temperature of a CPU cannot be held",
        ),
        ("--calibrate --accelerators CPU", "--calibrate needs a GPU"),
        ("--cooldown-to 40 --accelerators CPU", "--cooldown-to needs a GPU"),
        ("--cooldown-to -300", "--cooldown-to must be a temperature from 0 to 120"),
        ("--seed -1", "--seed must be between"),
        ("--seed 1.5", "--seed: '1.5' is not a whole number"),
        ("--cpus-per-trial 0", "--cpus-per-trial must be at least 1"),
        ("--points-per-trial 0", "--points-per-trial must be at least 1"),
        ("--accelerators", "--accelerators needs at least one type"),
        ("--search guess", "--search: unknown 'guess', choose from grid, random, sobol, optuna, active"),
        ("--search random", "--search random needs --samples"),
        ("--search random --samples 0", "--search random needs --samples"),
        ("--search optuna --samples 5", "--search optuna needs --objective"),
        ("--search optuna --samples 5 --objective glory", "--objective 'glory': unknown metric, choose from time_s"),
        (
            "--search optuna --samples 5 --objective step/mfu",
            "--objective 'step/mfu': unknown phase, choose from forward",
        ),
        ("--search optuna --samples 5 --objective prefill/time_s", "unknown phase"),
        ("--search optuna --samples 5 --objective inference/mfu", "inference is not measured: add it to --phases"),
        ("--search optuna --samples 5 --objective", "--objective needs at least one value"),
        ("--search optuna --samples 5 --objective time_s forward/time_s", "--objective has forward/time_s twice"),
        ("--samples 5", "--samples goes with"),
        ("--objective time_s", "--objective goes with --search optuna"),
        ("--name ../up", "is a path, not the name of a folder"),
        ("--name a/b", "is a path, not the name of a folder"),
        ("--name ''", "must be text and not empty"),
        ("--name .hidden", "begins with"),
        ("--storage s3://key:secret@bucket/runs", "has credentials in it"),
        ("--storage s3://bucket/runs?retries=3", "unknown option 'retries'"),
        ("--storage file:///runs", "give its path alone"),
        ("--storage ftp://host/runs", "Unrecognized filesystem type"),
        ("--resume s3://key:secret@bucket/runs", "has credentials in it"),
        ("--storage ''", "is not a path"),
        ("--retry-failed", "--retry-failed goes with --resume"),
        ("--nonsense", "unrecognized arguments: --nonsense"),
        ("--resume ''", "not a run"),
        ("--resume nowhere", "there is no run at"),
        ("--n=2,4", "--n: '2,4' is not a whole number: write --n 2 4"),
        ("--n [2,4]", "write --n 2 4"),
        ("--m 1e3", "--m: '1e3' is not a whole number: write it as 1000"),
        ("--m 1.5e3", "write it as 1500"),
        ("--d 2-4", "write a range as first:last:step, such as --d 2:4:1"),
        ("--d range(2,8)", "write a range as first:last:step, such as --d 2:7:1"),
        ("--precision fp32,bf16", "write --precision fp32 bf16"),
        ("--phases=forward,backward", "write --phases forward backward"),
        ("--instruments=time,energy", "write --instruments time energy"),
    ],
)
def test_bad_input(command, tmp_path, line, about):
    assert is_one_line_error(command(line), about)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("dry", ["", "--dry-run "])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--execution graph", "CPU: execution graph needs a CUDA device"),
        ("--precision tf32", "CPU: tf32 exists only on NVIDIA GPUs"),
        ("--instruments time counters", "--instruments counters: only NVIDIA GPUs have hardware counters"),
        ("--n 4 --d 1000000 --m 8", "CPU: out of memory: n=4 d=1000000 m=8 fp32 eager needs 16 TB at least"),
    ],
)
def test_what_no_device_here_can_do_is_refused_at_the_real_start_and_by_a_dry_run(
    command, monkeypatch, dry, line, message
):
    here = contextlib.nullcontext(Cluster({}, 2, {"CPU": 2}, None, True))
    monkeypatch.setattr(session, "_reach", lambda *_: here)
    assert is_one_line_error(command(f"{dry}--accelerators CPU {line}"), message)


def test_a_type_that_is_not_here_is_planned_for_and_not_started(command, monkeypatch):
    here = contextlib.nullcontext(Cluster({}, 2, {"CPU": 2}, None, True))
    monkeypatch.setattr(session, "_reach", lambda *_: here)
    outcome = command("--dry-run --accelerators H100 --n 32 --d 64 65536 --m 16")
    assert outcome.code == 0
    assert "H100: there is none here; planned for one" in outcome.out
    assert "H100: 1 of 2 points will be out_of_memory in all phases" in outcome.out
    assert is_one_line_error(command("--accelerators H100 --n 1 --d 16 --m 8"), "no node has it")


def _planned(outcome) -> dict[str, tuple[float, float]]:
    """Joules and seconds of measuring by type, as a plan states them."""
    units = {"J": 1, "kJ": 1e3, "MJ": 1e6, "s": 1, "min": 60, "h": 3600}
    found = re.findall(r"(H\d+): ([\d.]+) (J|kJ|MJ) of the boards at 50 °C, in ([\d.]+) (s|min|h) of", outcome.out)
    return {name: (float(j) * units[si], float(s) * units[unit]) for name, j, si, s, unit in found}


@pytest.mark.parametrize("search", [word for word in SEARCHES if word != "grid"])
def test_a_plan_has_the_joules_and_the_time_of_the_points_that_a_search_takes(command, monkeypatch, search):
    if search in ("optuna", "active"):
        pytest.importorskip("optuna")
    here = contextlib.nullcontext(Cluster({}, 2, {"CPU": 2}, None, True))
    monkeypatch.setattr(session, "_reach", lambda *_: here)
    line = "--dry-run --accelerators H100 --execution graph --precision bf16 --n 2 8 --d 256:2048:256 --m 64 128 "
    line += "--phases forward "
    ((whole_j, whole_s),) = _planned(command(line)).values()
    objective = "--objective time_s" if search == "optuna" else ""
    outcome = command(f"{line} --search {search} --samples 8 {objective}")
    ((energy_j, seconds),) = _planned(outcome).values()
    assert whole_j / 8 < energy_j < whole_j / 2  # 8 of 32 points, whose costs differ
    assert whole_s / 8 <= seconds < whole_s / 2
    chosen_as_it_goes = search in ("optuna", "active")
    assert ("for 8 points like the mean of the grid" in outcome.out) == chosen_as_it_goes


def test_a_plan_of_a_search_over_types_says_whose_points_it_means(command, monkeypatch):
    pytest.importorskip("optuna")
    here = contextlib.nullcontext(Cluster({}, 2, {"CPU": 2}, None, True))
    monkeypatch.setattr(session, "_reach", lambda *_: here)
    line = "--dry-run --accelerators H100 H200 --execution graph --precision bf16 --n 2 8 --d 256 512 --m 64 128 "
    outcome = command(f"{line} --phases forward --search active --samples 3")
    assert set(_planned(outcome)) == {"H100", "H200"}
    assert outcome.out.count("; if it takes all of them on this type") == 2


def test_samples_have_another_spelling(script, command):
    assert flags.parse(script, ["--search", "random", "--budget", "7"]).settings["samples"] == 7
    assert is_one_line_error(command("--budget 7"), "--samples goes with --search random")
    assert is_one_line_error(command("--search random --max-points 7"), "did you mean --samples?")


def test_bad_input_is_not_hidden_by_a_dry_run(command):
    assert is_one_line_error(command("--dry-run --n 0"), "--n: 0 is below 1")


def test_a_message_with_brackets_is_shown_as_it_is(command):
    assert is_one_line_error(command("--phases '[bold]forward[/bold]'"), "'[bold]forward[/bold]'")


def test_a_storage_that_is_a_file(command, tmp_path):
    (tmp_path / "file").write_text("mine")
    before = tree(tmp_path)
    for storage in ("file", "file/deeper"):
        assert is_one_line_error(command(f"--storage {storage}"), "--storage")
    assert tree(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_storage_without_permission(command, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert is_one_line_error(command("--storage locked/runs"), "cannot write to")
    assert list(locked.iterdir()) == []


def sweep() -> Sweep:
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    axes |= {"n_layers": (1,), "width": (16, 32), "tokens": (8,)}
    return Sweep(workload=MLP(), axes=axes, settings=MeasureSettings(phases=("forward",)), cpus_per_trial={"CPU": 1})


def a_run(tmp_path, finished=0, **manifest) -> RunFolder:
    folder = RunFolder.create(tmp_path, "r", sweep().to_manifest("r", {}) | manifest)
    with folder.writer() as journal:
        journal.append([[PhaseRecord.of(trial_id=point.id, phase="forward")] for point in sweep().points()[:finished]])
    return folder


UNTYPED = Cluster({}, 4, {"CPU": 4, "": 4}, None, False, untyped=2)


@pytest.mark.parametrize(
    ("remembered", "flag", "there", "words"),
    [
        ("L4", "", UNTYPED, None),
        (None, "--gpu-type L4", UNTYPED, None),
        (None, "", UNTYPED, "say it with --gpu-type L4"),
        (7, "", UNTYPED, "say it with --gpu-type L4"),
        ("L4", "", Cluster({"L4": 1}, 4, {"L4": 4, "CPU": 4}, None, False), None),  # Ray knows it by now
    ],
)
def test_a_resume_knows_the_type_that_a_flag_gave_the_gpus(
    command, script, tmp_path, monkeypatch, remembered, flag, there, words
):
    request = flags.parse(script, ["--n", "1", "--d", "16", "--m", "8"])
    manifest = sweep_from(script, request, ["L4"], cores=1).to_manifest("r", {})
    RunFolder.create(tmp_path, "r", manifest | ({"gpu_type": remembered} if remembered else {}))
    monkeypatch.setattr(session, "_reach", lambda *_: contextlib.nullcontext(there))
    outcome = command(f"--resume r --dry-run --address x {flag}")
    if words is None:
        assert outcome.code == 0, outcome.err
        assert "L4" in outcome.out
    else:
        assert is_one_line_error(outcome, words)


def test_the_type_that_a_flag_gave_is_in_the_manifest(command, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "_reach", lambda *_: contextlib.nullcontext(UNTYPED))
    monkeypatch.setattr(session, "_preflight", lambda *_: [])
    monkeypatch.setattr(session, "_measure", lambda *_: 0)
    assert command("--n 1 --d 16 --m 8 --gpu-type L4 --name r --address x").code == 0
    assert json.loads((tmp_path / "results" / "r" / "manifest.json").read_text())["gpu_type"] == "L4"


def test_the_cpu_is_swept_in_place_of_a_gpu_with_a_word(command, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # also where there are GPUs
    monkeypatch.setattr("flopray.cluster.this_machine.why_nvml_fails", lambda: "nvmlInit failed: Unknown Error")
    outcome = command("--dry-run --n 1 --d 16 --m 8")
    assert outcome.code == 0
    assert outcome.err == (
        "warning: no GPU is measured, although this machine has an NVIDIA driver: nvmlInit failed: Unknown Error\n"
    )
    assert command("--dry-run --n 1 --d 16 --m 8 --accelerators CPU").err == ""


def test_a_plan_waits_for_nothing(command):
    outcome = command("--dry-run --n 1 --d 16 --m 8 --wait 60 --accelerators H100")
    assert outcome.code == 0
    assert "H100" in outcome.out


def test_a_name_that_is_taken(command, tmp_path):
    a_run(tmp_path)
    before = tree(tmp_path)
    outcome = command(f"--storage {tmp_path} --name r")
    assert is_one_line_error(outcome, f"resume {tmp_path / 'r'}")
    assert tree(tmp_path) == before


def test_a_bare_name_of_a_run_leads_to_its_folder(command, tmp_path):
    a_run(tmp_path / "results")
    assert is_one_line_error(command("--resume r"), "did you mean results/r?")
    assert is_one_line_error(command("--resume results/r/manifest.json"), "did you mean results/r?")
    assert is_one_line_error(command("--resume other"), "give the folder that holds its manifest.json")
    (tmp_path / "table.csv").write_text("time_s\n1\n")
    assert is_one_line_error(command("--resume table.csv"), "it is a file, and a run is a folder with a manifest.json")


def test_a_run_that_is_mistyped_or_left_out_is_named(command, tmp_path):
    RunFolder.create(tmp_path / "results", "monday", sweep().to_manifest("monday", {}))
    assert is_one_line_error(command("--resume mondag"), "did you mean results/monday?")
    assert is_one_line_error(command("--resume results/modnay"), "did you mean results/monday?")
    assert is_one_line_error(command("--resume results"), "it holds 1 of them: name one, such as results/monday")
    assert is_one_line_error(command("--resume ."), "it has no manifest.json")


@pytest.mark.parametrize("kept", [True, False, None])
def test_a_resume_draws_nothing_where_the_run_was_begun_so(command, tmp_path, monkeypatch, kept):
    drawn, reported = [], []
    monkeypatch.setattr("flopray.cli.run_figures.draw", lambda workload, run, _: drawn.append(run))
    monkeypatch.setattr("flopray.cli.report.write", lambda runs, *_: reported.extend(runs))
    head = {} if kept is None else {"plots": kept}  # older runs do not have it
    folder = RunFolder.create(tmp_path, "r", sweep().to_manifest("r", {}) | head)
    records = [[PhaseRecord.of(trial_id=point.id, phase="forward", time_s=1.0)] for point in sweep().points()]
    with folder.writer() as journal:
        journal.append(records)
    assert command("--resume r").code == 0
    assert drawn == reported == ([] if kept is False else [folder.path])


def test_a_resume_of_a_run_that_was_killed_before_its_tables(command, tmp_path):
    folder = a_run(tmp_path, finished=2)
    with folder.writer():
        assert is_one_line_error(command("--resume r --no-plots"), f"is being written by process {os.getpid()}")
    assert not folder.records_path.exists()
    assert command("--resume r --no-plots").code == 0
    assert len(folder.load()) == 2
    assert json.loads(folder.summary_path.read_text())["points"] == 2
    os.utime(folder.summary_path, (0, 0))  # as after points that came later
    assert command("--resume r --no-plots").code == 0
    assert is_one_line_error(command("--resume r --no-plots"), "is finished: all of its 2 points")


def test_a_resume_of_a_finished_run(command, tmp_path):
    a_run(tmp_path, finished=2).write_summary({})
    before = tree(tmp_path)
    assert is_one_line_error(command("--resume r"), "is finished: all of its 2 points")
    assert tree(tmp_path) == before


def test_a_resume_of_a_run_that_is_being_written(command, tmp_path):
    folder = a_run(tmp_path, finished=1)
    with folder.writer():
        assert is_one_line_error(command("--resume r"), f"is being written by process {os.getpid()}")
    assert len(folder.finished()) == 1


def test_a_device_that_is_not_there(command, tmp_path):
    assert is_one_line_error(command("--dry-run --accelerators Z80"), "--accelerators Z80: no node has it")
    assert tree(tmp_path) == {}


def edit(path: Path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    ("spoil", "about"),
    [
        (lambda r: r.manifest_path.unlink(), "not a run"),
        (lambda r: r.manifest_path.write_text(r.manifest_path.read_text()[:100]), "torn or not JSON"),
        (lambda r: r.manifest_path.write_text("[]"), "not a JSON object"),
        (lambda r: edit(r.manifest_path, schema_version=999), "schema version 999"),
        (lambda r: edit(r.manifest_path, sweep={}), "does not describe a sweep"),
        (lambda r: edit(r.manifest_path, sweep=sweep().to_manifest("r", {})["sweep"] | {"workload": "rnn"}), "sweep"),
        (lambda r: (r.journal_path.unlink(), r.journal_path.mkdir()), "journal"),
    ],
    ids=["no manifest", "torn", "a list", "schema", "no sweep", "workload", "journal"],
)
def test_a_resume_of_what_is_no_run_of_this_version(command, tmp_path, spoil, about):
    folder = a_run(tmp_path, finished=1)
    spoil(folder)
    before = tree(tmp_path)
    assert is_one_line_error(command(f"--resume {folder.path}"), about)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "flag",
    ["--n 4", "--precision fp32", "--phases forward", "--seed 0", "--sentinel-every 0", "--name r", "--samples 3",
     "--max-seconds 1", "--cpus-per-trial 1", "--accelerators CPU"],
)  # fmt: skip
def test_a_resume_takes_everything_from_the_manifest(command, tmp_path, flag):
    a_run(tmp_path, finished=1)
    assert is_one_line_error(command(f"--resume r {flag}"), f"--resume takes {flag.split()[0]} from the run's manifest")


@pytest.fixture
def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "about"),
    [
        ("127.0.0.1:{port}", "nothing answers at 127.0.0.1:{port}"),
        ("ray://127.0.0.1:{port}", "nothing answers at 127.0.0.1:{port}"),
        ("localhost:{port}", "nothing answers at localhost:{port}"),
        ("no-such-host.invalid:6379", "nothing answers at no-such-host.invalid:6379"),
        ("nonsense", "write auto, host:port or ray://host:port"),
        ("ray://", "write auto, host:port or ray://host:port"),
        ("http://localhost:8265", "write auto, host:port or ray://host:port"),
        ("localhost:port", "write auto, host:port or ray://host:port"),
        ("localhost:99999", "write auto, host:port or ray://host:port"),
        ("''", "write auto, host:port or ray://host:port"),
    ],
)
def test_an_address_without_a_cluster(command, monkeypatch, tmp_path, free_port, address, about):
    from flopray.cluster.connection import connected

    monkeypatch.setattr(session, "connected", connected)
    outcome = command(f"--address {address.format(port=free_port)}")
    assert is_one_line_error(outcome, about.format(port=free_port))
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_an_interrupt_before_there_is_a_run(command, monkeypatch, tmp_path, number):
    def interrupted(*_, **__):
        os.kill(os.getpid(), number)
        pytest.fail("the signal should have ended this")

    if signal.getsignal(number) is signal.SIG_IGN:  # as `nohup` has it
        signal.signal(number, signal.SIG_DFL)
    monkeypatch.setattr(session, "connected", interrupted)
    outcome = command("--n 1")
    assert outcome.code == 130
    assert outcome.err == "starting Ray on this machine ...\ninterrupted\n"
    assert tree(tmp_path) == {}


def test_an_interrupt_that_a_library_swallows_ends_the_sweep_all_the_same(command, monkeypatch, tmp_path):
    @contextlib.contextmanager
    def swallowed(*_, **__):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the signal should have ended this")
        yield Cluster({}, 1, {"CPU": 1}, None, True)

    monkeypatch.setattr(session, "connected", swallowed)
    outcome = command("--n 1")
    assert outcome.code == 130
    assert outcome.err == "starting Ray on this machine ...\ninterrupted\n"
    assert tree(tmp_path) == {}


@pytest.mark.slow
def test_a_slow_start_of_ray_is_told_with_the_run_and_its_folder(command, monkeypatch, tmp_path):
    @contextlib.contextmanager
    def slow(*_, **__):
        time.sleep(0.5)
        raise StorageError("enough")
        yield

    monkeypatch.setattr(session, "connected", slow)
    assert command("--n 1 --name r").err == "starting Ray on this machine ...\nerror: enough\n"
    monkeypatch.setattr(session, "_SILENT_S", 0.01)
    lines = command("--n 1 --name r").err.splitlines()
    assert lines[1] == f"Ray is still starting, as it does on a busy machine; run r will be in {tmp_path}/results/r"
    assert command("--n 1 --name r --quiet").err == "error: enough\n"


SCRIPTS = sorted([*(ROOT / "sweeps").glob("*.py"), *(ROOT / "analysis").glob("*.py")])
#: Runs the script after it, and interrupts it where it imports the command line.
INTERRUPTED_IMPORT = """
import runpy, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == "flopray.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_an_interrupt_while_a_script_imports_is_one_line(script):
    words = [sys.executable, "-c", INTERRUPTED_IMPORT, str(script)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_other_errors_of_flopray_are_one_line_too_with_their_own_code(command, monkeypatch):
    def full(*_, **__):
        raise StorageError("the disk is full")

    monkeypatch.setattr(session, "connected", full)
    outcome = command("--n 1")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (1, "error: the disk is full")


def test_one_command_goes_on_with_a_run_of_any_kind(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/opt/bin/{name}")
    assert resume_command("results/a run") == "flopray resume 'results/a run'"
    monkeypatch.setattr("shutil.which", lambda name: None)  # the environment's programs are not on the path
    assert resume_command("results/r") == "python -m flopray resume results/r"


def finished_run(tmp_path):
    """A run with one point, and the arguments and progress with which its sweep ends."""
    point = make_point(workload="mlp", device_type="CPU", n_layers=1, width=16, tokens=8)
    folder = RunFolder.create(tmp_path, "r", {})
    record = PhaseRecord.of(
        run="r", trial_id=point.id, phase="forward", time_s=1e-3, energy_status="ok", **point.fields()
    )
    with folder.writer() as writer:
        writer.append([[record]])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (
            "draw",
            "no figures (No space left on device); every point is safe in the journal, flopray surfaces",
        ),
        ("load", "no totals (No space left on device); every point is safe in the journal"),
        ("compact", "no table of records"),
        ("write_summary", "no summary"),
    ],
)
def test_what_fails_after_the_measuring_loses_no_point_and_has_its_own_exit_code(
    script, tmp_path, monkeypatch, capsys, broken, words
):
    """2 would say that nothing was started."""

    def full(*_, **__):
        raise OSError(28, "No space left on device") if broken != "draw" else InputError("No space left on device")

    folder = finished_run(tmp_path)
    (folder.path / "plots").mkdir()  # what a drawing that fails leaves behind
    if broken == "draw":
        monkeypatch.setattr("flopray.cli.run_figures.draw", full)
    else:
        monkeypatch.setattr(type(folder), broken, full)
    console = Console(stderr=True)
    code = finish(script, Options(), console, folder, Progress(console, total=1))
    captured = capsys.readouterr()
    assert code == EXIT_NOT_FINISHED
    assert words in captured.err
    assert ("1 point, 1 row: 1 ok" in captured.out) is (broken != "load")
    assert ("records  " in captured.out) is (broken not in ("compact", "load"))
    assert "plots  " not in captured.out or broken not in ("draw", "load")
    assert folder.records_path.exists() is (broken != "compact")  # the others are made all the same


@pytest.mark.parametrize("broken", ["load", "compact", "write_kernels", "write_summary"])
def test_a_table_that_failed_is_made_by_the_resume_that_its_message_names(command, tmp_path, monkeypatch, broken):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    folder = a_run(tmp_path, finished=2)
    with monkeypatch.context() as patch:
        patch.setattr(type(folder), broken, full)
        failed = command("--resume r --no-plots")
    assert failed.code == EXIT_NOT_FINISHED
    assert f"resume {folder.path} makes it again" in failed.err
    assert command("--resume r --no-plots").code == 0
    assert len(folder.load()) == 2
    assert folder.records_path.exists()
    assert is_one_line_error(command("--resume r --no-plots"), "is finished: all of its 2 points")


@pytest.mark.parametrize(
    ("objective", "flag", "why", "words"),
    [
        ("mfu", "--phases optimizer_step", None, "optimizer_step has none, put another phase first"),
        ("mfu", "--phases optimizer_step forward", None, "optimizer_step has none, put another phase first"),
        ("flops_per_j", "", "no RAPL", "no device of this sweep has an energy source (no RAPL)"),
        ("energy_j", "", "no RAPL", "no device of this sweep has an energy source (no RAPL)"),
        ("mfu", "", None, None),  # against what products were measured to reach
        ("mfu", "--precision tf32", None, "no peak is known for CPU at tf32"),
        ("train_step/hfu", "--precision tf32", None, "--objective train_step/hfu: no peak is known for CPU"),
        ("optimizer_step/hfu", "", None, "optimizer_step has none"),
        ("forward/power_w", "", "no RAPL", "--objective forward/power_w: no device of this sweep has an energy source"),
        ("time_s train_step/energy_j", "", "no RAPL", "--objective train_step/energy_j: no device of this sweep"),
        ("memory_peak_bytes", "", None, "peak memory is known on GPUs alone"),
        ("train_step/energy_per_token_j", "", None, "train_step of mlp processes no counted tokens"),
        ("train_step/time_s forward/energy_j", "", None, None),
        ("flops_per_s", "", "no RAPL", None),
        ("energy_j", "", None, None),
    ],
)
def test_a_search_whose_objective_no_point_can_have_is_refused(script, objective, flag, why, words):
    request = flags.parse(script, f"--search optuna --samples 2 --objective {objective} {flag}".split())
    sweep = sweep_from(script, request, ["CPU"], cores=1)
    if words is None:
        refuse_objective(sweep, why)
        return
    with pytest.raises(InputError, match=re.escape(words)):
        refuse_objective(sweep, why)


def optuna(script, objective, flags_, types):
    line = f"--search optuna --samples 2 --objective {objective} {flags_}"
    return sweep_from(script, flags.parse(script, line.split()), types, cores=1)


@pytest.mark.parametrize(
    ("precisions", "types", "refused"),
    [
        ("bf16", ["V100"], True),
        ("fp32 bf16", ["V100"], False),  # fp32 has a peak there, whatever stands last
        ("bf16 fp32", ["V100"], False),
        ("bf16", ["V100", "H100"], False),
        ("bf16", ["H100", "CPU"], False),
    ],
)
def test_a_peak_of_one_type_at_one_precision_is_enough(script, precisions, types, refused):
    sweep = optuna(script, "mfu", f"--execution eager --precision {precisions}", types)
    if not refused:
        refuse_objective(sweep)
        return
    with pytest.raises(InputError, match="no peak is known for V100 at bf16"):
        refuse_objective(sweep)


@pytest.mark.parametrize("objective", ["flops_per_s", "flops_per_j", "mfu"])
@pytest.mark.parametrize("form", [None, {"gemm_flops": 0}])
def test_a_search_for_flops_of_a_phase_that_has_none_is_refused(script, monkeypatch, objective, form):
    sweep = optuna(script, objective, "--precision bf16 --phases forward", ["H100"])
    monkeypatch.setattr(MLP, "closed_form", lambda *_: form)
    monkeypatch.setattr(MLP, "dispatched", lambda *_: {"forward": None})
    with pytest.raises(InputError, match=f"--objective {objective}: no FLOPs are known for forward in mlp"):
        refuse_objective(sweep)
    refuse_objective(optuna(script, "time_s", "", ["H100"]))
    if form is None:
        monkeypatch.setattr(MLP, "dispatched", lambda *_: {"forward": 7})
        refuse_objective(sweep)


@pytest.mark.parametrize("dry", ["", "--dry-run "])
@pytest.mark.parametrize(
    ("line", "about"),
    [
        ("--search optuna --samples 2 --objective energy_j", "has an energy source (no RAPL here)"),
        ("--search optuna --samples 2 --objective flops_per_j", "has an energy source (no RAPL here)"),
        ("--execution graph", "CPU: execution graph needs a CUDA device"),
        ("--precision tf32", "CPU: tf32 exists only on NVIDIA GPUs"),
        ("--instruments time counters", "only NVIDIA GPUs have hardware counters"),
        ("--n 4 --d 1000000 --m 8", "CPU: out of memory"),
        ("--search random --samples 9 --n 1 --d 16 --m 8", "--samples 9: the grid has 1 point"),
        ("--gpu-type L4", "--gpu-type L4: the cluster has no GPU"),
        ("--accelerators L99", "--accelerators L99: no node has it"),
    ],
)
def test_what_is_known_of_this_machine_is_refused_before_ray_starts(command, monkeypatch, dry, line, about):
    def no_meter(*_):
        raise NoEnergySource("no RAPL here")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("flopray.cluster.doctor.machine.open_cpu_meter", no_meter)
    monkeypatch.setattr(session, "find_spec", lambda name: name)  # the extra optuna need not be there to be refused
    assert is_one_line_error(command(dry + line), about)


def test_results_of_a_submitted_job_do_not_go_into_rays_cache(command, monkeypatch, tmp_path):
    copy = tmp_path / "ray" / "session_x" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert is_one_line_error(command("--n 1"), "give --storage a path of your own")
    assert is_one_line_error(command("--n 1 --storage here"), "give --storage a path of your own")
    with pytest.raises(pytest.fail.Exception, match="reached for Ray"):
        command(f"--n 1 --storage {tmp_path}")


def test_help_groups_the_flags_and_shows_three_examples(command):
    outcome = command("--help")
    assert outcome.code == 0
    for group in ("search space:", "measuring:", "where it runs:", "run and results:", "examples:"):
        assert f"\n{group}\n" in outcome.out
    assert outcome.out.count("flopray sweep mlp") == 2
    for flag in ("--n ", "--d ", "--m ", "--precision", "--target-error", "--resume", "--dry-run", "--address"):
        assert flag in outcome.out


def test_the_examples_of_the_help_are_good_input(script, monkeypatch):
    lines = [line.split()[3:] for line in script.examples.splitlines() if line.startswith("  flopray sweep")]
    assert len(lines) == 2
    for line in lines:
        request = flags.parse(script, line)
        assert request.options.resume or sweep_from(script, request, ["H100"], cores=1).grid_size > 0


def test_the_default_grid_with_a_gpu_is_that_of_flopmetrics_and_small_without(script):
    request = flags.parse(script, [])
    with_gpu, without = (sweep_from(script, request, [device], cores=4) for device in ("H100", "CPU"))
    assert with_gpu.axes["n_layers"] == (2, 4, 8, 16, 32)
    assert with_gpu.axes["width"] == tuple(range(128, 2049, 128))
    assert with_gpu.axes["tokens"] == tuple(range(16, 257, 16))
    assert (with_gpu.axes["execution"], without.axes["execution"]) == (("graph",), ("eager",))
    assert without.grid_size <= 48
    assert (with_gpu.cpus_per_trial, without.cpus_per_trial) == ({"H100": 1}, {"CPU": 4})


def test_without_a_gpu_windows_are_shorter_and_less_exact_unless_a_flag_says_otherwise(script):
    def measured(line, *types):
        made = sweep_from(script, flags.parse(script, line.split()), types, cores=4)
        return made.settings.target_error, made.settings.max_seconds

    assert measured("", "CPU") == (0.05, 0.5)
    assert measured("", "H100") == measured("", "H100", "CPU") == (0.01, 3.0)
    assert measured("--target-error 0.02", "CPU") == (0.02, 0.5)
    assert measured("--max-seconds 3 --target-error 0.01", "CPU") == (0.01, 3.0)


def test_the_help_states_both_defaults_and_the_plan_what_is_taken(command, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = " ".join(command("--help").out.split())
    assert "(default 0.01 with a GPU, 0.05 without)" in said
    assert "(default 3 with a GPU, 0.5 without)" in said
    plan = command("--dry-run --n 1 --d 16 --m 8").out
    assert "known to 0.05 (--target-error), at most 0.5 s (--max-seconds): the defaults without a GPU" in plan
    plan = command("--dry-run --n 1 --d 16 --m 8 --max-seconds 2").out
    assert "known to 0.05 (--target-error), at most 2 s (--max-seconds)\n" in plan


def test_a_resume_measures_as_its_run_began(script):
    made = sweep_from(script, flags.parse(script, []), ["CPU"], cores=4)
    manifest = made.to_manifest("r", {})
    assert (manifest["sweep"]["settings"]["target_error"], manifest["sweep"]["settings"]["max_seconds"]) == (0.05, 0.5)
    manifest["sweep"]["settings"] |= {"target_error": 0.01, "max_seconds": 3.0}  # as runs were begun before
    again = Sweep.from_manifest(manifest).with_code(script).settings
    assert (again.target_error, again.max_seconds) == (0.01, 3.0)


def test_beside_gpus_a_cpu_is_still_measured_whole(script):
    request = flags.parse(script, [])
    assert sweep_from(script, request, ["H100", "CPU"], cores=16).cpus_per_trial == {"H100": 1, "CPU": 16}


def test_flags_reach_the_sweep(script):
    line = "--n 1 --d 16:48:16 --m 8 --precision bf16 fp32 --execution eager --phases backward --instruments time"
    line += " --target-error 0.05 --max-seconds 2 --seed 7 --sentinel-every 0 --cooldown-to 40"
    line += " --search optuna --samples 3 --objective mfu --cpus-per-trial 2 --points-per-trial 5"
    request = flags.parse(script, line.split())
    made = sweep_from(script, request, ["CPU"], cores=8)
    assert made.axes == {
        "device_type": ("CPU",),
        "precision": ("bf16", "fp32"),
        "execution": ("eager",),
        "n_layers": (1,),
        "width": (16, 32, 48),
        "tokens": (8,),
    }
    assert made.settings == MeasureSettings(
        phases=("backward",),
        instruments=("time",),
        target_error=0.05,
        max_seconds=2.0,
        seed=7,
        sentinel_every_s=0.0,
        cooldown_c=40.0,
    )
    assert (made.search, made.samples, made.objective) == ("optuna", 3, ("mfu",))
    assert (made.cpus_per_trial, made.points_per_trial) == ({"CPU": 2}, 5)


def test_the_script_itself_refuses_bad_input_without_loading_ray_or_torch(tmp_path):
    code = f"""
import runpy, sys
sys.argv = [{str(SCRIPT)!r}, "--n", "0", "--storage", {str(tmp_path / "runs")!r}]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print(end.code, *sorted({{"ray", "torch"}} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert result.stdout.split() == ["2"]
    assert result.stderr == "error: --n: 0 is below 1\n"
    assert tree(tmp_path) == {}


@pytest.mark.slow
def test_a_dry_run_writes_nothing_and_starts_no_ray(tmp_path, warm_python):
    """In a separate process, since planning imports Ray."""
    code = f"""
import runpy, sys
import ray
ray.init = None  # calling it would raise
sys.argv = [{str(SCRIPT)!r}, *"--dry-run --accelerators CPU --n 1 2 --d 16 32 --m 8".split()]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    result = warm_python.run("-c", code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "nothing was started and nothing was written" in result.stdout
    assert " 4 " in result.stdout
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--phases optimizer_step", "optimizer_step has none"),
        ("--accelerators Z9000 L9000", "no peak is known for Z9000, L9000 at"),
        ("--accelerators V100 --precision bf16", "no peak is known for V100 at bf16"),
        ("--gpu-type Z9000", "no peak is known for Z9000 at"),
    ],
)
def test_an_mfu_that_no_device_can_have_is_refused_before_a_cluster_is_asked(command, given, words):
    assert is_one_line_error(command(f"--search optuna --samples 2 --objective mfu --address x:1 {given}"), words)


@pytest.mark.parametrize(("told", "refused"), [([None, None], True), ([None, 41.0], False), ([], False)])
def test_a_temperature_that_no_gpu_here_tells_cannot_be_held(monkeypatch, told, refused):
    gpus = [SimpleNamespace(temperature_c=lambda celsius=celsius: celsius) for celsius in told]
    monkeypatch.setattr("flopray.energy.nvml.list_gpus", lambda: gpus)
    with pytest.raises(SettingError, match="reports its temperature") if refused else contextlib.nullcontext():
        session._refuse_without_sensor()


def test_without_a_gpu_nothing_is_held(script, tmp_path):
    request = flags.parse(script, ["--hold-temperature", "50", "--storage", str(tmp_path)])
    with pytest.raises(SettingError, match="needs a GPU: the temperature of a CPU cannot be held"):
        session.NewRun(script, request)
