"""What columns of other people's tables most likely are: a proposal for --rename, never a reading.

A name such as `duration` or `gpu_energy` may be several things, so it is not read; but whoever knows the table is told
what to write. The names are those of codecarbon, Zeus, nvidia-smi, W&B, MLPerf's results, Megatron, the Trainer of
transformers and of tables by hand.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

from flopray.records import COLUMN_NAMES

#: Columns of the audit by patterns of plain names; the first that matches is meant. `{unit}` is that of the name.
_LIKELY: tuple[tuple[str, str], ...] = (
    (r"(.*_)?power_?(cap|limit)(_(w|watts?))?", "power_limit"),
    (r"energy_(consumed|kwh)|(gpu|cpu|ram)_energy(?=.*kwh)", "energy_kWh"),
    (
        r"(gpu|device|accelerator)_?\d*_power(_?draw|_?watts?|_usage)?|power_?(draw|usage|watts)|.*_gpu_\d+_power_watts"
        r"|.*_power_usage",
        "power",
    ),
    (r"(avg|mean|average)_power|power", "power"),
    (r"((gpu|device|board|node|total|net|measured)_?\d*_)?energy(_\d+|_usage|_used|_consumption|_total)?", "energy"),
    (r"watts?", "power"),
    (r"sec(ond)?s", "time"),
    (r"((gpu|cpu|device)_)?joules?|total_joules?|(.*_)?energy_(gpu|total)", "energy"),
    (
        r"(step|iter(ation)?|batch|kernel|wall(_?clock)?|run|elapsed|execution|exec|total|train|gpu|forward|fwd)_?time",
        "time",
    ),
    (
        r"time|duration|latency|runtime|elapsed|walltime|train_runtime|(mean|avg|p50|median)_(latency|time|duration)",
        "time",
    ),
    (r"(.*_)?(latency|duration|runtime)_(mean|avg|median|p50)|(.*_)?time_(per|this)_(step|iter(ation)?|batch)", "time"),
    (r"(gpu|device|accelerator|card|board|chip|hardware)(_?(name|model|type))?|name", "device_name"),
    (r"dtype|data_?type|prec|numeric_format|math_mode|amp_dtype", "precision"),
    (r"layers|n_layer|num_layers|depth", "n_layers"),
    (r"bs|batch|batchsize|per_device_batch_size|micro_batch_size", "batch_size"),
    (r"seq_?len(gth)?|context_length|max_length", "sequence_length"),
)
_SI = {"time": "time_s", "energy": "energy_j", "power": "power_w", "power_limit": "power_limit_w"}
#: Units at the end of a name, by quantity, as the audit writes them.
_UNITS: Mapping[str, Mapping[str, str]] = {
    "time": {"ms": "ms", "us": "us", "ns": "ns", "s": "s", "sec": "s", "secs": "s", "seconds": "s", "h": "h"},
    "energy": {"j": "j", "kj": "kj", "wh": "wh", "kwh": "kWh", "mj": "mJ", "uj": "uj", "joules": "j"},
    "power": {"w": "w", "kw": "kw", "watts": "w", "mw": "mW", "watt": "w"},
}
#: People write FLOPS for a rate and FLOPs for a count, and either in either case.
_FLOPS = re.compile(
    r"(?:total_|model_|theoretical_|num_|achieved_|measured_|hardware_|throughput_)?([kmgtp]?)(?:flops?|flos?)"
    r"(?:_([kmgtp]))?(?:_per_(?:gpu|device|accelerator|chip))?"
)
#: Rates in longer names, also of each device: `throughput per GPU (TFLOP/s/GPU)`, `device/flops_per_sec`.
_FLOPS_PER_S = re.compile(
    r"(?:.*_)?([kmgtp]?)flops?_(?:per_)?s(?:ec(?:ond)?)?(?:_(?:per_)?(?:gpu|device|accelerator|chip))?"
)


def likely_column(name: str, beside: Iterable[str] = ()) -> str | None:
    """The column of the audit that a name most likely stands for, with its unit; None where nobody can guess.

    Args:
        name: of a column that the audit does not know.
        beside: the other names of the table: the energies of codecarbon and optimum-benchmark are in kWh.

    Example:
        >>> likely_column("duration"), likely_column("latency_us"), likely_column("power.draw [W]")
        ('time_s', 'time_us', 'power_w')
        >>> likely_column("gpu_energy", ["emissions", "energy_consumed"]), likely_column("loss")
        ('energy_kWh', None)
        >>> likely_column("Duration (min)"), likely_column("time_min"), likely_column("Time (%)")
        ('time_minutes', None, None)
        >>> likely_column("throughput per GPU (TFLOP/s/GPU)"), likely_column("power_cap")
        ('tflops_per_s', 'power_limit_w')
    """
    last = re.sub(r"^user_attrs_", "", re.split(r"[./]", name)[-1])  # the latter is how Optuna writes them
    if last != name and last in COLUMN_NAMES:  # of a nested record
        return last
    plain = _plain(name)
    if "%" in name:
        return None
    if rate := _FLOPS_PER_S.fullmatch(plain):
        return f"{rate[1]}flops_per_s"
    if re.search(r"[(\[]\s*min(s|utes?)?\s*[)\]]", name.lower()) and _quantity(plain.rpartition("_")[0]) == "time":
        return "time_minutes"  # without brackets it may be the least of several
    stem, _, unit = plain.rpartition("_")
    for quantity, units in _UNITS.items():
        if stem and unit in units and _quantity(stem) == quantity:
            return f"{quantity}_{units[unit]}"
    found = _quantity(plain)
    if found == "energy" and any(re.search(r"(^|\W|_)energy(_consumed|[._]unit)$", str(other)) for other in beside):
        return "energy_kWh"
    return _SI.get(found, found) if found else None


def flops_columns(name: str) -> tuple[str, str] | None:
    """What a name such as `GFLOPS` is if it counts, and if it is a rate; None where it is neither.

    >>> flops_columns("flops"), flops_columns("FLOPs [G]"), flops_columns("loss")
    (('model_flops', 'flops_per_s'), ('model_gflops', 'gflops_per_s'), None)
    """
    found = _FLOPS.fullmatch(_plain(name))
    if found is None:
        return None
    prefix = found[1] or found[2] or ""
    return f"model_{prefix}flops", f"{prefix}flops_per_s"


def _plain(name: str) -> str:
    """Lower case and underscores; the words of a path such as `run - system/gpu.0.powerWatts` come apart."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name) if "/" in name else name
    return re.sub(r"[^a-z0-9]+", "_", words.lower().replace("\u00b5", "u").replace("\u03bc", "u")).strip("_")


def _quantity(plain: str) -> str | None:
    return next((column for pattern, column in _LIKELY if re.fullmatch(pattern, plain)), None)


def proposed(names: Iterable[str], there: Iterable[str] = (), most: int = 4) -> str:
    """Words for --rename of the columns that can be guessed, each of the audit's once; empty where there are none.

    Args:
        names: that the audit does not know.
        there: columns of the audit that the table has already.
        most: how many.

    >>> proposed(["duration", "gpu_energy", "energy_consumed", "gpu_model"])
    'duration=time_s gpu_energy=energy_kWh gpu_model=device_name'
    >>> proposed(["report.decode.latency.mean", "report.decode.energy.total", "report.decode.energy.unit", "time_s"])
    'report.decode.latency.mean=time_s report.decode.energy.total=energy_kWh'
    """
    known, words = [str(name) for name in names], []
    taken = {_of_quantity(name) for name in there}
    for name in known:
        column = likely_column(name, known)
        if column is not None and name not in COLUMN_NAMES and _of_quantity(column) not in taken:
            taken.add(_of_quantity(column))
            words.append(shlex.quote(f"{name}={column}"))
    return " ".join(words[:most])


def _of_quantity(column: str) -> str:
    """A column without its unit: one of the table's energies is enough."""
    if column.startswith("power_limit"):
        return "power_limit"
    return column.partition("_")[0] if column.partition("_")[0] in _UNITS else column


def how_to_rename(names: Iterable[str], there: Iterable[str] = ()) -> str:
    """What to write so that columns are understood, as the end of a sentence; with a proposal where there is one.

    Args:
        names: that the audit does not know.
        there: columns of the audit that the table has already.
    """
    known = [str(name) for name in names]
    said = "--rename NAME=COLUMN"
    if likely := proposed(known, there):
        said += f", such as --rename {likely} (in the table's own unit: time_ms, energy_kWh, ...)"
    if (flops := next((name for name in known if flops_columns(name)), None)) and (choice := flops_columns(flops)):
        said += f"; {flops} is {choice[0]} if it counts, and {choice[1]} if it is a rate"
    return said
