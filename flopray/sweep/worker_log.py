"""Collects warnings of libraries in a trial's process for the run's log, each once."""

from __future__ import annotations

import logging

#: Loggers whose warnings are kept; `py.warnings` is that of the `warnings` module.
_SPEAKERS = ("py.warnings", "torch", "transformers", "ray")
#: Most messages of a process in the log; its own log in Ray has the rest.
_MOST_LINES = 200
_LONGEST = 300


class WorkerLog(logging.Handler):
    """Collects warnings and errors of libraries while this process runs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seen: set[str] = set()
        self._new: list[str] = []
        logging.captureWarnings(True)
        for name in _SPEAKERS:
            logging.getLogger(name).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first line of a message."""
        text = next((line.strip() for line in record.getMessage().splitlines() if line.strip()), "")
        line = f"{record.name}: {text[:_LONGEST]}"
        if line not in self._seen and len(self._seen) < _MOST_LINES:
            self._seen.add(line)
            self._new.append(line)

    def take(self) -> list[str]:
        """Messages since the last call."""
        new, self._new = self._new, []
        return new
