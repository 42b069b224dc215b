"""Keeps the output of Ray and Tune from mixing with that of flopray."""

from __future__ import annotations

import logging
import os

from flopray.cluster import ray_internals

#: The environment cannot change these: without them a sweep measures something else, or does not end in order.
_ALWAYS = {
    # Under `uv run`, Ray would start every worker of the cluster by `uv run` in an upload of this folder, and build an
    # environment on each node first; the cluster's own Python is to be measured.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
#: For a sweep's own Tuner: the sweep shows its progress, names its loggers and handles Ctrl-C itself, so that the
#: journal closes first.
_TUNER = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Seconds between copies of Tune's state of the experiment, 250 kB a trial, which a resume does not read.
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
}
_TUNER_ALWAYS = {"TUNE_DISABLE_SIGINT_HANDLER": "1"}
#: How Ray's documentation switched on the same hook before there was that variable.
HOOK, _UV_HOOK = "RAY_RUNTIME_ENV_HOOK", "uv_runtime_env_hook"


def quiet_ray(*, own_tuner: bool = False) -> None:
    """Keep the output of Ray and Tune out of the terminal; must run before Tune is imported.

    Args:
        own_tuner: Tune is a user's, whose loggers, progress and Ctrl-C stay as Ray's documentation says.
    """
    for name, value in {
        **({} if own_tuner else _TUNER),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of trials that an interrupt ended, printed when the sweep is over
        "RAY_worker_niceness": "0",  # with Ray's 15, other programs would take the CPU from a measured process
    }.items():
        os.environ.setdefault(name, value)
    os.environ.update(_ALWAYS | ({} if own_tuner else _TUNER_ALWAYS))
    if _UV_HOOK in (hook := os.environ.get(HOOK, _UV_HOOK)) or not hook.strip():  # Ray would load an empty one, too
        os.environ.pop(HOOK, None)
    ray_internals.leave_workers_alone_under_uv_run()
    for name in ("ray",) if own_tuner else ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
