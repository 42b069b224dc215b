"""No shell strings and nothing that runs what a file says: held on the syntax tree of every module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for top in ("flopray", "sweeps", "analysis", "bench") for path in (ROOT / top).rglob("*.py"))
#: Modules that run code, or that make objects of what they read by running code.
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "yaml", "code", "pty", "commands"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "torch.load", "pd.read_pickle", "pandas.read_pickle", "torch.hub.load"),
}
#: What one process of flopray hands to the next one, in a temporary folder that only they can read.
ALLOWED = {"flopray/measurement/counting/walk.py": ["imports pickle"]}
PROCESSES = {"run", "Popen", "call", "check_call", "check_output"}


def breaches(source: str) -> list[str]:
    """The forbidden parts of a module's source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"imports {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.Call):
            found += list(_call(node))
    return found


def _call(node: ast.Call):
    called = ast.unparse(node.func)
    if called in FORBIDDEN_CALLS or called.startswith(("os.exec", "os.spawn")):
        yield f"calls {called}"
    for keyword in node.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else "unknown"
        if keyword.arg in ("shell", "trust_remote_code", "allow_pickle") and value is not False:
            yield f"calls {called} with {keyword.arg}"
    if called.startswith("subprocess.") and called.split(".")[-1] in PROCESSES:
        command = node.args[0] if node.args else None
        if not isinstance(command, ast.List | ast.Name) or isinstance(command, ast.Constant):
            yield f"calls {called} with something that may be a string"
    if called.endswith("from_pretrained") and not any(keyword.arg == "use_safetensors" for keyword in node.keywords):
        yield f"calls {called} without use_safetensors"


@pytest.mark.slow
def test_no_module_runs_a_string():
    found = {str(path.relative_to(ROOT)): breaches(path.read_text()) for path in MODULES}
    assert {name: said for name, said in found.items() if said} == ALLOWED
    assert len(found) > 300


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import load",
        "eval(x)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run(command, shell=flag)",
        "subprocess.run(f'ls {x}')",
        "subprocess.Popen('ls')",
        "torch.load(path)",
        "AutoModel.from_pretrained(name, trust_remote_code=True, use_safetensors=True)",
        "AutoModel.from_pretrained(name)",
        "np.load(path, allow_pickle=True)",
        "os.execv(a, b)",
    ],
)
def test_the_check_sees_what_it_looks_for(source):
    assert breaches(source)


def test_ordinary_calls_pass():
    assert breaches("subprocess.run([a, b], shell=False); model.eval(); re.compile(x); torch.compile(f)") == []
