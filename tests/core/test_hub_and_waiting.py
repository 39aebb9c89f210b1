"""What the hub cannot be asked for is said at once; who waits hears how far the work is."""

from __future__ import annotations

import socket

import pytest

from forethought.core import hub, waiting
from forethought.core.errors import UserError
from forethought.tasks.text.sources import rows_of


@pytest.fixture
def alone(monkeypatch):
    """A machine whose hub is a port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    hub.unreachable.cache_clear()
    yield
    hub.unreachable.cache_clear()


def test_a_hub_that_is_there_is_reached(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        hub.unreachable.cache_clear()
        assert hub.unreachable() == ""
    hub.unreachable.cache_clear()


def test_a_hub_that_is_not_there_is_said_with_the_cause(alone):
    assert hub.unreachable() == "127.0.0.1 cannot be reached (Connection refused)"


def test_a_model_of_the_hub_is_refused_with_the_cause_and_the_ways(alone, monkeypatch):
    pytest.importorskip("torch")
    from huggingface_hub import constants

    from forethought.engines.torch.models.loading import from_path

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError) as error:
        from_path("nobody/has-this-model")
    said = str(error.value)
    assert said.startswith("nobody/has-this-model is no folder here and was not fetched before")
    assert "127.0.0.1 cannot be reached (Connection refused)" in said and "hf download" in said


def test_a_split_of_the_hub_is_refused_too(alone):
    pytest.importorskip("datasets")
    with pytest.raises(UserError, match="the hub cannot be asked for it: 127.0.0.1 cannot be reached"):
        list(rows_of("hub:nobody/has-this:train"))


def test_who_waits_hears_of_it_and_the_innermost_alone():
    outer, inner = [], []
    assert not waiting.heard()
    waiting.tell(1, 2)
    with waiting.hearing(lambda *far: outer.append(far)):
        assert waiting.heard()
        waiting.tell(1, 4)
        with waiting.hearing(lambda *far: inner.append(far)):
            waiting.tell(2, 4)
        waiting.tell(3, 4)
    assert (outer, inner, waiting.heard()) == ([(1, 4), (3, 4)], [(2, 4)], False)


def test_it_is_told_now_and_then(monkeypatch):
    clock = iter([10.0, 10.2, 10.6, 10.7])
    monkeypatch.setattr(waiting.time, "monotonic", lambda: next(clock))
    heard = []
    seldom = waiting.now_and_then(lambda *far: heard.append(far), 0.5)
    for done in range(4):
        seldom(done, 4)
    assert heard == [(0, 4), (2, 4)]
