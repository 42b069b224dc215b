"""Counting the executed FLOPs of points, in processes of their own that ncu runs.

`ahead` counts points before they are measured, `chunk` runs a `process` for each kind of core: ncu around `worker`,
which walks the points operation by operation (`walk`), and launches only those whose `effects` are not known.
"""
