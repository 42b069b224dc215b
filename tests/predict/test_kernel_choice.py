"""Tile and split of a product, from the names and the FLOPs of the kernels that counters saw."""

import math
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from flopray.predict.kernel_choice import Choice, counted_products

RUNS = Path(__file__).parents[2] / "docs" / "results" / "reference" / "h200-counters"


@cache
def counted(run):
    kernels, rows = (pd.read_parquet(RUNS / run / f"{name}.parquet") for name in ("kernels", "records"))
    return tuple(counted_products(kernels.to_dict("records"), rows.to_dict("records")))


@pytest.mark.parametrize(
    ("layout", "rows", "columns", "choice"),
    [
        # 24 and 48 tiles, shared out among 132 processors once and twice
        ("transposed", 3072, 16, Choice(128, 32, 5.5, True)),
        ("plain", 3072, 16, Choice(64, 32, 5.5, True)),
        # 16, 32 and 64 tiles on 128 processors
        ("plain", 1024, 16, Choice(64, 32, 8, True)),
        ("plain", 4096, 128, Choice(128, 128, 4, True)),
        ("plain", 512, 512, Choice(64, 64, 2, True)),
        # a reduction that follows a kernel of CUTLASS
        ("plain", 3072, 256, Choice(128, 256, 5, True)),
        ("transposed", 3072, 256, Choice(256, 128, 5, True)),
        ("plain", 4096, 1024, Choice(256, 128)),
    ],
)
def test_tile_and_split_of_products_in_fp32_on_an_h200(layout, rows, columns, choice):
    found = [
        one.choice
        for one in counted("counters_34f4_fp32")
        if (one.layout, one.rows, one.columns, one.inner) == (layout, rows, columns, rows)
    ]
    assert found == [choice]


@pytest.mark.parametrize("run", ["counters_34f4_fp32", "counters_a8aa", "counters_db7a_tf32"])
def test_what_a_kernel_executes_is_the_flops_of_whole_tiles(run):
    """The sides of a tile are told apart where it is not square and does not divide an edge of a product."""
    kernels = pd.read_parquet(RUNS / run / "kernels.parquet")
    rows = pd.read_parquet(RUNS / run / "records.parquet")
    shapes = rows[rows["phase"] == "forward"].set_index("trial_id")[["width", "tokens", "n_layers"]]
    choices = {(one.rows, one.columns, one.inner): one.choice for one in counted(run) if one.layout == "plain"}
    judged = 0
    for kernel in kernels[(kernels["phase"] == "forward") & (kernels["kernel_class"] == "gemm")].to_dict("records"):
        width, tokens, layers = (int(value) for value in shapes.loc[kernel["trial_id"]])
        choice = choices.get((width, tokens, width))
        executed = (kernel["tensor_flops"] + kernel["cuda_flops"]) / layers
        if choice is None or kernel["launches"] != layers or executed < width * width * tokens:
            continue
        ours, swapped = (
            2 * math.ceil(width / rows_of) * rows_of * math.ceil(tokens / columns_of) * columns_of * width
            for rows_of, columns_of in (
                (choice.tile_rows, choice.tile_columns),
                (choice.tile_columns, choice.tile_rows),
            )
        )
        if ours != swapped:
            judged += 1
            assert abs(executed / ours - 1) < abs(executed / swapped - 1)
    assert judged >= (10 if run != "counters_db7a_tf32" else 5)
