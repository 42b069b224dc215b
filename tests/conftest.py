"""Fixtures of several tests: the published results, and skips of tests that this machine cannot run."""

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from extras import EXTRAS, lacking_of
from quick_loop import QUICK, is_quick

if TYPE_CHECKING:
    from mlflow_server import MLflowServer
    from s3_server import S3Server
    from warm_python import WarmPython

# Tests compute with small tensors, on which threads of OpenMP and BLAS wait for each other, and run beside other tests.
# Libraries read it when they are loaded, so also in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What torch.compile prepares once costs more here than all that the tests compile: it proves the vector instructions of
# this CPU, which it has read from the CPU's flags, in processes that import torch, and starts a pool of compilers.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

PUBLISHED = Path(__file__).parents[2] / "shared" / "published"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Both loops in words: `-m "not ray"` is quick, and `-m "not ray" --slow` has the slow tests too."""
    parser.addoption("--slow", action="store_true", help='run slow tests also where -m says "not ray" and not "slow"')


def pytest_configure() -> None:
    """Ctrl-C must reach the sweeps of the tests: commands that a shell starts with `&` ignore SIGINT."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def published() -> Path:
    """Folder of flopmetrics' published results, if somebody put it next to the checkout."""
    if not PUBLISHED.is_dir():
        pytest.skip("the published results of flopmetrics are not beside the checkout (../shared/published)")
    return PUBLISHED


@pytest.fixture(scope="session")
def calibrated_once() -> Iterator[None]:
    """This CPU is measured for the first plan that asks for it, and not for each of hundreds."""
    from flopray.sweep import calibration

    measure, known = calibration.calibrated, {}

    def calibrated(precisions, *, cores):
        key = (tuple(precisions), cores)
        if key not in known:
            known[key] = measure(precisions, cores=cores)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "calibrated", calibrated)
        yield


@pytest.fixture(scope="session")
def peak_measured_once() -> Iterator[None]:
    """The products of this CPU are measured for the first profiler that asks for them, and not for each."""
    from functools import cache

    from flopray.measurement import profiler

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiler, "measured_peak_flops_per_s", cache(profiler.measured_peak_flops_per_s))
        yield


@pytest.fixture(scope="session")
def s3() -> "Iterator[S3Server]":
    """An S3 server on this machine, with keys for it in the environment of this process."""
    pytest.importorskip("moto.server", reason="moto is not installed: pip install 'flopray[test]'")
    from s3_server import S3Server

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_ACCESS_KEY_ID": "IdOfATest", "AWS_SECRET_ACCESS_KEY": "SecretOfATest"}.items():
            patch.setenv(name, value)
        server = S3Server()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def warm_python() -> "Iterator[WarmPython]":
    """Runs Python programs in processes that need not import torch: for all tests but those of imports."""
    from warm_python import WarmPython

    python = WarmPython()
    yield python
    python.stop()


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[MLflowServer]":
    """An MLflow tracking server on this machine."""
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'flopray[mlflow]'")
    from mlflow_server import MLflowServer

    server = MLflowServer(tmp_path_factory.mktemp("mlflow"))
    yield server
    server.stop()


def pytest_collection_modifyitems(config, items):
    """Leave slow tests out of the quick loop; skip tests of what this machine lacks, with the reason."""
    if is_quick(config.option.markexpr, slow=config.option.slow):
        left_out = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if "gpu" in item.keywords and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
        if "ncu" in item.keywords and shutil.which("ncu") is None:
            item.add_marker(pytest.mark.skip(reason="Nsight Compute (ncu) is not installed"))
        for extra in (name for marker in item.iter_markers("extras") for name in marker.args):
            if lacking := lacking_of(EXTRAS[extra]):
                why = f"{', '.join(lacking)} is not installed: pip install 'flopray[{extra}]'"
                item.add_marker(pytest.mark.skip(reason=why))


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say at the top what is not run; how many they are is among the deselected."""
    if is_quick(config.option.markexpr, slow=config.option.slow):
        return QUICK
    return None


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Say it again below the results, where `-q` shows no header."""
    if is_quick(config.option.markexpr, slow=config.option.slow):
        terminalreporter.write_line(QUICK)


def pytest_collection_finish():
    """What modules and collected tests hold lives until the end: later collections of garbage need not look at it.

    They need not come often either: tests make many objects and few circles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
