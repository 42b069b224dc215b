"""What several tests need: the published results, and skipping what this machine cannot do."""

import shutil
from pathlib import Path

import pytest

PUBLISHED = Path(__file__).parents[2] / "shared" / "published"


@pytest.fixture(scope="session")
def published() -> Path:
    """Folder of flopmetrics' published results, where somebody put it beside the checkout."""
    if not PUBLISHED.is_dir():
        pytest.skip("the published results of flopmetrics are not beside the checkout (../shared/published)")
    return PUBLISHED


def pytest_collection_modifyitems(items):
    """Skip GPU and counter tests, with the reason, on a machine that lacks what they need."""
    for item in items:
        if "gpu" in item.keywords and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
        if "ncu" in item.keywords and shutil.which("ncu") is None:
            item.add_marker(pytest.mark.skip(reason="Nsight Compute (ncu) is not installed"))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
