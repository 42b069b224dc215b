"""Commands that run in this process change its signal handlers and warnings; each test gets its own back."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        yield
    signal.signal(signal.SIGTERM, handler)
