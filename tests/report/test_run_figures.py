"""The end of a sweep draws what the run has: surfaces of what was measured, executed FLOPs of what was counted."""

import io

import pytest
from rich.console import Console

from flopray.cli.run_figures import draw_surfaces
from flopray.flops.executed.counts import KernelCount, PhaseCounts
from flopray.measurement.counting.columns import counter_columns
from flopray.records import PhaseRecord
from flopray.store.run import RunFolder
from flopray.workloads.base import closed_columns
from flopray.workloads.registry import make_point


def point(n, d, m, *, timed, counted):
    spec = make_point(workload="mlp", device_type="H100", n_layers=n, width=d, tokens=m, execution="graph")
    row = {"trial_id": spec.id, "run": "r", "phase": "forward", "device_name": "H100", **spec.shape()}
    row |= {"workload": "mlp", "device_type": "H100", "precision": "fp32", "execution": "graph"}
    row |= closed_columns(spec, "forward")
    if timed:
        row |= {"time_s": 1e-6 * n * d, "time_rel_error": 0.01, "flops_per_s": 1e12}
    if counted:
        products = KernelCount("sgemm", "gemm", n, 0, row["gemm_flops"] * 2)
        sigmoids = KernelCount("sigmoid", "elementwise", n, 0, row["activation_flops"] * 16)
        row |= counter_columns(row, PhaseCounts((products, sigmoids), 2), "2025.3.1")
    return [PhaseRecord.of(**row)]


@pytest.mark.slow
@pytest.mark.parametrize(("timed", "counted"), [(True, False), (False, True), (True, True)])
@pytest.mark.usefixtures("unrendered")
def test_what_a_run_has_is_drawn(tmp_path, timed, counted):
    folder = RunFolder.create(tmp_path, "r", {"sweep": {"search": "random", "axes": {}}})
    points = [point(n, d, m, timed=timed, counted=counted) for n in (2, 4) for d in (256, 512, 1024) for m in (32, 64)]
    with folder.writer() as journal:
        journal.append(points)
    said = io.StringIO()
    draw_surfaces(folder.path, Console(file=said, width=200))
    images = sorted(path.relative_to(folder.plots_path).as_posix() for path in folder.plots_path.rglob("*.png"))
    executed = [name for name in images if name.startswith("flops/")]
    assert bool(executed) == counted
    assert bool(set(images) - set(executed)) == timed
    assert ("executed FLOPs" in said.getvalue()) == counted
