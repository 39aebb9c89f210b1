"""The settings of an endpoint, and its key, which is read from the environment and shown nowhere."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forethought.core.errors import UserError
from forethought.stages.distill.address import address_of

_ABOVE = 1e-9
# whole number or not, least, most: beyond them sleeps, sockets and sums break
_BOUNDS: dict[str, tuple[type, float, float]] = {
    "max_tokens": (int, 1, 10_000_000),
    "time_limit": (float, _ABOVE, 86_400),
    "retries": (int, 0, 1000),
    "first_pause": (float, 0, 86_400),
    "most_pause": (float, 0, 86_400),
    "per_minute": (float, 0, 1e6),
    "concurrency": (int, 1, 1024),
    "price_in": (float, 0, 1e9),
    "price_out": (float, 0, 1e9),
    "most_cost": (float, 0, 1e12),
    "give_up": (int, 1, 10**9),
    "temperature": (float, 0, 100),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """Any server that answers POST {base_url}/chat/completions as OpenAI's does. UserError for a setting that
    cannot work."""

    base_url: str  # up to and including /v1; the whole address that ends in /chat/completions is taken too
    model: str
    # the environment variable that holds the key; empty: the server wants none
    key_env: str = "OPENAI_API_KEY"
    temperature: float | None = 0.0  # None: not sent (some models refuse it)
    max_tokens: int = 512  # of an answer; a model that reasons needs them for its thinking too
    tokens_field: str = "max_tokens"  # newer OpenAI models call it max_completion_tokens
    time_limit: float = 60.0  # seconds, of one request: from the look-up of the name to the last byte
    retries: int = 5  # after the first attempt, on 408, 429, 5xx, time-outs and broken connections
    first_pause: float = 1.0  # seconds before the first retry; it doubles
    # seconds; an endpoint that asks for a longer one is not asked again for this item
    most_pause: float = 60.0
    per_minute: float = 0.0  # requests; 0: no limit of our own
    concurrency: int = 8
    price_in: float = 0.0  # per million tokens
    price_out: float = 0.0
    # nothing is asked once this much is spent, so it is passed by at most `concurrency` requests; 0: no limit
    most_cost: float = 0.0
    give_up: int = 20  # items in a row that gave no plan, for whatever reason, after which the run stops

    def __post_init__(self) -> None:
        for name in ("base_url", "model", "key_env", "tokens_field"):
            if not isinstance(value := getattr(self, name), str):
                raise UserError(f"{name} must be text, found {_shown(value)}")
        address_of(self.base_url)
        if not self.model.strip():
            raise UserError("model is empty; give the name under which the endpoint serves it")
        if self.key_env and not re.fullmatch(r"[A-Za-z_]\w*", self.key_env, re.ASCII):
            raise UserError(
                "key_env is the name of an environment variable, such as OPENAI_API_KEY; what "
                "was given is none"
            )
        if not re.fullmatch(r"[A-Za-z_]\w*", self.tokens_field, re.ASCII) or self.tokens_field in (
            "model",
            "messages",
            "temperature",
        ):
            raise UserError(
                f"tokens_field is max_tokens or max_completion_tokens, found {_shown(self.tokens_field)}"
            )
        for name in _BOUNDS:
            if name != "temperature" or self.temperature is not None:
                self._need(name)

    def _need(self, name: str) -> None:
        value: Any = getattr(self, name)
        kind, least, most = _BOUNDS[name]
        is_number = isinstance(value, int | kind) and not isinstance(value, bool)
        if not is_number:
            raise UserError(
                f"{name} must be a {'whole ' if kind is int else ''}number, found {_shown(value)}"
            )
        if not least <= value <= most:  # NaN is neither
            lowest = "above 0" if least in (1, _ABOVE) else "at least 0"
            raise UserError(f"{name} is {_shown(value)}; it must be {lowest} and at most {most:,.0f}")

    @property
    def url(self) -> str:
        """Full address of the chat completions."""
        return address_of(self.base_url)

    def price(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Cost in the currency of `price_in` and `price_out`, which are per million tokens."""
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6

    def key(self, environment: Mapping[str, str] = os.environ) -> str:
        """UserError naming the variable, never its value."""
        if not self.key_env:
            return ""
        key = environment.get(self.key_env, "").strip()
        if not key:
            raise UserError(
                f"the environment variable {self.key_env} is not set; set it to the endpoint's key, "
                f'or give key_env = "" for a server that wants none'
            )
        if not key.isascii() or not key.isprintable():
            raise UserError(
                f"the environment variable {self.key_env} holds characters that no key has; set it again"
            )
        return key


def _shown(value: object) -> str:
    try:
        said = ascii(value)
    except (ValueError, RecursionError):  # a whole number of more digits than Python writes
        return f"a {type(value).__name__} that is too large to show"
    return said if len(said) <= 100 else said[:97] + "..."
