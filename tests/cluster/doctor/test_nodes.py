"""Names, GPUs and answers of nodes, as Ray reports them."""

from __future__ import annotations

import pytest
import ray

from flopray.cluster.doctor.cluster import _answer, _names, _ray_gpus


def test_nodes_go_by_their_hostnames_unless_these_are_alike():
    nodes = [
        {"NodeID": node_id, "NodeManagerHostname": host}
        for node_id, host in (("aaaaaaaa", "gpu-1"), ("bbbbbbbb", "gpu-2"), ("cccccccc", "gpu-2"))
    ]
    assert _names(nodes) == {"aaaaaaaa": "gpu-1", "bbbbbbbb": "gpu-2/bbbbbb", "cccccccc": "gpu-2/cccccc"}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"CPU": 8.0, "GPU": 4.0, "accelerator_type:H100": 1.0}, {"H100": 4}),
        ({"CPU": 8.0, "GPU": 1.0}, {"GPU": 1}),
        ({"CPU": 8.0, "accelerator_type:H100": 1.0}, {}),
        ({}, {}),
    ],
)
def test_gpus_that_ray_gives_out(resources, expected):
    assert _ray_gpus(resources) == expected


def test_a_node_that_fails_or_is_late_has_one_line(monkeypatch):
    class TaskError(Exception):
        cause = ModuleNotFoundError("No module named 'numpy'\nand much more")

    def get(ref):
        raise TaskError("a long traceback")

    monkeypatch.setattr(ray, "get", get)
    assert _answer("ref", False, 180.0) == (None, "looking failed: ModuleNotFoundError: No module named 'numpy'")
    machine, reason = _answer("ref", True, 180.0)
    assert machine is None
    assert "180 s" in (reason or "")
