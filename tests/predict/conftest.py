"""Fixtures of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from imagined_gpu import made_frame


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    return made_frame(noise=0.01)
