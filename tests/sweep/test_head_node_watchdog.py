"""A lost head node is noticed; nothing happens for one that answers or comes back."""

import socket
import threading

import pytest

from flopray.sweep.head_node_watchdog import HeadNodeWatchdog


@pytest.fixture
def head():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(server):
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_a_head_node_that_is_gone_is_told_once(head):
    lost = threading.Event()
    calls = []
    with HeadNodeWatchdog(address_of(head), lambda: (calls.append(1), lost.set()), give_up_s=0.1, every_s=0.05):
        assert not lost.wait(0.5)  # it answers
        head.close()
        assert lost.wait(60)
    assert calls == [1]


def test_one_that_comes_back_in_time_is_waited_for(head):
    lost = threading.Event()
    where = head.getsockname()
    with HeadNodeWatchdog(address_of(head), lost.set, give_up_s=30, every_s=0.01):
        head.close()
        with socket.create_server(where):
            assert not lost.wait(0.3)


@pytest.mark.parametrize("address", [None, ""])
def test_without_an_address_nothing_is_asked(address):
    with HeadNodeWatchdog(address, lambda: pytest.fail("nothing was to be asked"), give_up_s=0, every_s=0.001) as line:
        assert not line._thread.is_alive()
