"""The address that is asked, from the forms in which people give it; one that cannot work is refused while
the recipe is checked."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from forethought.core.errors import UserError

ENDING = "/chat/completions"
# of the same servers, for other questions
_OTHERS = ("/completions", "/responses", "/messages", "/embeddings", "/models")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def address_of(base_url: str) -> str:
    """`https://api.openai.com/v1`, with or without a slash at its end, white space around it, or ENDING, to
    the address of ENDING. Nothing is added before it: a server that wants /v1 is given with /v1. UserError
    naming the value."""
    said = base_url.strip()
    try:
        address = urlsplit(said)
        port = address.port
        if (
            address.username is not None
            or address.password is not None
            or address.query
            or address.fragment
            or said[-1:] in "?#"
        ):
            if said:
                raise UserError(
                    "base_url holds a user, a password or a query; give the address alone and "
                    "the key by key_env"
                )
        known = address.scheme in ("http", "https") and _is_host(address) and port != 0
    except ValueError:  # brackets without an address, a port that is none
        known = False
    if not known or not said.isascii() or re.search(r"[^!-~]|[\\\"<>^`{|}]", said):
        raise UserError(f"base_url is an address such as https://api.openai.com/v1, found {_shown(base_url)}")
    path = address.path.rstrip("/")
    path = path[: -len(ENDING)].rstrip("/") if path.lower().endswith(ENDING) else path
    if other := next((ending for ending in _OTHERS if path.lower().endswith(ending)), None):
        raise UserError(
            f"base_url ends in {other}, found {_shown(base_url)}; leave the ending off: {ENDING} is added to "
            "it"
        )
    return f"{address.scheme}://{address.netloc.removesuffix(':')}{path}{ENDING}"


def _is_host(address: SplitResult) -> bool:
    """A name, an IPv4 address, or an IPv6 address in brackets."""
    host = address.hostname or ""
    if "[" in address.netloc or ":" in host:
        # ValueError for what is no address
        return "%" not in host and ipaddress.ip_address(host).version == 6
    return len(host) <= 253 and all(map(_LABEL.fullmatch, host.removesuffix(".").split(".")))


def _shown(value: str) -> str:
    """A password in it is not."""
    said = ascii(re.sub(r"//[^/@]*@", "//***@", value))
    return said if len(said) <= 100 else said[:97] + "..."
