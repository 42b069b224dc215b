"""Compare closed form, dispatcher and executed FLOPs: `python analysis/compare_flops.py RUN [RUN ...]`."""

import sys

from flopray.__main__ import main

if __name__ == "__main__":
    sys.exit(main("compare-flops"))
