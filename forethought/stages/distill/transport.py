"""One POST to an OpenAI-compatible endpoint. The only place that imports httpx and httpcore, the part of it
that carries requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import forethought
from forethought.core.errors import UserError
from forethought.stages.distill.body import Body, Unreadable
from forethought.stages.distill.deadline import Deadline

MOST_BYTES = 4_000_000  # of a reply, after decompression too; a summary is a few thousand
MOST_HEADERS = 64_000  # bytes of names and values


class Unanswered(Exception):
    """No reply: out of time, or no connection. Asking again may help."""

    def __init__(self, kind: str, detail: str):
        self.kind = kind  # timeout | unreachable
        super().__init__(detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: str


Post = Callable[[Mapping[str, object]], Reply]
"""JSON body -> the reply, whatever its status. Raises Unanswered and Unreadable. Called from several
threads."""


class HttpPost:
    """A `Post` to `url`, over connections that are kept. `time_limit`: seconds for a whole exchange, from the
    look-up of the name to the last byte, however slowly they come. Redirects are not followed: the key goes
    to `url` alone. A proxy is taken from the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY).
    UserError for one that cannot be used."""

    def __init__(self, url: str, key: str, time_limit: float, connections: int):
        httpx, self._httpcore = _modules()
        self.url, self.time_limit = url, time_limit
        self._deadline = Deadline(self._httpcore)
        self._headers = [
            ("Host", urlsplit(url).netloc),
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", f"forethought/{forethought.__version__}"),
            *([("Authorization", f"Bearer {key}")] if key else []),
        ]
        self._pool = _pool(
            self._httpcore,
            url,
            {
                "ssl_context": httpx.create_ssl_context(),
                "max_connections": connections,
                "max_keepalive_connections": connections,
                "network_backend": self._deadline,
            },
        )

    def __call__(self, body: Mapping[str, object]) -> Reply:
        # ASCII: half a character in a question is an escape here, and no error
        sent = json.dumps(body).encode()
        try:
            with self._deadline.within(self.time_limit):
                return self._exchange(sent)
        except self._httpcore.TimeoutException:
            raise Unanswered("timeout", f"no answer within {self.time_limit:g} s") from None
        except (
            self._httpcore.NetworkError,
            self._httpcore.ProtocolError,
            self._httpcore.ProxyError,
            OSError,
        ) as error:
            raise Unanswered("unreachable", f"{type(error).__name__}: {error}") from None

    def _exchange(self, sent: bytes) -> Reply:
        limits = {"timeout": {"pool": self.time_limit}}
        with self._pool.stream(
            "POST", self.url, headers=self._headers, content=sent, extensions=limits
        ) as response:
            headers = _read_headers(response.headers)
            body = Body(headers.get("content-encoding", ""), MOST_BYTES)
            for piece in response.iter_stream():
                body.feed(piece)
                self._deadline.left(self._httpcore.ReadTimeout)  # one read can hold many pieces
        raw = body.whole()
        return Reply(
            status=response.status, headers=headers, body=raw.decode(json.detect_encoding(raw), "replace")
        )

    def cut(self) -> None:
        """Requests under way end now, unanswered."""
        self._deadline.cut()

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


def _read_headers(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    if sum(len(name) + len(value) for name, value in pairs) > MOST_HEADERS:
        raise Unreadable(f"headers of more than {MOST_HEADERS:,} bytes")
    headers: dict[str, str] = {}
    for name, value in pairs:
        key, said = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {said}" if key in headers else said
    return headers


def _pool(httpcore: Any, url: str, options: Mapping[str, Any]) -> Any:
    address = urlsplit(url)
    proxies = getproxies()
    said = proxies.get(address.scheme) or proxies.get("all")
    if not said or proxy_bypass(address.netloc):
        return httpcore.ConnectionPool(**options)
    try:
        proxy = urlsplit(said if "://" in said else f"http://{said}")
        port = f":{proxy.port}" if proxy.port else ""
    except ValueError:
        raise _bad_proxy(address.scheme, "no address") from None
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        raise _bad_proxy(address.scheme, "no http:// or https:// address")
    host = f"[{proxy.hostname}]" if ":" in proxy.hostname else proxy.hostname
    auth = (
        (unquote(proxy.username).encode(), unquote(proxy.password or "").encode()) if proxy.username else None
    )
    return httpcore.HTTPProxy(proxy_url=f"{proxy.scheme}://{host}{port}", proxy_auth=auth, **options)


def _bad_proxy(scheme: str, what: str) -> UserError:
    """The address is not shown: it may hold a password."""
    return UserError(
        f"the proxy of the environment for {scheme} is {what}; mend {scheme.upper()}_PROXY or ALL_PROXY, or "
        "name the endpoint's host in NO_PROXY"
    )


def _modules() -> tuple[Any, Any]:
    try:
        import httpcore
        import httpx
    except ImportError as error:
        raise UserError(
            "summaries from an endpoint need httpx; install it with: pip install 'forethought[distill]'"
        ) from error
    return httpx, httpcore
