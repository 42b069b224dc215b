"""A run that comes with flopray: read like any other, and never written."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from flopray.errors import RunError
from flopray.reference import catalog
from flopray.store import manifests
from flopray.store.run import RunFolder


class ReferenceRun(RunFolder):
    """Reference data under its name; its figures go into a folder of the user's."""

    @classmethod
    def at(cls, address: str) -> ReferenceRun:
        """Open the run that an address such as `reference:h100-mlp` names.

        Raises:
            InputError: there is no run of that name.
            NotARun, SchemaMismatch: as `RunFolder.open`; the installation is damaged.
        """
        run = cls(*manifests.read(catalog.folder_of(address)))
        run.address = address
        run.results_path = output_folder(address)
        run.plots_path = run.results_path / "plots"
        return run

    def place(self, *parts: str) -> str:
        """Name of a file of the run in messages."""
        return "/".join([self.address, *parts])

    def _hold(self) -> NoReturn:
        raise RunError(
            f"{self.address} comes with flopray and can only be read: "
            f"flopray merge {self.address} RUN --into NEW makes a run of your own with it"
        )


def output_folder(address: str) -> Path:
    """Where figures and tables of reference data go by default: below the folder of all runs."""
    return Path(manifests.DEFAULT_STORAGE) / address.replace(":", "-")
