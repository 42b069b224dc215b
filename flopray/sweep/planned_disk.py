"""Disk that a sweep will take: its tables, Tune's results, figures and pages."""

from __future__ import annotations

import math
from importlib.util import find_spec

from flopray.sweep.definition import Sweep
from flopray.workloads.base import Workload, with_code

#: Bytes of journal and Parquet for one phase, measured on runs with every column filled; and of a table's schema.
_A_PHASE, A_RUN = 2500, 60_000
#: What Tune's loggers and its state of the experiment hold: of a phase of a point, of a trial, and of each phase of a
#: trial, whose columns all have statistics there. Measured with Ray 2.60 on runs of 1, 2 and 4 phases.
_TUNE_A_PHASE, _TUNE_A_TRIAL, _TUNE_OF_COLUMNS = 8_500, 24_000, 70_000
#: A page with its script, which needs plotly, and the report, which has the same fonts and pictures for any run.
_PAGE, _REPORT = 4_850_000, 2_000_000
#: Figures as PNG and SVG: of surfaces, and of lines where one axis has one value. A comparison of a setting and its
#: tables are smaller.
_SURFACE, _LINES, _COMPARISON = 215_000, 120_000, 180_000
#: Phases that a comparison draws apart from those of training.
_GENERATING = {"prefill", "decode"}
#: Panels of a figure, as `flopray.report.surface.plots` draws them.
_PANELS = 5


def table_bytes(points: int, trials: int, phases: int) -> int:
    """Bytes of the journal, the table, and Tune's results beside them."""
    return points * phases * (_A_PHASE + _TUNE_A_PHASE) + trials * (_TUNE_A_TRIAL + phases * _TUNE_OF_COLUMNS)


def figures(sweep: Sweep, types: int) -> tuple[int, int]:
    """Figures of a run and their bytes, with pages and report.

    Args:
        sweep: the sweep.
        types: of devices.
    """
    workload = with_code(sweep.workload)
    if workload.figures == "scores":
        return 1, _COMPARISON
    page = _PAGE if find_spec("plotly") else 0
    if workload.figures == "comparison":
        settings = _values(sweep, *(field.name for field in workload.choices), "execution")
        phases = set(sweep.settings.phases)
        kinds = bool(phases - _GENERATING) + bool(phases & _GENERATING)
        count = settings * kinds * (2 if sweep.axes["device_type"] == ("CPU",) else 4)
        return count, page + _COMPARISON * settings + _REPORT
    count, each = _surfaces(sweep, workload, types)
    return count, (page if count else 0) + _REPORT + count * each


def _surfaces(sweep: Sweep, workload: Workload, types: int) -> tuple[int, int]:
    """Figures of the metrics of each phase, and bytes of one; a single point has no axis to draw along."""
    *further, panel, x, y = (None, None, None, *(field.name for field in workload.dimensions))
    names = [name for name in further if name] + [field.name for field in workload.choices]
    groups = _values(sweep, *names, "precision", "execution") * types
    if sweep.size <= groups:
        return 0, 0
    metrics = 4 if sweep.axes["device_type"] == ("CPU",) else 6
    sets = metrics * len(sweep.settings.phases) * groups
    if min(_values(sweep, x), _values(sweep, y)) == 1:
        return sets, _LINES
    return 2 * math.ceil(_values(sweep, panel) / _PANELS) * sets, _SURFACE  # linear and logarithmic


def _values(sweep: Sweep, *axes: str | None) -> int:
    """Combinations of values of axes; an axis that is not there has one."""
    return math.prod(len(sweep.axes[name]) for name in axes if name is not None and name in sweep.axes)
