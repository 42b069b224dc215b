"""Counting the executed FLOPs of points, in processes of their own that ncu runs.

`ahead` counts the points of a slab before they are measured, `chunk` runs ncu around `worker`, which walks the points.
"""
