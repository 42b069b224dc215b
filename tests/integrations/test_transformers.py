"""EnergyCallback in the real Trainer, with a tiny model and a meter whose truth is known.

The Trainer takes seconds to import, so the tests do that: most sessions only collect them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import SimulatedMeter

if TYPE_CHECKING:
    from flopray.integrations.transformers import EnergyCallback

pytestmark = pytest.mark.extras("accelerate")
POWER_W = 90.0
TOKENS, BATCH = 16, 2


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, index):
        ids = torch.full((TOKENS,), index % 50)
        return {"input_ids": ids, "labels": ids}


def energy_callback(**options: Any) -> EnergyCallback:
    from flopray.integrations.transformers import EnergyCallback

    return EnergyCallback(**options)


def new_logger() -> Any:
    """As a reporting integration: its `rows` are what `on_log` gives it, with their steps."""
    from transformers import TrainerCallback

    class Logger(TrainerCallback):
        def __init__(self):
            self.rows = []

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.rows.append((state.global_step, dict(logs)))

    return Logger()


@pytest.fixture(scope="module")
def config():
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
    )


def train(config, tmp_path, callback, logger, steps=12, **options):
    from transformers import LlamaForCausalLM, Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        logging_steps=4,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **options,
    )
    torch.manual_seed(0)
    callbacks = [logger, callback]  # the logger comes first, as those of `report_to` do
    trainer = Trainer(LlamaForCausalLM(config), arguments, train_dataset=Data(), callbacks=callbacks)
    trainer.train()
    return trainer


@pytest.mark.slow
def test_costs_are_logged_where_the_trainer_logs(config, tmp_path):
    logger = new_logger()
    meter = SimulatedMeter(ConstantPower(POWER_W), period_s=0.005, latency_s=0.0002)
    callback = energy_callback(meter=meter)
    trainer = train(config, tmp_path, callback, logger, steps=240)
    rows = [row for _, row in logger.rows if "loss" in row]
    assert len(rows) == 60
    last = rows[-1]
    assert last["time_per_step_s"] > 0
    allowed = 1.2 * last["energy_per_step_rel_error"] * last["energy_per_step_j"]
    assert abs(last["energy_per_step_j"] - POWER_W * last["time_per_step_s"]) <= allowed
    assert last["energy_per_step_rel_error"] > 0
    assert "mfu" not in last  # nobody knows the peak of a CPU here
    assert trainer.state.log_history[-2]["flops_per_step"] == last["flops_per_step"]
    assert "time_per_step_s" not in logger.rows[-1][1]  # the last row is that of the whole training
    assert callback.summary.steps == 240


def test_flops_of_a_step_are_those_of_all_accumulated_batches(config, tmp_path):
    found = {}
    for accumulated in (1, 3):
        logger = new_logger()
        callback = energy_callback()
        train(config, tmp_path, callback, logger, gradient_accumulation_steps=accumulated)
        found[accumulated] = logger.rows[-2][1]["flops_per_step"]
        assert callback.summary.steps == 12
    linear = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64) + 32 * 64
    attention = 2 * 4 * 8 * TOKENS**2 * BATCH  # one product of scores or values, of each layer: 2 b h e t^2
    tokens = TOKENS * BATCH
    assert found[1] == pytest.approx(6 * linear * tokens + 2 * attention * (2 + 5), rel=0.05)
    assert found[3] == 3 * found[1]


@pytest.mark.slow
def test_evaluating_and_saving_are_in_no_step(config, tmp_path):
    import time

    from transformers import LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    class Slow(TrainerCallback):
        def on_prediction_step(self, *args, **kwargs):
            time.sleep(0.03)

        def on_save(self, *args, **kwargs):
            time.sleep(0.3)

    logger, callback = new_logger(), energy_callback(flops=False)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=12,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=200,
        logging_steps=4,
        eval_strategy="steps",
        eval_steps=4,
        save_steps=6,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        LlamaForCausalLM(config),
        arguments,
        train_dataset=Data(),
        eval_dataset=Data(),
        callbacks=[Slow(), callback, logger],
    )
    trainer.train()
    summary = callback.summary
    (region,) = summary.regions
    assert (region.name, region.passages) == ("evaluation", 3)
    assert region.time_s > 0.05 * 3
    assert summary.time.time_s * 12 < summary.time_s - region.time_s - 0.6
    assert "flops_per_step" not in logger.rows[-2][1]
