"""FLOPs by module and operator: forward, backward and recomputed, with the values of the mathematics."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.modules import module as torch_module
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from flopray.flops.by_module import count_by_module

D, HEADS, TOKENS, BATCH = 32, 2, 16, 2


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(D, 3 * D), torch.nn.Linear(D, D)
        self.mlp = torch.nn.Sequential(torch.nn.Linear(D, 4 * D), torch.nn.GELU(), torch.nn.Linear(4 * D, D))

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class Model(torch.nn.Module):
    def __init__(self, checkpoints=None):
        super().__init__()
        self.checkpoints = checkpoints
        self.layers = torch.nn.ModuleList(Block() for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x) if self.checkpoints is None else checkpoint(layer, x, use_reentrant=self.checkpoints)
        return x


def step_of(model):
    x = torch.randn(BATCH, TOKENS, D, requires_grad=True)
    return lambda: model(x).sum().backward()


LINEAR = 2 * BATCH * TOKENS * D * (3 * D + D + 8 * D)  # of a block, forward
ATTENTION = 2 * (2 * BATCH * HEADS * TOKENS * TOKENS * (D // HEADS))


def by(count, *, direction=None, inside=()):
    return sum(
        one.flops
        for one in count.operators
        if direction in (None, one.direction) and one.module[: len(inside)] == inside
    )


def test_a_block_has_its_products_forward_and_twice_backward():
    count = count_by_module(step_of(Model()))
    assert by(count, direction="forward") == 2 * (LINEAR + ATTENTION)
    assert by(count, direction="backward") == 2 * (2 * LINEAR + ATTENTION * 5 // 2)
    assert count.flops == by(count) == 2 * (3 * LINEAR + ATTENTION * 7 // 2)
    assert by(count, inside=("Model", "layers.1")) == count.flops // 2
    assert (
        by(count, inside=("Model", "layers.0", "mlp", "0"), direction="backward") == 2 * 2 * BATCH * TOKENS * D * 4 * D
    )
    assert count.attention_flops == count.causal_flops == 2 * ATTENTION * 7 // 2
    assert count.scores_again_flops == 2 * ATTENTION // 2
    assert count.recomputed_flops == 0
    assert count.product_types == ("float32",)


def test_products_agree_with_torchs_own_counter():
    """Torch's counter does not know attention on a CPU, and counts nothing there."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 6 * 6, 10))
    x = torch.randn(2, 3, 8, 8)

    def step():
        model(x).sum().backward()

    with FlopCounterMode(display=False) as counter:
        step()
    count = count_by_module(step)
    assert count.flops == counter.get_total_flops()
    assert count.convolution_flops > 0
    assert {one.module for one in count.operators} == {("Sequential", "0"), ("Sequential", "2")}


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_checkpointing_repeats_is_named_and_keeps_its_module(reentrant):
    plain, count = count_by_module(step_of(Model())), count_by_module(step_of(Model(reentrant)))
    assert count.recomputed_flops == by(count, direction="recomputed") == count.flops - plain.flops
    # Without reentry torch stops once all that was kept is there: the last product of a block is not repeated.
    last = 2 * BATCH * TOKENS * 4 * D * D
    assert count.recomputed_flops == 2 * (LINEAR + ATTENTION - (0 if reentrant else last))
    assert by(count, inside=("Model", "layers.1")) == count.flops // 2


def test_a_second_derivative_is_no_recomputation():
    x = torch.randn(4, 8, requires_grad=True)
    layer = torch.nn.Linear(8, 8)

    def step():
        (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        gradient.square().sum().backward()

    assert count_by_module(step).recomputed_flops == 0


def test_work_outside_of_modules_and_an_operator_without_a_formula():
    x = torch.ones(4, 4)
    count = count_by_module(lambda: (x @ x, torch.linalg.svd(x)))
    assert count.flops is None
    assert "svd" in count.reason
    assert [(one.module, one.operator, one.flops) for one in count.operators] == [
        ((), "aten.mm", 128),
        ((), "aten._linalg_svd", None),
    ]


def test_a_compiled_module_has_the_names_of_its_original_and_no_hook_stays():
    before = len(torch_module._global_forward_hooks), len(torch_module._global_forward_pre_hooks)
    model = torch.compile(torch.nn.Sequential(torch.nn.Linear(8, 8)), backend="eager")
    count = count_by_module(lambda: model(torch.ones(2, 8)))
    assert [one.module[-1] for one in count.operators] == ["0"]
    assert not any("_orig_mod" in name for one in count.operators for name in one.module)
    assert (len(torch_module._global_forward_hooks), len(torch_module._global_forward_pre_hooks)) == before


def test_a_module_that_fails_leaves_the_stack():
    class Fails(torch.nn.Module):
        def forward(self, x):
            raise ValueError("mine")

    model, x = Fails(), torch.ones(2, 2)

    def step():
        try:
            model(x)
        except ValueError:
            return x @ x

    (one,) = count_by_module(step).operators
    assert one.module == ()
