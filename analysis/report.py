"""Write one page about runs: what a step costs, how sure that is, and how to measure it again."""

import sys

from flopray.__main__ import main

if __name__ == "__main__":
    sys.exit(main("report"))
