"""Standard output and error while a command runs: a disk that is full or a reader that is gone ends no measurement.

Messages often go into a file beside the results, on the same disk, or to a terminal that is closed meanwhile.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flopray.store import atomic

#: Nobody reads any more: `| head` is content, and a terminal that is closed cannot be told anything.
_NO_READER = (errno.EPIPE, errno.EIO)


class Stream:
    """A text stream whose first failure is kept, and silences it.

    Args:
        stream: which is written to.

    Attributes:
        failure: why it could not be written; None where it could, or where nobody reads it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; characters that the stream's encoding lacks are escaped."""
        self._attempt(lambda: self._written(text))
        return len(text)

    def _written(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))

    def writelines(self, lines: Any) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand over what is buffered."""
        self._attempt(self._stream.flush)

    def _attempt(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            if error.errno not in _NO_READER:
                self.failure = self.failure or atomic.reason(error)
            self._silence()

    def _silence(self) -> None:
        """Lead it to nowhere, also what its buffer holds: Python would fail once more at the end of the process."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class Streams:
    """Both streams of a process.

    Args:
        output: standard output; None where it is closed.
        messages: standard error.
    """

    def __init__(self, output: Stream | None, messages: Stream | None) -> None:
        self._output, self._messages = output, messages

    def code(self, code: int, lost: int) -> int:
        """The exit code: `lost` where a command did what was asked, and its results could not be written.

        Args:
            code: of the command.
            lost: in place of 0.
        """
        for stream in (self._output, self._messages):
            if stream is not None:
                stream.flush()
        if self._output is None or self._output.failure is None:
            return code
        print(f"error: standard output cannot be written: {self._output.failure}", file=sys.stderr)
        return code or lost


@contextmanager
def lasting_streams() -> Iterator[Streams]:
    """Inside the block, what cannot be written to standard output or error raises nothing."""
    before = sys.stdout, sys.stderr
    output, messages = (None if stream is None else Stream(stream) for stream in before)
    sys.stdout, sys.stderr = output, messages  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield Streams(output, messages)
    finally:
        sys.stdout, sys.stderr = before
