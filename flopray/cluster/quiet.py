"""Keeps Ray and Tune from talking over what flopray has to say."""

from __future__ import annotations

import logging
import os


def quiet_ray() -> None:
    """Keep Ray's and Tune's chatter out of the terminal; must run before Tune is imported."""
    for name, value in {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # otherwise five files a trial
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the sweep handles Ctrl-C itself, so that the journal closes first
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Under `uv run`, Ray would make every worker of the cluster a `uv run` of its own in an upload of this folder,
        # with an environment that has to be built on each node first; the cluster's own Python is what is measured.
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of trials that an interrupt ended, printed when the sweep is over
        "RAY_worker_niceness": "0",  # Ray's 15 lets anything else on the machine push a measured process aside
    }.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
