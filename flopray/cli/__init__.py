"""The commands and their flags: one module a command, and what all of them share.

`exits.run_script` ends a sweep's script with an exit code and one line for each error, `session.run` is the order of a
sweep, `main.main` is the command `flopray`.
"""
