"""What a kernel does, by its name and the operation that launched it.

Names differ between libraries and generations: `sgemm`, `xmma_gemm`, cutlass, `gemv` and Hopper's nvjet are products;
cuBLAS sums the pieces of a split product in `splitKreduce_kernel`; torch's own kernels are called after what they do;
Triton's begin with `triton_` and its kind. A kernel whose name tells nothing gets the class of the
operation that launched it.
"""

from __future__ import annotations

import re

#: First match wins: attention and split-K sums are also spelt with words of products.
_BY_NAME = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        ("attention", r"flash|fmha|attention|attn|sdpa"),
        ("reduction", r"split_?k_?reduce|splitkreduce|reduce_?splitk"),
        ("optimizer", r"multi_tensor_apply|fused_?adam"),
        ("gemm", r"gemm|gemv|xmma|cutlass|nvjet|cublas|triton_tem|triton_mm|wgmma|dot_kernel"),
        ("normalisation", r"soft_?max|layer_?norm|rms_?norm|batch_?norm|group_?norm|norm_kernel"),
        ("reduction", r"reduce|triton_(red|per)|cub::|nll_loss"),
        ("elementwise", r"elementwise|triton_poi|copy|fill|index|gather|scatter|embedding|unrolled|CatArray|arange"),
    )
)
_BY_OPERATION = (
    ("gemm", re.compile(r"^aten\.(mm|addmm|bmm|baddbmm|linear|matmul|dot|mv|_scaled_mm)\b")),
    ("attention", re.compile(r"scaled_dot_product|flash_attention|efficient_attention|cudnn_attention")),
    ("normalisation", re.compile(r"softmax|layer_norm|rms_norm|batch_norm|group_norm")),
    ("reduction", re.compile(r"^aten\.(sum|mean|amax|amin|max|min|prod|norm|nll_loss)")),
)
_OPTIMIZER_OPERATIONS = ("aten._foreach_", "aten._fused_adam")
#: Longer names differ only in template arguments.
_LONGEST_NAME = 160


def kernel_class(name: str, *, operation: str = "", pointwise: bool = False, phase: str = "") -> str:
    """The class of a kernel.

    Args:
        name: the kernel's demangled name.
        operation: the operation that launched it, such as `aten.mm.default`; empty where that is not known.
        pointwise: whether torch tags the operation as working on each element by itself.
        phase: of the training step; all that an optimizer step launches is the optimizer.

    Returns:
        One of `flopray.records.KERNEL_CLASSES`; `other` where neither name nor operation tells.
    """
    if phase == "optimizer_step" or operation.startswith(_OPTIMIZER_OPERATIONS):
        return "optimizer"
    for kind, pattern in _BY_NAME:
        if pattern.search(name):
            return kind
    for kind, pattern in _BY_OPERATION:
        if pattern.search(operation):
            return kind
    return "elementwise" if pointwise else "other"


def short_name(name: str) -> str:
    """A kernel's name without return type and parameters, shortened for reading."""
    name = name.removeprefix("void ")
    depth = 0
    for place, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">" and name[place - 1] != "-")
        if letter == "(" and depth == 0 and place:
            name = name[:place]
            break
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."
