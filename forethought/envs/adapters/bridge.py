"""An event loop of an adapter's own, on a thread of its own: what its sessions share (connections, processes)
lives there, whoever asks for it and from where."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

LEAVE = 2.0  # seconds that what still runs has to end when the loop is stopped
LAST = 12.0  # seconds that the last coroutine has: it may wait for processes to end


class Bridge:
    """The loop begins with the first coroutine, and ends with `stop`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="adapter", daemon=True)
            self._thread.start()
        return self._loop

    def run(self, coroutine: Coroutine[Any, Any, Any], seconds: float | None = None) -> Any:
        """The value of a coroutine on the loop, waited for here. TimeoutError after `seconds`; where the
        waiting is interrupted, the coroutine is cancelled."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(seconds)
        except BaseException:
            future.cancel()
            raise

    async def there(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The same, awaited on another loop. Cancelling it cancels the coroutine."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    def stop(self, last: Coroutine[Any, Any, Any] | None = None) -> None:
        """Run `last` (LAST seconds), cancel what still runs, and end the loop and its thread."""
        if self._loop is None or self._thread is None:
            if last is not None:
                last.close()
            return
        with suppress(Exception):
            if last is not None:
                self.run(last, LAST)
        with suppress(Exception):
            self.run(_cancel_others(), LEAVE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LEAVE)
        if not self._thread.is_alive():
            self._loop.close()
        self._loop = self._thread = None


def once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The value of a coroutine, on a loop of its own: also where the caller stands on one already, as in a
    notebook."""
    bridge = Bridge()
    try:
        return bridge.run(coroutine)
    finally:
        bridge.stop()


async def _cancel_others() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=LEAVE / 2)
