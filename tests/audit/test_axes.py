"""Time axes, counters and sums: also of several devices or runs, and in other orders."""

import pytest

from flopray.audit.axes import axes_of


def rows(**columns):
    length = max(len(values) for values in columns.values() if isinstance(values, list))
    wide = {name: values if isinstance(values, list) else [values] * length for name, values in columns.items()}
    return [dict(zip(wide, cells, strict=True)) for cells in zip(*wide.values(), strict=True)]


COUNTERS = [x for i in range(5) for x in (100.0 + i * 50, 5000.0 + i * 52)]
EACH_GPU = [moment for moment in (1.0, 2.0, 3.0, 4.0) for _ in range(2)]
SUMS = [1e16, 2e16, 3e16, 4e16]


@pytest.mark.parametrize(
    ("column", "table"),
    [
        ("energy_j", rows(gpu=[0, 1] * 5, energy_j=COUNTERS, time_s=0.1)),
        ("energy_j", rows(energy_j=COUNTERS, time_s=0.1)),
        ("energy_j", rows(gpu=[0] * 5 + [1] * 5, energy_j=COUNTERS[::2] + COUNTERS[1::2], time_s=0.1)),
        ("energy_j", rows(energy_j=[5e6, 5000650.0, 5001300.0], time_s=1.0)),
        ("energy_j", rows(energy_j=[5e6, 5000650.0], time_s=1.0)),
        ("active_energy_j", rows(active_energy_j=[1000.0, 2000.0, 2900.0, 4000.0], time_s=1.0)),
        ("time_s", rows(run=["a"] * 6 + ["b"] * 6, time_s=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0] * 2)),
        ("time_s", rows(time_s=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0] * 2, power_w=300.0)),
        ("time_s", rows(gpu=[0, 1] * 4, time_s=EACH_GPU)),
        ("time_s", rows(time_s=[6.0, 5.0, 4.0, 3.0, 2.0, 1.0])),
        ("time_s", rows(time_s=[5.1, 4.0, 2.5, 1.0, 0.0])),
        ("model_flops", rows(model_flops=SUMS, time_s=10.0)),
        ("model_flops", rows(step=[1, 2, 3, 4], model_flops=SUMS, executed_flops=SUMS, time_s=10.0)),
        ("executed_flops", rows(step=[1, 2, 3, 4], executed_flops=SUMS, time_s=10.0)),
    ],
)
def test_what_is_no_measurement_of_an_iteration(column, table):
    assert column in axes_of(table)


@pytest.mark.parametrize(
    "table",
    [
        rows(model=list("aaaabbbb"), kernel=list("wxyzwxyz"), time_s=[1.0, 2.0, 2.5, 4.0, 2.0, 3.0, 4.0, 4.5]),
        rows(
            phase=["forward", "backward"] * 6, n_layers=[n for n in range(1, 7) for _ in "ab"], time_s=EACH_GPU + SUMS
        ),
        rows(name=list("abcdef"), time_s=[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]),
        rows(time_s=[4.0, 3.1, 1.9, 1.0]),  # four times that fall, as a warm-up does
        rows(time_s=[0.9, 0.7, 0.6, 0.55, 0.52, 0.51]),
        rows(batch_size=[1, 2, 3, 4], model_flops=SUMS, time_s=[1.0, 2.0, 3.0, 4.0]),
        rows(energy_j=[5e6, 5e6, 4.9e6], time_s=1.0),
    ],
)
def test_what_is_measured_and_only_looks_so(table):
    assert axes_of(table) == []
