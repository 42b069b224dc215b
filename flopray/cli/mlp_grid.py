"""Sweep the feature-first MLP over layers n, width d and tokens m: FLOPs, energy and time of each training phase."""

from pathlib import Path

from rich.console import Console

from flopray.cli.axes import Axis
from flopray.cli.flags import Script

EXAMPLES = """examples:
  python sweeps/mlp_grid.py
      start Ray here and measure the default grid
  python sweeps/mlp_grid.py --address auto --n 2 4 8 --d 128:2048:128 --m 16:256:16 --precision fp32 bf16
      join the running cluster and measure a grid of your own
  python sweeps/mlp_grid.py --resume results/mlp_grid-20260101-120000
      go on with an interrupted run
"""


def draw(run: Path, console: Console) -> None:
    """Figures of a finished run."""
    from flopray.cli.run_figures import draw_mlp_run  # matplotlib would make the start wait

    draw_mlp_run(run, console)


MLP_GRID = Script(
    workload="mlp",
    name="mlp_grid",
    description=__doc__ or "",
    examples=EXAMPLES,
    axes=(
        Axis("--n", "n_layers", cpu=("2", "4"), gpu=("2", "4", "8", "16", "32"), help="number of layers"),
        Axis("--d", "width", cpu=("128", "256", "512"), gpu=("128:2048:128",), help="width of each layer"),
        Axis("--m", "tokens", cpu=("32", "64", "128", "256"), gpu=("16:256:16",), help="tokens"),
    ),
    draw=draw,
)
