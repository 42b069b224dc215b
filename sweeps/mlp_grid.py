"""Sweep the feature-first MLP over layers n, width d and tokens m: FLOPs, energy and time of each training phase."""

from flopray.cli.main import run_script
from flopray.workloads.mlp import MLP

if __name__ == "__main__":
    run_script(MLP())
