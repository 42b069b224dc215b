"""Finds a workload: by name, by the entry point of an installed package, or as `path/to/file.py:ClassName`.

A package offers its workloads in the group `flopray.workloads` of its entry points
(https://packaging.python.org/en/latest/specifications/entry-points/):

    [project.entry-points."flopray.workloads"]
    conv_net = "my_package.models:ConvNet"

A file is code, and is run only if a user named it: on a command line, in a program, or in the sweep that sends its text
to the workers.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shlex
import sys
import tempfile
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.machinery import SOURCE_SUFFIXES, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from flopray.description import Description
from flopray.errors import InputError, SpecError, brief, one_line
from flopray.point import Point
from flopray.workloads.base import Source, Workload
from flopray.workloads.causal_lm.workload import CausalLM
from flopray.workloads.contract import HOOKS, OF_A_FILE, wrong_signature
from flopray.workloads.evaluation.workload import Evaluation
from flopray.workloads.llama import Llama
from flopray.workloads.mlp import MLP
from flopray.workloads.package import GROUP, Package, package_of

BUILT_IN: Mapping[str, type[Workload]] = {w.name: w for w in (MLP, Llama, CausalLM, Evaluation)}
_LARGEST_FILE = 2**20


def refuse_scores(workload: Description, where: object) -> None:
    """Refuse to compare or draw an evaluation by phases: it has none of those that other runs have.

    Raises:
        InputError: naming the command that draws it.
    """
    if workload.name in BUILT_IN and BUILT_IN[workload.name].figures == "scores":
        command = f"flopray scores {shlex.quote(str(where))}"
        raise InputError(f"{where} is an evaluation, whose scores flopray scores draws: {command}")


def find_workload(name: str) -> Workload:
    """The workload of a name, or of `path/to/file.py:ClassName`.

    Raises:
        InputError: it is not found; the message says what there is, or what is wrong with it.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if ":" in name or name.endswith(".py"):
        return _from_file(name)
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name in points:
        return _from_entry_point(points[name])
    known = [*BUILT_IN, *sorted(points)]
    near = get_close_matches(name.lower(), known, n=1)
    meant = f": did you mean {near[0]}?" if near else ""
    listed = f"choose from {', '.join(known)}, or name a class as FILE.py:NAME"
    raise InputError(f"unknown workload {name!r:.60}: {listed}{meant}")


def is_known(workload: Workload) -> bool:
    """Whether the workload is found by its name in every process: a built-in one, or one of an installed package."""
    try:
        return type(find_workload(workload.name)) is type(workload)
    except InputError:
        return False


def loadable(workload: str | Workload | type[Workload]) -> Workload:
    """A workload by its name, its class or itself, if workers can load it too.

    Raises:
        InputError: it is not found, it is one shape of a workload, or its class is known to this process alone.
    """
    if isinstance(workload, str):
        return find_workload(workload)
    if isinstance(workload, type) and issubclass(workload, Workload):
        workload = workload()
    if not isinstance(workload, Workload):
        raise InputError(f"workload must be a name, FILE.py:NAME or a Workload, got {workload!r:.60}")
    if workload.values:
        raise InputError(f"workload: {workload!r:.120} is one shape, which `profile` measures: a sweep takes axes")
    if workload.source is None and not is_known(workload):
        own = type(workload).__name__
        raise InputError(f"workload: name {own} by its file, such as models.py:{own}, so that workers can load it")
    return workload


def reference_of(workload: Workload) -> dict[str, object]:
    """What another process needs to load the workload, JSON-ready: its name, or its file with the text."""
    source = workload.source
    if source is None:
        package = package_of(workload)
        return {"name": workload.name, **({"package": package.to_dict()} if package else {})}
    return {"name": workload.name, "path": source.path, "class_name": source.class_name, "text": source.text}


def load(reference: Mapping[str, Any]) -> Workload:
    """The workload of a `reference_of`, in another process or on another machine, whose code the caller trusts.

    Raises:
        InputError: it cannot be loaded here, or its package differs here.
    """
    if "text" not in reference:
        found = find_workload(reference["name"])
        began = reference.get("package")
        if began and (changed := Package.from_dict(began).difference(package_of(found))):
            raise InputError(f"the package of the workload {found.name} differs here: {changed}")
        return found
    text, path = str(reference["text"]), Path(reference["path"])
    if not (path.is_file() and _text_of(path) == text):  # another machine: the file comes with the text
        folder = Path(tempfile.mkdtemp(prefix="flopray-workload-"))
        path = folder / path.name
        path.write_text(text)
    return _load_class(path, str(reference["class_name"]), text)


def point_from(fields: Mapping[str, Any], workload: Workload | None = None) -> Point:
    """The point of its fields by column, as `Point.fields` gives them.

    Args:
        fields: `workload`, `device_type`, `precision`, `execution` and those of the workload.
        workload: the one that is swept; where the fields name another one, it is found by its name.

    Raises:
        SpecError: the fields make no point.
    """
    name = fields["workload"]
    if workload is None or workload.name != name:
        try:
            workload = find_workload(name)
        except InputError as error:
            raise SpecError(str(error)) from None
    return workload.point(**{key: value for key, value in fields.items() if key != "workload"})


def make_point(workload: str, *, device_type: str = "CPU", **fields: Any) -> Point:
    """A point of a workload that is found by its name.

    Example:
        >>> make_point("mlp", n_layers=8, width=1024, tokens=128).label()
        'n=8 d=1024 m=128 fp32 eager'

    Raises:
        SpecError: there is no such workload or point.
    """
    return point_from({"workload": workload, "device_type": device_type, **fields})


def _from_entry_point(point: EntryPoint) -> Workload:
    try:
        return _made(point.load(), f"entry point {point.name}")
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"the entry point {point.name} ({point.value}) cannot be loaded: {brief(error)}") from error


def _from_file(name: str) -> Workload:
    path_text, _, class_name = name.rpartition(":")
    path = Path(path_text or name).expanduser().absolute()
    if not path_text or not class_name:
        raise InputError(f"{name!r:.120}: name the class too, as {Path(name).name}:ClassName")
    if not path.is_file():
        raise InputError(f"{name!r:.120}: there is no file {path}")
    return _load_class(path, class_name, _text_of(path))


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
        if len(content) > _LARGEST_FILE:
            raise InputError(f"{path} is larger than {_LARGEST_FILE} bytes: a workload's file is sent to every worker")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as Python: {one_line(str(error))}") from error


def module_of_file(path: Path) -> ModuleType:
    """A Python file as a module of its own; the same text is run once a process.

    Raises:
        InputError: it cannot be read or imported.
    """
    return _module(path, OF_A_FILE + hashlib.sha256(_text_of(path).encode()).hexdigest()[:16])


def _load_class(path: Path, class_name: str, text: str) -> Workload:
    digest = hashlib.sha256(text.encode()).hexdigest()
    module = _module(path, OF_A_FILE + digest[:16])
    found = getattr(module, class_name, None)
    if found is None:
        classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
        has = [name for name, value in classes.items() if issubclass(value, Workload) and value is not Workload]
        names = ", ".join(has) or "no workload"
        raise InputError(f"{path} has no {class_name!r:.60}: it has {names}")
    workload = _made(found, f"{path}:{class_name}")
    workload.source = Source(str(path), class_name, text, digest)
    return workload


def _module(path: Path, name: str) -> ModuleType:
    """Runs a file as a module under a unique name; the same text is run once a process."""
    if name in sys.modules:
        return sys.modules[name]
    loader = _FromSource(name, str(path)) if path.suffix in SOURCE_SUFFIXES else None
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # torch.compile and dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that calls sys.exit
        del sys.modules[name]
        raise InputError(f"{path} cannot be imported: {brief(error)}") from error
    return module


class _FromSource(SourceFileLoader):
    """Compiles a file each time: a cached one is told from it by its size and the second of its change alone."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  the loader's signature
        return self.source_to_code(self.get_data(self.path), self.path)


def _made(found: Any, where: str) -> Workload:
    if not (isinstance(found, type) and issubclass(found, Workload)):
        raise InputError(f"{where} is not a subclass of flopray.Workload")
    if found.build is Workload.build:
        raise InputError(f"{where} has no method build(self, point, *, device, dtype, seed)")
    for name in HOOKS:
        hook, base = getattr(found, name), getattr(Workload, name)
        if hook is not base and (wrong := wrong_signature(name, hook, base)):
            raise InputError(f"{where}: {wrong}")
    try:
        workload = found()
    except SpecError as error:
        raise InputError(f"{where}: {error}") from error
    except Exception as error:
        raise InputError(f"{where} cannot be made: {brief(error)}") from error
    if workload.name in BUILT_IN and type(workload) is not BUILT_IN[workload.name]:
        raise InputError(f"{where}: the name {workload.name!r} is that of a built-in workload, choose another one")
    if not workload.dimensions:
        raise InputError(f"{where} has no dimension: give it a Field of whole numbers")
    return workload
