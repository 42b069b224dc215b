"""Memory and bytes moved: lower bounds, compared with what torch really keeps."""

import pytest
import torch
from specs import llama, mlp

from flopray.measurement.host import memory_bytes
from flopray.workloads.base import held_at_once, workload_of
from flopray.workloads.execution import TrainingStep
from flopray.workloads.llama import Llama
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point


def kept_bytes(spec) -> int:
    """Distinct memory that a forward pass keeps for its backward pass, weights left out."""
    built = workload_of(spec).build(spec, device="cpu", dtype=torch.float32, seed=0)
    built.module.train()
    own = {parameter.untyped_storage().data_ptr() for parameter in built.module.parameters()}
    seen: dict[int, torch.UntypedStorage] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = built.module(built.x)
    del loss
    return sum(storage.nbytes() for storage in seen.values())


@pytest.mark.parametrize(
    "spec", [mlp(), mlp(8, 32, 128), llama(), llama(b=4, t=64), llama(checkpointing=True)], ids=lambda s: s.label()
)
def test_what_is_kept_is_no_less_than_stated_and_not_much_more(spec):
    module = workload_of(spec)
    weights = module.least_bytes(spec, "inference", 4)
    stated = module.least_bytes(spec, "forward", 4)
    if spec.workload.name == "llama":
        batch, tokens = spec.shape().values()
        stated -= 2 * batch * tokens * 512 * 4  # logits, which live on in the loss
        weights -= batch * tokens * 512 * 4
    else:
        weights -= spec.width * spec.tokens * 4
    kept = kept_bytes(spec)
    assert stated - weights <= kept
    assert kept < 3 * (stated - weights) or spec.checkpointing


def test_gradients_and_moments_are_counted():
    for spec in (mlp(2, 8192, 16), llama("llama-3.2-1b", 1, 8)):
        module = workload_of(spec)
        weights = 4 * (2 * 8192**2 if spec.workload.name == "mlp" else 1_235_814_400)
        for phase, copies in (("inference", 1), ("forward", 1), ("backward", 2), ("train_step", 4)):
            assert module.least_bytes(spec, phase, 4) / weights == pytest.approx(copies, rel=0.02)
        step = TrainingStep(torch.nn.Linear(4, 4), torch.randn(4, 4), torch.ones(4, 4), execution="eager")
        step.train_step()
        assert sum(v.numel() for s in step.optimizer.state.values() for v in s.values()) >= 2 * 20


def peak_bytes(work, weights: int) -> int:
    """The most memory that a callable has at one time, weights included."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    held = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return 4 * weights + most


@pytest.mark.parametrize("phase", ["forward_backward", "train_step"])
@pytest.mark.parametrize(
    "spec",
    [
        *(llama(b=8, t=64), llama(b=1, t=8), mlp(4, 64, 256)),
        make_point(
            **{"workload": "causal_lm", "model": "mixtral-tiny", "model_config": None, "weights": "random"},
            **{"attention": "auto", "routing": "uniform", "checkpointing": False, "batch_size": 2},
            sequence_length=128,
        ),
    ],
    ids=lambda s: s.label(),
)
def test_a_step_never_holds_all_gradients_beside_all_activations(spec, phase):
    module = workload_of(spec)
    built = module.build(spec, device="cpu", dtype=torch.float32, seed=0)
    gradient = built.gradient if built.gradient is not None else torch.ones_like(built.module(built.x))
    step = TrainingStep(built.module.train(), built.x, gradient, execution="eager")
    weights = sum(weight.numel() for weight in step.parameters)
    work = step.body(phase)
    most = peak_bytes(lambda: (work(), work()), weights)
    assert most / 4 < module.least_bytes(spec, phase, 4) <= most


def test_what_is_held_at_once_by_hand():
    for phase, held in {
        **{"inference": 10 + 5, "prefill": 10 + 5, "forward": 10 + 5, "backward": 10 + 4 + 5},
        **{"forward_backward": 10 + 5, "train_step": 10 + 8 + 5, "optimizer_step": 10 + 12 + 5},
    }.items():
        assert held_at_once(phase, weights=10, trained=4, kept=5) == held
    assert held_at_once("train_step", weights=10, trained=4, kept=3) == 10 + 8 + 4


def test_a_llama_of_405_billion_weights_needs_more_than_its_weights():
    spec = llama("llama-3.1-70b", 1, 128, precision="bf16")
    assert Llama().least_bytes(spec, "train_step", 2) >= 4 * 70_553_706_496 * 2
    assert Llama().least_bytes(spec, "decode", 2) < 1.01 * 70_553_706_496 * 2


@pytest.mark.parametrize("spec", [mlp(), llama(), llama(checkpointing=True)], ids=lambda s: s.label())
def test_every_phase_moves_bytes_and_a_step_is_its_parts(spec):
    moved = {phase: workload_of(spec).least_moved_bytes(spec, phase, 4) for phase in spec.workload.phases}
    assert min(moved.values()) > 0
    assert moved["train_step"] == moved["forward"] + moved["backward"] + moved["optimizer_step"]
    assert moved["inference"] <= moved["forward"]
    half = workload_of(spec).least_moved_bytes(spec, "train_step", 2)
    assert moved["train_step"] == 2 * half


def test_bytes_moved_by_hand():
    assert MLP().least_moved_bytes(mlp(2, 16, 8), "forward", 4) == 4 * (2 * 256 + 3 * 128)
    assert MLP().least_moved_bytes(mlp(2, 16, 8), "backward", 4) == 4 * (256 + 512 + 4 * 128)
    assert MLP().least_moved_bytes(mlp(2, 16, 8), "optimizer_step", 4) == 4 * 7 * 512
    # A token of a Llama 3.2 1B reads its weights and the cache: 16 layers, 8 heads of 64, keys and values.
    cache, logits = 2 * 16 * 8 * 64 * 1024, 128_256
    assert Llama().least_moved_bytes(llama("llama-3.2-1b", 1, 1024), "decode", 2) == 2 * (
        1_235_746_816 + cache + logits
    )


def test_memory_is_that_of_the_container_where_it_is_less(tmp_path):
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\nMemTotal:       1000 kB\n")
    for text, expected in (("max\n", 1_024_000), ("2048\n", 2048), ("9999999999\n", 1_024_000)):
        (tmp_path / "limit").write_text(text)
        assert memory_bytes(tmp_path / "meminfo", (tmp_path / "limit",)) == expected
    assert memory_bytes(tmp_path / "none", (tmp_path / "no",)) is None
