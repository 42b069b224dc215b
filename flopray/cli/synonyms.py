"""Flags of other tools and their names here, so that a guess is answered with the right flag."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from flopray.cli.axes import flag_of
from flopray.description import Field
from flopray.point import EXECUTIONS

#: Fields of workloads and settings, and their names in frameworks, trainers and benchmarks. Of several fields, the
#: first that a workload has is meant.
_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("sequence_length", "tokens"),
        "sequence-length seq-length seq-len seqlen seq length max-length max-len max-seq-len max-seq-length "
        "max-sequence-length max-model-len context context-length ctx n-ctx ctx-len block-size prompt-length "
        "prompt-len input-len input-length num-tokens n-tokens max-tokens tokens t T",
    ),
    (
        ("batch_size", "tokens"),
        "batch-size bs batch batchsize mbs micro-batch-size microbatch-size per-device-batch-size "
        "per-device-train-batch-size train-batch-size local-batch-size global-batch-size num-sequences sequences b B",
    ),
    (
        ("width",),
        "width hidden hidden-size hidden-dim hidden-width d-model dim dmodel embed-dim embedding-dim n-embd features "
        "in-features out-features size",
    ),
    (("n_layers",), "n-layers num-layers layers n-layer num-hidden-layers depth num-blocks"),
    (("model",), "model-name model-id models model-path model-name-or-path pretrained-model checkpoint-path arch"),
    (("model",), "architecture config config-file model-config config-path repo repo-id hf-model"),
    (("weights",), "pretrained load-weights weight init"),
    (("attention",), "attn attn-impl attn-implementation attention-backend attention-implementation sdpa-backend sdpa"),
    (("checkpointing",), "gradient-checkpointing activation-checkpointing grad-checkpointing recompute checkpoint"),
    (("routing",), "router expert-routing moe-routing"),
    (("precision",), "dtype dtypes torch-dtype data-type mixed-precision precisions amp compute-dtype param-dtype"),
    (("execution",), "executions exec mode backend runtime"),
    (("phases",), "phase stages stage steps step task"),
    (("instruments",), "instrument measure metrics metric counters"),
    (
        ("device_type",),
        "accelerator device devices device-type device-types backend-device gpu gpus gpu-name gpu-model",
    ),
    (("max_seconds",), "duration timeout time seconds max-time window"),
    (("point_timeout_s",), "point-timeout"),
    (("samples",), "num-samples n-samples trials n-trials num-trials max-points num-points points max-trials"),
    (("name",), "run-name run experiment experiment-name run-id tag"),
    (("storage",), "output output-dir out out-dir results results-dir save-dir log-dir logdir dir storage-path"),
    (("address",), "ray-address cluster head head-address"),
    (("log_to",), "wandb mlflow tensorboard logger report-to"),
    (("seed",), "random-seed rng-seed manual-seed"),
    (("search",), "searcher scheduler tuner sampler search-alg"),
    (("plots",), "plot no-plot no-figures"),
    (("quiet",), "silent no-progress"),
)
#: Values that are flags in other tools.
_VALUES = {
    "precision": ("fp32", "tf32", "bf16", "fp16"),
    "execution": EXECUTIONS,
    "phases": ("inference", "forward", "backward", "train-step", "prefill", "decode"),
    "weights": ("random", "pretrained"),
}
#: Flags for the same purpose under other names, each with what is written here.
_OTHER_VALUES = {
    **{"float32": "--precision fp32", "bfloat16": "--precision bf16", "float16": "--precision fp16"},
    **{"half": "--precision fp16", "cuda-graph": "--execution graph", "cuda-graphs": "--execution graph"},
    **{"torch-compile": "--execution compile", "train": "--phases train_step", "cpu": "--accelerators CPU"},
}
#: Sizes that a model's configuration states, in words of the families.
_OF_A_MODEL = (
    "hidden-size hidden hidden-dim d-model dim n-embd embed-dim width num-layers n-layers n-layer layers depth "
    "num-hidden-layers num-heads n-heads n-head heads num-attention-heads num-kv-heads n-kv-heads num-key-value-heads "
    "head-dim intermediate-size ffn-dim ffn-size d-ff mlp-dim vocab-size vocab num-experts n-experts "
    "num-experts-per-tok top-k sliding-window window-size"
)
#: How similar to a name a guess must be; short names are too similar to each other.
_LIKE, _SHORT = 0.7, 2


def synonyms(fields: Iterable[Field], settings: Mapping[str, str]) -> dict[str, str]:
    """What is written here, such as `--tokens`, by what may be guessed, such as `--seq-len`.

    Args:
        fields: of a workload.
        settings: their flags, by name.
    """
    fields = [field for field in fields if not field.implied]
    flags = dict(settings) | {field.name: flag_of(field) for field in fields}
    found: dict[str, str] = {}
    for names, words in _NAMES:
        flag = next((flags[name] for name in names if name in flags), None)
        found |= {word: flag for word in words.split() if flag}
    found |= {name.replace("_", "-"): flag for name, flag in flags.items()}
    for name, values in _VALUES.items():
        if name in flags:
            found |= {value: f"{flags[name]} {value.replace('-', '_')}" for value in values}
    found |= {word: text for word, text in _OTHER_VALUES.items() if text.split()[0] in flags.values()}
    if "model" in flags:
        found |= dict.fromkeys(_OF_A_MODEL.split(), f"{flags['model']} my/config.json, which states the model's sizes")
    found |= {field.letter: flag_of(field) for field in fields if field.letter and len(field.letter) == 1}
    return {guess: flag for guess, flag in found.items() if f"--{guess}" not in flags.values()}


def meant(guess: str, known: Mapping[str, str], flags: Collection[str]) -> str | None:
    """What is written here for an unknown flag; None where nothing is similar.

    Args:
        guess: the flag, such as `--seq_len`.
        known: by possible guesses.
        flags: all there are.
    """
    word = guess.lstrip("-").replace("_", "-")
    if f"--{word}" in flags:  # with one hyphen, or with underscores
        return f"--{word}"
    if numbers := [flag for flag in flags if in_other_number(flag, f"--{word}")]:
        return numbers[0]
    if found := known.get(word) or known.get(word.lower()):
        return found
    begun = [flag for flag in flags if flag.startswith(f"--{word}")]
    if len(begun) == 1 and len(word) >= _SHORT:
        return begun[0]
    names = [*(flag[2:] for flag in flags), *known]
    near = get_close_matches(word.lower(), [name for name in names if len(name) > _SHORT], n=1, cutoff=_LIKE)
    return (known.get(near[0]) or f"--{near[0]}") if near and len(word) > _SHORT else None


def in_other_number(one: str, other: str) -> bool:
    """Whether two flags are singular and plural of one word, in either order.

    >>> in_other_number("--gpu", "--gpus"), in_other_number("--retries", "--retry"), in_other_number("--gpu", "--n")
    (True, True, False)
    """
    return other in _plurals(one) or one in _plurals(other)


def _plurals(word: str) -> tuple[str, ...]:
    return (f"{word}s", f"{word}es", *((f"{word[:-1]}ies",) if word.endswith("y") else ()))
