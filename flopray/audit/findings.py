"""Findings of the audit, their severity, and how the audit reads values from any table's row."""

from __future__ import annotations

import math
import numbers
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any

from flopray.point import PRECISIONS
from flopray.records import COLUMN_NAMES, DERIVED, FORMER_NAMES

#: Columns that identify a measurement, in reading order; those that a row has become a finding's keys.
KEY_COLUMNS = (
    "run",
    "source",
    "trial_id",
    "device_type",
    "workload",
    "model",
    "attention",
    "checkpointing",
    "adapter",
    "config",
    "n_layers",
    "width",
    "tokens",
    "batch_size",
    "sequence_length",
    "precision",
    "execution",
    "phase",
)
#: Columns of records that say what a row was measured on and with; rows that differ in one of them are not compared.
CONDITIONS = (
    *("node", "driver_version", "compute_capability", "sm_count", "max_sm_clock_hz", "power_limit_w", "cpu_threads"),
    *("memory_total_bytes", "torch_version", "cuda_version", "hold_temperature_c", "model_config"),
)
#: Columns whose meaning the audit knows: those of records, of the MLP's and Llama's runs, and other people's keys.
KNOWN = COLUMN_NAMES | FORMER_NAMES | set(DERIVED) | set(KEY_COLUMNS)
#: Further fields of the workloads that come with flopray, which tell their points apart, and further columns, which
#: follow from a point or are what was found. They are known in tables of flopray's own: elsewhere `task` or `limit` may
#: mean anything.
OWN_FIELDS = frozenset({"routing", "task", "include_path", "num_fewshot", "limit", "chat_template"})
OWN_COLUMNS = frozenset(
    {
        *("expert_flops", "router_flops", "adapter_flops", "trained_parameters", "active_parameters", "model_type"),
        *("score", "score_stderr", "score_low", "score_high", "score_metric", "score_filter"),
        *("score_higher_is_better", "scores", "samples", "samples_of_task", "requests", "fewshot_examples"),
        *("time_per_sample_s", "energy_per_sample_j", "time_per_point_s", "time_per_point_rel_error"),
        *("energy_per_point_j", "energy_per_point_rel_error", "per_point_reason"),
        *("model_commit", "task_version", "harness_version"),
    }
)
#: Keys that identify without describing; left out where a finding is named in a line.
_OPAQUE_KEYS = frozenset({"run", "source", "trial_id", "workload", "batch_size"})
#: Keys whose values say by themselves what they are; others are named, such as `attention=auto`.
_PLAIN_KEYS = frozenset({"device_type", "gpu", "model", "config", "precision", "execution", "phase"})
#: Column names to values, of a table of any origin: anything may be missing, and of any type. `number`, `text` and
#: `identity` take a value out.
Row = Mapping[str, Any]
#: From this relative error on, a value is as good as unknown.
USELESS_ERROR = 1.0
#: Whatever its error, a value is at most twice too large. An error near 100 % says how unsteady a window was; it does
#: not make a hundred kilowatts those of a board of 700 W: the counter's joules and the clock's seconds were there.
LEAST_SHARE = 0.5
#: A row can be judged if one of these columns has a number. A closed form is not among them.
JUDGEABLE = (
    *("time_s", "energy_j", "power_w", "flops_per_s", "flops_per_j", "mfu", "hfu"),
    *("executed_flops", "executed_gemm_flops"),
)
#: Cells that say that there is no value.
MISSING_WORDS = frozenset(
    {
        *("", "na", "n/a", "n.a.", "nan", "nat", "none", "null", "nil", "<na>", "missing", "not available"),
        *("-", "--", "---", "\u2013", "\u2014", ".", "?", "#n/a", "#div/0!", "#value!", "#ref!"),
    }
)
_OK_WORDS = frozenset(
    {"ok", "okay", "success", "successful", "succeeded", "complete", "completed", "done", "finished", "passed", "true"}
)
#: Other spellings of a precision. Not `float32`: that names how a tensor is stored, and its products may use TF32.
_PRECISIONS = {
    **{name: name for name in PRECISIONS},
    **{"bfloat16": "bf16", "bf16-mixed": "bf16", "bf16-true": "bf16"},
    **{"float16": "fp16", "half": "fp16", "16-mixed": "fp16", "fp16-mixed": "fp16"},
    **dict.fromkeys(("float8", "float8_e4m3fn", "float8_e5m2"), "fp8"),
}
#: A plain number: no underscores, thousands separators, units, infinities or hexadecimals, which Python or pandas might
#: accept.
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
#: A whole number as an id: `7`, and `7.0` where a table made floats of ids; `007`, `1e3` and `0e12` are other names.
_WHOLE = re.compile(r"(0|-?[1-9]\d*)(?:\.0*)?")


class Severity(StrEnum):
    """How sure the audit is that a number is wrong, from worst to mildest."""

    IMPOSSIBLE = "impossible"
    IMPLAUSIBLE = "implausible"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One finding about one or more rows.

    Attributes:
        rule: name of the rule, a key of `flopray.audit.RULES`.
        severity: `impossible` cannot be true, `implausible` needs an explanation, `note` is good to know.
        sentence: what is wrong, with the numbers, for a person.
        numbers: what was compared, by name with unit suffixes.
        rows: which rows it is about: labels of the frame's index, or positions in the sequence that was audited.
        keys: what identifies the (first) row: the columns of `KEY_COLUMNS` that it has.
        excess: how many times over its bound, to find the worst of a rule; 1 where a rule has no measure.
    """

    rule: str
    severity: Severity
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Any, ...] = ()
    keys: Mapping[str, Any] = field(default_factory=dict)
    excess: float = 1.0

    @property
    def code(self) -> str:
        """`severity:rule`, as the column `findings` of a record keeps it."""
        return f"{self.severity}:{self.rule}"

    @property
    def where(self) -> str:
        """The measurement in a few words, such as `a100 width=512 fp32 forward`."""
        named = {name: str(value) for name, value in self.keys.items() if name not in _OPAQUE_KEYS}
        return " ".join(
            value if name in _PLAIN_KEYS and not _PLAIN_NUMBER.fullmatch(value) else f"{name}={value}"
            for name, value in named.items()
        )


@dataclass(frozen=True)
class Unjudged:
    """A rule that lacked what it compares, which is not a pass. `rows` are positions; empty means all given."""

    rule: str
    reason: str
    rows: tuple[int, ...] = field(default=(), compare=False)


#: Verdict of a rule on one row: a finding, None where the row passes, or why it could not judge.
Verdict = Finding | Unjudged | None


def finding_of(
    rule: str, severity: Severity, sentence: str, row: Row, compared: Mapping[str, Any], excess: float = 1.0
) -> Finding:
    """A finding about one row, with what identifies it."""
    return Finding(rule, severity, sentence, numbers=dict(compared), rows=(0,), keys=keys_of(row), excess=excess)


def number(row: Row, column: str) -> float | None:
    """A finite number, or None for a column that is absent, empty, not a number or not finite.

    A text that is a plain number (`1.5`, `2e-3`) counts: tables of texts are common.
    """
    value = row.get(column)
    if type(value) is float:  # nearly all are, and a table has millions
        return value if math.isfinite(value) else None
    if value is None:
        return None
    if isinstance(value, str):
        plain = value.strip()  # of more than `float` takes off
        value = float(plain) if _PLAIN_NUMBER.fullmatch(plain) else None
    elif isinstance(value, Decimal) and value.is_finite():
        value = float(value)
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
        return None
    try:
        value = float(value)
    except OverflowError:  # a whole number beyond any float
        return None
    return value if math.isfinite(value) else None


def is_missing(value: Any) -> bool:
    """Whether a cell says that there is no value: None, NaN, NaT, an empty text or a usual word for it."""
    if isinstance(value, str):
        return value.strip().lower() in MISSING_WORDS
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def identity(row: Row, column: str) -> str | None:
    """What a cell identifies, as a text whatever its type: 1, 1.0 and "1" are the same; None where it is empty."""
    value = row.get(column)
    if value is None:
        return None
    if type(value) is str:  # nearly all are, and a table has many of few
        return _identity_of_text(value)
    if is_missing(value):
        return None
    if isinstance(value, (int, bool)):  # digits beyond those of a float count
        return str(value)
    known = number(row, column)
    return str(int(known)) if known is not None and known == int(known) else str(value)


@lru_cache(maxsize=4096)
def _identity_of_text(value: str) -> str | None:
    if is_missing(value):
        return None
    whole = _WHOLE.fullmatch(value.strip())
    return whole[1] if whole else value


def is_ok(status: Any) -> bool:
    """Whether a status says that a row has its numbers; an empty one counts as yes."""
    return is_missing(status) or str(status).strip().lower() in _OK_WORDS


def text(row: Row, column: str) -> str | None:
    """A text without blanks around it; None where it is empty."""
    value = row.get(column)
    return value.strip() or None if isinstance(value, str) else None


def precision_of(row: Row) -> str | None:
    """The precision by its name here, such as `bf16` for `torch.bfloat16`; one without such a name as it is."""
    stated = text(row, "precision")
    return None if stated is None else _PRECISIONS.get(stated.lower().removeprefix("torch."), stated)


def rel_error(row: Row, column: str) -> float:
    """A relative error, 0 where none is stated: the audit then allows nothing beyond its own tolerances.

    An impossible error is treated the same way: a negative one, or `USELESS_ERROR` and more, where the value is not
        known at all. The rule `error_not_usable` names those.
    """
    stated = number(row, column) or 0.0
    return stated if is_usable(stated) else 0.0


def is_usable(error: float) -> bool:
    """Whether a relative error bounds its value."""
    return 0 <= error < USELESS_ERROR


def device_name(row: Row) -> str | None:
    """The full name of the device, or else its type."""
    return text(row, "device_name") or text(row, "device_type")


def keys_of(row: Row) -> dict[str, str | float]:
    """What identifies a row, without empty values; whole numbers that pandas made floats are whole again."""
    keys: dict[str, str | float] = {}
    for column in KEY_COLUMNS:
        if (words := text(row, column)) is not None:
            keys[column] = words
        elif (value := number(row, column)) is not None:
            keys[column] = int(value) if value == int(value) else value
    return keys


def is_hole(row: Row) -> bool:
    """A row that says by its status that it has no numbers, and has none."""
    return not is_ok(row.get("status")) and not has_numbers(row)


def has_numbers(row: Mapping[Any, Any]) -> bool:
    """Whether a row has a number that can be judged."""
    return any(number(row, column) is not None for column in JUDGEABLE)


def quotient(row: Row, upper: str, lower: str) -> float | None:
    """Of two columns; None where one is missing, or the lower one is not positive."""
    above, below = number(row, upper), number(row, lower)
    if above is None or below is None or below <= 0:
        return None
    # a quotient beyond any float is still judged: it is above every limit
    return max(-sys.float_info.max, min(above / below, sys.float_info.max))
