"""Plans from any OpenAI-compatible endpoint: several requests at once, retried where that can help, counted and paid for once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace

from forethought.distill.endpoint_spec import EndpointSpec
from forethought.distill.pace import Pace, backoff, retry_after
from forethought.distill.prompts import Prompt
from forethought.distill.records import Done, Failure, Item, Summary, Usage, nothing
from forethought.distill.transport import HttpPost, Post, Reply, Unanswered
from forethought.errors import UserError
from forethought.rollout import seed_of

CHARACTERS = 3.5  # of English text a token: for estimates, and where a reply does not say how many tokens it took
_AGAIN = {408, 429, *range(500, 600)}
_THIS_ITEM = {400, 413, 422}  # about what was asked; every other status is about how, and so about every item


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trouble:
    """An attempt that may go better next time, and the seconds the endpoint asks us to wait."""

    kind: str
    detail: str
    told: float = 0.0


class Endpoint:
    """A `Summariser`. `post` and `sleep` are for tests; by default httpx, and a sleep that an interrupt cuts short.

    Ctrl-C, or a failure that concerns every item, lets the requests under way finish (each within its time limit), hands their
    results to `done`, so that a cache keeps what was paid, and begins no other.
    """

    name = "endpoint"

    def __init__(self, spec: EndpointSpec, prompt: Prompt = Prompt(), *, post: Post | None = None,
                 sleep: Callable[[float], object] | None = None):
        self.spec, self._prompt = spec, prompt
        self.model, self.prompt = spec.model, prompt.template
        self.settings: Mapping[str, object] = {"base_url": spec.base_url, "temperature": spec.temperature, "max_tokens": spec.max_tokens}
        self._key = spec.key() if post is None else ""
        self._given = post
        self._stop = threading.Event()
        self._sleep = sleep or self._stop.wait
        self._lock = threading.Lock()
        self._spent = 0.0
        self._silent = 0  # items in a row without an answer

    def estimate(self, items: Sequence[Item]) -> Usage:
        """One request an item, with as many tokens as its text suggests and the longest answer allowed."""
        prompt_tokens = sum(self._guess(self._prompt.plain(item)) for item in items)
        answers = self.spec.max_tokens * len(items)
        return Usage(requests=len(items), prompt_tokens=prompt_tokens, completion_tokens=answers,
                     cost=self.spec.price(prompt_tokens, answers), guessed=len(items))

    def summarise(self, items: Sequence[Item], done: Done = nothing) -> list[Summary | Failure]:
        if not items:
            return []
        self._stop.clear()
        self._silent = 0
        post = self._given or HttpPost(self.spec.url, self._key, self.spec.time_limit, self.spec.concurrency)
        pace = Pace(self.spec.per_minute, self._sleep)
        try:
            return self._all(items, done, lambda item: self._watched(post, pace, item))
        finally:
            if isinstance(post, HttpPost):
                post.close()

    def _all(self, items: Sequence[Item], done: Done, ask: Callable[[Item], Summary | Failure]) -> list[Summary | Failure]:
        results: dict[int, Summary | Failure] = {}
        with ThreadPoolExecutor(self.spec.concurrency, thread_name_prefix="endpoint") as pool:
            places = {pool.submit(ask, item): place for place, item in enumerate(items)}
            try:
                for future in as_completed(places):  # ends: every attempt has a time limit, and attempts are counted
                    result = results[places[future]] = future.result()
                    done(result)
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                for future, place in places.items():
                    if place not in results and not future.cancelled() and future.exception() is None:
                        done(future.result())
                raise
        return [results[place] for place in range(len(items))]

    def _watched(self, post: Post, pace: Pace, item: Item) -> Summary | Failure:
        """All attempts for one item, and a stop to all threads when they show that no item will be answered."""
        try:
            result = self._one(post, pace, item)
            if isinstance(result, Failure) and result.kind in ("budget", "stopped"):
                return result
            with self._lock:
                self._silent = self._silent + 1 if isinstance(result, Failure) else 0
                lost = self._silent == self.spec.give_up
            if lost:
                raise UserError(f"{self.spec.url} gave no usable answer for {self.spec.give_up} items in a row, the last time: "
                                f"{result.detail}. What was answered is kept; mend the settings and start again")
            return result
        except BaseException:
            self._stop.set()
            raise

    def _one(self, post: Post, pace: Pace, item: Item) -> Summary | Failure:
        spec, usage = self.spec, Usage()
        trouble = _Trouble(kind="stopped", detail="the run was stopped before this item was asked for")
        for attempt in range(spec.retries + 1):
            pace.wait()
            if self._stop.is_set():
                break
            if spec.most_cost and self._spent >= spec.most_cost:
                return Failure(id=item.id, kind="budget", detail=f"most_cost = {spec.most_cost:g} is spent", usage=usage)
            usage += Usage(requests=1)
            outcome = self._attempt(post, item)
            if not isinstance(outcome, _Trouble):
                return replace(outcome, usage=outcome.usage + usage)
            trouble = outcome
            if attempt == spec.retries or trouble.told > spec.most_pause:
                break
            pace.hold(trouble.told)
            self._sleep(max(trouble.told, backoff(attempt, spec.first_pause, spec.most_pause, seed_of(item.id))))
        return Failure(id=item.id, kind=trouble.kind, detail=trouble.detail, usage=usage)

    def _attempt(self, post: Post, item: Item) -> Summary | Failure | _Trouble:
        body: dict[str, object] = {"model": self.spec.model, "messages": self._prompt.messages(item),
                                   self.spec.tokens_field: self.spec.max_tokens}
        if self.spec.temperature is not None:
            body["temperature"] = self.spec.temperature
        try:
            reply = post(body)
        except Unanswered as error:
            return _Trouble(kind=error.kind, detail=self._hide(str(error)))
        if reply.status == 200:
            return self._read(item, reply)
        said = f"status {reply.status}: {self._hide(_start(reply.body))}"
        if reply.status in _AGAIN:
            told = retry_after(reply.headers)
            asks = f" (asks to wait {told:g} s, most_pause is {self.spec.most_pause:g} s)" if told > self.spec.most_pause else ""
            return _Trouble(kind="rate_limit" if reply.status == 429 else "server", detail=said + asks, told=told)
        if reply.status in _THIS_ITEM:
            return Failure(id=item.id, kind="refused", detail=said)
        raise UserError(f"{self.spec.url} answers {said}. Check base_url, model and the key in {self.spec.key_env or 'key_env'}")

    def _read(self, item: Item, reply: Reply) -> Summary | Failure:
        """A reply of status 200. An empty text is a summary too, which was paid for and which the filter drops."""
        try:
            said = json.loads(reply.body)
        except (ValueError, RecursionError):
            return Failure(id=item.id, kind="nonsense", detail=f"the reply is no JSON: {self._hide(_start(reply.body))}")
        usage = self._usage(item, said)
        with self._lock:
            self._spent += usage.cost
        choices = said.get("choices") if isinstance(said, dict) else None
        first = choices[0] if isinstance(choices, list) and choices else None
        message = first.get("message") if isinstance(first, dict) else None
        if not isinstance(message, dict) or not isinstance(message.get("content"), str | None):
            detail = f"the reply has no choices[0].message.content: {self._hide(_start(reply.body))}"
            return Failure(id=item.id, kind="nonsense", detail=detail, usage=usage)
        text = (message.get("content") or "").encode("utf-8", "replace").decode()  # JSON can hold half a character, files cannot
        return Summary(id=item.id, text=text, truncated=first.get("finish_reason") == "length", usage=usage)

    def _usage(self, item: Item, said: object) -> Usage:
        """The tokens that the reply states, else what its text suggests. The request itself is counted by who sent it."""
        stated = said.get("usage") if isinstance(said, dict) else None
        counts = [stated.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(stated, dict) else []
        guessed = len(counts) < 2 or not all(type(n) is int and n >= 0 for n in counts)
        if guessed:
            counts = [self._guess(self._prompt.plain(item)), 0]
            with suppress(TypeError, KeyError, IndexError):
                counts[1] = self._guess(said["choices"][0]["message"]["content"])
        return Usage(prompt_tokens=counts[0], completion_tokens=counts[1], cost=self.spec.price(*counts), guessed=int(guessed))

    def _guess(self, text: str) -> int:
        return round(len(text) / CHARACTERS)

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _start(body: str, most: int = 200) -> str:
    text = " ".join(body.split())
    return text if len(text) <= most else text[: most - 3] + "..."
