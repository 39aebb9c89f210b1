"""The settings of an endpoint, and its key, which is read from the environment and shown nowhere."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from forethought.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """Any server that answers POST {base_url}/chat/completions as OpenAI's does. UserError for a setting that cannot work."""

    base_url: str  # up to and including /v1
    model: str
    key_env: str = "OPENAI_API_KEY"  # the environment variable that holds the key; empty: the server wants none
    temperature: float | None = 0.0  # None: not sent (some models refuse it)
    max_tokens: int = 512
    tokens_field: str = "max_tokens"  # newer OpenAI models call it max_completion_tokens
    time_limit: float = 60.0  # seconds, of one request
    retries: int = 5  # after the first attempt, on 408, 429, 5xx, time-outs and broken connections
    first_pause: float = 1.0  # seconds before the first retry; it doubles
    most_pause: float = 60.0  # seconds; an endpoint that asks for a longer one is not asked again for this item
    per_minute: float = 0.0  # requests; 0: no limit of our own
    concurrency: int = 8
    price_in: float = 0.0  # per million tokens
    price_out: float = 0.0
    most_cost: float = 0.0  # nothing is asked once this much is spent, so it is passed by at most `concurrency` requests; 0: no limit
    give_up: int = 20  # items in a row without an answer after which the run stops

    def __post_init__(self) -> None:
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise UserError(f"base_url is an address such as https://api.openai.com/v1, found {self.base_url!r}")
        if address.username or address.password or address.query:
            raise UserError("base_url holds a user, a password or a query; give the address alone and the key by key_env")
        if not self.model:
            raise UserError("model is empty; give the name under which the endpoint serves it")
        for name in ("max_tokens", "time_limit", "concurrency", "give_up"):
            self._need(name, above=0)
        for name in ("retries", "first_pause", "most_pause", "per_minute", "price_in", "price_out", "most_cost"):
            self._need(name)
        if self.temperature is not None:
            self._need("temperature")

    def _need(self, name: str, above: float | None = None) -> None:
        value = getattr(self, name)
        if not math.isfinite(value) or value < 0 or value == above:
            raise UserError(f"{name} is {value!r}; it must be {'above 0' if above == 0 else 'at least 0'} and finite")

    @property
    def url(self) -> str:
        return f"{self.base_url.rstrip('/')}/chat/completions"

    def price(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6

    def key(self, environment: Mapping[str, str] = os.environ) -> str:
        """UserError naming the variable, never its value."""
        if not self.key_env:
            return ""
        key = environment.get(self.key_env, "").strip()
        if not key:
            raise UserError(f"the environment variable {self.key_env} is not set; set it to the endpoint's key, "
                            f'or give key_env = "" for a server that wants none')
        if not key.isascii() or not key.isprintable():
            raise UserError(f"the environment variable {self.key_env} holds characters that no key has; set it again")
        return key
