"""The recorder as a Ray actor, beside the driver; what it does is in `recorder`."""

from __future__ import annotations

import contextlib
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flopray.cluster.connection import NAMESPACE
from flopray.settings import MeasureSettings
from flopray.sweep.limits import Limits
from flopray.sweep.metrics import SweepMetrics
from flopray.sweep.recorder import Recorder
from flopray.sweep.result_recorder import ResultRecorder


@ray.remote(num_cpus=0)
class RecorderActor(Recorder):
    """A recorder that counts in Ray's metrics and ends processes through Ray.

    Ray does not restart it: points that it holds and the driver has not drained would be lost without a message.
    """

    def __init__(self, name: str, finished: set[str], settings: MeasureSettings, limits: Limits, about: str) -> None:
        super().__init__(name, finished, settings, limits, metrics=SweepMetrics(name), end=_kill, about=about)


@ray.remote(num_cpus=0)
class ResultRecorderActor(ResultRecorder):
    """The same for a user's own Tuner."""

    def __init__(self, name: str, finished: set[str], settings: MeasureSettings, limits: Limits, about: str) -> None:
        super().__init__(name, finished, settings, limits, metrics=SweepMetrics(name), end=_kill, about=about)


def _kill(handle: Any) -> None:
    with contextlib.suppress(RayError):
        ray.kill(handle)


def start_recorder(
    run: str,
    finished: set[str],
    settings: MeasureSettings,
    limits: Limits,
    *,
    actor_name: str,
    actor: Any = RecorderActor,
    about: str = "",
) -> Any:
    """Start the recorder of a sweep under a name that its trials look up, beside the driver.

    Ray would put it on any node, and the sweep would end with that node. The driver's node is lost only
    with the driver. Soft affinity is not enough: an actor without resources goes to a random node in spite of it.
    https://github.com/ray-project/ray/pull/25360

    Args:
        run: name of the run.
        finished: trial ids that need no measuring.
        settings: of the sweep, for the rows of abandoned points.
        limits: of the sweep.
        actor_name: unique in the namespace, which is flopray's also on a Ray that a user has started.
        actor: one of the classes above.
        about: what is measured, for the dashboard.

    Returns:
        The actor's handle.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"name": actor_name, "namespace": NAMESPACE, "scheduling_strategy": here}
    return actor.options(**options).remote(run, finished, settings, limits, about)
