"""Notices that the cluster's head node is gone, and ends the command with one line before Ray ends it without one.

Ray waits 60 s for a head node that does not answer (`gcs_rpc_server_reconnect_timeout_s`), and then ends the driver's
process from C++, past every handler of Python; until then calls of Tune may block. So a thread asks the head node
itself. A head node that comes back in time, as one with an external Redis can, is waited for.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

#: Well below Ray's 60 s, so that our message is the last one.
GIVE_UP_S = 30.0
_EVERY_S = 2.0
_TIMEOUT_S = 5.0


class HeadNodeWatchdog:
    """Asks repeatedly whether a TCP address answers.

    Args:
        address: `host:port` of the head node's control service; None asks nothing. Behind `ray://` the connection
            itself fails in Python, and the writer reports it.
        lost: called from the thread when nothing has answered for `give_up_s`.
        give_up_s: how long that is.
        every_s: pause between two looks.
    """

    def __init__(
        self,
        address: str | None,
        lost: Callable[[], object],
        *,
        give_up_s: float = GIVE_UP_S,
        every_s: float = _EVERY_S,
    ) -> None:
        host, _, port = (address or "").rpartition(":")
        self._at = (host.strip("[]"), int(port)) if port else None
        self._lost, self._give_up_s, self._every_s = lost, give_up_s, every_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="flopray-watchdog", daemon=True)

    def __enter__(self) -> HeadNodeWatchdog:
        """Begin to ask."""
        if self._at:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop asking."""
        self._closed.set()

    def _loop(self) -> None:
        answered_s = time.monotonic()
        while not self._closed.wait(self._every_s):
            if self._answers():
                answered_s = time.monotonic()
            elif time.monotonic() - answered_s >= self._give_up_s:
                if not self._closed.is_set():
                    self._lost()
                return

    def _answers(self) -> bool:
        assert self._at
        try:
            socket.create_connection(self._at, timeout=_TIMEOUT_S).close()
        except OSError:
            return False
        return True


def end_process(code: int) -> None:
    """End this process at once: an orderly exit would wait for the head node, and be ended by Ray meanwhile."""
    os._exit(code)
