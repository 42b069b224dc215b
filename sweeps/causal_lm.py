"""Sweep causal language models over GPU types, precisions and lengths: FLOPs, energy and time per token."""

from flopray.__main__ import sweep_script

if __name__ == "__main__":
    sweep_script("causal_lm")
