"""How many devices a row covers, by names of columns and by what cells say."""

import pytest

from flopray.audit.device_counts import (
    covers_several,
    device_count,
    device_count_column,
    device_spread_column,
    one_device,
)


@pytest.mark.parametrize(
    ("column", "cell", "count"),
    [
        *(("hardware", "8xH100", 8), ("AllocTRES", "billing=8,cpu=32,gres/gpu=8,node=1", 8), ("gpu", "0,1,2,3", 4)),
        *(("ReqTRES", "gres/gpu:h100=4", 4), ("TresPerNode", "gres:gpu:8", 8), ("machine", "a3-highgpu-8g", 8)),
        *(("device_name", "H100_8", 8), ("device_name", "NVIDIA H100 80GB HBM3 (x8)", 8), ("device_name", "2x4090", 2)),
        *(("config/world_size", 8, 8), ("world", "8", 8), ("slots", "4 GPUs", 4), ("device", ["cuda:0", "cuda:1"], 2)),
    ],
)
def test_a_column_that_counts_devices(column, cell, count):
    row = {"time_s": 1.0, column: cell}
    assert (device_count_column([row]), device_count(row, column)) == (column, count)
    assert device_spread_column([row]) is None


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        *(("parallelism", "tp8"), ("parallel", "dp=2,tp=4"), ("mesh_axes.tp", 4), ("topology", "2x4"), ("mesh", "1x8")),
        *(("dp_shard", 8), ("SLURM_JOB_NODELIST", "node[1-4]"), ("hosts", "a,b"), ("cluster_size", 4), ("fsdp", True)),
        *(
            ("instance_type", "p5.48xlarge"),
            ("system", "DGX H100"),
            ("rack", "GB200 NVL72"),
            ("vm", "Standard_ND96_v5"),
        ),
    ],
)
def test_a_column_that_says_several_and_not_how_many(column, cell):
    row = {"time_s": 1.0, column: cell}
    assert (device_spread_column([row]), device_count_column([row])) == (column, None)


@pytest.mark.parametrize(
    "name",
    ["DGX H100", "HGX A100", "p4d.24xlarge", "2 nodes x 8 H100", "dual RTX 4090", "eight H100", "0: H100, 1: H100"],
)
def test_a_name_of_several_devices_of_no_known_number(name):
    assert covers_several({"device_name": name}, "device_name")
    assert device_count({"device_name": name}, "device_name") is None
    assert not covers_several({"device_name": one_device(name)}, "device_name")


def test_a_device_of_a_system_has_its_own_name():
    assert (one_device("NVIDIA DGX H100"), one_device("8 x H100"), one_device("H200")) == ("H100", "H100", "H200")
    assert one_device("p5.48xlarge") == one_device(one_device("p5.48xlarge")) == "one of p5.48xlarge"


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        *(("gpu", 3), ("gpu", "3"), ("device", "cuda:3"), ("rank", 7), ("device_name", 4090), ("host", "node01")),
        *(("nodes", "node01"), ("fsdp", False), ("tp", 1), ("gpu_count", 0), ("topology", "1x1"), ("gpus", "H100")),
        *(
            ("test", "pp512"),
            ("model", "Mixtral-8x7B"),
            ("note", "2 x faster"),
            ("cpu", "2 x Intel Xeon"),
            ("batch", "8"),
        ),
        *(("system", "DGX Spark"), ("comment", "single node H100"), ("layout", "8x4"), ("nvlink", "NVL4"), ("x", "8x")),
        *(("instance_type", "g5.8xlarge"), ("machine", "a2-highgpu-1g"), ("device_name", "H100 NVL"), ("y", "tp1")),
    ],
)
def test_what_says_no_devices(column, cell):
    row = {"time_s": 1.0, column: cell}
    assert (device_count_column([row]), device_spread_column([row])) == (None, None)
