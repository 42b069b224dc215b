"""Which tasks the harness has, its own and those of a folder, and whether their data is here or can be loaded.

All of it is checked before a run begins, so that what is missing is one line and not a failed point.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopray.errors import InputError, SettingError, one_line
from flopray.workloads import hub

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

#: What flopmetrics evaluates by default: its GLUE tasks, without examples.
#: https://github.com/jmetrikat/flopmetrics/blob/main/flopmetrics/evaluation.py
GLUE = ("sst2", "mrpc", "qqp", "mnli", "mnli_mismatch", "qnli", "rte", "wnli")
#: In place of a folder: the tasks that come with the harness, and no others.
HARNESS = "harness"
#: Variables from which the libraries read their offline mode when they are imported:
#: https://huggingface.co/docs/datasets/loading#offline
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_TALKATIVE = ("lm_eval", "datasets", "huggingface_hub", "transformers", "httpx", "evaluate")
_INSTALL = "pip install 'flopray[evaluate]'"
_CONNECT = "connect this machine once (downloads stay in ~/.cache/huggingface, or $HF_HOME)"


def require_harness() -> None:
    """Refuse to go on without the extra.

    Raises:
        InputError: lm-eval, or what it runs models by, is not installed.
    """
    if missing := [name for name in ("lm_eval", "accelerate") if find_spec(name) is None]:
        raise InputError(f"evaluating needs an extra, {' and '.join(missing)} not being installed: {_INSTALL}")


def check_folder(name: str) -> str:
    """The folder of a user's own tasks, absolute, since workers have folders of their own.

    Raises:
        InputError: it is not a folder, or has no task.
    """
    if name == HARNESS:
        return name
    folder = Path(name).expanduser().absolute()
    if not folder.is_dir():
        raise SettingError(f"<include_path> {name}: there is no such folder")
    if not any(folder.rglob("*.y*ml")):
        raise SettingError(f"<include_path> {name}: it has no .yaml file, which describes a task")
    return str(folder)


def code_in(folder: str) -> str:
    """SHA-256 of the descriptions of tasks in a folder, and of the functions that they call."""
    digest = hashlib.sha256()
    for file in sorted(path for path in Path(folder).rglob("*") if path.suffix in (".yaml", ".yml", ".py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder)} {len(content)} ".encode() + content)
    return digest.hexdigest()


@lru_cache(maxsize=8)
def find_tasks(names: tuple[str, ...], folder: str) -> tuple[str, ...]:
    """The single tasks of some names, their data loaded: a group or a tag stands for its tasks.

    Args:
        names: of tasks, groups (`mmlu`) or tags (`glue`).
        folder: as `check_folder` gives it.

    Raises:
        InputError: a name that is unknown, or a task whose data is not here and cannot be loaded.
    """
    manager = manager_of(names, folder)
    found: list[str] = []
    for name in names:
        if name not in manager.task_index:
            near = get_close_matches(name, manager.all_tasks, n=3)
            hint = f": did you mean {' or '.join(near)}?" if near else ""
            where = "the harness has none of this name" + ("" if folder == HARNESS else f", nor has {folder}")
            more = "" if folder != HARNESS else "; tasks of your own go with <include_path=FOLDER>"
            raise SettingError(f"<task>: unknown {name!r:.80}, {where}{hint}{more}")
        for single in load_tasks(manager, name):
            if single not in manager.task_index:
                raise SettingError(f"<task> {name}: it describes its task {single} itself; name single tasks instead")
            found.append(single)
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=4)
def _manager(folder: str | None, with_harness: bool) -> TaskManager:
    from lm_eval.tasks import TaskManager

    with silent():
        try:
            return TaskManager(include_path=folder, include_defaults=with_harness)
        except Exception as error:  # a YAML file that cannot be read
            raise SettingError(f"<include_path> {folder}: {one_line(str(error))}") from error


def manager_of(names: Sequence[str], folder: str) -> TaskManager:
    """An index of tasks that contains some names.

    Reading all descriptions of the harness takes up to ten seconds, so a folder that has all names is read alone; of
    the default tasks that is a folder of the harness.
    """
    part = folder if folder != HARNESS else _folder_of_glue() if set(names) <= set(GLUE) else None
    if part is not None and all(name in _manager(part, False).task_index for name in names):
        return _manager(part, False)
    return _manager(None if folder == HARNESS else folder, True)


def _folder_of_glue() -> str:
    import lm_eval.tasks

    return str(Path(lm_eval.tasks.__file__).parent / "glue")


def load_tasks(manager: TaskManager, name: str) -> dict[str, Task]:
    """The tasks of a name with their data, by their own names.

    Raises:
        InputError: the data is not here and cannot be loaded, or the task's description does not work.
    """
    entry = manager.task_index[name]
    files = _local_files(entry.cfg)
    reason = None if files else hub.unreachable()
    try:
        with silent(), _offline(reason is not None), _beside(entry.yaml_path, files):
            loaded = dict(manager.load([name])["tasks"])
    except Exception as error:
        said = one_line(str(error)) or type(error).__name__
        if _is_of_network(error) and reason is None:
            raise SettingError(f"<task> {name}: its data cannot be loaded from the hub ({said})") from error
        if reason is not None:
            mend = f"{_CONNECT}, or describe a task of your own with data here: <include_path=FOLDER>"
            raise SettingError(f"<task> {name}: its data is not on this machine, and {reason}: {mend}") from error
        raise SettingError(f"<task> {name}: the task cannot be loaded ({said})") from error
    for single, task in loaded.items():
        if getattr(task, "UNSAFE_CODE", False):
            raise SettingError(f"<task> {name}: {single} runs code that the model writes, which flopray does not do")
        if getattr(task, "MULTIMODAL", False):
            raise SettingError(f"<task> {name}: {single} shows images, and only models of text are evaluated")
    return loaded


def _local_files(described: Any) -> list[str]:
    """The files of this machine with a task's data, by its description; none where they are elsewhere."""
    if not isinstance(described, dict):
        return []
    arguments = described.get("dataset_kwargs")
    files = arguments.get("data_files") if isinstance(arguments, dict) else None
    parts = [files] if isinstance(files, str) else list(files.values()) if isinstance(files, dict) else files or []
    flat = [str(text) for part in parts for text in (part if isinstance(part, list) else [part])]
    return [] if any("://" in text for text in flat) else flat


@contextmanager
def _beside(description: Path | None, files: Sequence[str]) -> Iterator[None]:
    """Work in the folder of a task's description: the harness looks for data in the working folder alone.

    Only for as long as the data is loaded, and only where all files lie there.
    """
    folder = None if description is None else Path(description).parent
    if folder is None or not files or not all((folder / file).exists() for file in files):
        yield
        return
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _is_of_network(error: BaseException) -> bool:
    return isinstance(error, ConnectionError | TimeoutError) or "onnect" in type(error).__name__


@contextmanager
def _offline(yes: bool) -> Iterator[None]:
    """Have the libraries use their cache: they would try an unreachable hub for half a minute."""
    if not yes:
        yield
        return
    import datasets.config
    import huggingface_hub.constants

    before = [os.environ.get(name) for name in _OFFLINE]
    flags = (huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)
    try:
        for name in _OFFLINE:
            os.environ[name] = "1"
        huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = flags
        for name, value in zip(_OFFLINE, before, strict=True):
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


@contextmanager
def silent() -> Iterator[None]:
    """Silence the libraries, which report every default and draw progress bars in the logs of workers."""
    import datasets
    import transformers.utils.logging as transformers_logging

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    bars = not datasets.are_progress_bars_disabled()
    if bars:
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # failures are raised
            yield
    finally:
        if bars:
            datasets.enable_progress_bars()
            transformers_logging.enable_progress_bar()
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def the_task(name: str, folder: str) -> Any:
    """One task with its data, in a worker.

    Raises:
        InputError: it is not here; the row of its point will say so.
    """
    require_harness()
    manager = manager_of((name,), check_folder(folder))
    if name not in manager.task_index:
        raise InputError(f"the harness of this machine has no task {name!r:.80}")
    return load_tasks(manager, name)[name]
