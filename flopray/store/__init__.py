"""A run's folder and its contents: manifest, journal, tables; also in an object store.

`run.RunFolder` owns the folder, `journal.JournalWriter` appends points, `location.load_run` reads a run as a data
frame.
"""
