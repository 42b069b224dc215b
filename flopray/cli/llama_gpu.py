"""Sweep Llama over GPU types, precisions and sequence lengths: FLOPs, energy and time of training and of generating."""

from pathlib import Path

from rich.console import Console

from flopray.cli.axes import Axis
from flopray.cli.flags import Script
from flopray.point import ATTENTIONS, WEIGHTS
from flopray.records import WORKLOAD_PHASES

EXAMPLES = """examples:
  python sweeps/llama_gpu.py
      start Ray here: Llama 3.2 1B, batch 8, 256, 512 and 1024 tokens, in fp32, tf32, bf16 and fp16
  python sweeps/llama_gpu.py --address auto --accelerators H100 A100 --precision bf16 --tokens small large
      join the running cluster and compare two types of GPU
  python sweeps/llama_gpu.py --model llama-3.1-8b --checkpointing on --phases train_step --tokens 2048
      a larger model, whose backward pass runs the layers again to save memory
  python sweeps/llama_gpu.py --model my/config.json --phases inference generate
      a model of your own, with random weights: same FLOPs, no download
"""


def draw(run: Path, console: Console) -> None:
    """Figures and tables of a finished run."""
    from flopray.cli.compare_gpus import draw_llama_run

    draw_llama_run(run, console)


MODELS = "built-in name (llama-tiny, llama-3.2-1b, llama-3.2-3b, llama-3.1-8b, llama-3.1-70b), file, folder or hub id"

LLAMA_GPU = Script(
    workload="llama",
    name="llama_gpu",
    description=__doc__ or "",
    examples=EXAMPLES,
    axes=(
        Axis("--model", "model", ("llama-tiny",), ("llama-3.2-1b",), MODELS, numbers=False, free=True),
        Axis(
            *("--weights", "weights", ("random",), ("random",), "weights"),
            words={name: name for name in WEIGHTS},
            numbers=False,
        ),
        Axis(
            *("--attention", "attention", ("auto",), ("auto",), "backend of attention"),
            words={name: name for name in ATTENTIONS},
            numbers=False,
        ),
        Axis(
            *("--checkpointing", "checkpointing", ("off",), ("off",), "gradient checkpointing"),
            words={"off": False, "on": True},
            numbers=False,
        ),
        Axis("--batch", "batch_size", cpu=("2",), gpu=("8",), help="sequences of a batch"),
        Axis(
            *("--tokens", "sequence_length", ("32", "64"), ("small", "mid", "large"), "tokens of a sequence"),
            words={"small": 256, "mid": 512, "large": 1024},
            old_flags=("--configs",),
        ),
    ),
    draw=draw,
    phases=tuple(phase for phase in WORKLOAD_PHASES["llama"] if phase != "forward_backward"),
    precisions=("fp32", "tf32", "bf16", "fp16"),
    execution=("eager", "as most people run it; graph leaves out what launching costs"),
)
