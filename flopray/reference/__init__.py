"""Measurements that come with flopray, for users without such a GPU: runs to read, named `reference:NAME`.

`catalog.entries` lists them with what their data card says, `catalog.folder_of` has the folder of one. Each is a run's
folder (`manifest.json` and `records.parquet`) in `data/`, written by `docs/make_reference.py` from runs of ours.
"""
