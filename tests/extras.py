"""The optional extras of the project, and whether this environment has what they need."""

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

_PROJECT = Path(__file__).parents[1] / "pyproject.toml"
#: Requirements of each extra, as `pyproject.toml` states them.
EXTRAS: dict[str, list[str]] = tomllib.loads(_PROJECT.read_text())["project"]["optional-dependencies"]


def lacking_of(requirements: list[str]) -> list[str]:
    """The requirements of an extra that this environment does not meet."""
    return [text for text in requirements if not _is_met(Requirement(text))]


def _is_met(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False
