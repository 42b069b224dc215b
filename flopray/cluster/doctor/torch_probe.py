"""Prints what torch is and sees, as one JSON object; a program of its own that `cluster.doctor.software` runs."""

from __future__ import annotations

import json
import warnings


def probe() -> dict[str, object]:
    """Fields of `flopray.cluster.doctor.software.Torch`."""
    try:
        import torch
    except Exception as error:  # a damaged installation raises anything: OSError for a library, RuntimeError for an ABI
        reason = f"torch cannot be imported ({' '.join(str(error).split())[:200]}): pip install torch"
        return {"version": None, "cuda": None, "gpus": None, "reason": reason}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # device_count alone asks NVML, which also counts GPUs whose driver is too old for this torch.
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # The first line of the warning says why there is none; web addresses follow.
    reason = str(caught[0].message).partition("(")[0].strip() if caught and not gpus else None
    return {"version": str(torch.__version__), "cuda": torch.version.cuda, "gpus": gpus, "reason": reason}


if __name__ == "__main__":
    print(json.dumps(probe()))
