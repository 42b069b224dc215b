"""Sweep causal language models over GPU types, precisions and lengths: FLOPs, energy and time per token."""

from flopray.cli.main import run_script
from flopray.workloads.causal_lm.workload import CausalLM

if __name__ == "__main__":
    run_script(CausalLM())
