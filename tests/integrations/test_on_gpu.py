"""The integrations with their real libraries on a GPU, with its own energy counter.

Each test trains for some seconds, with accumulated gradients, and compares the FLOPs of a step with those of a batch
that the same library trained on a CPU. Joules have to be between what a GPU takes at rest and its power limit. All
together they take less than a minute.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]
#: Costs are of steps of at least 5 s.
SECONDS = 6.0
ACCUMULATED = 3
WIDTH, ROWS, LAYERS = 512, 64, 4
#: What any GPU takes at least while a process computes on it, in watts.
LEAST_POWER_W = 20.0
#: FLOPs of a batch of `net`: each layer's product, its weights' gradient, and its input's but for the first layer.
NET_FLOPS = 2 * ROWS * WIDTH**2 * (3 * LAYERS - 1)


@pytest.fixture(scope="module")
def limit_w() -> float:
    """The enforced power limit of the current GPU."""
    from flopray.energy.nvml import Gpu

    limit_w = Gpu.from_uuid(f"GPU-{torch.cuda.get_device_properties(0).uuid}").state().power_limit_w
    if limit_w is None:
        pytest.skip("NVML reports no power limit")
    return limit_w


def net(device: str) -> torch.nn.Sequential:
    return torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH, device=device) for _ in range(LAYERS)))


def check(told: Mapping[str, float], flops_of_a_batch: float, limit_w: float, *, mfu: bool) -> None:
    """What a step of accumulated batches may cost."""
    assert told["flops_per_step"] == ACCUMULATED * flops_of_a_batch
    time_s, error = told["time_per_step_s"], told["energy_per_step_rel_error"]
    assert time_s > 0
    assert 0 < error < math.inf
    assert told["energy_per_step_j"] * (1 + error) > LEAST_POWER_W * time_s
    assert 0 < told["energy_per_step_j"] * (1 - error) < limit_w * time_s
    assert ("mfu" in told) is mfu
    if mfu:
        assert 0 < told["mfu"] < 1


def test_optimizer_hooks_of_plain_pytorch(limit_w):
    from flopray.integrations.pytorch import watch_optimizer

    model, x = net("cuda"), torch.randn(ROWS, WIDTH, device="cuda")
    adam = torch.optim.AdamW(model.parameters())
    end_s, batches = time.perf_counter() + SECONDS, 0
    with watch_optimizer(precision="fp32") as w:
        while time.perf_counter() < end_s or batches % ACCUMULATED:
            model(x).square().mean().backward()
            batches += 1
            if batches % ACCUMULATED == 0:
                adam.step()
                adam.zero_grad()
                if batches % (50 * ACCUMULATED) == 0:
                    torch.cuda.current_stream().synchronize()
        told = w.metrics()
    check(told, NET_FLOPS, limit_w, mfu=True)
    summary = w.summary()
    assert summary.steps == batches // ACCUMULATED - 1
    assert 0 < summary.energy_j * (1 - summary.rel_error) < limit_w * summary.time.time_s


@pytest.mark.extras("accelerate")
def test_optimizer_hooks_of_accelerate(limit_w):
    from accelerate import Accelerator

    from flopray.integrations.pytorch import watch_optimizer

    accelerator = Accelerator(gradient_accumulation_steps=ACCUMULATED, mixed_precision="bf16")
    model = net("cuda")
    model, adam = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    x = torch.randn(ROWS, WIDTH, device=accelerator.device)
    end_s, batches = time.perf_counter() + SECONDS, 0
    with watch_optimizer(adam) as w:
        while time.perf_counter() < end_s or batches % ACCUMULATED:
            with accelerator.accumulate(model):
                accelerator.backward(model(x).square().mean())
                adam.step()
                adam.zero_grad()
            batches += 1
            if batches % (50 * ACCUMULATED) == 0:
                torch.cuda.current_stream().synchronize()
        told = w.metrics()
    assert w.precision == "bf16"
    check(told, NET_FLOPS, limit_w, mfu=True)
    assert w.summary().steps == batches // ACCUMULATED - 1


def until(seconds: float | None) -> Any:
    """A callback of the Trainer that ends the training after some seconds."""
    from transformers import TrainerCallback

    class Until(TrainerCallback):
        end_s = math.inf

        def on_train_begin(self, args, state, control, **kwargs):
            if seconds is not None:
                self.end_s = time.perf_counter() + seconds

        def on_step_end(self, args, state, control, **kwargs):
            if time.perf_counter() > self.end_s:
                control.should_log = control.should_training_stop = True

    return Until()


def trained(folder: Any, *, on_gpu: bool, accumulated: int, seconds: float | None) -> tuple[list[dict], Any]:
    """The rows that a Trainer logged for a small Llama, and its callback."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    from flopray.integrations.transformers import EnergyCallback

    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=256,
    )
    # a list works as a dataset, which the stubs do not know
    rows: Any = [{"input_ids": ids, "labels": ids} for ids in torch.randint(256, (256, 64))]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=12 if seconds is None else 10**6,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulated,
        logging_steps=4 if seconds is None else 20,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not on_gpu,
        bf16=on_gpu,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs would share each batch
    callback = EnergyCallback()
    trainer = Trainer(LlamaForCausalLM(config), arguments, train_dataset=rows, callbacks=[callback, until(seconds)])
    trainer.train()
    return [row for row in trainer.state.log_history if "flops_per_step" in row], callback


@pytest.mark.extras("accelerate")
def test_trainer_of_transformers(tmp_path, limit_w):
    pytest.importorskip("transformers", minversion="5.0", reason="transformers 5 is not installed")
    on_cpu, _ = trained(tmp_path, on_gpu=False, accumulated=1, seconds=None)
    logged, callback = trained(tmp_path, on_gpu=True, accumulated=ACCUMULATED, seconds=SECONDS)
    check(logged[-1], on_cpu[-1]["flops_per_step"], limit_w, mfu=True)
    assert callback.summary.energy_j > 0
    assert callback.summary.devices[0].kind == "GPU"


def fitted(folder: Any, *, on_gpu: bool, accumulated: int, seconds: float | None) -> tuple[dict[str, float], Any, int]:
    """The metrics that Lightning logged, its callback, and the steps of the optimizer."""
    import lightning

    from flopray.integrations.lightning import EnergyMonitor

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net("cpu")

        def training_step(self, batch, _):
            return self.net(batch).square().mean()

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters())

    batches = 12 * accumulated if seconds is None else 3000 * accumulated
    data = torch.utils.data.DataLoader([torch.ones(ROWS, WIDTH)] * batches, batch_size=None)
    monitor = EnergyMonitor()
    trainer = lightning.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        precision="bf16-mixed" if on_gpu else "32-true",
        max_epochs=1 if seconds is None else -1,
        max_time=None if seconds is None else {"seconds": math.ceil(seconds)},
        accumulate_grad_batches=accumulated,
        log_every_n_steps=4 if seconds is None else 20,
        callbacks=[monitor],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=str(folder),
    )
    trainer.fit(Net(), data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}, monitor, trainer.global_step


@pytest.mark.extras("lightning")
def test_fit_of_lightning(tmp_path, limit_w):
    on_cpu, _, _ = fitted(tmp_path, on_gpu=False, accumulated=1, seconds=None)
    told, monitor, steps = fitted(tmp_path, on_gpu=True, accumulated=ACCUMULATED, seconds=SECONDS)
    assert on_cpu["flops_per_step"] == NET_FLOPS
    check(told, on_cpu["flops_per_step"], limit_w, mfu=True)
    assert monitor.summary.steps == steps
    assert monitor.summary.devices[0].kind == "GPU"
