"""The installed package that a workload came from: its version, and a hash of its code.

A run keeps both in its manifest, so that a resume and other nodes measure the same code.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec

#: Group of entry points: https://packaging.python.org/en/latest/specifications/entry-points/
GROUP = "flopray.workloads"
#: Of a larger package only the module of the workload is hashed.
_MOST_FILES = 5000


@dataclass(frozen=True)
class Package:
    """An installed package.

    Attributes:
        name: of the distribution, as pip knows it; of a package without metadata the name of its module.
        version: of the distribution; empty where it has none.
        sha256: of the names and contents of its Python files, hexadecimal.
    """

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.version)))

    def to_dict(self) -> dict[str, str]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Any) -> Package:
        """The inverse of `to_dict`, of a file that a stranger may have written.

        Raises:
            TypeError: it does not describe a package.
        """
        try:
            found = msgspec.convert(content, cls)
        except msgspec.ValidationError:
            raise TypeError(f"{content!r:.60} does not describe a package") from None
        return cls(*(text[:200] for text in (found.name, found.version, found.sha256)))

    def difference(self, now: Package | None) -> str | None:
        """What changed, such as `nets 1.0 is now nets 1.1`; None where the code is the same."""
        if now is not None and now.sha256 == self.sha256:
            return None
        if now is None:
            return f"{self} is not installed here"
        if str(now) == str(self):
            return f"{self} changed, with the same version"
        return f"{self} is now {now}"


def package_of(workload: Any) -> Package | None:
    """The package of a workload that an entry point offers; None of any other, such as a built-in one."""
    cls = type(workload)
    if cls.__module__.partition(".")[0] == "flopray":
        return None  # saves reading all installed packages
    found = next((p for p in entry_points(group=GROUP) if p.name == workload.name), None)
    module = sys.modules.get(cls.__module__)
    if found is None or module is None or getattr(workload, "source", None) is not None:
        return None
    root = cls.__module__.partition(".")[0]
    name, version = (found.dist.name, found.dist.version) if found.dist else (root, "")
    return Package(name, version, _hash(cls.__module__))


def _hash(module_name: str) -> str:
    """Folder of the outermost package with a file around a module; what is above is shared with other packages."""
    parts = module_name.split(".")
    names = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    module = next((m for m in map(sys.modules.get, names) if getattr(m, "__file__", None)), None)
    digest = hashlib.sha256()
    for name, path in _files(module):
        digest.update(f"{name}\0".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
        digest.update(b"\0")
    return digest.hexdigest()


def _files(module: Any) -> Iterator[tuple[str, Path]]:
    """Python files by their names in the package, in order."""
    own = Path(str(getattr(module, "__file__", "")))
    folders = [Path(folder) for folder in getattr(module, "__path__", [])]
    found = sorted((str(path.relative_to(folder)), path) for folder in folders for path in folder.rglob("*.py"))
    if not found or len(found) > _MOST_FILES:
        found = [(own.name, own)]
    yield from found
