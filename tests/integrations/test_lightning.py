"""EnergyMonitor in a real fit of Lightning, on a CPU with a meter whose truth is known."""

import time

import pytest
import torch

from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import SimulatedMeter

pytestmark = pytest.mark.extras("lightning")
POWER_W = 90.0


def fit(tmp_path, monitor, *others, batches=24, pause_s=0.0, accumulated=1, **options):
    import lightning
    from lightning.pytorch.loggers import CSVLogger

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(32, 32, bias=False)

        def training_step(self, batch, _):
            time.sleep(pause_s)
            return self.net(batch[0]).square().mean()

        def validation_step(self, batch, _):
            time.sleep(0.02)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8 * batches, 32)), batch_size=8)
    logger = CSVLogger(tmp_path)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=logger,
        callbacks=[monitor, *others],
        log_every_n_steps=4,
        accumulate_grad_batches=accumulated,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )
    trainer.fit(Net(), data, data if "val_check_interval" in options else None)
    logger.save()
    import pandas

    return trainer, pandas.read_csv(f"{logger.log_dir}/metrics.csv")


@pytest.mark.slow
def test_costs_are_in_the_loggers_of_the_trainer(tmp_path):
    from flopray.integrations.lightning import EnergyMonitor

    meter = SimulatedMeter(ConstantPower(POWER_W), period_s=0.005, latency_s=0.0002)
    monitor = EnergyMonitor(meter=meter)
    trainer, logged = fit(tmp_path, monitor, batches=80, pause_s=0.012)
    assert monitor.summary.steps == 80
    row = logged.dropna(subset=["energy_per_step_j"]).iloc[-1]
    # What is taken in pauses that no counter can see is in the interval.
    allowed = 1.2 * row["energy_per_step_rel_error"] * row["energy_per_step_j"]
    assert abs(row["energy_per_step_j"] - POWER_W * row["time_per_step_s"]) <= allowed
    assert row["flops_per_step"] == 2 * 2 * 8 * 32 * 32  # the input needs no gradient
    assert float(trainer.callback_metrics["flops_per_step"]) == row["flops_per_step"]


@pytest.mark.slow
def test_a_step_has_all_batches_that_are_accumulated_and_no_validation(tmp_path):
    from flopray.integrations.lightning import EnergyMonitor

    monitor = EnergyMonitor()
    _, logged = fit(tmp_path, monitor, accumulated=3, val_check_interval=8)
    assert monitor.summary.steps == 8
    assert logged["flops_per_step"].dropna().iloc[-1] == 3 * 2 * 2 * 8 * 32 * 32
    (region,) = monitor.summary.regions
    assert (region.name, region.passages) == ("validation", 3)
    assert monitor.summary.time.time_s < 0.3 * region.time_s / 3


def test_what_was_measured_before_an_error_is_kept(tmp_path):
    import lightning

    from flopray.integrations.lightning import EnergyMonitor
    from flopray.watching.series import load_series

    class Failing(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 6:
                raise ZeroDivisionError("in the sixth")

    monitor = EnergyMonitor(save=tmp_path / "watch")
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, monitor, Failing())
    assert monitor.summary.steps == 6
    assert load_series(tmp_path / "watch").about["summary"]["steps"] == 6
