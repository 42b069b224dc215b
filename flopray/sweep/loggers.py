"""The loggers of a run besides its own files, and their addresses.

Imported only where a run has some. What each of them shows, and what a resume mends: docs/loggers.md.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from flopray.errors import NotARun, SettingError
from flopray.store.redaction import redacted
from flopray.sweep.definition import Sweep

#: The package that each logger needs; its extra has the logger's name.
_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
_PROJECT = "flopray"


class _Places(msgspec.Struct):
    """What a manifest keeps of `Loggers`."""

    run_id: str
    tracking_uri: str
    experiment: str
    project: str
    entity: str | None = None


@dataclass(frozen=True, kw_only=True)
class Loggers:
    """Where the results of a run are logged to; kept in its manifest, so that a resume logs to the same places.

    Attributes:
        names: the loggers, of `definition.LOGGERS`.
        run: name of the run, by which its entries are found.
        run_id: of this run alone, since other runs may have its name.
        tracking_uri: of MLflow, with its password if it has one; the manifest gets it without.
        experiment: of MLflow.
        project, entity: of Weights & Biases; None takes the default entity.
    """

    names: tuple[str, ...]
    run: str
    run_id: str
    tracking_uri: str = ""
    experiment: str = ""
    project: str = _PROJECT
    entity: str | None = None

    @classmethod
    def new(cls, names: Sequence[str], run: str) -> Loggers:
        """The loggers of a new run, by the environment variables that MLflow and Weights & Biases read themselves.

        Raises:
            InputError: the package of one is missing.
        """
        check_packages(names)
        return cls(
            names=tuple(names),
            run=run,
            run_id=uuid.uuid4().hex,
            tracking_uri=given_tracking_uri() or (_default_tracking_uri() if "mlflow" in names else ""),
            experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or run,
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            entity=os.environ.get("WANDB_ENTITY") or None,
        )

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, object], names: Sequence[str]) -> Loggers:
        """The loggers that a run began with; MLFLOW_TRACKING_URI, where it is set, says where the server is now.

        Raises:
            InputError: the package of one is missing.
            NotARun: the manifest does not say where they are.
        """
        check_packages(names)
        try:
            kept = msgspec.convert(manifest.get("loggers"), _Places)
        except msgspec.ValidationError:
            raise NotARun(f"the run's manifest does not say where it logs to ({', '.join(names)})") from None
        return cls(
            names=tuple(names),
            run=str(manifest["name"]),
            run_id=kept.run_id,
            tracking_uri=given_tracking_uri() or kept.tracking_uri,
            experiment=kept.experiment,
            project=kept.project,
            entity=kept.entity,
        )

    def without_password(self) -> Loggers:
        """The same for Tune, which pickles its callbacks into the run; `reachable_uri` finds the password again."""
        return dataclasses.replace(self, tracking_uri=redacted(self.tracking_uri))

    def reachable_uri(self) -> str:
        """MLflow's server with its password, if the environment of this process has it."""
        given = given_tracking_uri()
        return given if given and redacted(given) == self.tracking_uri else self.tracking_uri

    def to_manifest(self) -> dict[str, object]:
        """What `of_manifest` reads."""
        kept = _Places(self.run_id, redacted(self.tracking_uri), self.experiment, self.project, self.entity)
        return {"loggers": msgspec.structs.asdict(kept)}

    def places(self, tune: str | None) -> list[str]:
        """Where to look, a line each.

        Args:
            tune: folder of Tune's results, in which TensorBoard's are; None where it is on another machine.
        """
        there = f"tensorboard --logdir {shlex.quote(tune)}" if tune else "its files stay on the cluster's head node"
        lines = {
            "tensorboard": f"TensorBoard: {there}",
            "mlflow": f"MLflow: {redacted(self.tracking_uri)}, experiment {self.experiment}",
            "wandb": f"Weights & Biases: project {self.project}, group {self.run}",
        }
        return [lines[name] for name in self.names]


def check_packages(names: Sequence[str]) -> None:
    """Refuse loggers whose package is missing.

    Raises:
        InputError: with the command that installs all that are.
    """
    missing = [name for name in names if find_spec(_PACKAGES[name]) is None]
    if missing:
        extras = ",".join(missing)
        raise SettingError(f"<log_to> {' '.join(missing)} needs an extra: pip install 'flopray[{extras}]'")


def given_tracking_uri() -> str | None:
    """MLflow's server by the environment; a local store by its absolute path, as a resume may begin elsewhere."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or None
    if uri is None or uri.startswith("databricks"):
        return uri
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return uri if ":" in uri else Path(uri).absolute().as_uri()


def _default_tracking_uri() -> str:
    """Where MLflow itself would log to without a server."""
    import mlflow

    return mlflow.get_tracking_uri()


def varied_axes(sweep: Sweep) -> tuple[str, ...]:
    """The axes by which points of a sweep are told apart; all of them where there is one point alone."""
    return tuple(name for name, values in sweep.axes.items() if len(values) > 1) or tuple(sweep.axes)


def name_of(fields: Mapping[str, Any], varied: Sequence[str]) -> str:
    """Title of the entry of a trial: its values on the axes that vary."""
    return " ".join(f"{name} {fields[name]}" for name in varied if name in fields)
