"""Every hostile reply ends as a plan that is kept, one item that is dropped, or an error with its reason: in
time, and in little memory."""

from __future__ import annotations

import gzip
import queue
import re
import socket
import threading
import zlib
from dataclasses import replace

import pytest
from hostile_server import (
    HOSTILE,
    KEY,
    MOST,
    NASTY,
    PLAN,
    SECONDS,
    http,
    ok,
    reset,
    serving,
    serving_tcp,
    silent,
)

from forethought.core.errors import UserError
from forethought.stages.distill import transport
from forethought.stages.distill.body import Body, Unreadable
from forethought.stages.distill.endpoint import Endpoint
from forethought.stages.distill.endpoint_spec import EndpointSpec
from forethought.stages.distill.filter import Drops, FilterSpec, admit
from forethought.stages.distill.records import Item

real = socket.getaddrinfo

ITEM = Item(
    id="1", question="Of two parts one has 3 and one 4. How many are there?", chain="3 + 4 = 7", answer="7"
)


@pytest.fixture
def held(monkeypatch):
    """The most bytes of a body that were held at a time; replies and headers have small limits."""
    pytest.importorskip("httpx", reason="the extra `distill` is not installed")
    sizes, feed = [0], Body.feed

    def counted(body, piece):
        try:
            feed(body, piece)
        finally:
            sizes.append(len(body.data))

    monkeypatch.setattr(Body, "feed", counted)
    monkeypatch.setattr(transport, "MOST_BYTES", MOST)
    monkeypatch.setenv("PLANS_KEY", KEY)
    return sizes


def in_time(work, seconds: float = 30):
    """What `work` returns or raises; a hang is an error and not a hang of the tests."""
    ended: queue.SimpleQueue = queue.SimpleQueue()

    def run():
        try:
            ended.put((work(), None))
        except BaseException as error:
            ended.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    result, error = ended.get(timeout=seconds)  # queue.Empty: it hangs
    if error is not None:
        raise error
    return result


def asked(base_url: str, attempts: int, slow: bool):
    spec = EndpointSpec(
        base_url=base_url,
        model="m",
        key_env="PLANS_KEY",
        retries=attempts - 1,
        first_pause=0.0,
        concurrency=1,
        price_in=1.0,
        time_limit=SECONDS if slow else 20.0,
    )
    return in_time(lambda: Endpoint(spec, sleep=lambda seconds: None).summarise([ITEM]))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_reply_has_an_end(name, held):
    behaviour, drops = HOSTILE[name], Drops(1)
    with serving(behaviour.plays) as base_url:
        if behaviour.ends == "error":
            with pytest.raises(UserError) as caught:
                asked(base_url, len(behaviour.plays), behaviour.slow)
            ended, said = "error", str(caught.value)
        else:
            results = asked(base_url, len(behaviour.plays), behaviour.slow)
            rows = admit([ITEM], results, FilterSpec(), drops)
            ended, said = (
                ("kept", rows[0].plan) if rows else (drops.examples[0].reason, drops.examples[0].detail)
            )
    assert (ended, behaviour.says in said) == (behaviour.ends, True), said
    assert max(held) <= MOST + 1
    assert not any(KEY[:12] in text for text in (said, repr(drops.examples)))
    assert all(c.isprintable() or (c == "\n" and ended == "kept") for c in said)


def test_the_table_is_long():
    assert len(HOSTILE) >= 60 and {b.ends for b in HOSTILE.values()} >= {
        "kept",
        "error",
        "failed",
        "empty",
        "truncated",
        "unparsed",
    }


@pytest.mark.parametrize(
    ("name", "bomb"),
    [
        ("gzip", gzip.compress(b" " * 30_000_000)),
        ("deflate", zlib.compress(b" " * 30_000_000)),
        ("", b" " * 30_000_000),
        ("gzip", gzip.compress(b"") * 100_000),  # many members: what stands behind the first is none of it
    ],
)
@pytest.mark.parametrize("piece", [100, 65536])
def test_a_body_never_holds_more_than_its_limit(name, bomb, piece):
    body, most = Body(name, 5000), 0
    with pytest.raises(Unreadable, match="a reply of more than 5,000 bytes"):
        for start in range(0, len(bomb), piece):
            body.feed(bomb[start : start + piece])
            most = max(most, len(body.data))
    assert max(most, len(body.data)) <= 5001


@pytest.fixture
def plain(held, monkeypatch):
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    return lambda base_url, **fields: in_time(
        lambda: Endpoint(
            EndpointSpec(base_url=base_url, model="m", key_env="PLANS_KEY", retries=0, **fields)
        ).summarise([ITEM])[0]
    )


@pytest.mark.parametrize(
    ("play", "detail"), [(b"HTTP/1.1 200 OK\r\n\r\n", "SSL"), (silent, "no answer within 0.3 s")]
)
def test_a_server_that_speaks_no_tls(plain, play, detail):
    with serving_tcp(play) as address:
        assert detail in plain(f"https://{address}", time_limit=SECONDS).detail


def test_a_name_that_nobody_answers_for(plain, monkeypatch):
    """The system's look-up has no limit of its own."""
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [] if over.wait(20) else [])
    failure = plain("http://nowhere.invalid/v1", time_limit=SECONDS)
    over.set()
    assert (failure.kind, failure.detail) == ("timeout", "no answer within 0.3 s")


def test_a_name_that_is_none_and_addresses_that_refuse(plain, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    failure = plain("http://nowhere.invalid/v1")
    assert (failure.kind, "Name or service not known" in failure.detail) == ("unreachable", True)


def test_the_next_address_of_a_name_is_tried(plain, monkeypatch):
    with serving([ok()]) as base_url:
        port = int(base_url.split(":")[2].split("/")[0])
        # nobody listens on .2
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, *args, **kw: found if host == "two.invalid" else real(host, *args, **kw),
        )
        assert plain(base_url.replace("127.0.0.1", "two.invalid")).text == PLAN


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ("{}/v1/", "/v1"),
        (" {}/v1/chat/completions ", "/v1"),
        ("{}", ""),
        ("{}/a/v1/chat/completions/", "/a/v1"),
    ],
)
def test_forms_of_the_address(plain, form, path):
    requests = []
    with serving([ok()], requests) as base_url:
        assert plain(form.format(base_url.removesuffix("/v1"))).text == PLAN
        assert requests[0].startswith(
            f"POST {path}/chat/completions HTTP/1.1\r\nHost: {base_url[7:-3]}\r\n".encode()
        )
    assert b"Accept-Encoding: identity" in requests[0]


def test_an_ipv6_address(plain):
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    requests = []
    with serving([ok()], requests, listener):
        port = listener.getsockname()[1]
        assert plain(f"http://[::1]:{port}/v1").text == PLAN
    assert f"\r\nHost: [::1]:{port}\r\n".encode() in requests[0]


# proxies ----------------------------------------------------------------------------------------------------


def test_a_proxy_of_the_environment_is_used_and_its_password_stays_secret(plain, monkeypatch):
    requests = []
    with serving([ok(), http(NASTY, "407 Proxy\x9b2J"), b""], requests) as base_url:
        monkeypatch.setenv(
            "http_proxy", base_url.replace("http://", "http://me:pass%40word@").removesuffix("/v1")
        )
        assert plain("http://far.invalid/v1").text == PLAN
        assert requests[0].startswith(b"POST http://far.invalid/v1/chat/completions HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic bWU6cGFzc0B3b3Jk" in requests[0]
        with pytest.raises(UserError, match="status 407") as caught:
            plain("http://far.invalid/v1")
        failure = plain("http://far.invalid/v1")
    assert failure.kind == "unreachable"
    assert not any(word in str(caught.value) + failure.detail for word in ("pass", "bWU6", "\x1b", "\x9b"))


@pytest.mark.parametrize(
    "proxy", ["socks5://me:password@there:1", "http://me:password@[", "http://me:password@there:port"]
)
def test_a_proxy_that_cannot_be_used(plain, monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(
        UserError, match="the proxy of the environment for http is no .*; mend HTTP_PROXY"
    ) as caught:
        plain("http://far.invalid/v1")
    assert "password" not in str(caught.value)


# give_up ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("play", "reason"),
    [
        (ok("I would add them." + NASTY), "unparsed 5"),
        (ok("<plan>It is 3 + 4.</plan>"), "calculation 5"),
        (ok("<plan>It is 7.</plan>"), "answer 5"),
        (ok(""), "empty 5"),
        (ok("<plan>Add", finish="length"), "truncated 5"),
        (http("no"), "failed 5"),
        (reset, "failed 5"),
    ],
)
def test_give_up_counts_every_kind_of_drop(held, play, reason):
    requests = []
    items = [replace(ITEM, id=f"{i}\x1b") for i in range(30)]
    with serving([play], requests) as base_url, pytest.raises(UserError) as caught:
        spec = EndpointSpec(base_url=base_url, model="m", key_env="", retries=0, give_up=5, concurrency=2)
        in_time(lambda: Endpoint(spec).summarise(items))
    assert re.search(
        rf"gave no usable answer for 5 items in a row \({reason}\). The first, for "
        rf"[01]\\x1b: ",
        str(caught.value),
    )
    assert str(caught.value).isprintable() and 5 <= len(requests) <= 6
    if reason == "unparsed 5":
        assert "in 'I would add them.\\x1b]0;title" in str(caught.value)


def test_one_plan_among_useless_answers_begins_the_row_anew(held):
    requests = []
    with serving([*[ok("no")] * 4, ok(), *[ok("no")] * 4, ok()], requests) as base_url:
        spec = EndpointSpec(base_url=base_url, model="m", key_env="", retries=0, give_up=5, concurrency=1)
        assert (
            len(in_time(lambda: Endpoint(spec).summarise([replace(ITEM, id=str(i)) for i in range(12)])))
            == 12
        )
