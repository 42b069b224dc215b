"""Reading finished runs: figures, comparisons and reports. Imports neither torch nor Ray."""
