"""Sweep Llama over GPU types, precisions and sequence lengths: FLOPs, energy and time of training and of generating."""

from flopray.cli.exits import run_script
from flopray.cli.llama_gpu import LLAMA_GPU

if __name__ == "__main__":
    run_script(LLAMA_GPU)
