"""The fit that comes with flopray, to the runs that docs/results/prediction.md names (`docs/make_prediction.py`)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from flopray.predict.predictor import Predictor

PATH = Path(__file__).with_name("shipped.json")


@cache
def shipped() -> Predictor:
    """The models; read once."""
    return Predictor.load(PATH)
