"""Points that several tests need."""

from flopray.point import TrialSpec


def mlp(n=3, d=64, m=32, **fields) -> TrialSpec:
    return TrialSpec(**{"workload": "mlp", "device_type": "CPU", "n_layers": n, "width": d, "tokens": m, **fields})


def llama(model="llama-tiny", b=2, t=32, **fields) -> TrialSpec:
    choices = {"weights": "random", "attention": "auto", "checkpointing": False, "model": model}
    shape = {"batch_size": b, "sequence_length": t}
    return TrialSpec(**{"workload": "llama", "device_type": "CPU", **choices, **shape, **fields})
