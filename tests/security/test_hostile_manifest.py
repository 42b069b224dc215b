"""A manifest from a stranger gives a run or one line that says why not: no crash, no hang, no escape sequence."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopray.errors import NotARun
from flopray.monitoring.status import status_of_run
from flopray.store.manifests import read
from flopray.store.run import RunFolder

MANIFEST = hostile.sweep().to_manifest("r", {"python": "3.11"}) | {"script": "sweeps/mlp_grid.py"}
MERGED = MANIFEST | {"merged": {"from": [MANIFEST], "not_resumable": "its sources differ in seed"}}


def use(content: bytes, *, further: bool = False) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = hostile.make_run(Path(folder))
        run.manifest_path.write_bytes(content)
        hostile.read_everything(run.path)
        if further:
            other = hostile.make_run(Path(folder), "other", points=2)
            hostile.resume_and_merge(run.path, other.path, Path(folder) / "merged")


@settings(max_examples=15, **hostile.BOUNDED)
@given(st.binary(max_size=200) | hostile.VALUES.map(lambda value: json.dumps(value).encode()))
def test_anything_in_its_place(content: bytes) -> None:
    use(content)


@pytest.mark.slow
@settings(max_examples=40, **hostile.BOUNDED)
@given(hostile.mutated(MANIFEST) | hostile.mutated(MERGED))
def test_a_manifest_with_other_values(manifest: dict) -> None:
    use(json.dumps(manifest).encode(), further=True)


@pytest.mark.slow
@settings(max_examples=15, **hostile.BOUNDED)
@given(hostile.mutated(MANIFEST["sweep"]))
def test_a_sweep_with_other_values(sweep: dict) -> None:
    use(json.dumps(MANIFEST | {"sweep": sweep}).encode(), further=True)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"name":' * 5_000,
        b'{"schema_version": 4, "name": "r", "x": ' + b"[" * 400 + b"]" * 400 + b"}",
        b'{"schema_version": ' + b"9" * 5_000 + b"}",
        b'{"schema_version": 4, "name": "r", "created_unix_s": NaN}',
        b'{"schema_version": 4, "name": "r", "created_unix_s": 1e999}',
        b'{"schema_version": 4, "name": "r\\u001b[31m"}',
        b'{"schema_version": 4, "name": "r", "versions": {"\\ud800": "x"}}',
        b"\xff\xfe{",
    ],
    ids=["deep", "deep objects", "nested", "digits", "nan", "infinite", "escape", "surrogate", "bytes"],
)
def test_what_is_no_manifest(content: bytes) -> None:
    use(content, further=True)


def test_values_that_could_not_be_written_again_are_no_manifest(tmp_path):
    run = hostile.make_run(tmp_path)
    for text in ('{"x": NaN', '{"x": -Infinity', '{"x": 1e999', '{"x": "\\u001b[2J"', '{"\\ud800": 1'):
        run.manifest_path.write_text(text + ', "schema_version": 4, "name": "r"}')
        with pytest.raises(NotARun, match="torn or not JSON"):
            read(run.path)


def test_a_manifest_without_end_is_not_read_into_memory(tmp_path):
    run = hostile.make_run(tmp_path)
    os.truncate(run.manifest_path, 2**40)  # a sparse file: it takes no disk
    with pytest.raises(NotARun, match="larger than 64 MiB"):
        RunFolder.open(run.path)


def test_a_grid_that_has_no_end_is_refused_in_a_line(tmp_path):
    run = hostile.make_run(tmp_path)
    axes = MANIFEST["sweep"]["axes"] | {name: list(range(1, 1001)) for name in ("n_layers", "width", "tokens")}
    sweep = MANIFEST["sweep"] | {"axes": axes, "shards": ["1/2"]}
    run.manifest_path.write_text(json.dumps(MANIFEST | {"sweep": sweep}))
    assert hostile.carry_out(lambda: hostile.status_json(run.path)) == 2
    hostile.resume_and_merge(run.path, hostile.make_run(tmp_path, "other").path, tmp_path / "merged")


@pytest.mark.parametrize(
    "script",
    ["/tmp/evil.py", "results/r/run.py", "-c 'import os'", "x.py; rm -rf ~", 5, None, ["a"], "$(id)"],
)
def test_the_command_to_copy_is_our_own_whatever_the_manifest_says(tmp_path, monkeypatch, script):
    run = hostile.make_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "r").mkdir(parents=True)
    (tmp_path / "results" / "r" / "run.py").write_text("")  # came along with the run
    run.manifest_path.write_text(json.dumps(MANIFEST | {"script": script}))
    assert status_of_run(run.path).resume in (f"flopray resume {run.path}", f"python -m flopray resume {run.path}")
