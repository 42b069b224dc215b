"""Writes docs/results/flops.md: FLOPs of published language models, by closed form and at the dispatcher.

python docs/make_flops.py            write the page
python docs/make_flops.py --check    write nothing; exit code 1 when the page differs from the counts

Every model is built in its full size on torch's meta device, which takes no memory, and no network is needed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from flopray.workloads.causal_lm import agreement, models
from flopray.workloads.causal_lm.flops import PRODUCTS, components
from flopray.workloads.causal_lm.sizes import Sizes

PAGE = Path(__file__).parent / "results" / "flops.md"
#: The sizes of each family that are counted in a second or two; larger ones are counted when they are measured.
MODELS = (
    *("llama-2-7b", "llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "smollm2-135m", "smollm2-360m", "smollm2-1.7b"),
    "smollm3-3b",
    *("mistral-7b", "qwen2.5-0.5b", "qwen2-7b", "qwen3-0.6b", "qwen3-1.7b", "gemma-2-2b", "gemma-2-9b"),
    *("gemma-3-270m", "gemma-3-1b", "phi-3-mini", "olmo-2-1b", "gpt2", "gpt2-xl", "pythia-160m", "pythia-1.4b"),
    *("mixtral-8x7b", "qwen1.5-moe-a2.7b", "qwen3-30b-a3b", "olmoe-1b-7b", "gpt-oss-20b", "deepseek-v2-lite"),
    "deepseek-v3",
)
#: Number of tokens beyond most windows.
_LONG = 8192
_PHASES = ("forward", "backward", "prefill", "decode")

_TEXT = """# FLOPs of published language models, counted in two ways

`python docs/make_flops.py` writes this page, and `--check`, which is a test, counts everything again. Each model is
built by transformers from its configuration (`flopray/workloads/causal_lm/configs`, each with its source) in its full
size on torch's meta device, {batch} sequences of the tokens that the table says, and counted at torch's dispatcher. The
closed form is made from the same configuration by [`causal_lm`](../../flopray/workloads/causal_lm/families.py).

* **parameters**: number of weights of the model that transformers builds. The closed form has the same number; a tied
  matrix counts once. It is the published number, to which the link leads, unless the table says otherwise. Where the
  link is that of a hub's API, its field `safetensors.total` has the number.
* **active**: number of weights that one token passes through, embeddings included.
* **products**: closed form of all matrix products and attention of a forward pass, with attention as full squares. The
  dispatcher counts exactly as many, in the forward pass and in `backward`, `prefill` and `decode` as well.
* **attention**: the share of the scores and of their products with values, as full squares.
* **left by masks**: the share of attention that causal masks and windows leave, for sequences of 8192 tokens.

{table}

All {count} agree in products and attention, in all four phases: {equal} counts without a difference.

What is counted and what is not:

* **Causality and windows.** Both counts take attention as full squares. `attention_causal_flops` counts what masks
  leave. Decode attends to all that its cache keeps; in a layer with a window, that is the window.
* **Flash attention** computes the scores again in its backward pass, which is half of its forward products.
  Neither count includes that; `executed_flops` does.
* **Experts.** Only active experts are counted: each token's products with the experts that it is sent to, with the
  shared experts, and with the router. The number does not depend on the routing, but energy does. The tokens of a sweep
  are therefore sent to all experts in equal numbers, drawn from a fixed seed (`--routing router` leaves it to the
  router).
* **Latent attention** (DeepSeek). The cache keeps latent vectors, as in transformers; decode computes the keys and
  values of the whole cache from them, and those products are counted.
* **Embeddings** are look-ups, not products. A tied output projection is still a product.
* **Angles of rotary embeddings**, which some releases of transformers compute by a product, are left out.
* **Heads that predict several tokens ahead** (DeepSeek V3) are not built by transformers and not counted.
* **Quantised configurations** (`quantization_config`) are counted like others: a point's precision states the type of
  its weights.
* **Grouped convolutions** in models without a closed form are counted within their groups, also in the backward pass,
  where torch's own formula multiplies all groups with each other.
{notes}

A configuration of another family, or with an unknown key, has no closed form: its rows say why, and only the
dispatcher's count is given. The same is true if the closed form and the model that is built disagree in any of these
numbers.
"""


def page() -> str:
    """The text of the page."""
    rows, notes = [], []
    for name in MODELS:
        rows.append(_row(name))
        if note := models.shipped(name).get("note"):
            notes.append(f"* **{name}**: {note}.")
    head = "| model | parameters | active | tokens | products | attention | left by masks |"
    return _TEXT.format(
        batch="two",
        table="\n".join([head, "|---" * 7 + "|", *rows]),
        count=len(rows),
        equal=len(rows) * len(_PHASES),
        notes="\n".join(notes),
    )


def _row(name: str) -> str:
    sizes = agreement.agreed_sizes(name, None)
    if isinstance(sizes, str):
        raise SystemExit(f"{name}: {sizes}")
    batch, tokens = agreement.shape_of(sizes)
    closed = components(sizes, batch=batch, tokens=tokens, phase="forward")
    products = closed["attention_flops"] + sum(closed[part] for part in PRODUCTS)
    long = components(sizes, batch=1, tokens=_LONG, phase="forward")
    visible = long["attention_causal_flops"] / long["attention_flops"]
    share = closed["attention_flops"] / products
    cells = [
        f"[{name}]({models.shipped(name)['source']})",
        _parameters(name, sizes),
        f"{sizes.active_parameters:,}" if sizes.active_parameters != sizes.parameters else "all",
        str(tokens),
        f"{products:,}",
        f"{share:.1%}",
        f"{visible:.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def _parameters(name: str, sizes: Sizes) -> str:
    """The number of parameters, with the published one if it differs."""
    published, source = models.shipped(name)["parameters"], models.shipped(name)["parameters_source"]
    if published == sizes.parameters:
        return f"[{sizes.parameters:,}]({source})"
    return f"{sizes.parameters:,} (published: [{published:,}]({source}))"


def main() -> None:
    """Write the page, or compare it with the counts."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    made = page()
    if arguments.check:
        if made != PAGE.read_text(encoding="utf-8"):
            raise SystemExit(f"{PAGE} differs from the counts: run python docs/make_flops.py")
        return
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
