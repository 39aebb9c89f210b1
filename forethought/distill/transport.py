"""One POST to an OpenAI-compatible endpoint. The only place that imports httpx."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from forethought.errors import UserError

MOST_BYTES = 4_000_000  # of a reply; a summary is a few thousand


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
"""JSON body -> the reply, whatever its status. Raises Unanswered. Called from several threads."""


class HttpPost:
    """A `Post` to `url`, over connections that are kept. `time_limit`: seconds for a whole exchange, however slowly the bytes come."""

    def __init__(self, url: str, key: str, time_limit: float, connections: int, **options: Any):
        self._httpx = _httpx()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = self._httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = self._httpx.Client(headers=headers, timeout=time_limit, limits=limits, **options)
        self.url, self.time_limit = url, time_limit

    def __call__(self, body: Mapping[str, object]) -> Reply:
        end = time.monotonic() + self.time_limit
        try:
            with self._client.stream("POST", self.url, json=body) as response:
                read = bytearray()
                for piece in response.iter_bytes():
                    read += piece
                    if time.monotonic() > end:  # the client's own limit is for each read, not for all of them
                        raise self._httpx.ReadTimeout("the reply went on for too long")
                    if len(read) > MOST_BYTES:
                        raise Unanswered("unreachable", f"a reply of more than {MOST_BYTES:,} bytes")
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Reply(status=response.status_code, headers=headers, body=read.decode("utf-8", "replace"))
        except self._httpx.TimeoutException as error:
            raise Unanswered("timeout", f"no answer within {self.time_limit:g} s") from error
        except self._httpx.InvalidURL as error:
            raise UserError(f"{self.url!r} is no address: {error}") from error
        except self._httpx.HTTPError as error:
            raise Unanswered("unreachable", f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        self._client.close()


def _httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise UserError("summaries from an endpoint need httpx; install it with: pip install 'forethought[distill]'") from error
    return httpx
