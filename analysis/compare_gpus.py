"""GPUs compared by what the phases of a model cost on them: `python analysis/compare_gpus.py RUN [RUN ...]`."""

import sys

from flopray.cli.compare_gpus import main

if __name__ == "__main__":
    sys.exit(main())
