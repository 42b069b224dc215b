"""Counts in threads too: torch's dispatch modes are active in one thread alone, and a step may use several.

`torch.nn.DataParallel` runs its replicas in threads, and a pipeline may give its stages to an executor. Counted in the
calling thread alone, their sum would be partial.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import thread as executors
from contextlib import AbstractContextManager, contextmanager
from typing import Any


@contextmanager
def in_threads(mode: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Within the block, threads that start, and what executors are given, run in a mode of their own.

    Args:
        mode: makes one for a thread.
    """
    active = threading.local()

    def within(work: Callable[[], Any]) -> Any:
        if getattr(active, "counted", False):
            return work()
        active.counted = True
        try:
            with mode():
                return work()
        finally:
            active.counted = False

    start, run_item = threading.Thread.start, executors._WorkItem.run

    def counted_start(thread: threading.Thread) -> None:
        run = thread.run
        if (
            getattr(thread, "_target", None) is not executors._worker
        ):  # the thread outlives the block; its items are counted
            thread.run = lambda: within(run)  # type: ignore[method-assign]
        start(thread)

    def counted_item(item: Any) -> None:
        within(lambda: run_item(item))

    threading.Thread.start = counted_start  # type: ignore[method-assign]
    executors._WorkItem.run = counted_item  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
        executors._WorkItem.run = run_item  # type: ignore[method-assign]
