"""Makes hundreds of runs fast: none of them has to survive a power cut."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def unsynced(calibrated_once: None) -> Iterator[None]:
    """Files are not forced to the disk, and this CPU is measured once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
