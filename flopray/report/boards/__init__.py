"""Boards of one type: how they differ, and what that says about the type.

`effects.fit_boards` is the model, `data.board_fits` makes its input of the rows of runs, `agreement` says how far runs
on several boards agree.
"""
