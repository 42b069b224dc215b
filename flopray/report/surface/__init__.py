"""Metrics of a run over width and tokens: surfaces, heat maps, the interactive page."""
