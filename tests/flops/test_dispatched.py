"""Counting any callable at the dispatcher: right values, and null by name where a sum would be partial."""

from __future__ import annotations

import sys
import threading
import types
from concurrent.futures import thread as executors
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import flop_registry

from flopray.flops.dispatched import _FORMULAS, count_dispatched, has_word_of_a_product, takes_elements


def test_products_of_a_training_step_are_two_flops_a_multiply_add():
    layer, x = torch.nn.Linear(8, 16), torch.randn(4, 8)

    def step():
        layer(x).sum().backward()

    forward, weight_gradient = 2 * 4 * 8 * 16, 2 * 4 * 8 * 16  # the input needs no gradient
    assert count_dispatched(step).flops == forward + weight_gradient


def test_convolution_agrees_with_the_closed_form():
    conv, x = torch.nn.Conv2d(3, 8, 3, bias=False), torch.randn(2, 3, 10, 10)
    with torch.no_grad():
        assert count_dispatched(lambda: conv(x)).flops == 2 * (2 * 8 * 8 * 8) * (3 * 3 * 3)


@pytest.mark.parametrize("heads_of_keys", [8, 2, 1])
def test_attention_on_a_cpu_counts_full_squares_with_grouped_queries_too(heads_of_keys):
    q = torch.randn(2, 8, 16, 32, requires_grad=True)
    k = torch.randn(2, heads_of_keys, 16, 32, requires_grad=True)
    v = torch.randn(2, heads_of_keys, 16, 32, requires_grad=True)

    def step():
        F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads_of_keys != 8).sum().backward()

    one = 2 * 2 * 8 * 16 * 16 * 32
    assert count_dispatched(step).flops == (2 + 5) * one


@pytest.mark.parametrize(
    ("step", "flops"),
    [
        (lambda: torch.ones(3, 5) @ torch.ones(5), 2 * 3 * 5),
        (lambda: torch.addmv(torch.ones(3), torch.ones(3, 5), torch.ones(5)), 2 * 3 * 5),
        (lambda: torch.ones(7) @ torch.ones(7), 2 * 7),
        (lambda: torch.einsum("bij,bjk->bik", torch.ones(2, 3, 4), torch.ones(2, 4, 5)), 2 * 2 * 3 * 4 * 5),
        (lambda: torch.linalg.solve_triangular(torch.eye(4), torch.ones(2, 4, 5), upper=False), 2 * 4 * 4 * 5),
        (lambda: torch.linalg.solve_triangular(torch.eye(5), torch.ones(4, 5), upper=True, left=False), 5 * 5 * 4),
        (lambda: torch.ones(4).exp(), 0),
    ],
)
def test_other_products(step, flops):
    assert count_dispatched(step).flops == flops


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (lambda: torch.nn.LSTM(4, 4)(torch.randn(3, 2, 4)), "rnn"),
        (lambda: torch.linalg.svd(torch.randn(4, 4)), "svd"),
        (lambda: torch.cdist(torch.randn(30, 4), torch.randn(30, 4)), "dist"),
        (lambda: torch.fft.rfft(torch.randn(16)), "fft"),
    ],
)
def test_an_operator_without_a_formula_makes_the_count_null_by_name(step, name):
    count = count_dispatched(lambda: (step(), torch.ones(2, 2) @ torch.ones(2, 2)))
    assert count.flops is None
    assert name in str(count.reason)


def test_an_operator_of_another_package_is_named():
    with torch.library._scoped_library("other_package", "DEF") as library:
        library.define("fused(Tensor x) -> Tensor")
        library.impl("fused", lambda x: x @ x, "CPU")
        count = count_dispatched(lambda: torch.ops.other_package.fused(torch.ones(2, 2)))
    assert count.flops is None
    assert "other_package.fused" in str(count.reason)


def test_compiled_code_counts_as_its_original():
    compiled, x = torch.compile(torch.nn.Linear(8, 8), backend="eager"), torch.randn(4, 8)
    with torch.no_grad():
        compiled(x)
        assert count_dispatched(lambda: compiled(x)).flops == 2 * 4 * 8 * 8


def test_threads_count_too_those_that_start_and_those_of_an_executor():
    x = torch.ones(8, 8)
    start, run = threading.Thread.start, executors._WorkItem.run

    def starts():
        threads = [threading.Thread(target=lambda: x @ x) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return x @ x

    one = 2 * 8**3
    assert count_dispatched(starts).flops == 4 * one
    with executors.ThreadPoolExecutor(2) as pool:
        pool.submit(int).result()  # its thread is there before
        assert count_dispatched(lambda: [*pool.map(lambda _: x @ x, range(5)), x @ x]).flops == 6 * one

    def own_pool():
        with executors.ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda _: x @ x, range(5)))

    assert count_dispatched(own_pool).flops == 5 * one
    assert (threading.Thread.start, executors._WorkItem.run) == (start, run)


def test_nothing_dispatched_is_no_zero():
    count = count_dispatched(lambda: None)
    assert count.flops is None
    assert count.reason


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has real CUDA graphs: see the test on a GPU")
def test_a_replay_by_a_method_that_was_taken_before_is_seen(monkeypatch):
    """A captured step is often `graph.replay` itself; here without a GPU, so the class below it is a stand-in."""
    monkeypatch.setattr(torch.cuda.CUDAGraph.__mro__[1], "replay", lambda self: None, raising=False)
    graph = object.__new__(torch.cuda.CUDAGraph)
    graph._tracker = None
    replay = graph.replay
    assert count_dispatched(replay).flops is None
    count = count_dispatched(lambda: (replay(), torch.ones(2, 2) @ torch.ones(2, 2)))
    assert count.flops is None
    assert "replays a CUDA graph" in str(count.reason)
    assert count_dispatched(lambda: torch.ones(2, 2) @ torch.ones(2, 2)).flops == 16


def test_a_triton_kernel_that_is_called_by_itself_is_named(monkeypatch):
    class JITFunction:
        def __init__(self, fn):
            self.fn = fn

        def run(self):
            return self.fn

    module = types.ModuleType("triton.runtime.jit")
    module.JITFunction = JITFunction
    monkeypatch.setitem(sys.modules, "triton.runtime.jit", module)
    original = JITFunction.run

    def my_attention():
        return None

    count = count_dispatched(lambda: (JITFunction(my_attention).run(), torch.ones(2, 2) @ torch.ones(2, 2)))
    assert count.flops is None
    assert "Triton kernel my_attention" in str(count.reason)
    assert JITFunction.run is original


@pytest.mark.gpu
def test_a_replayed_graph_has_no_count():
    x = torch.ones(64, 64, device="cuda")
    graph = torch.cuda.CUDAGraph()
    torch.mm(x, x)
    with torch.cuda.graph(graph):
        torch.mm(x, x)
    replay = graph.replay
    for step in (replay, lambda: (graph.replay(), torch.mm(x, x)), lambda: (replay(), torch.mm(x, x))):
        count = count_dispatched(step)
        assert count.flops is None
        assert "CUDA graph" in str(count.reason)


@pytest.mark.gpu
def test_a_real_triton_kernel_is_named():
    pytest.importorskip("triton", reason="triton comes with torch for GPUs alone")
    from triton_copy import copy_kernel

    x, y = torch.ones(64, device="cuda"), torch.zeros(64, device="cuda")
    count = count_dispatched(lambda: (copy_kernel[(1,)](x, y, BLOCK=64), x @ y))
    assert count.flops is None
    assert "Triton kernel copy_kernel" in str(count.reason)
    assert torch.equal(x, y)


@pytest.mark.gpu
@pytest.mark.parametrize("heads_of_keys", [8, 2])
def test_attention_on_a_gpu(heads_of_keys):
    q = torch.randn(2, 8, 128, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    k = torch.randn(2, heads_of_keys, 128, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    def step():
        F.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=heads_of_keys != 8).sum().backward()

    assert count_dispatched(step).flops == 7 * 2 * 2 * 8 * 128 * 128 * 64


# -- operators that multiply


def _taking_several_tensors() -> set[str]:
    """Operators of torch itself that take two tensors or more, and are neither elementwise nor made of others."""
    found = set()
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        tensors = [a for a in schema.arguments if "Tensor" in str(a.type) and not a.is_out]
        if space != "aten" or len(tensors) < 2 or not hasattr(torch.ops.aten, name):
            continue
        packet = getattr(torch.ops.aten, name)
        overload = getattr(packet, schema.overload_name or "default", None)
        if overload is None or torch.Tag.pointwise in overload.tags or packet in {**flop_registry, **_FORMULAS}:
            continue
        with suppress(RuntimeError):  # of TorchScript alone
            if not torch._C._dispatch_has_kernel_for_dispatch_key(overload.name(), "CompositeImplicitAutograd"):
                found.add(name)
    return found


#: Without a product's word, and not known to work on elements: distances, a fused layer, packing of weights.
_MAY_MULTIPLY = {
    *("_euclidean_dist", "_transformer_encoder_layer_fwd", "_dyn_quant_pack_4bit_weight", "_test_functorch_fallback"),
    *("_sparse_semi_structured_apply", "_sparse_semi_structured_apply_dense"),
}


def test_an_operator_that_is_not_known_to_work_on_elements_is_taken_for_a_product():
    unknown = {name for name in _taking_several_tensors() if not takes_elements(name)}
    unnamed = {name for name in unknown if not has_word_of_a_product(name)}
    assert {"_euclidean_dist", "_transformer_encoder_layer_fwd"} <= unnamed
    assert unnamed <= _MAY_MULTIPLY, "a new operator of torch: does it multiply?"


@pytest.mark.parametrize(
    ("one", "other", "offsets", "flops"),
    [
        ((8, 16), (2, 16, 32), (3, 8), 2 * 8 * 16 * 32),  # rows to experts, forward
        ((16, 8), (8, 32), (3, 8), 2 * 16 * 8 * 32),  # the gradient of the experts
        ((2, 8, 16), (2, 16, 32), None, 2 * 2 * 8 * 16 * 32),
        ((2, 8, 16), (16, 32), (16, 32), 2 * 8 * 16 * 32),  # columns to experts
    ],
)
def test_grouped_products_are_counted_by_their_rows(one, other, offsets, flops):
    made = {"device": "meta", "dtype": torch.bfloat16}
    offs = None if offsets is None else torch.empty(len(offsets), device="meta", dtype=torch.int32)
    a, b = torch.empty(*one, **made), torch.empty(*other, **made)
    count = count_dispatched(lambda: torch._grouped_mm(a, b, offs=offs))
    assert (count.flops, count.reason) == (flops, None)


def test_an_unnamed_product_of_two_matrices_makes_the_count_null_by_name():
    count = count_dispatched(lambda: torch.ops.aten._euclidean_dist(torch.randn(4, 3), torch.randn(5, 3)))
    assert count.flops is None
    assert "_euclidean_dist" in str(count.reason)


@pytest.mark.parametrize(
    ("layer", "places", "passes"),
    [
        # 2 sequences, 5 places behind the filter, 8 channels of their own, a filter of 4
        (torch.nn.Conv1d(8, 8, 4, groups=8, bias=False), (8,), 2 * (2 * 5 * 8 * 4)),
        # 16 channels, each of 2 of the same group
        (torch.nn.Conv1d(8, 16, 4, groups=4), (8,), 2 * (2 * 5 * 16 * 2 * 4)),
        (torch.nn.Conv2d(8, 8, 3, groups=2, stride=2, padding=1), (8, 8), 2 * (2 * 4 * 4 * 8 * 4 * 9)),
        # transposed: each place of the input meets the whole filter
        (torch.nn.ConvTranspose1d(8, 8, 4, groups=8), (8,), 2 * (2 * 8 * 8 * 4)),
    ],
)
def test_gradients_of_a_convolution_in_groups_cost_what_its_forward_pass_costs(layer, places, passes):
    """torch's own formula multiplies all groups with each other: too much by the number of groups."""
    x = torch.randn(2, 8, *places, requires_grad=True)
    assert count_dispatched(lambda: layer(x).sum().backward()).flops == 3 * passes
    x = x.detach()
    assert count_dispatched(lambda: layer(x).sum().backward()).flops == 2 * passes  # the input needs no gradient


def test_operators_that_take_functions_are_counted_or_named():
    from torch.nn.attention.flex_attention import flex_attention

    q = torch.randn(1, 4, 16, 8)
    assert count_dispatched(lambda: flex_attention(q, q, q)).flops == 2 * (2 * 4 * 16 * 16 * 8)

    def step():
        torch.cond(torch.tensor(True), lambda x: x @ x, lambda x: x, (torch.ones(4, 4),))

    assert "no formula for cond" in str(count_dispatched(step).reason)


def sparse(layout):
    eye = torch.eye(16)
    return {
        "sparse_csr": eye.to_sparse_csr,
        "sparse_csc": eye.to_sparse_csc,
        "sparse_coo": eye.to_sparse,
        "sparse_bsr": lambda: eye.to_sparse_bsr((4, 4)),
    }[layout]()


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", ["sparse_csr", "sparse_csc", "sparse_coo", "sparse_bsr"])
@pytest.mark.parametrize("product", ["mm", "mv", "addmm", "linear"])
def test_a_product_of_a_sparse_operand_is_refused_by_its_name(layout, product):
    matrix, x = sparse(layout), torch.ones(16, 8)
    work = {
        "mm": lambda: matrix @ x,
        "mv": lambda: matrix @ x[:, 0],
        "addmm": lambda: torch.addmm(x, matrix, x),
        "linear": lambda: torch.nn.functional.linear(x.T, matrix),
    }[product]
    found = count_dispatched(work)
    assert found.flops is None
    assert "no formula for aten." in found.reason
    assert " with a sparse_" in found.reason  # linear transposes: csr becomes csc


def test_what_other_layouts_do_to_elements_counts_as_nothing():
    assert count_dispatched(lambda: sparse("sparse_coo") * 2).flops == 0
    assert count_dispatched(lambda: torch.ones(4, 4).to_mkldnn() * torch.ones(4, 4).to_mkldnn()).flops == 0
    jagged = torch.nested.nested_tensor([torch.ones(3, 8), torch.ones(5, 8)], layout=torch.jagged)
    assert count_dispatched(lambda: jagged * 2).flops == 0


def test_a_dense_product_beside_a_sparse_one_is_no_sum():
    matrix, x = sparse("sparse_coo"), torch.ones(16, 8)
    found = count_dispatched(lambda: (x.T @ x, matrix @ x))
    assert (found.flops, found.by_operator) == (None, {"aten.mm": 2 * 8 * 16 * 8})


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
@pytest.mark.parametrize(("layout", "said"), [(torch.jagged, "jagged"), (torch.strided, "nested")])
def test_nested_tensors_are_refused_by_the_operators_name(layout, said):
    nested = torch.nested.nested_tensor([torch.ones(3, 8), torch.ones(5, 8)], layout=layout)
    found = count_dispatched(lambda: torch.nn.functional.linear(nested, torch.ones(4, 8)))
    assert found.flops is None
    assert f"aten.linear with a {said} operand" in found.reason


def test_a_complex_product_takes_four_real_ones():
    x = torch.ones(4, 8, dtype=torch.complex64)
    assert count_dispatched(lambda: x @ x.T).flops == 8 * 4 * 8 * 4
    assert count_dispatched(lambda: torch.vdot(x[0], x[0])).flops == 8 * 8
    weight = x.clone().requires_grad_()
    backward = count_dispatched(lambda: (weight @ x.T).abs().sum().backward()).flops
    assert backward == 2 * 8 * 4 * 8 * 4


def test_checking_errors_multiplies_nothing():
    found = count_dispatched(lambda: torch.linalg.solve(torch.eye(4), torch.ones(4, 2)))
    assert found.flops is None
    assert "_linalg_solve_ex" in found.reason
    assert "_linalg_check_errors" not in found.reason


def test_quantized_products_are_refused_by_their_name():
    layer = torch.ao.nn.quantized.dynamic.Linear(8, 4)
    found = count_dispatched(lambda: layer(torch.ones(2, 8)))
    assert found.flops is None
    assert "quantized.linear_dynamic" in found.reason
