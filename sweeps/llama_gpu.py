"""Sweep Llama over GPU types, precisions and sequence lengths: FLOPs, energy and time of training and generation."""

from flopray.cli.main import run_script
from flopray.workloads.llama import Llama

if __name__ == "__main__":
    run_script(Llama())
