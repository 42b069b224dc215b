"""Sweep the feature-first MLP over layers n, width d and tokens m: FLOPs, energy and time of each training phase."""

from flopray.__main__ import sweep_script

if __name__ == "__main__":
    sweep_script("mlp")
