"""What a GPU can do at most: dense peaks, board power, and limits from its clock.

Two kinds of number, for two uses:

* `peak_flops_per_s` is the dense rate (no structured sparsity) that NVIDIA's datasheet states: the denominator of MFU.
* `hard_limit_flops_per_s` is SMs x FLOP per clock per SM x highest SM clock, which nothing can exceed. It is above the
  datasheet where the sheet assumes a lower clock (H100: 989 TFLOP/s at 1.83 GHz, while the SMs may run at 1.98 GHz).

Standard library only. A GPU that is not in the table has no known limit, which is not the same as being below one.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from flopray.point import PRECISIONS, unit_of

_TERA = 1e12


@dataclass(frozen=True)
class GpuSpec:
    """One GPU as its maker describes it.

    Attributes:
        name: product and form factor, such as `H100 SXM`.
        pattern: regular expression that matches the whole of a normalised device name.
        compute_capability: CUDA compute capability, key of `FLOP_PER_CLOCK_PER_SM`.
        sm_count: streaming multiprocessors that are switched on.
        max_sm_clock_hz: boost clock; used where a record does not carry the clock NVML reports.
        peaks: dense FLOP/s by precision; a precision that the chip has no unit for is absent.
        board_power_w: highest board power, `None` where the figure is for more than the GPU.
        source: where the peaks and the power are stated.
    """

    name: str
    pattern: str
    compute_capability: str
    sm_count: int
    max_sm_clock_hz: float
    peaks: dict[str, float]
    board_power_w: float | None
    source: str

    @property
    def memory_bytes(self) -> int:
        """Memory of the largest board of that name: nominal gigabytes as GiB, of which a process sees a little less."""
        return _MEMORY[self.name][0] * 2**30

    @property
    def memory_bytes_per_s(self) -> float:
        """Peak bandwidth of that board's memory."""
        return _MEMORY[self.name][1] * 1e9

    @property
    def l2_bytes(self) -> int:
        """Size of its last-level cache, or a bound above it where NVIDIA states only that of the whole chip."""
        return int(_L2[self.name][0] * 2**20)

    @property
    def dram_j_per_byte(self) -> float:
        """Bound above the energy of moving a byte between the chip and its memory."""
        return _dram_j_per_byte(_GDDR_PJ_PER_BIT if self.name in _GDDR else _HBM_PJ_PER_BIT)

    @property
    def fastest_flops_per_s(self) -> float:
        """The highest dense peak at any precision of `flopray.point.PRECISIONS`."""
        return max(self.peaks.values())


class Cache(NamedTuple):
    """The last-level cache of a device and the memory behind it, as far as they bound what a cache can change.

    Attributes:
        size_bytes: of the cache, or a bound above it.
        bytes_per_s: peak bandwidth of the memory behind it.
        j_per_byte: bound above the energy of moving a byte between chip and memory.
        basis: whose figures these are.
    """

    size_bytes: int
    bytes_per_s: float
    j_per_byte: float
    basis: str


class Limit(NamedTuple):
    """A bound in FLOP/s or FLOP/J, and where it comes from."""

    bound: float
    basis: str


#: Dense FLOP per clock and SM, an FMA counting two. fp32: results per clock in the table "Throughput of Native
#: Arithmetic Instructions" (https://docs.nvidia.com/cuda/cuda-c-programming-guide/#arithmetic-instructions).
#: Tensor cores, from NVIDIA's architecture white papers: Volta and Turing 8 x 64 FMA of FP16; GA100 4 x 256;
#: GA102 and Ada 4 x 128; Hopper 4 x 512; Blackwell (10.0) 4 x 1024; TF32 half of FP16, FP8 twice. Ada and GA102 GeForce
#: boards accumulate FP16 in FP32 at half that rate: the limit is then twice too generous, and remains a limit.
FLOP_PER_CLOCK_PER_SM: dict[str, dict[str, int]] = {
    "7.0": {"fp32": 128, "fp16": 1024},
    "7.5": {"fp32": 128, "fp16": 1024},
    "8.0": {"fp32": 128, "tf32": 1024, "bf16": 2048, "fp16": 2048},
    "8.6": {"fp32": 256, "tf32": 512, "bf16": 1024, "fp16": 1024},
    "8.9": {"fp32": 256, "tf32": 512, "bf16": 1024, "fp16": 1024, "fp8": 2048},
    "9.0": {"fp32": 256, "tf32": 2048, "bf16": 4096, "fp16": 4096, "fp8": 8192},
    "10.0": {"fp32": 256, "tf32": 4096, "bf16": 8192, "fp16": 8192, "fp8": 16384},
}

_V100 = "https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf"
_T4 = "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/tesla-t4/t4-tensor-core-datasheet-951643.pdf"
_A10 = "https://www.nvidia.com/en-us/data-center/products/a10-gpu/"
_A30 = "https://www.nvidia.com/content/dam/en-zz/Solutions/data-center/products/a30-gpu/pdf/a30-datasheet.pdf"
_A40 = "https://images.nvidia.com/content/Solutions/data-center/a40/nvidia-a40-datasheet.pdf"
_A100 = (
    "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
    "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
)
_L4 = "https://www.nvidia.com/en-us/data-center/l4/"
_L40 = "https://www.nvidia.com/en-us/data-center/l40/"
_L40S = "https://www.nvidia.com/en-us/data-center/l40s/"
_ADA = "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
_H100 = "https://www.nvidia.com/en-us/data-center/h100/"
_H100_PCIE = "https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet"
_H200 = "https://www.nvidia.com/en-us/data-center/h200/"
_GH200 = "https://www.nvidia.com/en-us/data-center/grace-hopper-superchip/"
_B200 = "https://www.nvidia.com/en-us/data-center/hgx/"


def _peaks(
    fp32: float, tf32: float | None, bf16: float | None, fp16: float, fp8: float | None = None
) -> dict[str, float]:
    """Peaks in FLOP/s from the TFLOP/s of a datasheet, those that the chip lacks left out."""
    stated = {"fp32": fp32, "tf32": tf32, "bf16": bf16, "fp16": fp16, "fp8": fp8}
    return {precision: value * _TERA for precision, value in stated.items() if value is not None}


_HOPPER_SXM = _peaks(67, 494.7, 989.4, 989.4, 1979)
_BLACKWELL_SXM = _peaks(75, 1100, 2250, 2250, 4500)

#: One row a GPU: name, names it goes by, capability, SMs, boost clock, peaks (fp32, tf32, bf16, fp16, fp8), watts,
#: source. Datasheets since Ampere print tensor rates with sparsity; the dense rate is half of that. The RTX 4090's rate
#: in fp8 is with FP32 accumulation, as its others are. A short name without a form factor (`a100`, `v100`, `h100`)
#: means the SXM board, whose limits are the highest of its family.
GPUS: tuple[GpuSpec, ...] = (
    GpuSpec("V100 SXM2", r"v100( sxm2)?( (16|32)gb?)?", "7.0", 80, 1.53e9, _peaks(15.7, None, None, 125), 300, _V100),
    GpuSpec("V100 PCIe", r"v100 pcie( (16|32)gb?)?", "7.0", 80, 1.38e9, _peaks(14, None, None, 112), 250, _V100),
    GpuSpec("V100S PCIe", r"v100s( pcie)?( 32gb?)?", "7.0", 80, 1.597e9, _peaks(16.4, None, None, 130), 250, _V100),
    GpuSpec("T4", r"t4", "7.5", 40, 1.59e9, _peaks(8.1, None, None, 65), 70, _T4),
    GpuSpec("A10", r"a10( pcie)?( 24gb?)?", "8.6", 72, 1.695e9, _peaks(31.2, 62.5, 125, 125), 150, _A10),
    GpuSpec("A30", r"a30( pcie)?( 24gb?)?", "8.0", 56, 1.44e9, _peaks(10.3, 82, 165, 165), 165, _A30),
    GpuSpec("A40", r"a40( pcie)?( 48gb?)?", "8.6", 84, 1.74e9, _peaks(37.4, 74.8, 149.7, 149.7), 300, _A40),
    GpuSpec("A100 SXM", r"a100( sxm4?)?( (40|80)gb?)?", "8.0", 108, 1.41e9, _peaks(19.5, 156, 312, 312), 400, _A100),
    GpuSpec("A100 PCIe 40GB", r"a100 pcie 40gb", "8.0", 108, 1.41e9, _peaks(19.5, 156, 312, 312), 250, _A100),
    GpuSpec(
        "A100 PCIe 80GB", r"a100 (80gb pcie|pcie 80gb)", "8.0", 108, 1.41e9, _peaks(19.5, 156, 312, 312), 300, _A100
    ),
    GpuSpec("L4", r"l4", "8.9", 58, 2.04e9, _peaks(30.3, 60, 121, 121, 242.5), 72, _L4),
    GpuSpec("L40", r"l40( pcie)?( 48gb?)?", "8.9", 142, 2.49e9, _peaks(90.5, 90.5, 181, 181, 362), 300, _L40),
    GpuSpec("L40S", r"l40s( pcie)?( 48gb?)?", "8.9", 142, 2.52e9, _peaks(91.6, 183, 362, 362, 733), 350, _L40S),
    GpuSpec("RTX 4090", r"rtx 4090", "8.9", 128, 2.52e9, _peaks(82.6, 82.6, 165.2, 165.2, 330.3), 450, _ADA),
    GpuSpec("H100 SXM", r"h100( sxm5?)?( 80gb?)?( hbm3)?", "9.0", 132, 1.98e9, _HOPPER_SXM, 700, _H100),
    GpuSpec("H100 PCIe", r"h100 pcie( 80gb?)?", "9.0", 114, 1.755e9, _peaks(51, 378, 756, 756, 1513), 350, _H100_PCIE),
    GpuSpec("H100 NVL", r"h100 nvl( 94gb?)?", "9.0", 132, 1.785e9, _peaks(60, 417.5, 835.5, 835.5, 1671), 400, _H100),
    GpuSpec("H200 SXM", r"h200( sxm5?)?( 141gb?)?( hbm3e)?", "9.0", 132, 1.98e9, _HOPPER_SXM, 700, _H200),
    GpuSpec("H200 NVL", r"h200 nvl( 141gb?)?", "9.0", 132, 1.785e9, _peaks(60, 417.5, 835.5, 835.5, 1671), 600, _H200),
    # The power of a GH200 is that of the module, Grace CPU and memory included, and so is its NVML counter.
    GpuSpec("GH200", r"gh200( (96|120|144|480)gb?)?( hbm3e?)?", "9.0", 132, 1.98e9, _HOPPER_SXM, None, _GH200),
    GpuSpec("B200", r"b200( sxm6?)?( (180|192)gb?)?", "10.0", 148, 1.965e9, _BLACKWELL_SXM, 1000, _B200),
)

#: Memory in GB and its bandwidth in GB/s, by name; from the same datasheets.
_MEMORY: dict[str, tuple[int, float]] = {
    **{"V100 SXM2": (32, 900), "V100 PCIe": (32, 900), "V100S PCIe": (32, 1134), "T4": (16, 320), "A10": (24, 600)},
    **{"A30": (24, 933), "A40": (48, 696), "A100 SXM": (80, 2039), "A100 PCIe 40GB": (40, 1555)},
    **{"A100 PCIe 80GB": (80, 1935), "L4": (24, 300), "L40": (48, 864), "L40S": (48, 864), "RTX 4090": (24, 1008)},
    **{"H100 SXM": (80, 3350), "H100 PCIe": (80, 2000), "H100 NVL": (94, 3900), "H200 SXM": (141, 4800)},
    **{"H200 NVL": (141, 4800), "GH200": (144, 4900), "B200": (192, 8000)},
}

_VOLTA_PAPER = "https://images.nvidia.com/content/volta-architecture/pdf/volta-architecture-whitepaper.pdf"
_TURING_PAPER = (
    "https://images.nvidia.com/aem-dam/en-zz/Solutions/design-visualization/technologies/turing-architecture/"
    "NVIDIA-Turing-Architecture-Whitepaper.pdf"
)
_GA102_PAPER = "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"
_AMPERE_BLOG = "https://developer.nvidia.com/blog/nvidia-ampere-architecture-in-depth/"
_HOPPER_BLOG = "https://developer.nvidia.com/blog/nvidia-hopper-architecture-in-depth/"
#: L2 cache in MiB and where that is stated, by name. A board whose own figure is not stated has that of the whole chip,
#: which is a bound above it: the A30 that of the GA100 as sold, the L4 the AD104, L40 and L40S the AD102, H200 and
#: others with all memory sites in use the GH100. B200: as its driver reports it.
_L2: dict[str, tuple[float, str]] = {
    **dict.fromkeys(("V100 SXM2", "V100 PCIe", "V100S PCIe"), (6, _VOLTA_PAPER)),
    "T4": (4, _TURING_PAPER),
    **dict.fromkeys(("A10", "A40"), (6, _GA102_PAPER)),
    **dict.fromkeys(("A30", "A100 SXM", "A100 PCIe 40GB", "A100 PCIe 80GB"), (40, _AMPERE_BLOG)),
    "L4": (48, _ADA),
    **dict.fromkeys(("L40", "L40S"), (96, _ADA)),
    "RTX 4090": (72, _ADA),
    **dict.fromkeys(("H100 SXM", "H100 PCIe"), (50, _HOPPER_BLOG)),
    **dict.fromkeys(("H100 NVL", "H200 SXM", "H200 NVL", "GH200"), (60, _HOPPER_BLOG)),
    "B200": (126.5, "https://github.com/pytorch/ao/pull/4002"),
}
#: Boards with GDDR memory; the others of the table have HBM.
_GDDR = frozenset({"T4", "A10", "A40", "L4", "L40", "L40S", "RTX 4090"})
#: Energy in pJ of moving a bit, HBM2 and GDDR5 (O'Connor et al., Fine-Grained DRAM, MICRO 2017,
#: https://doi.org/10.1145/3123939.3124545); later generations take less.
_HBM_PJ_PER_BIT, _GDDR_PJ_PER_BIT = 3.9, 14.0
#: The chip's own part of a transfer (controller, wires to the cache) has no published figure, so as much again is
#: allowed for it. The bound for HBM is 62 pJ a byte. Streaming 2 GB on an H100 drew 241 to 254 W above awake idle, at
#: most 3.35 TB/s, so 72 pJ a byte or more with all that the cores and the cache did for it.
_DRAM_ALLOWANCE = 2.0

_MAKERS = re.compile(r"^((nvidia|tesla|geforce|graphics device)\s+)+")


def normalise_device_name(device_name: str) -> str:
    """Lower case, single blanks, without the maker: `NVIDIA A100-SXM4-40GB` becomes `a100 sxm4 40gb`."""
    words = re.sub(r"[\s_-]+", " ", device_name.strip().lower())
    return _MAKERS.sub("", words)


def find_gpu(device_name: str | None) -> GpuSpec | None:
    """The GPU of a name that NVML, torch or Ray gives, or of a short name such as `a100`.

    The whole name must match: a slice (`... MIG 1g.10gb`), a virtual GPU (`A40-48Q`), a laptop chip or a custom board
    (`A100-SXM-64GB`) has other limits than the product it is named after, so it is unknown.

    Args:
        device_name: full or short name of the device; `None` and the empty string are unknown.
    """
    if not device_name or not isinstance(device_name, str):
        return None
    return _gpu_named(normalise_device_name(device_name))


@lru_cache(maxsize=256)  # a table names few devices many times
def _gpu_named(name: str) -> GpuSpec | None:
    return next((spec for spec in GPUS if re.fullmatch(spec.pattern, name)), None)


def memory_bytes(device_name: str | None) -> int | None:
    """Memory of a GPU by its name: what the name says (`A100-40G`), else the largest board of it; None if unknown."""
    spec = find_gpu(device_name)
    if spec is None:
        return None
    stated = re.search(r"\b(\d+)gb?\b", normalise_device_name(str(device_name)))
    return int(stated[1]) * 2**30 if stated else spec.memory_bytes


def _dram_j_per_byte(pj_per_bit: float) -> float:
    return _DRAM_ALLOWANCE * pj_per_bit * 8e-12


def cache_of(device_name: str | None) -> Cache:
    """The last-level cache of a GPU and its memory; of an unknown device the widest bounds of the table.

    Those are the largest cache, the slowest memory and the costliest byte of all known GPUs, so a difference that
    exceeds them exceeds what the cache of any GPU in the table could do.
    """
    spec = find_gpu(device_name)
    if spec is not None:
        return Cache(spec.l2_bytes, spec.memory_bytes_per_s, spec.dram_j_per_byte, f"of the {spec.name}")
    return Cache(
        max(spec.l2_bytes for spec in GPUS),
        min(spec.memory_bytes_per_s for spec in GPUS),
        max(spec.dram_j_per_byte for spec in GPUS),
        "of any GPU known",
    )


def peak_flops_per_s(device_name: str | None, precision: str | None) -> float | None:
    """Dense datasheet peak in FLOP/s, `None` for an unknown GPU or a precision that the chip has no unit for.

    `fp32` is the peak of the CUDA cores: with TF32 tensor cores allowed, the precision is `tf32`.
    """
    spec = find_gpu(device_name)
    return None if spec is None or precision is None else spec.peaks.get(unit_of(precision))


def hard_limit_flops_per_s(
    device_name: str | None,
    precision: str | None,
    *,
    compute_capability: str | None = None,
    sm_count: int | None = None,
    max_sm_clock_hz: float | None = None,
) -> Limit | None:
    """The rate in FLOP/s that the device cannot exceed at this precision, `None` where no limit is known.

    SMs, clock and capability that the device reported take precedence over the table, so a GPU that the table does
    not know still has a limit if it reported all three. With nothing reported, the limit is the higher of the table's
    clock limit and the datasheet. A precision without its own unit (bf16 on Volta) is held against the fastest unit
    of the chip: emulation cannot beat that.

    Args:
        device_name: as for `find_gpu`.
        precision: one of `flopray.point.PRECISIONS`; another one has no known limit.
        compute_capability: such as `9.0`.
        sm_count: streaming multiprocessors.
        max_sm_clock_hz: the highest SM clock that NVML reports.
    """
    if precision not in PRECISIONS:
        return None
    unit = unit_of(precision)
    spec = find_gpu(device_name)
    capability = compute_capability or (spec.compute_capability if spec else None)
    sms = sm_count or (spec.sm_count if spec else None)
    clock_hz = max_sm_clock_hz or (spec.max_sm_clock_hz if spec else None)
    rates = FLOP_PER_CLOCK_PER_SM.get(capability or "")
    from_clock = None
    per_clock = rates.get(unit, max(rates.values())) if rates else 0
    # a count or clock beyond any float limits nothing
    if rates and sms and clock_hz and math.isfinite(bound := float(sms) * per_clock * clock_hz):
        remark = "" if unit in rates else f", its fastest unit: it has none for {precision}"
        basis = f"{sms} SMs x {per_clock} FLOP per clock x {clock_hz / 1e9:.3f} GHz{remark}"
        from_clock = Limit(bound, basis)
    if spec is None or (from_clock and max_sm_clock_hz):
        return from_clock
    sheet = Limit(spec.peaks.get(unit, spec.fastest_flops_per_s), f"datasheet of the {spec.name}")
    return max(from_clock, sheet) if from_clock else sheet


#: Range of what a board may report, as shares of its datasheet: power limits may be lowered or raised, a variant of the
#: same name may have fewer SMs, clocks may exceed the boost clock. Beyond that it is another unit or a sum of boards.
_STATED = {"power_limit_w": (0.1, 1.5), "sm_count": (0.05, 1.15), "max_sm_clock_hz": (0.3, 1.5)}


def odd_statement(device_name: str | None, column: str, value: float) -> tuple[str, float] | None:
    """The name of a GPU and its datasheet's value of a column, where a row's value cannot be that GPU's.

    Args:
        device_name: as for `find_gpu`.
        column: `power_limit_w`, `sm_count` or `max_sm_clock_hz`.
        value: what the row has there; 0 and less state nothing.
    """
    spec = find_gpu(device_name)
    if spec is None or value <= 0:
        return None
    sheet = {
        "power_limit_w": spec.board_power_w,
        "sm_count": spec.sm_count,
        "max_sm_clock_hz": spec.max_sm_clock_hz,
    }[column]
    least, most = _STATED[column]
    if sheet is None or least * sheet <= value <= most * sheet:
        return None
    return spec.name, float(sheet)


def efficiency_limit_flops_per_j(device_name: str | None, precision: str | None) -> Limit | None:
    """Datasheet peak over board power in FLOP/J, `None` where either is unknown.

    Not a law: a GPU that is clocked down, or whose work leaves the board below its limit, can do somewhat better.
    A precision without its own unit is held against the fastest one, as in `hard_limit_flops_per_s`.
    """
    spec = find_gpu(device_name)
    if spec is None or spec.board_power_w is None or precision not in PRECISIONS:
        return None
    peak = spec.peaks.get(unit_of(precision), spec.fastest_flops_per_s)
    basis = f"peak {peak / _TERA:g} TFLOP/s over {spec.board_power_w:g} W of the {spec.name}"
    return Limit(peak / spec.board_power_w, basis)
