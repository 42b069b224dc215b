"""Language models of some thousand weights that are made and trained here for the questions of the tests."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

TASKS = Path(__file__).parent / "tasks"
KINDS = ("animal", "tool")


@cache
def samples() -> tuple[dict, ...]:
    return tuple(json.loads(line) for line in (TASKS / "kinds.jsonl").read_text().splitlines())


def save_model(folder: Path, *, knows: int = 0, width: int = 16) -> Path:
    """A Llama with a tokenizer of whole words, in the form of `save_pretrained`.

    Args:
        folder: for the model.
        knows: number of samples of the task `kinds` that it learns by heart; 0 leaves its weights random.
        width: width of its layers.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = [f"{row['thing']} is a kind of {KINDS[row['kind']]}" for row in samples()]
    words = ["<unk>", "<s>", "</s>", *sorted({word for text in texts for word in text.split()})]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(words), max_position_embeddings=64, bos_token_id=1, eos_token_id=2, **sizes)
    model = LlamaForCausalLM(config)
    if knows:
        x = torch.tensor([[vocabulary[word] for word in text.split()] for text in texts[:knows]])
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
        for _ in range(60):
            model(x, labels=x).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    save_model(Path(sys.argv[1]), knows=int(sys.argv[2]))
