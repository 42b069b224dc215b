"""How many devices a row of somebody's table covers, by the names of its columns and by what its cells say.

Rows of several devices are not judged by the limits of one. `gpu_count` is a number of them; `nodes` or `tp` is only
one factor of it. A cell may say it by itself, whatever its column is called: `8xH100`, `gres/gpu=8`, `DGX H100`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flopray.audit.cells import names_of
from flopray.audit.device_columns import column_of_a_further_device
from flopray.audit.findings import KNOWN, Row, is_missing, number
from flopray.audit.hardware import find_gpu

#: Columns that name a device, which may also say how many: `8 x NVIDIA H100`.
DEVICE_NAMES = ("device_name", "device_type")
#: What devices are called where they are counted; `gpu` or `rank` alone says which one it is, `gpus` how many.
_DEVICES = ("gpu", "device", "accelerator", "chip", "card", "board", "rank", "worker", "process", "proc", "tpu", "gcd")
_HOSTS = ("node", "host", "machine", "server", "instance")
#: What a job consists of, each of which has devices of its own.
_GROUPS = ("replica", "task", "pod", "job", "shard")


def _counts_of(nouns: Iterable[str], ends: Iterable[str] = ("",)) -> set[str]:
    """Names of a number of things, without case, blanks, hyphens and underscores: `numgpus`, `gpucount`, `gpus`."""
    several = [f"{noun}{plural}{end}" for noun in nouns for plural in ("", "s", "es") for end in ends]
    before = ("num", "n", "no", "numberof", "numof", "noof", "total", "totalnum", "countof")
    after = ("count", "cnt", "num", "number", "total", "used", "intotal")
    alone = {name for name in several if name not in nouns}
    return alone | {f"{word}{name}" for word in before for name in several} | {n + w for n in several for w in after}


#: Names under which tables say how many devices a row covers; `a#` is how MLPerf's results call accelerators.
_DEVICE_COUNTS = _counts_of(_DEVICES) | {"worldsize", "world", "mpisize", "commsize", "anum", "tpucores"}
#: The same behind any word: `ddp_world_size`, `system_accelerators`, `cuda_devices`.
_COUNT_ENDS = ("worldsize", "gpus", "gpucount", "accelerators", "cudadevices", "jaxdevices", "localdevices")
#: Names of a shape whose product counts: `2x4`, `(2, 4)`.
_SHAPES = {"meshshape", "devicemesh", "mesh", "topology", "torustopology"}
#: Names of one factor of that number, or of a list of devices: several are meant, but not how many.
_DEVICE_SPREADS = (
    _counts_of(_HOSTS)
    | _counts_of(_DEVICES, [f"per{whole}" for whole in (*_HOSTS, *_GROUPS)])
    | _counts_of(_GROUPS)
    | {f"{kind}p{end}" for kind in (*"tpdecs", "fsd") for end in ("", "size", "degree", "replicate", "shard")}
    | {f"dp{part}{end}" for part in ("replicate", "shard") for end in ("size", "degree")}
    | {"pipelinestages", "numpipelinestages", "meshsize", "slurmntasks", "numshards", "clustersize"}
    | _SHAPES
    | {
        f"{kind}{middle}parallel{end}"
        for kind in ("tensor", "pipeline", "data", "context", "expert", "sequence", "model", "fullysharded")
        for middle in ("", "model")
        for end in ("", "ism", "size", "degree")
    }
    | {"gpuids", "deviceids", "cudavisibledevices", "visibledevices", "gpulist", "devicelist", "gpuindices"}
    | {f"{start}{host}list" for start in ("", "slurm", "slurmjob") for host in _HOSTS}
)
#: Names of what is of each device: the noun stands behind `per` or a stroke, or is a part of a path.
_PER_DEVICE = re.compile(
    rf"(?:(?<![a-z])(?:per|each)[\s_./-]*|/\s*)(?:{'|'.join(_DEVICES)})(?![a-z])|(?:^|/)(?:{'|'.join(_DEVICES)})/",
    re.IGNORECASE,
)
#: A list of devices in a cell: `0,1,2`, `[0, 1]`, `0 1`; and a number with a noun: `8x H100`, `8 GPUs`.
_LIST = re.compile(r"[\[(]?\s*\d+(\s*[,; |]\s*\d+)+\s*[\])]?")
_TIMES = re.compile(r"(\d+)\s*([x*×]|gpus?\b|devices?\b|cards?\b|accelerators?\b)", re.IGNORECASE)
#: The same behind a name: `H100 x8`, `H100 (8 GPUs)`, `H100 (x8)`.
_TIMES_AFTER = re.compile(
    r"(.*)((?<![a-z])[x*×]\s*(\d{1,4})|[(\[,]\s*(\d+)\s*(x|gpus?|devices?|cards?)[)\]]?|[(\[]\s*[x*×]\s*(\d+)\s*[)\]])\s*",
    re.IGNORECASE,
)
#: Numbers beside a name that is a device's without them: `2 NVIDIA H100`, `8 H100s`, `HGX H100 8-GPU`, `gpu:h100:4`.
_COUNTED = (
    re.compile(r"(?P<count>\d{1,4})[\s-]+(?P<name>.+)"),
    re.compile(
        r"(?:[DH]GX\s+)?(?P<name>.+?)[\s_/-]+(?P<count>\d{1,4})[\s-]*(?:gpus?|devices?|cards?)(?:\(s\))?", re.IGNORECASE
    ),
    re.compile(r"(?:gpu:)?(?P<name>[^:]+):(?P<count>\d{1,4})", re.IGNORECASE),
    re.compile(r"(?P<name>.+?)\s*\((?P<count>\d{1,4})\)"),
    re.compile(r"(?P<name>.+?(?:\d|gb))[x*\u00d7](?P<count>\d{1,4})", re.IGNORECASE),
    re.compile(r"(?P<name>.+?)[_/-](?P<count>[2-9])"),
)
#: What stands between the names of several devices in one cell.
_BETWEEN = re.compile(r"\s*[,;|+&\n]\s*")
#: GPUs of a job as Slurm writes them, `billing=8,gres/gpu=8`, and of an instance of Google's, `a3-highgpu-8g`.
_JOB = re.compile(r"gres[/:]gpu(?::[^=:,()]+)?[=:](\d+)|\ba[2-9]-(?:high|mega|ultra|edge)gpu-(\d+)g\b", re.IGNORECASE)
#: Systems and instances that have several devices, mostly eight; a DGX Spark has one.
_SYSTEM = re.compile(
    r"\b(?:dgx(?!\s*spark)|hgx|superpod|nvl\s?\d{2,})\b|\bstandard_nd\d|\bp[2-9]\w*\.(?:8|16|24|48)xlarge\b"
    r"|\bg\d\w*\.(?:12|24|48)xlarge\b",
    re.IGNORECASE,
)
#: Words beside the name of a device by which it is several.
_SEVERAL = re.compile(r"\b(?:nodes?|clusters?|servers?|pods?|dual|pair|two|four|quad|eight|multi|\d+:)", re.IGNORECASE)
_SINGLE = re.compile(r"\b(?:single|one|1)\b(?!:)", re.IGNORECASE)
#: `tp8`, `dp=2,tp=4`; `pp512` alone is a prompt of 512 tokens in llama-bench.
_PARALLEL = re.compile(
    r"(?:(?:tp|pp|dp|cp|ep|fsdp|hsdp)\s*[=:_-]?\s*\d+[\s,;/x+_-]*){2,}|(?:tp|dp|fsdp)\s*[=:_-]?\s*\d+"
)
#: How a device is called that is one of a system whose devices are not known.
ONE_OF = "one of "


def counts_devices(column: object, *, in_all: bool = True) -> bool:
    """Whether a column's name says that it counts the devices of a row; without `in_all`, also by one factor."""
    if str(column) in KNOWN:
        return _plain(column) in _DEVICE_COUNTS
    return any(
        plain in _DEVICE_COUNTS or plain.endswith(_COUNT_ENDS) or (not in_all and plain in _DEVICE_SPREADS)
        for plain in _plains(column)
    )


def is_per_device(column: object) -> bool:
    """Whether a column's name says that it is of each device: `tflops_per_gpu`, `TFLOP/s/GPU`, `device/flops`."""
    return _PER_DEVICE.search(re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", str(column))) is not None


def says_which_device(column: object) -> bool:
    """Whether a column's name says which of several devices a row is of: `gpu`, `gpu_index`, `local_rank`."""
    words = re.sub(r"(index|idx|id)$", "", _plains(column)[1])
    return words in _DEVICES or words in ("localrank", "globalrank")


def _plain(column: object) -> str:
    return "".join(letter for letter in str(column).lower().replace("#", "num") if letter.isalnum())


def _plains(column: object) -> tuple[str, str]:
    """A name without marks, and the last part of a nested one: `config/tp`, `mesh.dp`."""
    return _plain(column), _plain(re.split(r"[./:]", str(column))[-1])


def device_count_column(rows: Sequence[Row]) -> str | None:
    """The column that says that a row covers more than one device; None where none does."""
    return next((name for name in columns_of_several(rows) if not _is_factor(rows, name)), None)


def device_spread_column(rows: Sequence[Row]) -> str | None:
    """A column such as `nodes` or `gpu1_energy`, which says that rows cover several devices, and not how many."""
    found = next((name for name in columns_of_several(rows) if _is_factor(rows, name)), None)
    return found or column_of_a_further_device(rows)


def _is_factor(rows: Sequence[Row], column: str) -> bool:
    """Whether a column says that there are several devices, and not how many in all."""
    if counts_devices(column) or column in DEVICE_NAMES:
        return False
    return any(plain in _DEVICE_SPREADS for plain in _plains(column)) or any(
        said_devices(row.get(column)) == 0 for row in rows
    )


def columns_of_several(rows: Sequence[Row]) -> Iterator[str]:
    """Columns by whose name or cells rows cover more than one device."""
    for column in names_of(rows):
        name = str(column)
        if name in KNOWN and not (counts_devices(column) or name in DEVICE_NAMES):
            continue
        cells = _distinct([row.get(column) for row in rows])
        if not counts_devices(column, in_all=False):  # a number says nothing there
            cells = [cell for cell in cells if isinstance(cell, (list, tuple)) or has_words(cell)]
        if any(covers_several({column: cell}, column) for cell in cells):
            yield name


def has_words(cell: Any) -> bool:
    """Whether a cell is a text other than a number, of which a large table has as many as rows."""
    if not isinstance(cell, str):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _distinct(cells: Sequence[Any]) -> Iterable[Any]:
    """Each distinct cell once, where they can be hashed: a column has few devices."""
    return set(cells) if set(map(type, cells)) <= {str, int, float, type(None)} else cells


def device_count(row: Row, column: str) -> int | None:
    """How many devices a row covers; None where its cell has no whole number of them."""
    cell, value = row.get(column), number(row, column)
    if not counts_devices(column, in_all=False):
        return _named_devices(cell, column)
    if value is not None:
        return int(value) if value >= 1 and value == int(value) else None
    if isinstance(cell, (list, tuple)):
        return len(cell) or None
    if cell is False or (isinstance(cell, str) and cell.strip().lower() in ("false", "no", "off")):
        return 1
    if not isinstance(cell, str):
        return None
    if _plains(column)[1] in _SHAPES and re.search(r"\d", cell):
        return _product(cell)
    if _LIST.fullmatch(cell.strip()):
        return len(re.findall(r"\d+", cell))
    times = times_device(cell)[0] or said_devices(cell)
    if times != 1 or find_gpu(cell):
        return times or None
    # the name of one host
    return 1 if not counts_devices(column) and re.fullmatch(r"[^,;|\[\]{}]*[a-z][^,;|\[\]{}]*", cell.lower()) else None


def _named_devices(cell: Any, column: str) -> int | None:
    """How many devices a cell names, in a column whose name counts none."""
    if _plain(column) in _DEVICES or column in DEVICE_NAMES:
        if isinstance(cell, (list, tuple)):
            return len(cell) or None
        if isinstance(cell, str) and _LIST.fullmatch(cell.strip()):
            return len(re.findall(r"\d+", cell))
    if column in DEVICE_NAMES and isinstance(cell, str) and not cell.startswith(ONE_OF):
        return times_device(cell)[0] or _devices_of_a_name(cell) or None
    return said_devices(cell) or None


def _devices_of_a_name(cell: str) -> int:
    """As `said_devices`, in a column that names devices."""
    several = _SEVERAL.search(cell) and not _SINGLE.search(cell) and not find_gpu(cell) and _names_a_gpu(cell)
    return 0 if several else said_devices(cell)


def _product(cell: str) -> int:
    return math.prod(map(int, re.findall(r"\d+", cell)))


def said_devices(cell: Any) -> int:
    """How many devices a text says by itself, whatever its column: 1 where it says none, 0 for several."""
    if not isinstance(cell, str) or cell.startswith(ONE_OF):
        return 1
    words = cell.strip()
    if job := _JOB.search(words):
        return int(job[1] or job[2])
    times, name = times_device(words)
    if times is not None and (find_gpu(name) or re.fullmatch(r"(gpus?|accelerators?)?", name, re.IGNORECASE)):
        alone = re.fullmatch(r"\d+\s*[x*×]", words)  # `8x` may be anything
        return 1 if alone else times
    if find_gpu(words):
        return 1
    if _SYSTEM.search(words) or _PARALLEL.fullmatch(words.lower()):
        return 0 if _product(words) != 1 or _SYSTEM.search(words) else 1
    return 1


def _names_a_gpu(words: str) -> bool:
    """Whether some words in a row are the name of a GPU."""
    parts = re.findall(r"[\w.-]+", words)
    spans = ((start, end) for end in range(len(parts), 0, -1) for start in range(max(0, end - 6), end))
    return any(find_gpu(" ".join(parts[start:end])) for start, end in spans)


def times_device(cell: str) -> tuple[int | None, str]:
    """How many devices a text such as `8 x NVIDIA H100`, `H100 (8 GPUs)` or `['H100', 'H100']` says, and which one.

    Returns:
        The number, or None where the text says none; and the text without it. Devices that differ keep the whole text.
    """
    words = cell.strip()
    if before := _TIMES.match(words):
        return int(before[1]) or None, words[before.end() :].strip()
    if after := _TIMES_AFTER.fullmatch(words):
        return int(after[3] or after[4] or after[6]) or None, after[1].strip(" _-")
    if find_gpu(words):
        return None, cell
    parts = [part.strip(" '\"") for part in _BETWEEN.split(words.strip(" []()"))]
    if all(map(find_gpu, parts)):  # a list of one, `['NVIDIA H100']`, is one device
        return len(parts), parts[0] if len(set(parts)) == 1 else cell
    for pattern in _COUNTED:
        found = pattern.fullmatch(words)
        for name in (found["name"], found["name"].removesuffix("s")) if found else ():
            if find_gpu(name):
                return int(found["count"]) or None, name  # type: ignore[index]
    return None, cell


def one_device(cell: str) -> str:
    """A device's name without how many there are: `DGX H100` has devices that are called `H100`."""
    times, name = times_device(cell)
    if times is not None or cell.startswith(ONE_OF) or _devices_of_a_name(cell) == 1:
        return name
    plain = re.sub(r"^(nvidia\s+)?[dh]gx\s+", "", cell.strip(), flags=re.IGNORECASE)
    return plain if find_gpu(plain) else ONE_OF + cell


def covers_several(row: Row, column: str | None) -> bool:
    """Whether a row covers more than one device, or a number that its cell does not give."""
    if column is None or is_missing(row.get(column)) or number(row, column) == 0:  # 0 GPUs: a CPU
        return False
    count = device_count(row, column)
    return count is None or count > 1
