"""The private names of Ray that flopray uses still exist, and still do what flopray needs."""

import ast
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial

from flopray.cluster import ray_internals
from flopray.cluster.ray_internals import PrivateName
from flopray.errors import ClusterError

PACKAGE = Path(ray_internals.__file__).parents[1]


def test_this_ray_has_all_that_is_relied_upon():
    """Fails with a new version of Ray that has changed something; says what changed and what it is used for."""
    assert ray_internals.changes() == []


def test_what_changed_is_told_by_name(monkeypatch):
    gone = PrivateName("ray._private.worker", "no_such_name", (), "this test", seen_in="2.0")
    other = PrivateName("ray._private.worker", "print_to_stdstream", ("text",), "this test", seen_in="2.0")
    nowhere = PrivateName("ray.no_such_module", "name", None, "this test", seen_in="2.0")
    monkeypatch.setattr(ray_internals, "PRIVATE_NAMES", (gone, other, nowhere))
    first, second, third = ray_internals.changes()
    assert first.endswith("ray._private.worker.no_such_name (seen in 2.0, for this test) is gone")
    assert second.endswith("takes (data, ignore_prefix) where it took (text)")
    assert third.endswith("ray.no_such_module.name (seen in 2.0, for this test) is gone")


@pytest.mark.slow
def test_no_other_module_names_what_is_private_in_ray():
    for path in PACKAGE.rglob("*.py"):
        if path == Path(ray_internals.__file__):
            continue
        text = path.read_text()
        assert "ray._private" not in text, path  # as in a look at `sys.modules`
        assert "ray._raylet" not in text, path
        for name in imported(ast.parse(text)):
            words = name.split(".")
            if words[0] == "ray":
                assert not any(word.startswith("_") for word in words), f"{path}: {name}"
                assert words[1:3] != ["util", "client"], f"{path}: {name}"


def imported(tree):
    """Dotted names that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture
def bare(monkeypatch):
    """A Ray that has none of the names."""

    def missing(self):
        raise AttributeError(self.name)

    monkeypatch.setattr(PrivateName, "found", missing)


def test_a_ray_without_them_is_got_along_with(bare):
    ray_internals.log_raylet_messages()
    ray_internals.read_environment_again()
    ray_internals.take_memory_kills_as_process_failures()
    assert ray_internals.gpus_found_by_ray() == {}
    assert ray_internals.behind_client() is False
    assert ray_internals.last_failure(SimpleNamespace()) == ""
    with pytest.raises(ClusterError, match=r"address auto does not work with Ray .*: write host:port or ray://"):
        ray_internals.address_found_by_ray()


def test_what_raylets_say_is_logged_and_not_printed(monkeypatch, capfd):
    from ray._private import worker

    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    logged = []
    monkeypatch.setattr(logging.getLogger("ray"), "warning", lambda form, *words: logged.append(form % words))
    ray_internals.log_raylet_messages()
    worker.print_to_stdstream({"lines": ["a worker", "died"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    assert logged == ["a worker died"]
    assert capfd.readouterr() == ("", "")


def test_a_memory_kill_is_the_death_of_an_actor_to_tune(monkeypatch):
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import OutOfMemoryError, RayActorError

    seen = []

    def original(self, tracked_actor_task, exception):
        seen.append(exception)

    monkeypatch.setattr(RayActorManager, "_actor_task_failed", original)
    for _ in range(2):  # the second time it is there already
        ray_internals.take_memory_kills_as_process_failures()
    failed = RayActorManager._actor_task_failed
    failed(None, tracked_actor_task=None, exception=OutOfMemoryError("Memory on the node was low"))  # type: ignore[arg-type]
    failed(None, tracked_actor_task=None, exception=ValueError("as it is"))  # type: ignore[arg-type]
    death, other = seen
    assert isinstance(death, RayActorError)
    assert "Memory on the node was low" in str(death)
    assert isinstance(other, ValueError)


def test_tune_still_begins_each_failure_with_the_same_words(tmp_path):
    """Written by Tune itself."""
    from ray.tune.experiment import Trial

    trial = SimpleNamespace(
        is_restoring=False,
        local_path=str(tmp_path),
        error_file=str(tmp_path / "error.txt"),
        run_metadata=SimpleNamespace(num_failures=0, invalidate_cache=lambda: None),
    )
    for words in ("its node has died", "killed, and\nno more"):
        Trial.handle_error(trial, ValueError(words))  # type: ignore[arg-type]
    last = ray_internals.last_failure(trial)
    assert last.splitlines()[1:] == ["killed, and", "no more"]
    assert ray_internals.last_failure(SimpleNamespace(error_file=None)) == ""


def test_a_slab_s_trial_keeps_last_and_extreme_values_and_no_moving_averages():
    trial = Trial("__stub", stub=True)
    ray_internals.keep_no_moving_averages(trial)
    for step, value in enumerate((3.0, 1.0, 2.0), start=1):
        trial.update_last_result({"time_s": value, "training_iteration": step})
    assert trial.metric_analysis["time_s"] == {"max": 3.0, "min": 1.0, "avg": 2.0, "last": 2.0}
    restored = Trial("__stub", stub=True)
    restored.restore_run_metadata(trial.get_json_state()[1])
    assert restored.metric_analysis == trial.metric_analysis
    assert restored.last_result["time_s"] == 2.0


def test_a_trial_that_knows_no_such_averages_is_left_alone():
    bare = SimpleNamespace(run_metadata=SimpleNamespace())
    ray_internals.keep_no_moving_averages(bare)
    assert vars(bare.run_metadata) == {}
    ray_internals.keep_no_moving_averages(SimpleNamespace())


def test_types_of_gpus_are_read_without_importing_ray():
    from ray.util import accelerators

    documented = {str(value) for name, value in vars(accelerators).items() if name.startswith("NVIDIA_")}
    assert documented | {"H200", "L40S", "B200"} <= ray_internals.nvidia_types()
    assert not {"TPU-V4", "M1"} & ray_internals.nvidia_types()
