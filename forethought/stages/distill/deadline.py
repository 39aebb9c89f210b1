"""Connections that end at a moment, not at a silence: name look-up, connect, TLS, every read and every write
of a request share one limit.

httpcore, as other clients, has a limit for each read. A server that sends a byte now and then, in its headers
too, keeps such a client for ever. Here the seconds that are left are worked out before each operation.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_PIECE = 4096  # bytes of one write: each has the time that is left, so none can stretch it by much


class Deadline:
    """What httpcore calls a network backend. `httpcore`: the module. One for all threads; each thread has the
    limit of its own request, set by `within`."""

    def __init__(self, httpcore: Any):
        self._httpcore = httpcore
        self._inner = httpcore.SyncBackend()
        self._of_thread = threading.local()
        self._open: set[Stream] = set()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Whatever this thread does on a connection inside ends `seconds` from now."""
        self._of_thread.end = time.monotonic() + seconds
        try:
            yield
        finally:
            del self._of_thread.end

    def left(self, over: type[Exception]) -> float:
        """Seconds; `over` is raised where there are none."""
        seconds = self._of_thread.end - time.monotonic()
        if seconds <= 0:
            raise over("the time limit of the request is over")
        return seconds

    def cut(self) -> None:
        """Close all connections now, so that no thread waits on one any more. May be called from any
        thread."""
        for stream in list(self._open):
            with suppress(OSError):
                socket.socket.shutdown(stream.get_extra_info("socket"), socket.SHUT_RDWR)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> Stream:
        """Connect to the first address that answers before the deadline."""
        over = self._httpcore.ConnectTimeout
        trouble: Exception = self._httpcore.ConnectError(f"no address for {host}")
        for address in self._addresses(host, port):
            try:
                return Stream(
                    self._inner.connect_tcp(address, port, self.left(over), local_address, socket_options),
                    self,
                )
            except self._httpcore.ConnectError as error:  # the next address of the same name may answer
                trouble = error
        raise trouble

    def sleep(self, seconds: float) -> None:
        """Sleep, at most to the deadline."""
        time.sleep(min(seconds, self.left(self._httpcore.ConnectTimeout)))

    def _addresses(self, host: str, port: int) -> list[str]:
        """The system's look-up knows no limit, so it runs in a thread that may outlast us."""
        found: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()
        threading.Thread(
            target=_look_up, args=(host, port, found.put), name="endpoint-name", daemon=True
        ).start()
        try:
            result = found.get(timeout=self.left(self._httpcore.ConnectTimeout))
        except queue.Empty:
            raise self._httpcore.ConnectTimeout(f"no address for {host} in time") from None
        if isinstance(result, Exception):
            raise self._httpcore.ConnectError(f"no address for {host}: {result}")
        return result


class Stream:
    """What httpcore calls a network stream."""

    def __init__(self, inner: Any, deadline: Deadline):
        self._inner, self._deadline, self._httpcore = inner, deadline, deadline._httpcore
        deadline._open.add(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read, at most to the deadline."""
        return self._inner.read(max_bytes, self._deadline.left(self._httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write in pieces, each at most to the deadline."""
        for start in range(0, len(buffer), _PIECE):
            self._inner.write(
                buffer[start : start + _PIECE], self._deadline.left(self._httpcore.WriteTimeout)
            )

    def close(self) -> None:
        """Close the connection and forget it."""
        self._deadline._open.discard(self)
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        """The same connection under TLS, at most to the deadline."""
        left = self._deadline.left(self._httpcore.ConnectTimeout)
        try:
            return Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._deadline)
        finally:
            self._deadline._open.discard(self)

    def get_extra_info(self, info: str) -> Any:
        """What the inner stream knows, such as its socket."""
        return self._inner.get_extra_info(info)


def _look_up(host: str, port: int, put: Callable[[list[str] | Exception], None]) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))
    except (OSError, UnicodeError) as error:  # no such name; a name that cannot be one
        put(error)
