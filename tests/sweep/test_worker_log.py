"""Messages of libraries in a trial's process are kept for the log, once and short."""

import logging
import warnings

import pytest

from flopray.sweep.worker_log import WorkerLog


@pytest.fixture
def chatter():
    made = WorkerLog()
    yield made
    logging.captureWarnings(False)
    for name in ("py.warnings", "torch", "transformers", "ray"):
        logging.getLogger(name).removeHandler(made)


def test_a_warning_is_handed_over_once(chatter):
    for _ in range(3):
        logging.getLogger("transformers.modeling").warning("the weights\nare new")
    logging.getLogger("torch").info("nothing of interest")
    assert chatter.take() == ["transformers.modeling: the weights"]
    logging.getLogger("transformers.modeling").warning("the weights\nare new")
    assert chatter.take() == []


def test_python_s_warnings_are_heard_too(chatter):
    with warnings.catch_warnings():
        # And no other one: a file that another test left open may be found by the garbage collector just now.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", message="this will change")
        logging.captureWarnings(True)
        warnings.warn("this will change", stacklevel=1)
    (line,) = chatter.take()
    assert line.startswith("py.warnings: ")
    assert "this will change" in line


def test_a_process_that_never_stops_talking_is_cut_short(chatter):
    for number in range(1000):
        logging.getLogger("torch").error("line %d %s", number, "x" * 1000)
    lines = chatter.take()
    assert len(lines) == 200
    assert max(map(len, lines)) < 320
