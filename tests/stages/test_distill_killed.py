"""A distillation by an endpoint that is killed, interrupted or ended: what was answered is never asked, and
paid, again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hostile_server import ok, serving

from forethought.stages.distill.cache import Cached
from forethought.stages.distill.endpoint import Endpoint
from forethought.stages.distill.endpoint_spec import EndpointSpec
from forethought.stages.distill.prompts import Prompt
from forethought.stages.distill.records import Item

ITEMS = 12
SCRIPT = """
import sys
from pathlib import Path
from forethought.runs.interrupts import Interrupts
sys.path.insert(0, sys.argv[3])
from test_distill_killed import distilled
with Interrupts() as interrupts, interrupts.at_once(lambda number: sys.exit(128 + number)):
    distilled(sys.argv[1], Path(sys.argv[2]))
"""


def distilled(base_url: str, path: Path, concurrency: int = 1) -> list:
    spec = EndpointSpec(
        base_url=base_url, model="m", key_env="", retries=0, concurrency=concurrency, time_limit=60
    )
    items = [Item(id=str(i), question=f"Question {i}", chain="c", answer="7") for i in range(ITEMS)]
    with Cached(Endpoint(spec, Prompt("", "{question}|{chain}")), path) as cached:
        return cached.summarise(items)


class Server:
    """Answers, and holds the request number `hold` (from 0) until its client is gone."""

    def __init__(self, hold: int):
        self.hold, self.held, self.answered, self.asked = hold, threading.Event(), [], []
        self._lock = threading.Lock()

    def __call__(self, connection):
        with self._lock:
            question = json.loads(self.asked[-1].partition(b"\r\n\r\n")[2])["messages"][0]["content"]
            turn = len(self.asked) - 1
        if turn == self.hold:
            self.held.set()
            connection.settimeout(30)
            connection.recv(1)
        else:
            self.answered.append(question)
            connection.sendall(ok(f"<plan>For {question}.</plan>"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("hold", [0, 5])
def test_nothing_that_was_answered_is_asked_again(tmp_path, number, hold):
    """One request at a time, so it is known what was answered: all that came before the one that is under
    way."""
    pytest.importorskip("httpx", reason="the extra `distill` is not installed")
    server, path = Server(hold), tmp_path / "cache.jsonl"
    with serving([server], server.asked) as base_url:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, base_url, str(path), str(Path(__file__).parent)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert server.held.wait(60)
        for _ in range(600):  # the second one does not wait for what is under way
            os.kill(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
                break
        assert process.returncode in (-number, 128 + number)
        assert len(path.read_bytes().splitlines()) == hold
        results = distilled(base_url, path)
    assert [r.text for r in results] == [f"<plan>For Question {i}|c.</plan>" for i in range(ITEMS)]
    assert [r.cached for r in results] == [i < hold for i in range(ITEMS)]
    assert Counter(server.answered) == Counter(f"Question {i}|c" for i in range(ITEMS))
