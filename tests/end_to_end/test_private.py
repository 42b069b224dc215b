"""A sweep that starts Ray here listens on this machine only, and keeps no secret of its environment or command line."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
from pathlib import Path

import pytest
from machine import QUICK, Machine

from flopray.monitoring.run_log import RunLog
from flopray.store.redaction import redacted
from flopray.workloads.mlp import MLP

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
GRID = f"--n 1 --d 16 24 --m 8:24:8 --phases forward {QUICK}"
SECRETS = {
    name: f"hidden-{name.lower()}-7e1f"
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "DATABASE_URL", "RAY_AUTH_TOKEN")
}
_LISTEN = "0A"


def listeners(pids: set[int]) -> set[str]:
    """Addresses on which processes listen for TCP connections, as the kernel lists them."""
    inodes = set()
    for link in (link for pid in pids for link in Path(f"/proc/{pid}/fd").glob("*")):
        with contextlib.suppress(OSError):  # closed in the meantime
            inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and fields[9] in inodes:
                words = bytes.fromhex(fields[1].partition(":")[0])
                numbers = struct.unpack(f"={len(words) // 4}I", words)  # the kernel writes them as the machine has them
                packed = struct.pack(f">{len(numbers)}I", *numbers)
                found.add(socket.inet_ntop(family, packed))
    return found


def test_a_sweep_listens_on_this_machine_only_keeps_no_secret_and_opens_nothing_that_ray_left(machine: Machine):
    machine.environment |= SECRETS
    sweep = machine.start(f"{GRID} --name quiet --storage {machine.storage}")
    machine.wait_for(lambda: machine.journal_ids(machine.run_path("quiet")))
    sweep.signal(signal.SIGSTOP)  # so that it does not end while it is looked at
    found = listeners(set(machine.processes()))
    sweep.signal(signal.SIGCONT)
    code, output = sweep.wait(), sweep.output
    assert code == 0, output
    assert found  # the cluster's store, scheduler, dashboard and agents
    assert found <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    run = machine.run_path("quiet")
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"manifest.json", "journal.jsonl", "run.log", "summary.json", "tuner.pkl"}
    for path in files:
        content = path.read_bytes()
        assert [name for name, secret in SECRETS.items() if secret.encode() in content] == [], path
        assert str(machine.folder / "home").encode() not in content, path
    assert [name for name, secret in SECRETS.items() if secret in output] == []

    # Ray pickles its own state; what a stranger put in its place must not be loaded by going on with the run.
    ran = machine.folder / "ran"
    bomb = f"cposix\nsystem\n(S'touch {ran}'\ntR.".encode()
    for path in (run / "tune").rglob("*"):
        if path.is_file():
            path.write_bytes(bomb)
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (run / "journal.jsonl").write_bytes(b"".join(lines[:2]))
    (run / "records.parquet").unlink()
    code, output = machine.sweep(f"--resume {run} --no-plots")
    assert code == 0, output
    assert len(set(machine.journal_ids(run))) == 6
    assert not ran.exists()
    shutil.rmtree(run)


def test_secrets_of_addresses_are_left_out_of_the_log(tmp_path, monkeypatch):
    line = "x.py --storage s3://KEY:hidden@bucket/a?region=eu --address ray://u:hidden@head:10001 --model=o/m"
    assert "hidden" not in redacted(line)
    assert redacted(line).endswith("ray://***@head:10001 --model=o/m")
    assert redacted("https://h/a?token=hidden&b=1#c") == "https://h/a?token=***&b=1#c"
    assert redacted("s3://b?secret_key=hidden&scheme=http") == "s3://b?secret_key=***&scheme=http"
    assert redacted("user@host and a@b.c, 3 tokens = 4") == "user@host and a@b.c, 3 tokens = 4"
    with RunLog(tmp_path / "run.log", MLP()) as log:
        log.say(line)
    text = (tmp_path / "run.log").read_text()
    assert "hidden" not in text
    assert "s3://***@bucket/a?region=eu" in text


def test_the_tests_above_would_see_a_server_on_every_interface():
    with socket.socket() as public, socket.socket(socket.AF_INET6) as both:
        public.bind(("", 0))
        public.listen()
        both.bind(("::", 0))
        both.listen()
        assert {"0.0.0.0", "::"} <= listeners({os.getpid()})
