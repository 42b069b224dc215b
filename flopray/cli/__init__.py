"""The commands and their flags: one module for each command, and what they share.

`main.run_script` ends a sweep's script with an exit code and one line for each error, `session.run` is the order of a
sweep, `main.main` is the command `flopray`.
"""
