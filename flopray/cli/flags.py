"""The flags of a sweep, made from the fields of its workload and from the settings."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flopray import __version__
from flopray.cli import parser as parsers
from flopray.cli.axes import described, dest_of, flag_of
from flopray.cli.parser import OneLineParser
from flopray.cli.request import GENERATE, Options, Request, check_columns, common_default, request_of
from flopray.cli.synonyms import synonyms
from flopray.description import Field
from flopray.errors import FloprayError, InputError
from flopray.mappings import Arguments
from flopray.settings import MeasureSettings, Setting, settings_of
from flopray.sweep.definition import Sweep
from flopray.sweep.limits import Limits
from flopray.sweep.space import COMMON
from flopray.workloads.base import Workload

#: Every setting that has a flag, by name.
SETTINGS: dict[str, Setting] = {
    known.name: known
    for settings in (COMMON, *(settings_of(cls) for cls in (MeasureSettings, Sweep, Limits, Options)))
    for known in settings.values()
}
_SPACE = "search space"
#: Order and headings in `--help`; the fields of the workload come first.
GROUPS: dict[str, tuple[str, ...]] = {
    _SPACE: ("precision", "execution", "device_type", "gpu_type", "wait_s"),
    "measuring": tuple(settings_of(MeasureSettings)),
    "searching instead of a full grid": ("search", "samples", "objective", "shard"),
    "where it runs": ("address", "cpus_per_trial", "points_per_trial", "trial", "strict"),
    "when something fails": tuple(settings_of(Limits)),
    "run and results": ("name", "storage", "resume", "retry_failed", "log_to", "quiet", "json", "plots", "dry_run"),
}


def parse(workload: Workload, argv: Sequence[str] | None = None) -> Request:
    """What the words of a command line ask for.

    Args:
        workload: what is measured.
        argv: the words; by default those of this process.

    Raises:
        InputError: a value that cannot be, or a workload with a field that cannot be a flag or a column.
        SystemExit: after `--help` and after words that are no flags.
    """
    given = {name: value for name, value in vars(build_parser(workload).parse_args(argv)).items() if value is not None}
    axes = {field.name: given.pop(dest_of(field)) for field in _axes_of(workload) if dest_of(field) in given}
    axes |= {name: given.pop(name) for name in COMMON if name in given}
    return request_of(workload, axes, given)


def build_parser(workload: Workload) -> argparse.ArgumentParser:
    """The flags of a sweep, grouped. What is not given is None, so that a resume can tell.

    Raises:
        InputError: the workload has a field that cannot be a flag or a column.
    """
    check_columns(workload)
    first = (type(workload).__doc__ or "").strip().split("\n\n")[0]
    started = Path(sys.argv[0]).name
    parser = OneLineParser(
        prog=started
        if started.endswith(".py") and started != "__main__.py"
        else f"flopray sweep {_reference(workload)}",
        description=first,
        epilog=workload.examples,
    )
    parser.add_argument("--version", action="version", version=f"flopray {__version__}")
    groups = {title: parser.add_argument_group(title) for title in GROUPS}
    taken = {SETTINGS[name].option for names in GROUPS.values() for name in names} | {"--help", "-h", "--version"}
    for field in _axes_of(workload):
        add_field(groups[_SPACE], workload, field, taken)
    for title, names in GROUPS.items():
        for name in names:
            add_setting(groups[title], workload, SETTINGS[name])
    parser.synonyms = synonyms(workload.fields, {name: known.option for name, known in SETTINGS.items()})
    return parser


def _reference(workload: Workload) -> str:
    """Name of the workload on a command line."""
    source = workload.source
    return f"{Path(source.path).name}:{source.class_name}" if source else workload.name


def _axes_of(workload: Workload) -> list[Field]:
    return [field for field in workload.fields if not field.implied]


def add_field(group: Any, workload: Workload, field: Field, taken: set[str], text: str | None = None) -> None:
    """Add the flag of a workload's field, and the names that it had before.

    Args:
        group: of a parser.
        workload: whose field it is.
        field: which one.
        taken: flags that are there; gets those of the field.
        text: for `--help`, instead of one that tells of several values.

    Raises:
        InputError: a flag that another one has.
    """
    for flag in (flag_of(field), *field.old_flags):
        if flag in taken:
            problem = f"the flag {flag} is taken: give the field another flag"
            raise InputError(f"workload {workload.name}, field {field.name}: {problem}")
        taken.add(flag)
    words = described(field) if text is None else text.replace("%", "%%")
    group.add_argument(flag_of(field), dest=dest_of(field), nargs="*", metavar="VALUE", help=words)
    for old in field.old_flags:
        group.add_argument(old, dest=dest_of(field), nargs="*", help=argparse.SUPPRESS)


def add_setting(group: Any, workload: Workload, known: Setting) -> None:
    """Add the flag of a setting; its default follows from the workload and the devices, or from the run."""
    text = known.described(**_of_workload(workload, known.name))
    parsers.add_setting(group, dataclasses.replace(known, required=False), text)


def _of_workload(workload: Workload, name: str) -> Arguments:
    """Choices and default of a setting that follow from the workload, for `--help`."""
    if name == "phases":
        words = [f"{word} stands for {' and '.join(parts)}" for word, parts in GENERATE.items()]
        more = words if "decode" in workload.phases else []
        return {
            "choices": ["; ".join([", ".join(workload.phases), *more])],
            "default": " ".join(workload.default_phases),
        }
    if name not in ("precision", "execution"):
        return {}
    with_gpu, without = (" ".join(common_default(workload, name, on_gpu=on_gpu)) for on_gpu in (True, False))
    if name == "execution":
        return {"default": f"{with_gpu} with a GPU, {workload.gpu_execution[1]}; {without} without; compile with fp8"}
    return {"default": with_gpu if with_gpu == without else f"{with_gpu} with a GPU, {without} without"}


def flags_of(workload: Workload | None = None) -> dict[str, str]:
    """The flag of each setting, and of each field of a workload."""
    fields = {} if workload is None else {field.name: flag_of(field) for field in workload.fields if not field.implied}
    return {name: known.option for name, known in SETTINGS.items()} | fields


def told(error: FloprayError, workload: Workload | None = None) -> str:
    """The message of an error for a command line: settings and fields are called by their flags."""
    return parsers.told(error, **flags_of(workload))
