"""Runs that live in an object store: a local copy that everything works on, and objects that are never overwritten."""
