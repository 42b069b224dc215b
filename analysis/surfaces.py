"""Draw a run: each metric over width d and tokens m, as 3-D surfaces and heat maps, on linear and log scales."""

import sys

from flopray.__main__ import main

if __name__ == "__main__":
    sys.exit(main("surfaces"))
