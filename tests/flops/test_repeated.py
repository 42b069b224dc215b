"""Shapes that are remembered are those that torch's meta functions give."""

import pytest
import torch

from flopray.flops.dispatched import count_dispatched, dispatches_counted


def on_meta(*shape, dtype=torch.float32, **options):
    return torch.empty(*shape, dtype=dtype, device="meta", **options)


#: Calls that have equal shapes with others of another type, order of strides, scalar or kind of argument.
CALLS = {
    "sum of types": lambda: on_meta(2, 3) + on_meta(2, 3, dtype=torch.bfloat16),
    "sum of one type": lambda: on_meta(2, 3, dtype=torch.bfloat16) + on_meta(2, 3, dtype=torch.bfloat16),
    "integers and a whole number": lambda: on_meta(3, dtype=torch.int64) * 2,
    "integers and a fraction": lambda: on_meta(3, dtype=torch.int64) * 2.0,
    "integers and a truth": lambda: on_meta(3, dtype=torch.int64) * True,
    "strides": lambda: torch.relu(on_meta(3, 2)),
    "strides turned": lambda: torch.relu(on_meta(2, 3).T),
    "several results": lambda: torch.topk(on_meta(4, 9), 3),
    "normalised": lambda: torch.native_layer_norm(on_meta(4, 8), [8], on_meta(8), None, 1e-5),
    "views": lambda: on_meta(4, 6).view(2, 12).chunk(2, dim=1),
    "concatenated": lambda: torch.cat([on_meta(1, 2), on_meta(3, 2)]),
    "a list of others": lambda: torch.cat([on_meta(2, 2), on_meta(3, 2)]),
    "another type": lambda: torch.softmax(on_meta(2, 2, dtype=torch.bfloat16), -1, dtype=torch.float32),
}


def described(out):
    results = out if isinstance(out, (tuple, list)) else [out]
    return [(one.shape, one.stride(), one.dtype, one.device.type) for one in results]


@pytest.mark.parametrize("name", CALLS)
def test_remembered_shapes_are_those_that_torch_gives(name):
    plain = described(CALLS[name]())
    with dispatches_counted(repeat_shapes=True):
        for call in CALLS.values():  # whatever could be mistaken for it is known before
            call()
        assert described(CALLS[name]()) == plain


def test_results_share_no_memory_and_views_still_do():
    x = on_meta(4, 4)
    with dispatches_counted(repeat_shapes=True):
        one, two = torch.relu(x), torch.relu(x)
        assert one.untyped_storage()._cdata != two.untyped_storage()._cdata
        assert all(x.view(16).untyped_storage()._cdata == x.untyped_storage()._cdata for _ in range(2))
        assert x.add_(1) is x
        assert x.add_(1) is x


def test_numbers_are_computed_where_there_are_some():
    x = torch.arange(3.0)
    with dispatches_counted(repeat_shapes=True):
        assert [(x * k).tolist() for k in (1, 2)] == [[0, 1, 2], [0, 2, 4]]


def test_counts_and_gradients_are_the_same():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, 16, device="meta") for _ in range(4)]
    model = torch.nn.Sequential(*layers, torch.nn.LayerNorm(16, device="meta"), torch.nn.GELU())

    def step():
        model(on_meta(2, 16)).square().mean().backward()

    plain = count_dispatched(step)
    again = count_dispatched(step, repeat_shapes=True)
    assert plain == again
    assert all(weight.grad.shape == weight.shape for weight in model.parameters())
