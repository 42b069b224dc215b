"""Points that several tests need."""

from flopray.point import Point
from flopray.workloads.registry import make_point


def mlp(n=3, d=64, m=32, **fields) -> Point:
    return make_point(**{"workload": "mlp", "device_type": "CPU", "n_layers": n, "width": d, "tokens": m, **fields})


def llama(model="llama-tiny", b=2, t=32, **fields) -> Point:
    choices = {"weights": "random", "attention": "auto", "checkpointing": False, "model": model}
    shape = {"batch_size": b, "sequence_length": t}
    return make_point(**{"workload": "llama", "device_type": "CPU", **choices, **shape, **fields})
