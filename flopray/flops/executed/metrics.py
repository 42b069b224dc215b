"""Which counters of Nsight Compute hold the FLOPs of a chip at a precision, and how much each count weighs.

CUDA cores: the SASS counters `smsp__sass_thread_inst_executed_op_*_pred_on` count instructions that threads executed.
An fma is two FLOPs, and an instruction on half2 works on two numbers, so half adds and multiplies weigh 2, fmas 4. In
16-bit precisions that is an upper bound: compilers also convert with HADD2 and load constants with HFMA2, and no
counter tells these from arithmetic.

Tensor cores: `sm__ops_path_tensor_src_*` count operations, both the multiply and the add (1024 x 1024 by 1024 x 128 in
bf16 returns 2 * 1024 * 1024 * 128). Names from `ncu --query-metrics --chip` of Nsight Compute 2025.3.1;
https://docs.nvidia.com/nsight-compute/ProfilingGuide/ explains the prefixes.

Both kinds together need several passes of every kernel, with its memory saved and restored between them: 94 ms a kernel
on an H100, where one kind alone takes 7 to 10 ms. So each kind has a run of its own, and so has each part of a kind
that one pass cannot hold: on Hopper `sm__ops_path_tensor_src_fp16` alone takes two. Its parts add up to it: both ways
gave the same counts of 81 phases of fp16 layers on an H200 (2026-11-29), in 50 and 67 s. How many passes counters of a
chip take is asked of CUPTI 12.9 and 13.0 (`cuptiProfilerHostGetNumOfPasses`), which need no GPU for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flopray.errors import Unsupported
from flopray.point import FP8_SCALING, unit_of

_SASS = "smsp__sass_thread_inst_executed_op_{}_pred_on.sum"
_TENSOR = "sm__ops_path_tensor_{}.sum"
#: FLOPs of one instruction of one thread.
_WEIGHTS = {"fadd": 1, "fmul": 1, "ffma": 2, "dadd": 1, "dmul": 1, "dfma": 2}
_HALF_WEIGHTS = {"hadd": 2, "hmul": 2, "hfma": 4}
#: Blackwell's data-centre chips also have packed fp32 instructions.
_PACKED_FP32 = {"fadd2": 2, "fmul2": 2, "ffma2": 4}

#: One chip of each compute capability, as ncu names it; chips of one capability have the same counters.
CHIPS = {
    **{"7.0": "gv100", "7.5": "tu102", "8.0": "ga100", "8.6": "ga102", "8.7": "ga10b", "8.9": "ad102"},
    **{"9.0": "gh100", "10.0": "gb100", "10.3": "gb110", "12.0": "gb202"},
}
#: A run's counters of tensor cores, by the names of their sources.
_Sources = tuple[str, ...]
#: Types of results of fp16 products; on these chips they take a pass each.
_HALVES: tuple[_Sources, ...] = (("src_fp16_dst_fp32",), ("src_fp16_dst_fp16",))
_BOTH_HALVES: tuple[_Sources, ...] = (("src_fp16_dst_fp16", "src_fp16_dst_fp32"),)
_AMPERE: dict[str, tuple[_Sources, ...]] = {
    "tf32": (("src_tf32_dst_fp32",),),
    "bf16": (("src_bf16_dst_fp32",),),
    "fp16": _HALVES,
}
#: fp8 exists since Ada (8.9). Its tensor cores count all types of results together, those of Blackwell each apart and
#: with the narrower types that they share.
_FP8_SOURCES: dict[str, tuple[_Sources, ...]] = {
    **{"ad102": (("src_fp8",),), "gh100": (("src_fp8",),), "gb202": (("src_fp8_dst_fp16", "src_fp8_dst_fp32"),)},
    **dict.fromkeys(("gb100", "gb110"), (("src_fp4_fp6_fp8_dst_fp16", "src_fp4_fp6_fp8_dst_fp32"),)),
}
_TENSOR_SOURCES: dict[str, dict[str, tuple[_Sources, ...]]] = {
    "gv100": {"fp16": _BOTH_HALVES},
    "tu102": {"fp16": (("src_fp16_dst_fp16", "src_fp16_bf16_tf32_dst_fp32"),)},
    # `src_fp16` is the sum of these three: products of warps (hmma) and of groups of warps (hgmma).
    "gh100": _AMPERE | {"fp16": (("op_hgmma_src_fp16", "op_hmma_src_fp16_dst_fp32"), ("op_hmma_src_fp16_dst_fp16",))},
    **dict.fromkeys(("gb100", "gb110"), _AMPERE | {"fp16": _BOTH_HALVES}),
}


@dataclass(frozen=True)
class CounterPass:
    """One run of ncu over the same work.

    Attributes:
        unit: `cuda` or `tensor`, the cores whose FLOPs it counts.
        weights: FLOPs of one count, by the counter's full name.
    """

    unit: str
    weights: dict[str, int]

    def flops(self, values: dict[str, int]) -> int:
        """FLOPs of one kernel from its counters' values.

        Raises:
            KeyError: a counter has no value.
        """
        return sum(weight * values[name] for name, weight in self.weights.items())


@dataclass(frozen=True)
class SharedRun:
    """One run of ncu over work at several precisions.

    Attributes:
        unit: the cores that it counts.
        passes: by precision, what this run counts of it.
    """

    unit: str
    passes: dict[str, CounterPass]

    @property
    def counters(self) -> CounterPass:
        """All counters that are read."""
        return CounterPass(self.unit, {k: w for one in self.passes.values() for k, w in one.weights.items()})


def shared_runs(precisions: Iterable[str], compute_capability: str) -> list[SharedRun]:
    """The runs that count work at several precisions, the one for CUDA cores first.

    One run covers the CUDA cores: the counters of 16-bit precisions include those of the others, in as many passes of a
        kernel. Counters of several types of tensor cores would need several passes, so each type has a run of its own.

    Args:
        precisions: of the work.
        compute_capability: of the GPU.

    Raises:
        Unsupported: as `passes_for`.
    """
    shared: dict[tuple[str, ...], dict[str, CounterPass]] = {}
    for precision in precisions:
        for one in passes_for(precision, compute_capability):
            key = (one.unit,) if one.unit == "cuda" else (one.unit, *one.weights)
            shared.setdefault(key, {})[precision] = one
    return [SharedRun(key[0], passes) for key, passes in sorted(shared.items(), key=lambda item: item[0][0])]


def chip_of(compute_capability: str) -> str | None:
    """The chip's name in ncu for a compute capability such as `9.0`; None for an unknown one."""
    return CHIPS.get(compute_capability)


def passes_for(precision: str, compute_capability: str) -> tuple[CounterPass, ...]:
    """The runs that count all FLOPs of work at a precision.

    fp32 takes one: IEEE products run on CUDA cores. The others take a second one for tensor cores, and fp8 a third:
    what is not a linear layer, such as attention, is computed in bf16. fp16 takes a third one where the counters of
    both types of its results need two passes.

    Args:
        precision: one of `flopray.point.PRECISIONS`.
        compute_capability: of the GPU.

    Raises:
        Unsupported: no counters known for the chip, or it has no tensor cores for the precision.
    """
    chip = chip_of(compute_capability)
    if chip is None:
        raise Unsupported(f"no FLOP counters known for compute capability {compute_capability}")
    instructions = _WEIGHTS | (_PACKED_FP32 if chip in ("gb100", "gb110") else {})
    if precision in ("bf16", "fp16") or precision in FP8_SCALING:
        instructions |= _HALF_WEIGHTS
    cuda = CounterPass("cuda", {_SASS.format(name): weight for name, weight in instructions.items()})
    if precision == "fp32":
        return (cuda,)
    units = ("bf16", "fp8") if unit_of(precision) == "fp8" else (precision,)
    known = {"fp8": _FP8_SOURCES.get(chip)} | _TENSOR_SOURCES.get(chip, _AMPERE)
    if not all(known.get(unit) for unit in units):
        raise Unsupported(f"{precision} has no tensor cores to count on compute capability {compute_capability}")
    sources = [names for unit in units for names in known[unit] or ()]
    return cuda, *(CounterPass("tensor", {_TENSOR.format(name): 1 for name in names}) for names in sources)
