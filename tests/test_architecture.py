"""Arrows point down: who may import whom, read from the sources, and what an import of flopray costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Rooms that talk to the cluster.
MAY_IMPORT_RAY = ("flopray.sweep.", "flopray.cluster.")


@cache
def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    found = {}
    for top in ("flopray", "analysis", "sweeps"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def source(path: Path) -> ast.Module:
    """What is parsed once for all tests, which only read it."""
    return ast.parse(path.read_text())


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a source."""
    return list(ast.walk(source(path)))


class _Imports(ast.NodeVisitor):
    """Imported names, separately at module level and inside functions, without imports for type checking."""

    def __init__(self) -> None:
        self.at_once: set[str] = set()
        self.later: set[str] = set()
        self._into = self.at_once

    def visit_Import(self, node: ast.Import) -> None:
        self._into.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "relative imports hide where an arrow points"
        self._into.update(f"{node.module}.{alias.name}" for alias in node.names)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self._into = self._into, self.later
        self.generic_visit(node)
        self._into = outer

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)


@cache
def imports(module: str) -> _Imports:
    seen = _Imports()
    seen.visit(source(modules()[module]))
    return seen


def top(name: str) -> str:
    return name.split(".")[0]


def within_project(names: set[str]) -> set[str]:
    """The project's modules among imported names (of `a.b.c` both `a.b.c` and `a.b` may be the module)."""
    return {m for name in names for m in (name, name.rpartition(".")[0]) if m in modules() and "." in m}


@cache
def loaded_with(module: str) -> frozenset[str]:
    """Top-level packages from elsewhere that are loaded when a module is imported, through all that it imports."""
    elsewhere, seen, todo = set(), set(), [module]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        names = imports(current).at_once
        elsewhere |= {top(name) for name in names if top(name) not in ("flopray", "analysis", "sweeps")}
        todo.extend(within_project(names))
        todo.extend(parent for parent in (current.rpartition(".")[0],) if parent in modules())
    return frozenset(elsewhere)


def test_the_sources_are_found():
    assert {"flopray", "flopray.records", "flopray.energy.estimator", "flopray.cli.surfaces", "sweeps.mlp_grid"} <= set(
        modules()
    )
    assert "flopray.errors.SpecError" in imports("flopray.point").at_once
    assert "torch" in loaded_with("flopray.measurement.profiler")  # through what it imports
    assert not {top(name) for name in imports("flopray.cluster.devices").at_once} & {"ray"}
    assert {top(name) for name in imports("flopray.cluster.devices").later} >= {"ray"}


def test_arrows_point_down_and_there_is_no_circle():
    """The contracts of pyproject.toml, which cover every module: a room that is in no layer breaks them."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert outcome.returncode == 0, outcome.stdout[-3000:]
    assert "2 kept, 0 broken" in outcome.stdout


def test_every_room_says_what_it_is_for():
    rooms = [path for path in (ROOT / "flopray").rglob("*.py") if path.name != "__init__.py"]
    for folder in sorted({path.parent for path in rooms}):
        words = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert words, f"{folder} has no __init__.py that says what it is for"


def test_few_modules_lie_outside_of_rooms():
    flat = sorted(path.name for path in (ROOT / "flopray").glob("*.py"))
    words = ["description.py", "errors.py", "mappings.py", "point.py", "records.py", "settings.py", "units.py"]
    assert flat == ["__init__.py", "__main__.py", *words]


def imported_by(module: str) -> set[str]:
    """Top-level names that a module imports anywhere."""
    return {top(name) for name in imports(module).at_once | imports(module).later}


def test_only_what_talks_to_the_cluster_imports_ray():
    found = {module for module in modules() if "ray" in imported_by(module)}
    assert {module for module in found if not module.startswith(MAY_IMPORT_RAY)} == set()
    assert found


def test_the_package_imports_nothing_of_its_users():
    users = {"analysis", "sweeps", "bench", "tests"}
    found = {module: users & imported_by(module) for module in modules() if top(module) == "flopray"}
    assert {module: names for module, names in found.items() if names} == {}


def test_reports_need_neither_torch_nor_ray():
    heavy, found = {"torch", "ray", "transformers"}, {}
    reports = [name for name in modules() if name.startswith(("flopray.report", "analysis"))]
    for module in reports:
        later = imports(module).later
        loaded = loaded_with(module).union(*(loaded_with(other) for other in within_project(later)))
        found[module] = heavy & (loaded | {top(name) for name in later})
    assert {module: names for module, names in found.items() if names} == {}
    assert len(reports) > 50


def test_the_contracts_need_only_the_standard_library():
    for module in ("flopray", "flopray.records", "flopray.errors"):
        elsewhere = {name for name in loaded_with(module) if name not in sys.stdlib_module_names}
        assert elsewhere == set(), f"{module} needs {elsewhere}"
    assert within_project(imports("flopray.records").at_once) == {"flopray.description"}
    assert within_project(imports("flopray.description").at_once) == {"flopray.errors", "flopray.mappings"}
    assert within_project(imports("flopray.errors").at_once) == set()


@pytest.mark.parametrize(
    "module", ["flopray.cli.main", "flopray.cli.session", "flopray.store.run", "flopray.sweep.definition"]
)
def test_refusing_bad_input_does_not_wait_for_torch_or_ray(module):
    assert not {"torch", "ray", "transformers", "optuna", "pandas", "pyarrow"} & loaded_with(module)


@pytest.mark.parametrize("module", ["flopray.measurement.profiler", "flopray.sweep.recorder"])
def test_what_measures_and_what_decides_of_points_know_no_ray(module):
    assert "ray" not in loaded_with(module)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import flopray", ["torch", "ray", "pandas", "numpy", "pyarrow", "matplotlib", "rich"]),
        ("import flopray.records, flopray.store.run", ["torch", "ray", "pandas", "pyarrow"]),
        ("import flopray.audit", ["torch", "ray", "pandas"]),
        ("import flopray.measurement.profiler", ["ray", "pandas", "matplotlib"]),
        ("from flopray import load_run", ["torch", "ray"]),
        ("import flopray.cli.surfaces, flopray.cli.audit", ["torch", "ray"]),
    ],
)
def test_what_an_import_really_loads(statement, absent):
    code = f"import sys; {statement}; print(*sorted(set({absent}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def literals(path):
    """Texts of a module that are not docstrings."""
    docs = {id(node.value) for node in nodes(path) if isinstance(node, ast.Expr)}
    constants = [node for node in nodes(path) if isinstance(node, ast.Constant) and id(node) not in docs]
    return [str(node.value) for node in constants if isinstance(node.value, str)]


def test_messages_name_one_command_to_go_on_with_a_run():
    """It is that of `errors.resume_command`; only the command line names its flag, and the command in examples."""
    texts = {name: literals(path) for name, path in modules().items() if top(name) == "flopray"}
    flags = {name for name, said in texts.items() if any("--resume" in text for text in said)}
    commands = {name for name, said in texts.items() if any(re.search("flopray resume (?!results/)", t) for t in said)}
    assert flags <= {"flopray.cli.request", "flopray.cli.main"}
    assert commands == {"flopray.cli.main"}


def test_importing_flopray_has_no_side_effects(tmp_path):
    code = """
import os, signal, sys, threading, warnings
before = dict(os.environ), signal.getsignal(signal.SIGTERM), threading.active_count(), list(warnings.filters)
import flopray, flopray.cli.main, flopray.store.run, flopray.audit
after = dict(os.environ), signal.getsignal(signal.SIGTERM), threading.active_count(), list(warnings.filters)
print(before == after)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (result.stdout, result.stderr) == ("True\n", "")
    assert list(tmp_path.iterdir()) == []


def _is_a_mapping_of_anything(node: ast.Subscript) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "dict" and ast.unparse(node) == "dict[str, Any]"


def test_a_mapping_of_anything_has_a_name_that_says_what_it_is() -> None:
    """`dict[str, Any]` is only in definitions of aliases, and a comment above each says what its values are."""
    found = {}
    for name, path in modules().items():
        lines = path.read_text().splitlines()
        assigned = [n for n in source(path).body if isinstance(n, ast.Assign)]
        aliases = [n for n in assigned if ast.unparse(n.value).endswith("[str, Any]")]
        said = {id(n.value) for n in aliases if lines[n.lineno - 2].startswith("#: ")}
        silent = [n.lineno for n in aliases if id(n.value) not in said]
        found[name] = silent + [
            n.lineno
            for n in nodes(path)
            if isinstance(n, ast.Subscript) and _is_a_mapping_of_anything(n) and id(n) not in said
        ]
    assert {name: lines for name, lines in found.items() if lines} == {}


#: Texts outside of the command line that have a flag in them, by their modules, each with a reason.
_FLAGS_ELSEWHERE = {
    # commands of other programs
    "flopray.flops.executed.ncu": "arguments of ncu",
    "flopray.measurement.counting.program": "arguments of ncu, and a command of it that lists metrics",
    "flopray.flops.executed.permission": "a flag of Docker",
    "flopray.flops.executed.report": "a command of dcgmi",
    "flopray.cluster.connection": "a command of Ray",
    "flopray.cluster.devices": "a command of Ray",
    "flopray.cluster.head_node": "a command of Ray",
    "flopray.cluster.doctor.checks": "a command of Ray",
    "flopray.cluster.doctor.machine": "a command of Docker",
    "flopray.sweep.loggers": "a command of TensorBoard",
    # commands of flopray, to be copied
    "flopray.audit.likely_columns": "words for the command that audits tables: who calls the library renames",
    "flopray.monitoring.status": "a command that resumes the run",
    "flopray.store.resumption": "a command that merges runs",
    "flopray.store.reference_run": "a command that merges runs",
    # where a flag is declared, beside the setting or field
    "flopray.workloads.declaration": "says how a flag is written",
}
_FLAG = re.compile(r"(?<![\w-])--[a-z]")


def _flags_in(path: Path) -> list[str]:
    """Texts with a flag, except docstrings, the examples of a workload's --help and what declares a flag."""
    left_out = {id(n.value) for n in nodes(path) if isinstance(n, ast.Expr)}
    for node in nodes(path):
        if isinstance(node, ast.keyword) and node.arg in ("flag", "old_flags", "also"):
            left_out |= {id(n) for n in ast.walk(node.value)}
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "examples":
            left_out.add(id(node.value))
    texts = [n for n in nodes(path) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [n.value for n in texts if id(n) not in left_out and _FLAG.search(n.value)]


def test_only_the_command_line_speaks_of_flags():
    found = {
        name: texts
        for name, path in modules().items()
        if name.startswith("flopray.") and not name.startswith("flopray.cli") and (texts := _flags_in(path))
    }
    assert {name: texts for name, texts in found.items() if name not in _FLAGS_ELSEWHERE} == {}
    assert set(_FLAGS_ELSEWHERE) == set(found), "a reason is left of a text that has no flag any more"


def test_temperatures_are_written_one_way():
    """In °C, in messages, tables, figures and pages."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "flopray").rglob("*.py")]
    sign = re.compile(r"(?:\d|\}) C\b(?!\+)|\(C\)")
    found = {str(path): [line for line in path.read_text().splitlines() if sign.search(line)] for path in pages}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_module_is_read_in_one_sitting():
    """One noun each, in at most 400 lines."""
    long = {name: lines for name, path in modules().items() if (lines := len(path.read_text().splitlines())) > 400}
    assert long == {}


#: What may write files in other ways than `flopray.store.atomic`, each with a reason.
_WRITES_OTHERWISE = {
    "flopray.store.atomic": "is that way",
    "flopray.workloads.registry": "into a fresh folder of this process",
    "flopray.store.journal": "appends; a torn end goes into a file of its own",
    "flopray.store.remote.mirror": "appends to the journal",
    "flopray.watching.run_journal": "appends to the journal",
    "flopray.flops.executed.ncu": "the output of a process, in its temporary folder",
    "flopray.measurement.counting.process": "what a process is asked, in its temporary folder",
    "flopray.measurement.counting.function": "what a process is asked, in its temporary folder",
    "flopray.measurement.counting.worker": "the progress of a process, in its temporary folder",
    "flopray.measurement.counting.function_worker": "the progress of a process, in its temporary folder",
}
#: Methods that write the file that their first argument is, or their object.
_WRITERS = {"write_text", "write_bytes", "savefig", "to_parquet", "to_csv", "write_html", "write_image", "dump"}


def _writes_aside(path: Path) -> list[int]:
    """Lines that write a file, outside of a block of `atomic.making` or `atomic.replacing`."""
    blocks = [n for n in nodes(path) if isinstance(n, ast.With) and any("atomic." in ast.unparse(i) for i in n.items)]
    inside = {id(part) for block in blocks for part in ast.walk(block)}
    found = []
    for call in nodes(path):
        if not isinstance(call, ast.Call) or id(call) in inside:
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        modes = [str(a.value) for a in call.args if isinstance(a, ast.Constant)]
        opens = name in ("open", "fdopen") and any(re.fullmatch("[wxa][bt+]*", mode) for mode in modes)
        if opens or (name in _WRITERS and isinstance(call.func, ast.Attribute) and call.args):
            found.append(call.lineno)
    return found


def test_results_are_written_whole_or_not_at_all():
    found = {n: _writes_aside(p) for n, p in modules().items() if n.startswith("flopray")}
    assert {n: lines for n, lines in found.items() if lines and n not in _WRITES_OTHERWISE} == {}
