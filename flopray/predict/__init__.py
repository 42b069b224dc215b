"""Fitted models of time and energy: from measured rows to the cost of phases that were not measured.

`fit` makes a `Predictor` of runs, which answers with intervals, says when a question lies outside what was measured,
and is kept as JSON; `work_of` is what a point asks of a device. Imports neither torch nor Ray.
"""

from flopray.predict.prediction import Estimate, Prediction
from flopray.predict.predictor import Predictor, fit
from flopray.predict.work import NoWork, Work, work_of

__all__ = ["Estimate", "NoWork", "Prediction", "Predictor", "Work", "fit", "work_of"]
