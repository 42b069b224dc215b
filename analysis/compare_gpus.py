"""Compare GPUs by the costs of a model's phases: `python analysis/compare_gpus.py RUN [RUN ...]`."""

import sys

from flopray.__main__ import main

if __name__ == "__main__":
    sys.exit(main("compare-gpus"))
