"""What a stranger could put into a run's folder, and everything of flopray that would read it."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

import flopray.cli.main as commands
from flopray.cli.main import sweep_command
from flopray.errors import FloprayError
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.store.entry import HIDDEN
from flopray.store.journal_index import RunWarning
from flopray.store.location import load_run
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.sweep.merge import merge
from flopray.workloads.mlp import MLP

#: The same examples each time, and no minutes of shrinking: what failed is printed as it is.
BOUNDED: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": [HealthCheck.too_slow],
}
NASTY_TEXTS = [
    *("\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "a\x00b", "\x9b2J", "one\ntwo", "\r\rover", "\u202eback", "\ud800"),
    *("[red]x[/red]", "[/]", "[/nothing]", "[link=file:///x]y[/link]", "$\\frac$", "{0}", "%s%n", "'; touch x #"),
    *("../../out", "/etc/passwd", "..", "", " ", "é" * 300, "x" * 5000, "<script>alert(1)</script>", "=1+1", "1-2"),
]
NASTY_NUMBERS = [0, -1, 2**63, -(2**63), 10**400, 1.5, 1e308, 5e-324, float("nan"), float("inf"), True]
SCALARS = (
    st.sampled_from(NASTY_TEXTS + NASTY_NUMBERS)
    | st.none()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def sweep() -> Sweep:
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    axes |= {"n_layers": (1, 2), "width": (16, 32), "tokens": (8, 16)}
    settings = MeasureSettings(phases=("forward", "backward"))
    return Sweep(workload=MLP(), axes=axes, settings=settings, cpus_per_trial={"CPU": 1})


def point(place: int, **columns: Any) -> list[PhaseRecord]:
    """A measured and counted point of `sweep`."""
    spec = sweep().points()[place]
    kernel = {"name": "gemm", "class": "gemm", "launches": 1, "tensor_flops": 0, "cuda_flops": 4096}
    fields = {
        "trial_id": spec.id,
        "run": "r",
        "device_wall_s": 2.0,
        "window_s": 1.0,
        "node": "a",
        **spec.fields(),
    }
    fields |= {"time_s": 1e-3, "time_rel_error": 0.01, "energy_j": 0.1, "energy_status": "ok", "model_flops": 4096}
    fields |= {"gemm_flops": 4096, "activation_flops": 16, "optimizer_flops": 0, "counters_status": "ok"}
    fields |= {"executed_flops": 4096, "executed_gemm_flops": 4096, "executed_cuda_flops": 4096, "flops_per_s": 4e6}
    fields |= {"flops_per_j": 4e4, "findings": ("note:no_limit_known",), "kernels": (json.dumps(kernel),)}
    return [PhaseRecord.of(phase=phase, **{**fields, **columns}) for phase in ("forward", "backward")]


def make_run(storage: Path, name: str = "r", *, points: int = 3) -> RunFolder:
    """A valid run that is not finished, with one failed point."""
    manifest = sweep().to_manifest(name, {"python": "3.11"}) | {"script": "sweeps/mlp_grid.py"}
    run = RunFolder.create(storage, name, manifest)
    with run.writer() as writer:
        writer.append([point(i, run=name) for i in range(points - 1)])
        writer.append([point(points - 1, run=name, status="failed", status_reason="it broke", time_s=None)])
    return run


def line(entry: bytes) -> bytes:
    """An entry with its checksum, in the form of the journal."""
    return b'{"crc32":"%08x","entry":%b}\n' % (zlib.crc32(entry), entry)


@st.composite
def mutated(draw: st.DrawFn, content: Any) -> Any:
    """JSON content with one to three of its values, at any depth, replaced, removed or joined by another one."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        parent, key = draw(st.sampled_from(list(_places(content))))
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if how == "replace":
            parent[key] = draw(VALUES)
        elif how == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=8))] = draw(VALUES)
        else:
            parent.append(draw(VALUES))
        if not list(_places(content)):
            break
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield content, key
        yield from _places(value)


def carry_out(use: Callable[[], object]) -> object:
    """Do something with a stranger's folder: it gives a result, or an error of ours that a terminal can show.

    Nothing that is printed may do something to a terminal, and every warning is one printable line. Any other exception
    is a failure.
    """
    out = io.StringIO()
    result: object = None
    with (
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        warnings.simplefilter("always", RunWarning)
        try:
            result = use()
        except FloprayError as error:
            out.write(str(error))
    told = [str(warning.message) for warning in caught if issubclass(warning.category, RunWarning)]
    assert all(text.isprintable() for text in told), told
    assert not re.search(HIDDEN, out.getvalue()), out.getvalue()
    assert "Traceback" not in out.getvalue()
    out.getvalue().encode()  # no lone surrogate
    return result


def read_everything(path: Path) -> None:
    """All that reads one run's folder, and writes only into it."""
    carry_out(lambda: load_run(path))
    carry_out(lambda: RunFolder.open(path).finished())
    carry_out(lambda: list(RunFolder.open(path).points()))
    carry_out(lambda: RunFolder.open(path).records())
    carry_out(lambda: Sweep.from_manifest(RunFolder.open(path).manifest))
    assert carry_out(lambda: commands.main(["status", str(path)])) in (0, 2)
    assert carry_out(lambda: status_json(path)) in (0, 2)
    carry_out(lambda: RunFolder.open(path).compact())
    carry_out(lambda: RunFolder.open(path).write_kernels())


def status_json(path: Path) -> int:
    """`status --json`, whose output must be JSON that every reader takes."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = commands.main(["status", str(path), "--json"])
    if code == 0:
        json.loads(out.getvalue(), parse_constant=lambda word: 1 / 0)
    sys.stdout.write(out.getvalue())
    return code


def resume_and_merge(path: Path, other: Path, into: Path) -> None:
    """All that continues a run, up to the start of Ray, and a merge with an honest run."""
    assert carry_out(lambda: sweep_command(MLP(), ["--resume", str(path), "--dry-run"])) in (0, 2)
    carry_out(lambda: merge([other, path], into))
