"""A server that answers as endpoints do on their worst days: name -> what it sends, and how that has to end.

A behaviour is bytes, a function of the connection, or a list of them, one a request. It ends as a plan that
is kept, as one item that is dropped with a reason, or as an error that names what to do.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

KEY = "sk-very-secret-and-long"
PLAN = "<plan>1. Find the parts.\n2. Add them.</plan>"
MOST = 20_000  # bytes of a reply, in the test
SECONDS = 0.3  # of a request that a slow server is given, in the test
NASTY = "\x1b]0;title\x07\u202e\x1b[2J"

Play = bytes | Callable[[socket.socket], object]


@dataclass(frozen=True)
class Behaviour:
    plays: Sequence[Play]
    ends: str  # kept | a reason to drop | error
    says: str = ""  # a part of the detail or of the message
    slow: bool = False


def kept(*plays: Play) -> Behaviour:
    return Behaviour(plays, "kept")


def dropped(reason: str, says: str, *plays: Play, slow: bool = False) -> Behaviour:
    return Behaviour(plays, reason, says, slow)


def error(says: str, *plays: Play) -> Behaviour:
    return Behaviour(plays, "error", says)


# bytes ------------------------------------------------------------------------------------------------------


def http(body: bytes | str, status: str = "200 OK", *headers: str, length: bool = True) -> bytes:
    raw = body if isinstance(body, bytes) else body.encode()
    lines = [
        f"HTTP/1.1 {status}",
        "Connection: close",
        *headers,
        *([f"Content-Length: {len(raw)}"] if length else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + raw


def chat(content: object = PLAN, finish: object = "stop", usage: object = None, **message: object) -> str:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **message},
        "finish_reason": finish,
    }
    return json.dumps({"choices": [choice], "usage": usage or {"prompt_tokens": 5, "completion_tokens": 7}})


def ok(content: object = PLAN, **fields: object) -> bytes:
    return http(chat(content, **fields))


def with_usage(text: str) -> bytes:
    return http(chat().replace('{"prompt_tokens": 5, "completion_tokens": 7}', text))


def packed(body: bytes, encoding: str) -> bytes:
    return http(body, "200 OK", f"Content-Encoding: {encoding}")


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + end


def bomb(times: int, size: int = 3_000_000) -> bytes:
    data = b" " * size
    for _ in range(times):
        data = gzip.compress(data)
    return data


# functions of a connection ----------------------------------------------------------------------------------


def drip(*pieces: bytes, before: bytes = b"", every: float = 0.05, for_ever: bytes = b"") -> Play:
    """Never silent for as long as the limit of a request, and never done before it."""

    def play(connection: socket.socket) -> None:
        connection.sendall(before)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(every)
        end = time.monotonic() + 20 * SECONDS
        while for_ever and time.monotonic() < end:
            connection.sendall(for_ever)
            time.sleep(every)

    return play


def flood(before: bytes, again: bytes) -> Play:
    """As fast as it goes, until the other side hangs up."""

    def play(connection: socket.socket) -> None:
        connection.sendall(before)
        end = time.monotonic() + 20 * SECONDS
        while time.monotonic() < end:
            connection.sendall(again * (1 + 20_000 // len(again)))

    return play


def silent(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.settimeout(20 * SECONDS)
        while connection.recv(65536):
            pass


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST


def reset_late(connection: socket.socket) -> None:
    connection.sendall(http(chat(), "200 OK", "Content-Length: 9999", length=False))
    reset(connection)


def echo_key(connection: socket.socket) -> None:
    connection.sendall(ok(PLAN.replace("parts", f"parts {KEY}")))


HOSTILE: dict[str, Behaviour] = {
    # thinking
    "think before": kept(ok(f"<think>\nTwo parts.\n</think>\n\n{PLAN}")),
    "think empty": kept(ok(f"<think>\n\n</think>\n\n{PLAN}")),
    "think opened by the prompt": kept(ok(f"Two parts.\n</think>\n{PLAN}")),
    "think with a draft plan": kept(ok(f"<think>Maybe <plan>7</plan>? No.</think>{PLAN}")),
    "think twice": kept(ok(f"<think>a</think> <think>b</think>{PLAN}")),
    "thinking tag": kept(ok(f"<thinking>a</thinking>{PLAN}")),
    "THINK in brackets": kept(ok(f"[THINK]a[/THINK]{PLAN}")),
    "channels": kept(
        ok(f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{PLAN}")
    ),
    "think unclosed": dropped(
        "empty", "thinking without an answer", ok("<think>Two parts. <plan>draft</plan>")
    ),
    "think cut off": dropped(
        "truncated", "thinking without an answer", ok("<think>Two parts", finish="length")
    ),
    "think behind": dropped("unparsed", "a think section beside", ok(f"{PLAN}<think>a</think>")),
    "reasoning_content and content": kept(ok(PLAN, reasoning_content="Two parts.")),
    "reasoning_content alone": dropped(
        "empty", "stands in reasoning_content", ok(None, reasoning_content=PLAN)
    ),
    "reasoning alone, cut off": dropped(
        "truncated", "stands in reasoning;", ok("", reasoning="a b c", finish="length")
    ),
    # contents
    "parts": kept(ok([{"type": "text", "text": PLAN[:9]}, {"type": "text", "text": PLAN[9:]}])),
    "parts with thinking": kept(
        ok(
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                {"type": "text", "text": PLAN},
            ]
        )
    ),
    "parts of plain text": kept(ok([PLAN])),
    "parts of thinking alone": dropped(
        "empty", "parts of thinking", ok([{"type": "thinking", "thinking": "Hm"}])
    ),
    "parts that are refused": dropped(
        "empty", "the model refused: I will not", ok([{"type": "refusal", "refusal": "I will not"}])
    ),
    "parts without text": dropped(
        "failed", "no choices[0].message.content", ok([{"type": "image_url", "image_url": {}}])
    ),
    "parts of numbers": dropped("failed", "no choices[0].message.content", ok([1, 2])),
    "content a number": dropped("failed", "no choices[0].message.content", ok(5)),
    "content an object": dropped("failed", "no choices[0].message.content", ok({"text": PLAN})),
    "content null": dropped("empty", "the summary is empty", ok(None)),
    "content blank": dropped("empty", "the summary is empty", ok(" \n")),
    "content of escapes": dropped("unparsed", "nothing may stand outside", ok(NASTY + PLAN)),
    "tool calls": dropped(
        "empty",
        "called tools",
        ok(None, tool_calls=[{"id": "1", "function": {"name": "f"}}], finish="tool_calls"),
    ),
    "refusal": dropped("empty", "the model refused: no", ok(None, refusal="no" + NASTY)),
    "filtered": dropped("empty", "was filtered", ok(None, finish="content_filter")),
    "cut off": dropped("truncated", "ran out", ok("<plan>1. Find", finish="length")),
    "finish of another type": kept(ok(finish=["stop"])),
    "lone surrogate": kept(ok("<plan>Add \ud800 them.</plan>")),
    "non-ASCII": kept(
        http(
            json.dumps(
                {"choices": [{"message": {"content": "<plan>Füge 数 zusammen.</plan>"}}]}, ensure_ascii=False
            )
        )
    ),
    "two choices": kept(http(json.dumps({"choices": [{"message": {"content": PLAN}}, {"message": 5}]}))),
    "the key in the text": kept(echo_key),
    # JSON
    "10^400 tokens": kept(with_usage('{"prompt_tokens": 1' + "0" * 400 + ', "completion_tokens": 7}')),
    "5,000 digits": kept(with_usage('{"prompt_tokens": ' + "9" * 5000 + "}")),
    "NaN tokens": kept(with_usage('{"prompt_tokens": NaN, "completion_tokens": Infinity}')),
    "negative tokens": kept(with_usage('{"prompt_tokens": -1, "completion_tokens": 7}')),
    "tokens of other types": kept(with_usage('{"prompt_tokens": true, "completion_tokens": "7"}')),
    "usage a list": kept(with_usage("[[]]")),
    "usage null": kept(with_usage("null")),
    "BOM": kept(http("\ufeff" + chat())),
    "UTF-16": kept(http(chat().encode("utf-16"))),
    "not UTF-8": kept(http(chat("<plan>Add the x.</plan>").encode().replace(b"x", b"\xff"))),
    "a key twice": kept(http(chat().replace('"index"', '"message": 5, "index"'))),
    "deep": dropped("failed", "not JSON", http("[" * 9_000 + "]" * 9_000)),
    "deep beside the text": dropped(
        "failed", "not JSON", http(chat().replace('"index": 0', '"index": ' + "[" * 9_000 + "]" * 9_000))
    ),
    "no JSON": dropped("failed", "not JSON: <html>", http("<html>Sign in</html>")),
    "escapes for JSON": dropped("failed", "not JSON: \\x1b]0;title\\x07\\u202e", http(NASTY)),
    "half of the JSON": dropped("failed", "not JSON", http(chat()[:-20])),
    "nothing": dropped("failed", "not JSON", http("")),
    "a stream": dropped(
        "failed",
        "not JSON",
        http("data: {}\n\ndata: [DONE]\n\n", "200 OK", "Content-Type: text/event-stream"),
    ),
    "a list": dropped("failed", "no choices[0]", http("[1]")),
    "no choices": dropped("failed", "no choices[0]", http('{"choices": []}')),
    "choices an object": dropped("failed", "no choices[0]", http('{"choices": {"0": 1}}')),
    "message a text": dropped(
        "failed", "no choices[0]", http('{"choices": [{"message": "' + PLAN.replace("\n", " ") + '"}]}')
    ),
    "an error under 200": dropped(
        "failed", "an error under status 200", http('{"error": {"message": "no", "code": 402}}')
    ),
    "an error in a choice": dropped(
        "failed", "an error under status 200", http('{"choices": [{"error": "broken"}]}')
    ),
    "busy under 200, then well": kept(http('{"error": {"code": 503}}'), ok()),
    # statuses
    "429, then well": kept(http("{}", "429 Slow", "Retry-After: 0"), ok()),
    "429 with a date long ago": kept(
        http("{}", "429 Slow", "Retry-After: Fri, 20 Nov 2020 12:00:00 GMT"), ok()
    ),
    "429 with a bad time zone": kept(
        http("{}", "429 Slow", "Retry-After: Fri, 20 Nov 2020 12:00:00 +99999999999999"), ok()
    ),
    "429 with garbage": kept(http("{}", "429 Slow", "Retry-After: -5e999", "Retry-After: soon"), ok()),
    "429 for a year": dropped(
        "failed", "asks to wait 31536000 s", http("{}", "429 Slow", "Retry-After: 31536000")
    ),
    "429 of 5,000 digits": dropped(
        "failed", "asks to wait 999999999 s", http("{}", "429 Slow", f"Retry-After: {'9' * 5000}")
    ),
    "502 of HTML, then well": kept(http("<html>", "502 Bad"), ok()),
    "500 with escapes": dropped("failed", "status 500: \\x1b]0;title\\x07", http(NASTY, "500 Oh")),
    "400": dropped("failed", "refused: status 400: too long", http("too long", "400 Bad")),
    "401 with escapes and the key": error(
        "status 401: \\x1b]0;title\\x07\\u202e\\x1b[2J ***. Check base_url", http(f"{NASTY} {KEY}", "401 No")
    ),
    "401 with the key over the edge": error("***", http("a" * 190 + KEY + "b" * 99, "401 No")),
    "404": error("status 404: no. Check base_url", http("no", "404 No")),
    "a redirect": error(
        "this one leads to http://169.254.169.254/", http("", "307 Go", "Location: http://169.254.169.254/")
    ),
    "a redirect to escapes": error("leads to /\\x9b2J", http("", "302 Go", "Location: /\x9b2J")),
    "204": error("status 204", http("", "204 None")),
    "status 999": error("status 999", http("", "999 What")),
    # encodings
    "gzip": kept(packed(gzip.compress(chat().encode()), "gzip")),
    "deflate": kept(packed(zlib.compress(chat().encode()), "deflate")),
    "deflate without a header": kept(packed(raw_deflate(chat().encode()), "deflate")),
    "identity": kept(packed(chat().encode(), "identity")),
    "a bomb of gzip": dropped("failed", "more than 20,000 bytes", packed(bomb(1), "gzip")),
    "a bomb of gzip in gzip": dropped("failed", "encoded as gzip, gzip", packed(bomb(2), "gzip, gzip")),
    "two headers of gzip": dropped(
        "failed", "encoded as gzip, gzip", http(bomb(2), "200 OK", *["Content-Encoding: gzip"] * 2)
    ),
    "a bomb of deflate": dropped(
        "failed", "more than 20,000 bytes", packed(zlib.compress(b" " * 3_000_000), "deflate")
    ),
    "br": dropped("failed", "encoded as br", packed(b"\x0b\x02\x80" * 50, "br")),
    "zstd": dropped("failed", "encoded as zstd", packed(b"\x28\xb5\x2f\xfd" * 50, "zstd")),
    "an encoding of escapes": dropped("failed", "encoded as \\x9b2j", packed(b"{}", "\x9b2J")),
    "no gzip": dropped("failed", "no gzip", packed(b"hello hello hello", "gzip")),
    "half of the gzip": dropped(
        "failed", "gzip breaks off", packed(gzip.compress(chat().encode())[:-30], "gzip")
    ),
    # lengths and chunks
    "chunks": kept(chunked(chat().encode()[:10], chat().encode()[10:])),
    "chunks without end": dropped("failed", "unreachable", chunked(chat().encode(), end=b"")),
    "a chunk of garbage": dropped("failed", "unreachable", chunked(b"{}", end=b"xyz\r\n\r\n")),
    "a chunk of 16^15": dropped("failed", "unreachable", chunked(end=b"fffffffffffffff\r\n{}")),
    "without length": kept(http(chat(), length=False)),
    "shorter than it says": dropped(
        "failed", "unreachable", http(chat(), "200 OK", "Content-Length: 9999", length=False)
    ),
    "a length of garbage": dropped(
        "failed", "unreachable", http(chat(), "200 OK", "Content-Length: ten", length=False)
    ),
    "a length below 0": dropped(
        "failed", "unreachable", http(chat(), "200 OK", "Content-Length: -1", length=False)
    ),
    "a body without end": dropped("failed", "more than 20,000 bytes", flood(http("", length=False), b"x")),
    "chunks without number": dropped(
        "failed", "more than 20,000 bytes", flood(chunked(end=b""), b"1\r\nx\r\n")
    ),
    "too long": dropped("failed", "more than 20,000 bytes", http(chat(PLAN + " " * MOST))),
    # headers
    "many headers": dropped(
        "failed", "headers of more than", http(chat(), "200 OK", *[f"X-{i}: {'y' * 50}" for i in range(1500)])
    ),
    "a header without end": dropped("failed", "unreachable", flood(b"HTTP/1.1 200 OK\r\nX: ", b"y")),
    "headers without end": dropped("failed", "unreachable", flood(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")),
    "100 without end": dropped("failed", "timeout", flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), slow=True),
    "100, then well": kept(b"HTTP/1.1 100 Continue\r\n\r\n" + ok()),
    "no HTTP": dropped("failed", "unreachable", b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a status of letters": dropped("failed", "unreachable", b"HTTP/1.1 abc\r\n\r\n"),
    "escapes in the first line": dropped(
        "failed", "unreachable", b"HTTP/1.1 200 \x1b]0;t\x07 OK\r\nX\x1b: y\r\n\r\n"
    ),
    "NUL bytes": dropped("failed", "unreachable", b"\0" * 999),
    # time
    "silence": dropped("failed", "timeout: no answer within 0.3 s", silent, slow=True),
    "slow headers": dropped(
        "failed", "timeout", drip(before=b"HTTP/1.1 200 OK\r\n", for_ever=b"X: y\r\n"), slow=True
    ),
    "slow letters of a header": dropped(
        "failed", "timeout", drip(before=b"HTTP/1.1 200 OK\r\nX: ", for_ever=b"y"), slow=True
    ),
    "slow body": dropped("failed", "timeout", drip(before=http("", length=False), for_ever=b" "), slow=True),
    "slow chunks": dropped(
        "failed", "timeout", drip(before=chunked(end=b""), for_ever=b"1\r\nx\r\n"), slow=True
    ),
    "slow 100": dropped("failed", "timeout", drip(for_ever=b"HTTP/1.1 100 Continue\r\n\r\n"), slow=True),
    "slow, but done in time": kept(drip(*(ok()[i : i + 40] for i in range(0, len(ok()), 40)), every=0.001)),
    "silence, then well": Behaviour([silent, ok()], "kept", slow=True),
    # connections
    "hangs up": dropped("failed", "unreachable", b""),
    "resets": dropped("failed", "unreachable", reset),
    "resets, then well": kept(reset, ok()),
    "resets in the body": dropped("failed", "unreachable", reset_late),
    "two answers at once": kept(ok() + ok("<plan>Another.</plan>")),
}


@contextmanager
def serving(
    plays: Sequence[Play], requests: list[bytes] | None = None, listener: socket.socket | None = None
) -> Iterator[str]:
    """The base_url of a server that plays them in turn, one a connection, the last one for ever. `requests`
    gets what was asked."""
    waiting = list(plays)

    def answer(connection: socket.socket) -> None:
        request = _read_request(connection)
        play = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if requests is not None:
            requests.append(request)
        _play(connection, play)

    with _accepting(listener or socket.create_server(("127.0.0.1", 0)), answer) as port:
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def serving_tcp(play: Play) -> Iterator[str]:
    """host:port of a server that waits for some bytes, whatever they are, and plays."""
    with _accepting(socket.create_server(("127.0.0.1", 0)), lambda c: (c.recv(1), _play(c, play))) as port:
        yield f"127.0.0.1:{port}"


@contextmanager
def _accepting(listener: socket.socket, answer: Callable[[socket.socket], object]) -> Iterator[int]:
    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            answer(connection)

    def accept() -> None:
        with suppress(OSError):  # the listener is closed: the end
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    with listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _play(connection: socket.socket, play: Play) -> None:
    if not isinstance(play, bytes):
        play(connection)
        if play in (reset, reset_late):
            return
    else:
        connection.sendall(play)
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(1)
    connection.recv(1)  # so that the last bytes are read before the connection is gone


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := connection.recv(65536)):
            raise OSError("hung up before it asked")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
