"""The report: missing things are marked, what nodes share is said once, and it fits into 80 columns."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from flopray.cluster.doctor.checks import ORDER, checks_of
from flopray.cluster.doctor.machine import Energy, GpuReport
from flopray.cluster.doctor.report import as_json, differences, print_report, rows_of
from flopray.cluster.doctor.software import Chip, Torch


def row(nodes, what):
    """The only row about one thing."""
    (found,) = [row for row in rows_of(nodes) if row.what.strip() == what]
    return found


def printed(nodes):
    console = Console(file=io.StringIO(), width=80, markup=False)
    print_report(console, nodes)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_a_machine_that_has_everything_misses_nothing(gpu_node):
    rows = rows_of([gpu_node()])
    assert [row.what for row in rows] == list(ORDER[1:])
    assert {row.state for row in rows} == {"ok"}
    assert {row.where for row in rows} == {""}


def test_a_machine_without_a_gpu_says_so_in_one_place(cpu_node):
    rows = {row.what: row for row in rows_of([cpu_node()])}
    missing = {what for what, row in rows.items() if row.state == "missing"}
    assert missing == {"GPU", "GPU energy", "CPU energy", "executed FLOPs"}
    assert "no NVIDIA driver" in rows["GPU"].text
    assert rows["time"].state == rows["FLOPs"].state == "ok"
    assert not {"  ncu", "  chip", "  nvtx", "  permission"} & set(rows)


def test_executed_flops_name_the_parts_that_they_lack(gpu_node):
    counters = replace(
        gpu_node().machine.counters,
        chips=(Chip("7.0", "gv100", "ncu 2025.3.1 does not know gv100"),),
        nvtx=None,
        nvtx_reason="pip install nvtx",
        permission_reason="only administrators may",
    )
    node = gpu_node(counters=counters)
    assert row([node], "executed FLOPs").state == "missing"
    for part in ("chip", "nvtx", "permission"):
        assert part in row([node], "executed FLOPs").text
        assert row([node], part).state == "missing"
    assert row([node], "ncu").state == "ok"


def test_alike_gpus_are_one_line_with_the_range_of_their_numbers(gpu_node, h100):
    gpus = tuple(h100(i, memory_free_bytes=int((79.5 - i / 8) * 2**30)) for i in range(8))
    node = gpu_node(gpus=gpus, torch=Torch("2.13.0", "13.0", 8, None))
    assert row([node], "GPU").where == "all 8 GPUs"
    assert "78.6 to 79.5 of 80.0 GiB free" in row([node], "GPU").text
    assert "100.0 to 100.7 ms" in row([node], "GPU energy").text


def test_a_gpu_that_differs_has_its_own_line(gpu_node, h100):
    split = Energy(None, "split by MIG: measure on a GPU without MIG")
    gpus = (h100(0), h100(1), h100(2, mig=True, energy=split), h100(3, other_processes=3))
    node = gpu_node(gpus=gpus, torch=Torch("2.13.0", "13.0", 4, None))
    rows = [(row.state, row.where) for row in rows_of([node]) if row.what == "GPU"]
    assert rows == [("ok", "GPU 0, 1"), ("note", "GPU 2"), ("note", "GPU 3")]
    assert [(row.state, row.where) for row in rows_of([node]) if row.what == "GPU energy"] == [
        ("ok", "GPU 0, 1, 3"),
        ("missing", "GPU 2"),
    ]
    assert "3 other processes" in printed([node])


def test_unknown_is_not_zero(gpu_node, h100):
    silent = h100(memory_free_bytes=None, power_limit_w=None, other_processes=None, driver_version=None)
    text = row([gpu_node(gpus=(silent,))], "GPU").text
    assert "other processes unknown" in text
    assert "power limit unknown" in text
    assert "driver unknown" in text
    assert "free" not in text
    assert "memory unknown" in row([gpu_node(gpus=(h100(memory_total_bytes=None),))], "GPU").text


def test_memory_in_use_gives_hidden_processes_away(gpu_node, h100):
    found = row([gpu_node(gpus=(h100(memory_free_bytes=20 * 2**30),))], "GPU")
    assert found.state == "note"
    assert "hide" in found.text


def test_a_counter_without_a_period_keeps_its_reason(gpu_node, h100):
    power = Energy("nvml_power", None, tick_reason="there are no ticks")
    found = row([gpu_node(gpus=(h100(energy=power),))], "GPU energy")
    assert (found.state, found.text) == ("ok", "nvml_power, there are no ticks")


def test_kinds_of_gpu_that_ray_calls_by_one_name_are_told(gpu_node, h100):
    gpus = (h100(0), h100(1, name="NVIDIA A100-SXM4-40GB"))
    notes = [row.text for row in rows_of([gpu_node(gpus=gpus)]) if (row.what, row.state) == ("GPU", "note")]
    assert len(notes) == 1
    assert "H100" in notes[0]


def test_a_lost_gpu_stands_beside_the_healthy_one(gpu_node, h100):
    lost = GpuReport(0, Energy(None, "the GPU is lost"), reason="the GPU is lost")
    rows = [row for row in rows_of([gpu_node("a", gpus=(lost, h100(1)))]) if row.what == "GPU"]
    assert [(row.state, row.where) for row in rows] == [("ok", "GPU 1"), ("missing", "GPU 0")]
    assert rows[1].text == "the GPU is lost"
    assert differences([gpu_node("a", gpus=(lost, h100(1))), gpu_node("b")]) == []


@pytest.mark.parametrize(
    ("torch", "state", "words"),
    [
        (Torch("2.13.0+cpu", None, 0, None), "missing", "without CUDA"),
        (Torch("2.13.0", "13.0", 0, "The NVIDIA driver on your system is too old"), "missing", "too old"),
        (Torch("2.13.0", "13.0", 0, None), "missing", "CUDA_VISIBLE_DEVICES"),
        (Torch(None, None, None, "torch cannot be imported: pip install torch"), "missing", "pip install"),
        (Torch("2.13.0", "13.0", 1, None), "note", "1 of 2"),
        (Torch("2.13.0", "13.0", 2, None), "ok", "every GPU"),
    ],
)
def test_torch_must_be_able_to_use_the_gpus(gpu_node, h100, torch, state, words):
    node = gpu_node(torch=torch, gpus=(h100(0), h100(1)))
    assert row([node], "torch").state == state
    assert words in row([node], "torch").text
    assert row([node], "time").state == ("ok" if torch.gpus else "missing")
    assert row([node], "FLOPs").state == ("ok" if torch.version else "missing")
    assert row([node], "executed FLOPs").state == ("ok" if torch.gpus else "missing")


def test_gpus_that_ray_does_not_give_out_are_told(gpu_node):
    assert "offers 0 GPUs, and NVML sees 1" in row([gpu_node(ray_gpus={})], "Ray").text
    assert row([gpu_node(ray_gpus={})], "Ray").state == "note"
    assert "offers 2 GPUs" in row([gpu_node(ray_gpus={"H100": 2})], "Ray").text
    assert row([gpu_node(ray=None, ray_gpus=None)], "Ray").state == "missing"


def test_nodes_alike_are_one_line_and_others_are_named(gpu_node, cpu_node):
    nodes = [cpu_node("head"), gpu_node("gpu-1"), gpu_node("gpu-2")]
    assert row(nodes, "time").where == ""
    assert row(nodes, "ncu").where == ""  # the head node has no GPU to count on
    rows = [(row.state, row.where) for row in rows_of(nodes) if row.what == "GPU"]
    assert rows == [("ok", "2 GPUs on gpu-1, gpu-2"), ("missing", "head")]
    assert [row.what for row in rows_of(nodes)] == sorted((row.what for row in rows_of(nodes)), key=ORDER.index)


def test_a_hundred_nodes_are_counted_rather_than_listed(gpu_node, cpu_node):
    nodes = [*(gpu_node(f"gpu-{i}") for i in range(100)), cpu_node("head")]
    text = printed(nodes)
    assert "and 97 more" in text
    assert "100 GPUs on gpu-0, gpu-1, gpu-2, gpu-3 and 96 more" in " ".join(text.split())
    assert len(text.splitlines()) < 40


def test_a_node_that_did_not_answer_is_missing_by_name(gpu_node):
    dead = replace(gpu_node("gpu-2"), machine=None, reason="no answer within 180 s")
    found = row([gpu_node("gpu-1"), dead], "node")
    assert (found.state, found.where, found.text) == ("missing", "gpu-2", "no answer within 180 s")


def test_versions_that_differ_are_told(gpu_node):
    nodes = [gpu_node("a"), gpu_node("b", torch=Torch("2.9.1", "12.6", 1, None)), gpu_node("c", ray="2.61.0")]
    assert differences(nodes) == [
        "Ray: 2.60.0 on a, b; 2.61.0 on c",
        "torch: 2.13.0+cu130 on a, c; 2.9.1 on b",
        "CUDA of torch: 13.0 on a, c; 12.6 on b",
    ]
    assert "nodes differ in torch" in printed(nodes)
    assert differences([gpu_node("a"), gpu_node("b")]) == []


def test_json_has_facts_and_checks(gpu_node, cpu_node):
    nodes = [gpu_node("a"), cpu_node("b"), replace(cpu_node("c"), machine=None, reason="no answer")]
    found = json.loads(as_json(nodes))
    assert [node["name"] for node in found["nodes"]] == ["a", "b", "c"]
    assert found["nodes"][0]["machine"]["gpus"][0]["energy"]["tick_period_s"] == 0.1
    assert found["nodes"][2] == {
        "name": "c",
        "machine": None,
        "reason": "no answer",
        "ray_gpus": {},
        "checks": [{"what": "node", "state": "missing", "where": "", "text": "no answer"}],
    }


def test_every_text_is_one_line_with_words(gpu_node, cpu_node):
    for node in (gpu_node(), cpu_node()):
        for check in checks_of(node):
            assert check.text
            assert "\n" not in check.text


def test_brackets_in_a_reason_are_text(cpu_node):
    assert "[bold]" in printed([cpu_node(gpus_reason="a reason with [bold] in it")])
