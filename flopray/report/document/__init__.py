"""One document of some runs: what a step costs, how sure that is, on what it was measured, and how to measure it again.

`content` has the parts of a document, `build.document_of` makes one of runs, `html` and `text` write it.
"""
