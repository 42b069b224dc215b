"""Sweeps from Python: as on the command line, with values instead of words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from flopray.cli.axes import flag_of
from flopray.cli.request import check_columns, request_of
from flopray.cli.synonyms import meant, synonyms
from flopray.cli.terminal import LineConsole
from flopray.cli.trust import workload_of_run
from flopray.errors import EXIT_INTERRUPTED, InputError, SettingError, check_path, several
from flopray.mappings import Values
from flopray.measurement.result import with_error
from flopray.settings import MeasureSettings, settings_of
from flopray.store.location import open_run
from flopray.sweep.definition import Sweep as SweepOfWorkload
from flopray.sweep.limits import Limits
from flopray.sweep.space import COMMON
from flopray.workloads.base import Workload
from flopray.workloads.registry import loadable

if TYPE_CHECKING:
    import pandas as pd

    from flopray.store.run import RunFolder

#: Axes that every workload has, by the name of their setting here.
_COMMON = {"device_types" if name == "device_type" else name: name for name in COMMON}
#: What a sweep takes besides its axes.
_SETTINGS = {
    *_COMMON,
    *(s.name for cls in (MeasureSettings, SweepOfWorkload, Limits) for s in settings_of(cls).values()),
}
#: The flags of the settings: names from a command line, and from other tools, lead to those of Python.
_FLAGS = {
    **{name: COMMON[axis].option for name, axis in _COMMON.items()},
    **{s.name: s.option for cls in (MeasureSettings, SweepOfWorkload, Limits) for s in settings_of(cls).values()},
}
#: Arguments of `Sweep.run`, and flags that its path stands for.
_OF_RUN, _OF_PATH = ("address", "plots", "strict", "quiet"), ("name", "storage")
#: Settings that take several words, or one.
_SEVERAL = ("precision", "execution", "phases", "instruments", "device_types")
#: What is shown of a run: a rate, its error (FLOPs are exact) and its unit.
_BEST = (("flops_per_s", "time_rel_error", "FLOP/s"), ("flops_per_j", "energy_rel_error", "FLOP/J"))


class Run:
    """A measured run.

    Attributes:
        address: its folder or URI.
        workload: what it measured.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.address, self.workload = folder.address, folder.workload

    def frame(self) -> pd.DataFrame:
        """All records, as `flopray.load_run` gives them."""
        return self._folder.load()

    def __repr__(self) -> str:
        """Points, failures and the best rates with the interval of their window, as in a lab book."""
        frame: Any = self._folder.load(["status", "phase", *(name for line in _BEST for name in line[:2])])
        failed = frame.loc[frame["status"] != "ok", "trial_id"].nunique()
        lines = [f"Run of {self.workload.name}: {self.address}"]
        lines.append(f"  points   {frame['trial_id'].nunique()}" + (f", {failed} not ok" if failed else ""))
        for column, error, unit in _BEST:
            if frame[column].notna().any():
                best = frame.loc[frame[column].idxmax()]
                known = None if best[error] != best[error] else float(best[error])
                lines.append(f"  best     {with_error(float(best[column]), unit, known)}, {best['phase']}")
        return "\n".join(lines)


class Sweep:
    """A search space and how its points are measured.

    Args:
        workload: `mlp`, `llama`, the name of an installed one, `path/to/file.py:ClassName`, or a `Workload`, as a
            class or without values.
        axes: values by field of the workload; those that are left out take its default grid.
        **settings: `precision`, `execution`, `phases`, `instruments`, `device_types`, `objective`, `log_to` (a word
            or several), `target_error`, `max_seconds`, `seed`, `sentinel_every_s`, `reference_temperature_c`,
            `cooldown_c`, `hold_temperature_c`, `calibrate`, `keep_series`, `search`, `samples`, `shard`,
            `cpus_per_trial`, `points_per_trial`, `trial`, `point_timeout_s`, `retries`, `stop_after`; as the flags of
            `flopray sweep` with the same defaults.

    Raises:
        InputError: an unknown field or setting.

    Example:
        >>> Sweep("mlp", axes={"n_layers": [2, 4], "width": range(128, 1025, 128), "tokens": [64]})
        Sweep of mlp: n_layers 2 4; width 128 256 384 512 640 768 896 1024; tokens 64
    """

    def __init__(
        self,
        workload: str | Workload | type[Workload],
        *,
        axes: Mapping[str, Iterable[Any]] | None = None,
        **settings: Any,
    ) -> None:
        self.workload = loadable(workload)
        if not isinstance(axes or {}, Mapping):
            raise InputError(
                f"axes must map each field to its values, such as {{'width': [64, 128]}}, got {axes!r:.60}"
            )
        self.axes = {name: several(f"axis {name}", values) for name, values in (axes or {}).items()}
        self.settings: Values = {
            name: several(name, value, one_word=True) if name in _SEVERAL and value is not None else value
            for name, value in settings.items()
        }
        _refuse_unknown(self.workload, self.axes, settings)

    def __repr__(self) -> str:
        """The axes that were named."""
        axes = "; ".join(f"{name} {' '.join(map(str, values))}" for name, values in self.axes.items())
        return f"Sweep of {self.workload.name}: {axes or 'its default grid'}"

    def run(
        self,
        path: str | PathLike[str],
        *,
        address: str | None = None,
        plots: bool = False,
        strict: bool = False,
        quiet: bool = False,
    ) -> Run:
        """Measure all points into a new run.

        Args:
            path: folder or URI of the run, which must not exist.
            address: of a Ray cluster to join, such as `auto`; by default Ray is started here.
            plots: draw the finished run.
            strict: refuse to begin where nodes differ or lack what the sweep asks for.
            quiet: show no progress.

        Returns:
            The run; points that failed are rows with their reason.

        Raises:
            InputError: nothing was started; the line says what is wrong.
            FloprayError: the sweep stopped; every finished point is in the run, and `resume` goes on.
            KeyboardInterrupt: as before.
        """
        check_path("path", path)
        storage, slash, name = str(path).rstrip("/").rpartition("/")
        storage = storage or slash or "."
        given = {name: value for name, value in self.settings.items() if value is not None}
        axes = {axis: given.pop(name) for name, axis in _COMMON.items() if name in given}
        axes = {axis: [words] if isinstance(words, str) else list(words) for axis, words in axes.items()} | self.axes
        where = {"name": name, "storage": storage, "address": address}
        return _carried_out(self.workload, axes, given | where, str(path), plots=plots, strict=strict, quiet=quiet)


def _refuse_unknown(workload: Workload, axes: Iterable[str], settings: Iterable[str]) -> None:
    """Refuse names that are no axes and no settings.

    Raises:
        InputError: with those that there are, and the one that was likely meant.
    """
    fields = sorted(field.name for field in workload.fields if not field.implied)
    for name in axes:
        if name not in fields:
            meant = f": {name} is a setting: Sweep(..., {name}=...)" if name in _SETTINGS else ""
            meant = meant or _did_you_mean(workload, name, fields, "{0!r}")
            raise InputError(f"unknown axis {name!r:.60}: choose from {', '.join(fields)}{meant}")
    for name in settings:
        if name not in _SETTINGS:
            known = f"{', '.join(sorted(_SETTINGS))}; the axes of {workload.name} are {', '.join(fields)}"
            if name in _OF_RUN:
                meant = f": {name} is an argument of run: Sweep(...).run(path, {name}=...)"
            elif name in _OF_PATH:
                meant = ": the folder of a run is the argument of run: Sweep(...).run('results/x')"
            else:
                meant = _did_you_mean(workload, name, (*fields, *_SETTINGS), "axes={{{0!r}: [...]}}")
            raise InputError(f"unknown setting {name!r:.60}: choose from {known}{meant}")


def _did_you_mean(workload: Workload, guess: str, known: Iterable[str], of_field: str) -> str:
    """The known name that a guess means here: a flag, a name in another tool, or a similar one; empty without any.

    Args:
        workload: whose fields may be meant.
        guess: the wrong name.
        known: the right ones.
        of_field: how a field is written here.
    """
    fields = {field.name: flag_of(field) for field in workload.fields if not field.implied}
    flags = fields | {name: flag for name, flag in _FLAGS.items() if name in known}
    found = guess if guess in fields else workload.field_meant(guess)
    if found is None:
        names = {flag: name for name, flag in flags.items()}
        answers = synonyms(workload.fields, {name: flag for name, flag in flags.items() if name not in fields})
        found = names.get((meant(guess, answers, list(names)) or "").partition(" ")[0])
    if found is None or found not in known:
        return ""
    return f": did you mean {of_field.format(found) if found in fields else found}?"


def resume(
    path: str | PathLike[str],
    *,
    address: str | None = None,
    workload: str | None = None,
    retry_failed: bool = False,
    plots: bool = False,
    quiet: bool = False,
) -> Run:
    """Measure the points that an interrupted run lacks.

    Args:
        path: folder or URI of the run.
        address: of a Ray cluster to join; by default Ray is started here.
        workload: `FILE.py:NAME` of the run's workload, where its file was not swept on this machine before.
        retry_failed: also measure points again that crashed.
        plots: draw the finished run.
        quiet: show no progress.

    Raises:
        RunFinished: there is nothing left.
        InputError, FloprayError, KeyboardInterrupt: as `Sweep.run`.
    """
    folder = open_run(path)
    found = workload_of_run(folder.manifest, folder.address, workload)
    given = {"resume": str(path), "address": address, "retry_failed": retry_failed}
    return _carried_out(found, {}, given, str(path), plots=plots, quiet=quiet)


def _carried_out(
    workload: Workload, axes: Mapping[str, Sequence[Any]], given: Mapping[str, Any], address: str, **shown: bool
) -> Run:
    from flopray.cli.session import run

    check_columns(workload)
    try:
        request = request_of(workload, axes, {**given, **shown})
        request = dataclasses.replace(request, options=dataclasses.replace(request.options, summary=False))
        code = run(workload, request, LineConsole(stderr=True, markup=False))
    except SettingError as error:  # with the names that settings have here
        raise type(error)(error.told({axis: name for name, axis in _COMMON.items()})) from error
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return Run(open_run(address))
