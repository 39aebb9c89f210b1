"""An endpoint that is slow, down, rude or talks nonsense: what is asked again, what is paid, what is told,
and that keys stay secret."""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from forethought.core.errors import UserError
from forethought.stages.distill.cache import Cached
from forethought.stages.distill.endpoint import Endpoint
from forethought.stages.distill.endpoint_spec import EndpointSpec
from forethought.stages.distill.pace import Pace, backoff, retry_after
from forethought.stages.distill.prompts import Prompt
from forethought.stages.distill.records import Failure, Item, Summary, Usage
from forethought.stages.distill.transport import HttpPost, Reply, Unanswered

KEY = "sk-very-secret"
PROMPT = Prompt("", "{question} {chain}")  # "q c" for ITEM: 3 characters, one guessed token
ITEM = Item(id="1", question="q", chain="c", answer="3")
DOWN = Unanswered("unreachable", "ConnectError: refused")


def spec(**fields) -> EndpointSpec:
    """Prices are 1 and 2 a token."""
    given = {
        "base_url": "http://there/v1/",
        "model": "m",
        "key_env": "",
        "concurrency": 1,
        "retries": 2,
        "price_in": 1e6,
        "price_out": 2e6,
    }
    return EndpointSpec(**given | fields)


def said(content: object = "<plan>p</plan>", usage: object = (5, 7), **choice) -> Reply:
    body = {
        "choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop", **choice}]
    }
    if usage:
        body["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True))
    return Reply(status=200, headers={}, body=json.dumps(body))


def status(number: int, body: str = "no", **headers: str) -> Reply:
    return Reply(status=number, headers={k.replace("_", "-"): v for k, v in headers.items()}, body=body)


class Scripted:
    """A `Post` that gives the replies in turn, the last one for ever, and keeps what was asked and slept."""

    def __init__(self, *replies: Reply | Unanswered):
        self.replies, self.asked, self.slept = list(replies), [], []

    def __call__(self, body):
        self.asked.append(body)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Unanswered):
            raise reply
        return reply

    def ask(self, *items: Item, **fields):
        return Endpoint(spec(**fields), PROMPT, post=self, sleep=self.slept.append).summarise(
            items or (ITEM,)
        )


def named(*ids: str) -> list[Item]:
    return [Item(id=id, question=f"q{id}", chain="c", answer="3") for id in ids]


# one reply --------------------------------------------------------------------------------------------------


def test_a_summary_with_its_tokens_and_its_price():
    post = Scripted(said())
    assert post.ask() == [
        Summary(
            id="1",
            text="<plan>p</plan>",
            usage=Usage(requests=1, prompt_tokens=5, completion_tokens=7, cost=19.0),
        )
    ]
    assert post.asked == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "q c"}],
            "max_tokens": 512,
            "temperature": 0.0,
        }
    ]
    post.ask(tokens_field="max_completion_tokens", temperature=None)
    assert post.asked[1] == {
        "model": "m",
        "messages": [{"role": "user", "content": "q c"}],
        "max_completion_tokens": 512,
    }


STATED = Usage(requests=1, prompt_tokens=5, completion_tokens=7, cost=19.0)
GUESSED = Usage(requests=1, prompt_tokens=1, completion_tokens=2, cost=5.0, guessed=1)  # 3 and 7 characters


@pytest.mark.parametrize(
    ("reply", "text", "truncated", "usage"),
    [
        (said("<plan>p", finish_reason="length"), "<plan>p", True, STATED),
        (said(None), "", False, STATED),
        (said("\ud800p"), "?p", False, STATED),
        (said("x" * 7, usage=None), "x" * 7, False, GUESSED),
        (said("x" * 7, usage=(-1, 2)), "x" * 7, False, GUESSED),
    ],
)
def test_what_was_paid_is_a_summary_whatever_it_is_worth(reply, text, truncated, usage):
    assert Scripted(reply).ask() == [Summary(id="1", text=text, truncated=truncated, usage=usage)]


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        (
            status(200, "<html><body>Sign in</body></html>"),
            "the reply is not JSON: <html><body>Sign in</body></html>",
        ),
        (status(200, "[" * 100_000), "the reply is not JSON: " + "[" * 197 + "..."),
        (status(200, '{"choices": []}'), 'the reply has no choices[0].message.content: {"choices": []}'),
        (status(200, '{"choices": [{}]}'), 'the reply has no choices[0].message.content: {"choices": [{}]}'),
        (status(200, "[1]"), "the reply has no choices[0].message.content: [1]"),
        (said([{"type": "text"}]), None),
    ],
)
def test_nonsense_is_a_failure_and_not_asked_again(reply, detail):
    post = Scripted(reply)
    (failure,) = post.ask()
    assert (failure.kind, len(post.asked), failure.usage.requests) == ("nonsense", 1, 1)
    assert detail is None or failure.detail == detail


# asking again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "kind", "detail"),
    [
        (Unanswered("timeout", "no answer within 60 s"), "timeout", "no answer within 60 s"),
        (DOWN, "unreachable", "ConnectError: refused"),
        (status(500, "oh"), "server", "status 500: oh"),
        (status(503, "<html>\n busy </html>"), "server", "status 503: <html> busy </html>"),
        (status(429, "slow"), "rate_limit", "status 429: slow"),
    ],
)
def test_trouble_is_asked_again_and_then_told(trouble, kind, detail):
    post = Scripted(trouble)
    assert post.ask() == [Failure(id="1", kind=kind, detail=detail, usage=Usage(requests=3))]
    assert 0.5 <= post.slept[0] <= 1 <= post.slept[1] <= 2 and len(post.slept) == 2
    recovering = Scripted(trouble, trouble, said())
    (summary,) = recovering.ask()
    assert (summary.text, summary.usage.requests, summary.usage.cost) == ("<plan>p</plan>", 3, 19.0)


def test_retry_after_is_honoured_and_never_undercut():
    post = Scripted(status(429, retry_after="30"), said())
    post.ask()
    assert post.slept[0] == 30.0
    impatient = Scripted(status(429, "slow", retry_after="3600"), said())
    (failure,) = impatient.ask()
    assert failure.detail == "status 429: slow (asks to wait 3600 s, most_pause is 60 s)"
    assert len(impatient.asked) == 1


def test_what_concerns_one_item_leaves_the_others():
    post = Scripted(status(400, "too long"), said())
    first, second = post.ask(*named("1", "2"))
    assert first == Failure(id="1", kind="refused", detail="status 400: too long", usage=Usage(requests=1))
    assert second.text == "<plan>p</plan>"


@pytest.mark.parametrize("number", [301, 401, 403, 404])
def test_what_concerns_every_item_stops_the_run_at_once(number):
    post = Scripted(status(number, "sorry"))
    with pytest.raises(
        UserError,
        match=rf"http://there/v1/chat/completions answers status {number}: sorry. "
        rf"Check base_url",
    ):
        post.ask(*named(*"12345"))
    assert len(post.asked) == 1


def test_a_row_of_silence_stops_the_run():
    post = Scripted(DOWN)
    with pytest.raises(
        UserError,
        match=r"no usable answer for 3 items in a row \(failed 3\). The first, for "
        r"1: "
        "unreachable: ConnectError: refused. What was answered is kept; mend "
        "the settings, or raise give_up",
    ):
        post.ask(*named(*"123456789"), give_up=3, retries=0)
    assert len(post.asked) == 3


def test_nothing_is_asked_beyond_the_budget():
    post = Scripted(said())
    results = post.ask(*named("1", "2", "3"), most_cost=20)  # 19 each: the second passes it
    assert [type(r) for r in results] == [Summary, Summary, Failure]
    assert (results[2].kind, results[2].detail, len(post.asked)) == ("budget", "most_cost = 20 is spent", 2)


def test_the_estimate_counts_text_and_the_longest_answers():
    endpoint = Endpoint(spec(max_tokens=10), PROMPT, post=Scripted(said()))
    assert endpoint.estimate([ITEM, ITEM]) == Usage(
        requests=2, prompt_tokens=2, completion_tokens=20, cost=42.0, guessed=2
    )


def test_results_keep_the_order_of_the_items_under_concurrency():
    second_is_there = threading.Event()

    def post(body):
        name = body["messages"][0]["content"]
        if name == "q1 c":
            assert second_is_there.wait(10)
        else:
            second_is_there.set()
        return said(name)

    results = Endpoint(spec(concurrency=2), PROMPT, post=post).summarise(named("1", "2"))
    assert [(r.id, r.text) for r in results] == [("1", "q1 c"), ("2", "q2 c")]


def test_an_interrupt_keeps_what_is_under_way_and_begins_no_more(tmp_path):
    """Ctrl-C at the first of three, while the second is being answered: two lines in the cache, and the third
    is asked later."""
    asked, under_way, interrupted = [], threading.Event(), threading.Event()

    def post(body):
        asked.append(body["messages"][0]["content"])
        if asked[-1] == "q2 c":
            under_way.set()
            assert interrupted.wait(10)
        return said(asked[-1])

    def stop(result):
        if result.id == "1":
            assert under_way.wait(10)
            interrupted.set()
            raise KeyboardInterrupt

    path = tmp_path / "cache.jsonl"
    with (
        Cached(Endpoint(spec(concurrency=2), PROMPT, post=post), path) as cached,
        pytest.raises(KeyboardInterrupt),
    ):
        cached.summarise(named("1", "2", "3"), stop)
    assert sorted(asked) == ["q1 c", "q2 c"]
    with Cached(Endpoint(spec(), PROMPT, post=post), path) as cached:
        results = cached.summarise(named("1", "2", "3"))
    assert asked[2:] == ["q3 c"]
    assert [(r.text, r.cached) for r in results] == [("q1 c", True), ("q2 c", True), ("q3 c", False)]


# settings and the key ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"base_url": "there/v1"},
            "base_url is an address such as https://api.openai.com/v1, found 'there/v1'",
        ),
        ({"base_url": "http://me:pw@there"}, "base_url holds a user, a password or a query"),
        ({"model": ""}, "model is empty"),
        ({"concurrency": 0}, "concurrency is 0; it must be above 0"),
        ({"time_limit": float("inf")}, "time_limit is inf"),
        ({"price_in": -1}, "price_in is -1; it must be at least 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_settings_that_cannot_work(fields, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as error:
        spec(**fields)
    assert "pw" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "the environment variable PLANS_KEY is not set"),
        ("  ", "PLANS_KEY is not set"),
        ("sk-\x00secret", "holds characters that no key has"),
    ],
)
def test_a_key_that_is_not_there_is_found_before_anything_is_asked(monkeypatch, value, message):
    monkeypatch.delenv("PLANS_KEY", raising=False)
    environment = {} if value is None else {"PLANS_KEY": value}
    with pytest.raises(UserError, match=message) as error:
        spec(key_env="PLANS_KEY").key(environment)
    assert "secret" not in str(error.value)
    with pytest.raises(UserError, match="PLANS_KEY is not set"):
        Endpoint(spec(key_env="PLANS_KEY"))


def test_without_httpx_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(UserError, match=r"need httpx; install it with: pip install 'forethought\[distill\]'"):
        Endpoint(spec()).summarise([ITEM])


# pace -------------------------------------------------------------------------------------------------------


def test_turns_are_evenly_spaced_and_a_hold_is_for_all():
    now, slept = [100.0], []
    pace = Pace(30, slept.append, lambda: now[0])  # a turn every 2 s
    for _ in range(3):
        pace.wait()
    assert slept == [2.0, 4.0]  # the clock stands still: the second and the third of three callers
    now[0] = 200.0
    pace.hold(5)
    pace.wait()
    pace.wait()
    assert slept[2:] == [5.0, 7.0]
    free = Pace(0, slept.append, lambda: now[0])
    free.wait()
    free.wait()
    assert len(slept) == 4


def test_pauses_double_up_to_a_bound_and_repeat_with_their_seed():
    pauses = [backoff(attempt, 1.0, 10.0, seed=3) for attempt in range(6)]
    assert all(
        0.5 * whole <= pause <= whole for pause, whole in zip(pauses, [1, 2, 4, 8, 10, 10], strict=True)
    )
    assert (
        pauses
        == [backoff(attempt, 1.0, 10.0, seed=3) for attempt in range(6)]
        != [backoff(a, 1.0, 10.0, seed=4) for a in range(6)]
    )


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("Fri, 20 Nov 2026 12:01:00 GMT", 60.0),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("", 0.0),
        ("1.5", 0.0),
    ],
)
def test_what_retry_after_asks_for(header, seconds):
    assert retry_after({"retry-after": header}, lambda: datetime(2026, 11, 20, 12, tzinfo=UTC)) == seconds


# over a real connection -------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """(base_url, replies to give in turn, requests seen). A reply is (status, headers, body), or a function
    of the handler."""
    replies, seen = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, self.headers["authorization"], json.loads(body)))
            reply = replies.pop(0)
            if callable(reply):
                return reply(self)
            self.send_response(reply[0])
            for name, value in {"Content-Length": str(len(reply[2])), **reply[1]}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply[2].encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}/v1", replies, seen
        http.shutdown()


@pytest.fixture
def connected(server, monkeypatch):
    pytest.importorskip("httpx", reason="the extra `distill` is not installed")
    monkeypatch.setenv("PLANS_KEY", KEY)
    url, replies, seen = server
    return (
        replies,
        seen,
        lambda **fields: Endpoint(
            spec(base_url=url, key_env="PLANS_KEY", **fields), PROMPT, sleep=lambda seconds: None
        ),
    )


def test_over_http_with_a_rate_limit_and_a_key_that_stays_secret(connected, caplog):
    replies, seen, endpoint = connected
    caplog.set_level("DEBUG")
    replies += [
        (429, {"Retry-After": "1"}, "{}"),
        (500, {}, f"failed for {KEY}"),
        (200, {}, said().body),
        (401, {}, f"bad key {KEY}"),
    ]
    (summary,) = endpoint().summarise([ITEM])
    assert (summary.text, summary.usage.requests) == ("<plan>p</plan>", 3)
    assert seen[0][:2] == ("/v1/chat/completions", f"Bearer {KEY}") and len(seen) == 3
    with pytest.raises(UserError, match=r"status 401: bad key \*\*\*. Check base_url") as error:
        endpoint().summarise([ITEM])
    assert KEY not in str(error.value) + caplog.text


def test_a_server_that_hangs_drips_or_hangs_up(connected, caplog):
    replies, seen, endpoint = connected
    over = threading.Event()

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.05):  # never silent for as long as the limit
            handler.wfile.write(b" ")
            handler.wfile.flush()

    try:
        replies += [lambda handler: over.wait(10), drip, lambda handler: handler.connection.close()]
        found = [endpoint(time_limit=0.3, retries=0).summarise([ITEM])[0] for _ in range(3)]
    finally:
        over.set()
    assert [f.kind for f in found] == ["timeout", "timeout", "unreachable"]
    assert found[0].detail == found[1].detail == "no answer within 0.3 s"


def test_a_reply_without_end_is_cut_off(connected):
    replies, seen, endpoint = connected
    replies.append((200, {}, "x" * 4_000_001))
    (failure,) = endpoint(retries=0).summarise([ITEM])
    assert failure.detail == "a reply of more than 4,000,000 bytes"


def test_an_address_where_nobody_listens(connected, server):
    post = HttpPost("http://127.0.0.1:9/v1", "", 5, 1)  # the discard port
    with pytest.raises(Unanswered, match="ConnectError") as error:
        post({})
    assert error.value.kind == "unreachable"
    post.close()
