"""The cost of a training step, for the libraries that people train with; each module needs only its own library.

`transformers.EnergyCallback` for the Trainer, `lightning.EnergyMonitor`, and `pytorch.watch_optimizer` for plain
PyTorch and Accelerate.
"""
