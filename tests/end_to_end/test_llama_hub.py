"""Models of a hub: configurations and pretrained weights over its protocol, from a hub on this machine."""

from __future__ import annotations

import shutil

import pytest
import torch
from hub_server import HubServer
from machine import QUICK

from flopray import load_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
LLAMA = "llama_gpu.py"
FLAGS = f"--tokens 8 --batch 1 --precision fp32 --phases inference --instruments time {QUICK}"


@pytest.fixture(scope="module")
def hub(machine):
    """A hub with a model in safetensors, and the same as a pickled checkpoint."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = machine.folder / "hub"
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=128))
    model.save_pretrained(folder / "owner" / "tiny")
    (folder / "owner" / "pickled").mkdir()
    shutil.copy(folder / "owner" / "tiny" / "config.json", folder / "owner" / "pickled")
    torch.save(model.state_dict(), folder / "owner" / "pickled" / "pytorch_model.bin")
    served = HubServer(folder)
    machine.environment |= {"HF_ENDPOINT": served.endpoint, "HF_HOME": str(machine.folder / "hugging face")}
    yield served
    served.stop()


def test_a_model_of_the_hub_is_measured_with_its_own_weights(machine, hub):
    code, output = machine.sweep(f"--model owner/tiny --weights pretrained {FLAGS} --name own", script=LLAMA)
    assert code == 0, output
    frame = load_run(machine.run_path("own"))
    assert frame[["model", "weights", "status"]].to_numpy().tolist() == [["owner/tiny", "pretrained", "ok"]]
    assert (frame.time_s > 0).all()
    assert "owner/tiny/model.safetensors" in hub.downloads


def test_random_weights_take_the_configuration_alone(machine, hub):
    hub.downloads.clear()
    code, output = machine.sweep(f"--model owner/pickled {FLAGS} --dry-run", script=LLAMA)
    assert code == 0, output
    assert hub.downloads == ["owner/pickled/config.json"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--model owner/pickled --weights pretrained",
            "owner/pickled has no safetensors, and no other format is loaded",
        ),
        ("--model owner/nothing", "--model owner/nothing: the hub gives no configuration"),
    ],
)
def test_what_the_hub_has_not_is_told_before_anything_starts(machine, hub, flags, message):
    code, output = machine.sweep(f"{flags} {FLAGS} --name never", script=LLAMA)
    assert code == 2, output
    assert message in output
    assert "Traceback" not in output
    told = [line for line in output.strip().splitlines() if not line.startswith("checking the sweep")]  # if it is slow
    assert len(told) == 1, output
    assert not machine.run_path("never").exists()
