"""Checks the loggers of a run before it begins, and makes Tune's callbacks for them; each is imported if asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flopray.errors import SettingError
from flopray.sweep.definition import Sweep
from flopray.sweep.loggers import Loggers, varied_axes

if TYPE_CHECKING:
    from ray.tune.logger import LoggerCallback


def check(loggers: Loggers, *, behind_client: bool = False) -> None:
    """Refuse, before Ray starts, loggers that could not log.

    Args:
        loggers: of the run.
        behind_client: whether Ray is joined by `ray://`, where Tune runs on another machine.

    Raises:
        InputError: a server does not answer, or has no key of this user.
    """
    if "mlflow" in loggers.names:
        from flopray.sweep.mlflow_logger import check_server

        if behind_client and not loggers.tracking_uri.startswith(("http://", "https://")):
            needed = "a server that the cluster reaches: set MLFLOW_TRACKING_URI"
            raise SettingError(f"<log_to> mlflow with ray:// needs {needed}")
        check_server(loggers)
    if "wandb" in loggers.names:
        from flopray.sweep.wandb_logger import WandbRuns

        try:
            WandbRuns(loggers, varied=(), recorder="").check()
        except ValueError as error:
            remedy = "set WANDB_API_KEY, or WANDB_MODE=offline to keep its files in the run"
            raise SettingError(f"<log_to> wandb: Weights & Biases has no key of yours: {remedy}") from error


def callbacks(loggers: Loggers, sweep: Sweep, fields: Sequence[str], recorder: str) -> list[LoggerCallback]:
    """What Tune calls with each result.

    Args:
        loggers: of the run.
        sweep: the run's sweep.
        fields: of its points.
        recorder: name of the recorder's actor, which gets failures.
    """
    loggers = loggers.without_password()
    made: list[LoggerCallback] = []
    if "tensorboard" in loggers.names:
        from flopray.sweep.tensorboard_logger import TensorBoardEvents

        made.append(TensorBoardEvents(recorder=recorder))
    if "mlflow" in loggers.names:
        from flopray.sweep.mlflow_logger import Content, MLflowRuns

        content = Content(loggers, fields, varied_axes(sweep), shape=sweep.trial_shape)
        made.append(MLflowRuns(loggers, content, recorder=recorder))
    if "wandb" in loggers.names:
        from flopray.sweep.wandb_logger import WandbRuns

        made.append(WandbRuns(loggers, varied=varied_axes(sweep), recorder=recorder))
    return made
