"""When the next request may go: a rate limit for all threads, longer pauses after failures, and what
`Retry-After` asks for."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class Pace:
    """At most `per_minute` requests a minute, evenly spaced (0: no limit), from any number of threads."""

    def __init__(
        self, per_minute: float, sleep: Callable[[float], object], clock: Callable[[], float] = time.monotonic
    ):
        self.gap = 60 / per_minute if per_minute else 0.0
        self.sleep, self.clock = sleep, clock
        self._lock = threading.Lock()
        self._next = clock()

    def wait(self) -> None:
        """Returns when it is this caller's turn."""
        with self._lock:
            turn = max(self._next, self.clock())
            self._next = turn + self.gap
        if (pause := turn - self.clock()) > 0:
            self.sleep(pause)

    def hold(self, seconds: float) -> None:
        """No request is sent for so long: the endpoint has told us to wait."""
        with self._lock:
            self._next = max(self._next, self.clock() + seconds)


def backoff(attempt: int, first: float, most: float, seed: int) -> float:
    """Seconds before attempt + 1: first x 2^attempt, at most `most`, and of that between a half and all, so
    that many callers do not come back together. The same seed gives the same pauses."""
    return min(most, first * 2.0 ** min(attempt, 60)) * (
        0.5 + random.Random(f"{seed} {attempt}").random() / 2
    )


def retry_after(headers: Mapping[str, str], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float:
    """Seconds that the header asks for (RFC 9110, 10.2.3: a whole number or a date); 0 where it is absent or
    unreadable."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        when = parsedate_to_datetime(said)
    except (TypeError, ValueError, IndexError, OverflowError):  # and a time zone of more hours than there are
        return 0.0
    return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now()).total_seconds())
