"""A sweep that logs to TensorBoard and MLflow, is killed in the middle and resumed: is each point there exactly once?

On a separate cluster that outlives the driver (`ray start --head`) and an MLflow server with a SQLite store, a sweep
of many short points runs with `--log-to tensorboard mlflow`. Its driver is killed with SIGKILL after some points and
resumed. Then the journal, MLflow and `load_run` of Tune's folders must each name every point exactly once. Prints one
JSON object with counts and durations, and ends with 1 if a point is missing or duplicated anywhere.

    python bench/followed_sweep.py                         500 points, killed after 200; some minutes
    python bench/followed_sweep.py --points 40 --kill-after 15
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flopray import load_run
from flopray.store.location import open_run

_TOKENS = 20
_MEASURING = "--phases forward --instruments time --max-seconds 0.2 --target-error 0.5 --sentinel-every 0"
_DEADLINE_S = 3600.0
#: Without the eight processes for MLflow's own jobs, which tracking does not need.
_TRACKING = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def main() -> int:
    """Run the bench; returns 0 if every point is everywhere exactly once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=500, help=f"of the sweep, in multiples of {_TOKENS}")
    parser.add_argument("--kill-after", type=int, default=200, help="points in the journal when the driver is killed")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs of the cluster; a trial takes one")
    parser.add_argument(
        "--keep", action="store_true", help="keep the run and the servers' files, and print their folder"
    )
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fs", dir="/tmp"))  # short: Ray's sockets are in it
    try:
        found = followed(folder, args.points // _TOKENS, args.kill_after, args.cpus)
    finally:
        if args.keep:
            print(f"everything is in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=2))
    return 0 if found["each_point_once"] else 1


def followed(folder: Path, widths: int, kill_after: int, cpus: int) -> dict[str, Any]:
    """Measure, kill, resume and count."""
    asked = widths * _TOKENS
    space = f"--n 1 --d 8:{8 * widths}:8 --m 8:{8 * _TOKENS}:8 --cpus-per-trial 1 --no-plots"
    run = folder / "results" / "followed"
    clock = time.monotonic()
    with cluster(folder, cpus) as address, tracking(folder) as uri:
        os.environ |= {"MLFLOW_TRACKING_URI": uri}
        seconds = {"servers": _since(clock)}
        clock = time.monotonic()
        line = f"sweep mlp {space} {_MEASURING} --log-to tensorboard mlflow --address {address} --name followed"
        driver = flopray(folder, line)
        wait_for(lambda: driver.poll() is not None or len(journal(run)) >= kill_after)
        if driver.poll() is not None:
            sys.exit(f"the sweep ended before it was killed:\n{(folder / 'driver.log').read_text()}")
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        seconds["until_the_kill"] = _since(clock)
        killed = counts(run)
        clock = time.monotonic()
        resumed = flopray(folder, f"resume {run} --address {address}")
        code = resumed.wait(_DEADLINE_S)
        seconds["resume"] = _since(clock)
        done = counts(run)
        once = all(
            done[name] == {"points": asked, "more_than_once": 0} for name in ("journal", "mlflow", "tune", "records")
        )
        same = set(journal(run)) == set(mlflow_points(run)) == set(load_run(run / "tune").trial_id)
        log = (folder / "driver.log").read_text()
        notices = [line for line in log.splitlines() if "MLflow" in line]
        return {
            "each_point_once": once and same and code == 0,
            "points": asked,
            "exit_code": code,
            "at_the_kill": killed,
            "after_the_resume": done,
            "seconds": seconds,
            "said": notices,
        }


def counts(run: Path) -> dict[str, Any]:
    """The number of points in each place, and how many of them occur more than once."""
    found = {"journal": journal(run), "mlflow": mlflow_points(run)}
    found["tune"] = list(load_run(run / "tune").trial_id)
    found["records"] = list(load_run(run).trial_id)
    told: dict[str, Any] = {}
    for name, ids in found.items():
        repeated = sum(count > 1 for count in Counter(ids).values())
        told[name] = {"points": len(set(ids)), "more_than_once": repeated}
    told["mlflow_runs"] = len(mlflow_runs(run))
    told["tensorboard_event_files"] = sum(1 for _ in run.glob("tune/session-*/*/events.out.tfevents.*"))
    return told


def journal(run: Path) -> list[str]:
    """The points of the journal's complete lines."""
    path = run / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["entry"]["trial_id"] for line in lines if line.endswith("\n")]


def mlflow_runs(run: Path) -> list[Any]:
    """All of MLflow's runs of a run."""
    from flopray.sweep.loggers import Loggers
    from flopray.sweep.mlflow_logger import client_of, experiment_id, logged_runs

    loggers = Loggers.of_manifest(open_run(run).manifest, ["mlflow"])
    client = client_of(loggers)
    return logged_runs(client, experiment_id(client, loggers.experiment), loggers.run_id)


def mlflow_points(run: Path) -> list[str]:
    """The points that MLflow names, with repetitions; a run without a point is not counted."""
    return [point for found in mlflow_runs(run) if (point := found.data.tags.get("point_id"))]


def flopray(folder: Path, line: str) -> subprocess.Popen[bytes]:
    """Start the command in a folder; its output goes into `driver.log`."""
    with (folder / "driver.log").open("ab") as log:
        command = [sys.executable, "-m", "flopray", *line.split()]
        return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@contextlib.contextmanager
def cluster(folder: Path, cpus: int) -> Iterator[str]:
    """A cluster of one node that no driver has started; its address."""
    port = free_port()
    line = f"start --head --block --port {port} --num-cpus {cpus} --temp-dir {folder / 'ray'} --disable-usage-stats"
    line += f" --include-dashboard false --ray-client-server-port {free_port()}"
    command = [sys.executable, "-m", "ray.scripts.scripts", *line.split()]
    with ended(folder, command, "ray.log"):
        wait_for(lambda: answers(port))
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def tracking(folder: Path) -> Iterator[str]:
    """An MLflow server with a SQLite store; its URI."""
    port = free_port()
    line = f"server --backend-store-uri sqlite:///{folder}/mlflow.db --artifacts-destination {folder}/artifacts"
    command = [sys.executable, "-m", "mlflow", *line.split(), *f"--host 127.0.0.1 --port {port} --workers 1".split()]
    with ended(folder, command, "mlflow.log", _TRACKING):
        wait_for(lambda: answers(port))
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def ended(folder: Path, command: list[str], log: str, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A server for the block; only its own processes end with it."""
    with (folder / log).open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()  # `ray start --block` ends its processes
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def answers(port: int) -> bool:
    """Whether something listens at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it does not hold within an hour.
    """
    end = time.monotonic() + _DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("an hour is over")
        time.sleep(0.5)


def _since(clock: float) -> float:
    return round(time.monotonic() - clock, 1)


if __name__ == "__main__":
    sys.exit(main())
