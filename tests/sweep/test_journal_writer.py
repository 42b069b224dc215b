"""The message when points can no longer be written to the journal."""

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    LocalRayletDiedError,
    OutOfMemoryError,
    RaySystemError,
    RayTaskError,
)

from flopray.errors import FloprayError
from flopray.sweep.journal_writer import explained


def told(failure):
    error = explained(failure, "flopray resume r --address auto")
    assert isinstance(error, FloprayError)
    assert "\n" not in str(error)
    return str(error)


def died(how, **further):
    error = ActorDiedError()
    error.error_msg, error._actor_init_failed = f"{ActorDiedError.BASE_ERROR_MSG}\n\tpid: 7\n{how}", False
    vars(error).update(further)
    return error


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
            "Worker unexpectedly exits with a connection error code 2. End of file.",
            "its process, on the driver's node, ended without a message (killed, crashed, or out of host memory)",
        ),
        ("The actor is dead because it was killed by `ray.kill`.", "it was ended by `ray.kill`"),
    ],
)
def test_a_recorder_that_is_killed_is_no_lost_cluster(how, words):
    text = told(died(how))
    safe = "every point in the journal is safe, flopray resume r --address auto goes on"
    assert text == f"the sweep's recorder is gone: {words}; {safe}"


@pytest.mark.parametrize(
    "failure",
    [
        died("The actor died because its node has died. Node Id: 67147e41 the actor's node was terminated"),
        ActorUnavailableError("RpcError: RPC error: Socket closed rpc_code: 14", None),
        RaySystemError("the head node does not answer"),
        LocalRayletDiedError(),
        ConnectionError("GRPC connection failed"),  # behind ray://
    ],
)
def test_a_lost_cluster_is_told_as_one(failure):
    text = told(failure)
    assert text.startswith(
        f"the sweep lost its cluster ({type(failure).__name__}); every point in the journal is safe: "
    )
    assert text.endswith("once there is a cluster again, flopray resume r --address auto goes on")


def test_a_recorder_that_fails_by_itself_or_for_memory_is_told_as_that():
    assert "ran out of host memory" in told(OutOfMemoryError("Task was killed due to the node running low on memory."))
    failed = RayTaskError("writer", "Traceback", ValueError("no such\ntrial"))
    assert "the sweep's recorder failed (ValueError: no such), which is a fault of flopray" in told(failed)
    unborn = died("ImportError: no module named flopray", _actor_init_failed=True)
    assert "the sweep's recorder is gone: it could not start (ImportError: no module named flopray)" in told(unborn)
