"""Whether the Hugging Face hub can be asked from here: its own client tries for half a minute before it says
that there is no network."""

from __future__ import annotations

import os
import queue
import socket
import threading
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

SECONDS = 3.0
HUB = "https://huggingface.co"
WAYS = (
    "give a folder, or fetch it where there is a network (hf download NAME --local-dir DIR); HF_ENDPOINT is "
    "a mirror, HTTPS_PROXY a proxy"
)


@cache
def unreachable() -> str:
    """Why the hub cannot be reached, in words; "" where it answers. Takes a few seconds at most, and is asked
    once a process."""
    address = urlsplit(os.environ.get("HF_ENDPOINT") or HUB)
    proxy = getproxies().get(address.scheme)
    through = urlsplit(proxy) if proxy and not proxy_bypass(address.hostname or "") else address
    host, port = through.hostname or "", through.port or (80 if through.scheme == "http" else 443)
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask() -> None:
        try:
            socket.create_connection((host, port), SECONDS).close()
            answers.put("")
        except (OSError, ValueError) as error:
            answers.put(f"{host} cannot be reached ({getattr(error, 'strerror', '') or error})")

    # a name server that is not there lets one wait for long, whatever the limit
    threading.Thread(target=ask, name="hub", daemon=True).start()
    try:
        return answers.get(timeout=SECONDS + 1)
    except queue.Empty:
        return f"{host} does not answer within {SECONDS:g} s"
