"""How often a row's interval, the sentinel's drift included, holds the value of the device before it drifted.

    python bench/drift_coverage.py                        # ten seconds

Each simulated device drifts in a known way over a sweep of eight minutes: not at all, evenly, in a random walk (the
size is then its standard deviation at the end), or in one jump at any moment. The sentinel is measured at the start and
after every minute, with normal scatter; `stated` says how many times wider its stated interval is than its real one.
Rows are measured at any moment, with intervals of 0.7 to 1 % of their own that are right. Rows of the first minute are
left out: nothing is known of drift then, by any rule.

The rules differ in what of the sentinel's deviation enters a row's error, and how:

* window: nothing;
* variance: the square of the deviation less the variance of its scatter, in quadrature (flopray's former rule);
* significant: the same, where the deviation is outside of its own 95 % interval, and else nothing;
* pooled: the same, where it is outside, and else the mean over the last four checks of square less variance;
* interval: in full, and the interval of the deviation besides, where it is outside, and else nothing;
* honest: in full, and the interval of the deviation besides, always;
* flopray: `flopray.audit.drift.added_error`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from flopray.audit.drift import added_error

_CHECKS, _ROWS, _POOLED = 8, 12, 4
_HALF_WIDTH = 1.96
_SIZES = (0.3, 0.6, 1.0, 1.5, 2.0, 3.0)
_CASES = (("none", 0.0), *((kind, size) for kind in ("even", "walk", "jump") for size in _SIZES))

#: Deviations and their stated half widths, shape (devices, checks), and half widths of rows, shape (devices, checks,
#: rows), to half widths with drift of the latter shape; in percent.
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def drift_at(kind: str, size: float, minutes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Drift in percent of each device at each moment; both of shape (devices, moments)."""
    devices = len(minutes)
    sign = rng.choice([-1.0, 1.0], (devices, 1))
    if kind == "even":
        return sign * size * minutes / _CHECKS
    if kind == "jump":
        return sign * size * (minutes > rng.uniform(0, _CHECKS, (devices, 1)))
    order = np.argsort(minutes, axis=1)
    passed = np.diff(np.take_along_axis(minutes, order, 1), axis=1, prepend=0)
    walked = np.cumsum(rng.normal(size=minutes.shape) * np.sqrt(passed * size**2 / _CHECKS), axis=1)
    found = np.empty_like(walked)
    np.put_along_axis(found, order, walked, 1)
    return found


def swept(
    kind: str, size: float, devices: int, window: float, stated: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sweeps of simulated devices, in percent.

    Args:
        kind: of drift.
        size: of drift at the end.
        devices: that many.
        window: stated half width of the 95 % interval of one value of the sentinel.
        stated: that width over the real one.
        rng: of the draws.

    Returns:
        Deviations of the sentinel and their stated half widths, shape (devices, checks); half widths of the rows and
        the differences of their values from the undrifted truth, shape (devices, checks, rows).
    """
    checks = np.tile(np.arange(_CHECKS + 1.0), (devices, 1))
    rows = np.arange(1.0, _CHECKS + 1)[:, None] + rng.uniform(0, 1, (devices, _CHECKS, _ROWS))
    moved = drift_at(kind, size, np.concatenate([checks, rows.reshape(devices, -1)], axis=1), rng)
    sentinel = moved[:, : _CHECKS + 1] + rng.normal(size=checks.shape) * window / _HALF_WIDTH / stated
    deviation = sentinel[:, 1:] - sentinel[:, :1]
    own = rng.uniform(0.7, 1.0, rows.shape)
    missed = moved[:, _CHECKS + 1 :].reshape(rows.shape) + rng.normal(size=rows.shape) * own / _HALF_WIDTH
    return deviation, np.full_like(deviation, window * 2**0.5), own, missed


def rules() -> dict[str, Rule]:
    """Every rule by its name."""
    added = np.vectorize(added_error, otypes=[float])
    return {
        "window": lambda _drift, _error, own: own,
        "variance": lambda drift, error, own: np.hypot(own, _beyond(drift, error)[..., None]),
        "significant": lambda drift, error, own: np.hypot(own, _inside(drift, error, np.zeros_like(drift))),
        "pooled": lambda drift, error, own: np.hypot(own, _inside(drift, error, _pooled(drift, error))),
        "interval": lambda drift, error, own: np.where(_outside(drift, error), _full(drift, error, own), own),
        "honest": _full,
        "flopray": lambda drift, error, own: own + added(drift, error)[..., None],
    }


def _outside(drift: np.ndarray, error: np.ndarray) -> np.ndarray:
    return (np.abs(drift) > error)[..., None]


def _inside(drift: np.ndarray, error: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Deviations without their scatter where they are outside of their intervals, and else another value."""
    return np.where(_outside(drift, error), _beyond(drift, error)[..., None], otherwise[..., None])


def _beyond(drift: np.ndarray, error: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(0.0, drift**2 - (error / _HALF_WIDTH) ** 2))


def _pooled(drift: np.ndarray, error: np.ndarray) -> np.ndarray:
    beyond = drift**2 - (error / _HALF_WIDTH) ** 2
    means = [beyond[:, max(0, k - _POOLED + 1) : k + 1].mean(axis=1) for k in range(drift.shape[1])]
    return np.sqrt(np.maximum(0.0, np.stack(means, axis=1)))


def _full(drift: np.ndarray, error: np.ndarray, own: np.ndarray) -> np.ndarray:
    return np.abs(drift)[..., None] + np.hypot(own, error[..., None])


def main() -> None:
    """Print a table for each width of the sentinel's stated interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=4000, help="for each kind and size of drift (%(default)s)")
    parser.add_argument("--window", type=float, default=0.95, help="half width of a sentinel's value, %% (%(default)s)")
    parser.add_argument("--stated", type=float, nargs="+", default=(1.0, 1.5, 2.0), help="times the real (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    named = rules()
    for stated in args.stated:
        print(f"\nThe sentinel's interval is {stated:g} times as wide as its real one. Rows whose interval holds:\n")
        print(f"| drift | {' | '.join(named)} |\n|---|{'---|' * len(named)}")
        for kind, size in _CASES:
            rng = np.random.default_rng(args.seed)
            *seen, missed = swept(kind, size, args.devices, args.window, stated, rng)
            widths = {name: rule(*seen) for name, rule in named.items()}
            held = [f"{np.mean(np.abs(missed) <= width):.1%}" for width in widths.values()]
            print(f"| {kind}{f' {size:g} %' if size else ''} | {' | '.join(held)} |")
            if kind == "none":
                within = [f"{np.mean(width <= 1):.1%}" for width in widths.values()]
                wider = [f"{np.mean(width / seen[2]):.2f}" for width in widths.values()]
        print(f"| without drift, rows within 1 % | {' | '.join(within)} |")
        print(f"| without drift, mean width over own | {' | '.join(wider)} |")


if __name__ == "__main__":
    main()
