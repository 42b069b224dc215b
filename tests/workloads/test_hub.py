"""A hub that cannot be reached: one line, soon, and no retries of a library on the screen."""

from __future__ import annotations

import socket

import pytest

from flopray.errors import InputError
from flopray.workloads import hub
from flopray.workloads.llama_config import find_model


@pytest.fixture
def nobody_there(monkeypatch, tmp_path):
    """A hub whose port takes no connections."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(hub, "getproxies", dict)
        monkeypatch.setenv("HF_ENDPOINT", f"http://{place}")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield place


@pytest.mark.parametrize("weights", ["random", "pretrained"])
def test_a_hub_id_without_network_is_refused_in_one_line(nobody_there, weights, capsys):
    with pytest.raises(InputError) as caught:
        find_model("nobody-has/this-model", weights=weights)
    message = str(caught.value)
    assert message.startswith("model nobody-has/this-model: ")
    assert f"the hub {nobody_there} cannot be reached" in message
    assert "\n" not in message
    assert capsys.readouterr().err == ""


def test_a_hub_that_one_chose_to_leave_alone_is_not_asked(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        find_model("nobody-has/this-model")


def test_behind_a_proxy_the_proxy_decides(monkeypatch, nobody_there):
    monkeypatch.setattr(hub, "getproxies", lambda: {"http": "http://proxy:3128"})
    assert hub.unreachable() is None
