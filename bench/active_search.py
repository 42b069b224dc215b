"""How many points of a grid are needed: the most informative ones, random ones, and those first in the grid.

    python bench/active_search.py RUN... [--fit-to RUN...] [--seeds 6] [--out FILE.json]
    python bench/active_search.py --plot FILE.json --out FILE.png

Each RUN has a whole grid of one board, with time and energy. A Gaussian process predicts the points that were not
measured, the same for each order, with and without fitted models as its prior. The models are those that come with
flopray, or are fitted to other runs, so that they have not seen the grids. Seeds are first points of the active search
and random orders; a grid is walked with each dimension outermost, forwards and backwards.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from active_search_plot import STATISTICS, draw, table_of

from flopray.cli.fit import load_frames
from flopray.predict.predictor import Predictor, fit
from flopray.store.location import open_run
from flopray.sweep.active import Floats, Surrogate, features_of
from flopray.sweep.objectives import objectives_of
from flopray.sweep.prior import prior_of
from flopray.workloads.registry import point_from

_SHARES = (0.05, 0.1, 0.2, 0.4)
_LEAST_POINTS = 4


class Grid(NamedTuple):
    """A measured grid of N points.

    Attributes:
        about: name, device, precision and phases.
        values: of each dimension, shape (N, D).
        places: features of the points, shape (N, F).
        truth: time and energy of the phases, shape (N, K).
        prior: the same as models expect them; None without models.
    """

    about: dict[str, Any]
    values: Floats
    places: Floats
    truth: Floats
    prior: Floats | None


def grid_of(run: str, predictor: Predictor | None) -> Grid:
    """The grid of a run."""
    folder = open_run(run)
    frame: Any = folder.load()  # the stubs of pandas do not know whether a column is a Series or a DataFrame
    names = [field.name for field in folder.workload.dimensions]
    fixed = {name: frame[name].iloc[0] for name in ("workload", "device_type", "precision", "execution")}
    if frame["device_uuid"].nunique() > 1 or len(frame[list(fixed)].drop_duplicates()) > 1:
        raise SystemExit(f"{run} has several boards or precisions: one of each is judged at a time")
    phases = sorted(frame["phase"].unique())
    objectives = objectives_of([f"{p}/{c}" for p in phases for c in ("time_s", "energy_j")], phases, phases)
    wide = frame.pivot_table(index=names, columns="phase", values=["time_s", "energy_j"])
    keys = [tuple(map(int, key)) for key in wide.index]
    axes = {name: sorted({key[at] for key in keys}) for at, name in enumerate(names)}
    truth = np.stack([wide[one.column, one.phase].to_numpy(float) for one in objectives], axis=1)
    points = [point_from(fixed | dict(zip(names, key, strict=True))) for key in keys]
    about = {"run": run.removeprefix("docs/results/"), "device": fixed["device_type"], "precision": fixed["precision"]}
    about |= {"phases": phases, "points": len(keys)}
    prior = prior_of(points, objectives, predictor)
    if prior is not None:  # what the models alone say
        error = np.abs(prior / truth - 1)
        about["models_alone"] = [round(float(e), 5) for e in (np.nanmedian(error), np.sqrt(np.nanmean(error**2)))]
    return Grid(about, np.array(keys, float), features_of(axes, keys), truth, prior)


def walks(values: Floats) -> Iterator[list[int]]:
    """Orders of a grid: each dimension outermost, forwards and backwards."""
    for outermost in range(values.shape[1]):
        if len(set(values[:, outermost])) > 1:
            inner = [at for at in range(values.shape[1]) if at != outermost]
            order = np.lexsort([values[:, at] for at in (*reversed(inner), outermost)]).tolist()
            yield from (order, order[::-1])


def errors_of(grid: Grid, order: Sequence[int], *, active: bool, models: bool) -> Iterator[dict[str, float]]:
    """Errors at points not measured, after each share of the grid.

    Args:
        grid: what is measured.
        order: of the points; of an active search the first one counts.
        active: whether the search chooses the points.
        models: whether models are the prior.
    """
    surrogate, known = Surrogate(grid.places, prior=grid.prior if models else None), []
    steps = [max(_LEAST_POINTS, round(share * len(order))) for share in _SHARES]
    for step in range(max(steps)):
        place = surrogate.next_of_surface() if active and step else order[step]
        surrogate.tell(place, grid.truth[place].tolist())
        known.append(place)
        if len(known) in steps:
            rest = np.setdiff1d(np.arange(len(order)), known)
            errors = np.abs(surrogate.predict()[0][rest] / grid.truth[rest] - 1)
            found = (np.median(errors), np.sqrt(np.mean(errors**2)), np.percentile(errors, 95))
            yield {
                "points": len(known),
                **{name: round(float(e), 5) for name, e in zip(STATISTICS, found, strict=True)},
            }


def judged(grid: Grid, seeds: int) -> dict[str, Any]:
    """Errors of each order, with and without models: a list over shares for each seed."""
    count = len(grid.truth)
    drawn = [np.random.default_rng(seed).permutation(count).tolist() for seed in range(seeds)]
    orders = {"active": drawn, "random": drawn, "grid": list(walks(grid.values))}
    methods = []
    for models, (name, several) in itertools.product((True, False), orders.items()):
        if models and grid.prior is None:
            continue
        runs = [list(errors_of(grid, order, active=name == "active", models=models)) for order in several]
        methods.append({"order": name, "models": models, "seeds": runs})
    return {**grid.about, "methods": methods}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table, and write the errors; or draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--fit-to", nargs="+", metavar="RUN", help="fit the models to these (default: those shipped)")
    parser.add_argument("--seeds", type=int, default=6, help="of each order (default 6)")
    parser.add_argument("--plot", type=Path, metavar="JSON", help="draw these errors")
    parser.add_argument("--out", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    if options.plot:
        if options.out is None or options.runs:
            parser.error("--plot FILE.json goes with --out FILE.png, and without runs")
        made = json.loads(options.plot.read_text())
        print(table_of(made["grids"]))
        draw(made, options.out)
        return 0
    if not options.runs:
        parser.error("name a run")
    predictor = None
    if options.fit_to:
        frames, workloads = load_frames(options.fit_to)
        predictor = fit(frames, workloads=workloads, judge=False)
    found = [judged(grid_of(run, predictor), options.seeds) for run in options.runs]
    print(table_of(found))
    if options.out:
        made = {"fit_to": options.fit_to or "the models that come with flopray", "grids": found}
        options.out.write_text(json.dumps(made, separators=(",", ":")) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
