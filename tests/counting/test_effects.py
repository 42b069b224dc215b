"""A point whose operations are known runs without a launch, and has the same counts as a launched one."""

import gc
import io
import json

import pytest
import torch

from flopray.measurement.counting import walk
from flopray.measurement.counting.walk import MustLaunch, Operations, Unlaunched, Walk
from flopray.measurement.counting.worker import Worker
from flopray.workloads.registry import make_point

PHASES = ("inference", "forward", "backward", "forward_backward")


@pytest.fixture(autouse=True)
def any_address(monkeypatch):
    """A CPU's allocator varies in alignment; a GPU's does not."""
    monkeypatch.setattr(walk, "_ALIGNMENT", 1)


def launched_then_known(work):
    """The counts of both, and what the second one returned."""
    operations = Operations()
    with Walk(operations, "fp32", lambda number: torch.no_grad(), device="cpu") as first:
        work()
    with Unlaunched(operations, "fp32", counted=True) as second:
        out = work()
    second.check()
    return dict(first.counts), dict(second.counts), out


def test_results_have_the_shape_of_real_ones_and_no_numbers(monkeypatch):
    a = torch.randn(4, 6)
    first, second, (product, back, halves) = launched_then_known(
        lambda: (torch.sigmoid(a.t() @ a), a.mul_(1.0), (a @ a.t()).chunk(2))
    )
    assert first == second
    assert product.shape == (6, 6)
    assert back is a
    assert [half.shape for half in halves] == [(2, 4), (2, 4)]


def test_nothing_is_computed():
    a = torch.ones(3, 3)
    launched_then_known(lambda: a.add_(1.0))
    assert torch.equal(a, torch.full((3, 3), 2.0))  # once, where it was launched


@pytest.mark.parametrize(
    "work",
    [
        lambda a: a.sum().item(),
        lambda a: a.nonzero(),
        lambda a: a[a > 0],
        lambda a: bool((a > 0).all()),
        lambda a: torch.equal(a, a),
        lambda a: a.unique(),
    ],
    ids=["item", "nonzero", "mask", "bool", "equal", "unique"],
)
def test_what_the_host_would_see_is_launched(work):
    a = torch.randn(8)
    with pytest.raises(MustLaunch):
        launched_then_known(lambda: work(a))


def test_an_operator_of_somebody_else_need_not_say_what_it_does_and_is_launched():
    @torch.library.custom_op("flopray_tests::twice", mutates_args=())
    def twice(a: torch.Tensor) -> torch.Tensor:
        return 2 * a

    with pytest.raises(MustLaunch):
        launched_then_known(lambda: twice(torch.ones(2)))


def test_a_workload_that_cannot_be_walked_without_launches_is_tried_once():
    operations = Operations()
    a = torch.ones(3)
    for _ in range(2):
        with Walk(operations, "fp32", None, device="cpu"):
            a.sum().item()
        assert not operations.need_launches
    with pytest.raises(MustLaunch), Unlaunched(operations, "fp32", counted=False):
        a.sum().item()
    assert operations.need_launches


def test_results_that_share_memory_with_an_argument_still_do():
    a = torch.randn(2, 3)
    _, _, (view, flat) = launched_then_known(lambda: (a.view(3, 2), torch.ops.aten._unsafe_view(a, [6])))
    assert view.data_ptr() == flat.data_ptr() == a.data_ptr()


def test_an_exception_that_the_work_swallows_is_no_success():
    operations, a = Operations(), torch.ones(2, 2)

    def careless():
        try:
            return a @ a
        except Exception:
            return a

    with pytest.raises(MustLaunch):  # noqa: PT012
        with Unlaunched(operations, "fp32", counted=True) as known:
            careless()
        known.check()


def walked(points, phases=PHASES, **options):
    """What a worker reports about points, by point and phase."""
    chunk = {
        "workload": {"name": "mlp"},
        "phases": phases,
        "seed": 0,
        "device": "cpu",
        "every_launch": False,
        **options,
    }
    told = io.StringIO()
    try:
        Worker({**chunk, "points": [point.fields() for point in points]}, told).run(range(len(points)))
    finally:
        gc.unfreeze()  # what a worker's own process may leave alone
    events = [json.loads(line) for line in told.getvalue().splitlines()]
    return {(event["point"], event["phase"]): event for event in events if "phase" in event}


def mlp(n, precision="fp32"):
    return make_point(workload="mlp", device_type="CPU", n_layers=n, width=16, tokens=8, precision=precision)


@pytest.mark.slow
def test_a_deeper_model_of_known_layers_is_not_launched_and_counts_the_same():
    together, alone = walked([mlp(3), mlp(7)]), walked([mlp(7), mlp(3)])
    for phase in PHASES:
        assert together[1, phase]["launched"] is False
        assert "launched" not in alone[0, phase]
        assert times(together[1, phase]) == times(alone[0, phase])


@pytest.mark.slow
def test_an_optimizer_that_counts_its_steps_on_the_host_is_known_too():
    phases = ("forward", "optimizer_step", "train_step")
    shallow, same = mlp(3), mlp(3, precision="fp32")
    again = walked([shallow, same], phases, device="meta")  # a device that is not the host
    for phase in phases:
        assert again[1, phase]["launched"] is False
        assert times(again[1, phase]) == times(again[0, phase])


def times(event):
    return sorted(event["operations"].values())


@pytest.mark.slow
def test_what_lives_on_without_numbers_becomes_zeros_and_ends_it(monkeypatch):
    kept = []
    build = Worker._build

    def keeping(self, point):
        built = build(self, point)
        kept.append(built._module.weights[0])
        return built

    monkeypatch.setattr(Worker, "_build", keeping)
    outcomes = walked([mlp(3), mlp(4), mlp(5)], ("forward",))
    assert [outcomes[i, "forward"].get("launched") for i in range(3)] == [None, False, None]
    assert not kept[1].any()
    assert kept[2].any()
