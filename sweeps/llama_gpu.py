"""Sweep Llama over GPU types, precisions and sequence lengths: FLOPs, energy and time of training and generation."""

from flopray.__main__ import sweep_script

if __name__ == "__main__":
    sweep_script("llama")
