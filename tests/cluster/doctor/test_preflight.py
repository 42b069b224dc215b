"""Which nodes the pre-flight checks: with no node it does not pass."""

from __future__ import annotations

import pytest
from rich.console import Console

from flopray.cluster.doctor import preflight
from flopray.cluster.doctor.cluster import Node
from flopray.errors import ClusterError


def check(monkeypatch, nodes, types):
    monkeypatch.setattr(preflight, "look_everywhere", lambda *_, **__: nodes)
    monkeypatch.setattr(preflight, "clock_skews", dict)
    return preflight.check_nodes(types, ("time",), local=False)


def test_gpus_whose_type_a_flag_has_given_are_looked_at(monkeypatch):
    """Ray calls them GPU; with --strict, a node that does not answer must end the command."""
    found = check(monkeypatch, [Node("one", None, "no answer", {"GPU": 2})], ["H100"])
    assert found.nodes == 1
    assert found.lacks == [("one", "no answer")]


def test_no_node_is_not_alike_and_complete(monkeypatch):
    found = check(monkeypatch, [Node("one", None, "no answer", {"A100": 2})], ["H100"])
    assert found.nodes == 0
    assert found.lacks
    with pytest.raises(ClusterError, match="no node with H100"):
        preflight.tell(Console(quiet=True), found, strict=True)


def test_a_node_whose_driver_fails_is_told_although_it_has_no_type(monkeypatch, gpu_node, cpu_node):
    """Ray sees no GPU there, and the sweep would skip the node without a message."""
    broken = cpu_node("two", gpus_reason="nvmlInit failed: Unknown Error", gpus_fail=True)
    found = check(monkeypatch, [gpu_node("one"), broken], list(gpu_node("one").ray_gpus))
    assert found.nodes == 1
    assert ("two", "no GPU: nvmlInit failed: Unknown Error") in found.lacks
