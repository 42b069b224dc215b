"""flopray: what a training step really costs, in FLOPs, joules and seconds, over a Ray cluster.

Importing this package is cheap: torch, Ray and pandas are imported by the modules that need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flopray.store.location import load_run as load_run

__version__ = "0.1.0"
__all__ = ["__version__", "load_run"]


def __getattr__(name: str) -> Any:
    """Import `load_run` on first use, so that `import flopray` does not pay for pandas and Arrow."""
    if name == "load_run":
        from flopray.store.location import load_run

        return load_run
    raise AttributeError(f"module 'flopray' has no attribute {name!r}")
