"""Plans from any OpenAI-compatible endpoint: several requests at once, retried where that can help, counted
and paid for once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from forethought.core.errors import UserError
from forethought.core.seeds import seed_of
from forethought.display.show import printable
from forethought.stages.distill.asking import Asker, Trouble, guess
from forethought.stages.distill.endpoint_spec import EndpointSpec
from forethought.stages.distill.filter import FilterSpec, judge
from forethought.stages.distill.pace import Pace, backoff
from forethought.stages.distill.prompts import Prompt
from forethought.stages.distill.records import Done, Drop, Failure, Item, Summary, Usage, nothing
from forethought.stages.distill.transport import HttpPost, Post

Judge = Callable[[Item, Summary | Failure], str | Drop]
"""An item and its result -> its plan, or why there is none to train on. Called from the thread that called
`summarise`."""
_SILENT = ("unreachable", "timeout", "server")  # troubles of a server that is not there, or is broken


class Endpoint:
    """A `Summariser`. `judge` says which answers are of use, so that a run of useless ones ends at `give_up`;
    by default the filter with its usual bounds. `post` and `sleep` are for tests; by default httpx, and a
    sleep that an interrupt cuts short.

    `hang_up`: where nothing has been answered and one item has used up its retries, another one is asked
    once; if that fails too, no more are, and `dead` says what the trouble was. The next call then tries
    again, with one retry for its first item, until something is answered.

    Ctrl-C, or a failure that concerns every item, lets the requests under way finish (each within its time
    limit), hands their results to `done`, so that a cache keeps what was paid, and begins no other. A second
    Ctrl-C hangs up on those under way.
    """

    name = "endpoint"

    def __init__(
        self,
        spec: EndpointSpec,
        prompt: Prompt = Prompt(),
        *,
        judge: Judge | None = None,
        post: Post | None = None,
        sleep: Callable[[float], object] | None = None,
        hang_up: bool = False,
    ):
        self.spec, self._prompt = spec, prompt
        self._hang_up, self._answered, self._lost, self.dead = hang_up, False, 0, ""
        self.model, self.prompt = spec.model, prompt.template
        self.settings: Mapping[str, object] = {
            "base_url": spec.base_url,
            "temperature": spec.temperature,
            "max_tokens": spec.max_tokens,
        }
        self._key = spec.key() if post is None else ""
        self._ask = Asker(spec, prompt, self._key)
        self._given = post
        self._judge = judge or _usual
        self._stop = threading.Event()
        self._sleep = sleep or self._stop.wait
        self._lock, self._retries, self._items = threading.Lock(), spec.retries, 0
        self._spent = 0.0
        self._useless: list[Drop] = []  # of the items in a row that gave no plan

    def estimate(self, items: Sequence[Item]) -> Usage:
        """One request per item, with as many tokens as its text suggests and the longest answer allowed."""
        prompt_tokens = sum(guess(self._prompt.plain(item)) for item in items)
        answers = self.spec.max_tokens * len(items)
        return Usage(
            requests=len(items),
            prompt_tokens=prompt_tokens,
            completion_tokens=answers,
            cost=self.spec.price(prompt_tokens, answers),
            guessed=len(items),
        )

    def summarise(self, items: Sequence[Item], done: Done = nothing) -> list[Summary | Failure]:
        """One result for each item, in order; several requests at once, at most `per_minute`."""
        if not items:
            return []
        self._stop.clear()
        self._useless.clear()
        self._items = len(items)
        self._answered, self._lost, before, self.dead = False, 0, self.dead, ""
        self._retries = min(1, self.spec.retries) if before else self.spec.retries
        post = self._given or HttpPost(self.spec.url, self._key, self.spec.time_limit, self.spec.concurrency)
        pace = Pace(self.spec.per_minute, self._sleep)
        try:
            return self._all(
                items, done, lambda item: self._watched(post, pace, item), getattr(post, "cut", lambda: None)
            )
        finally:
            if isinstance(post, HttpPost):
                post.close()

    def _all(
        self,
        items: Sequence[Item],
        done: Done,
        ask: Callable[[Item], Summary | Failure],
        cut: Callable[[], object],
    ) -> list[Summary | Failure]:
        """An item is begun when another is done and told, so what a kill loses is what is under way, and no
        more."""
        results: dict[int, Summary | Failure] = {}
        under_way: dict[Future[Summary | Failure], int] = {}
        waiting = iter(enumerate(items))
        with ThreadPoolExecutor(self.spec.concurrency, thread_name_prefix="endpoint") as pool:

            def begin(most: int) -> None:
                under_way.update((pool.submit(ask, item), place) for place, item in islice(waiting, most))

            try:
                begin(self.spec.concurrency)
                while under_way:  # ends: every attempt has a time limit, and attempts are counted
                    for future in sorted(
                        wait(under_way, return_when=FIRST_COMPLETED).done, key=under_way.__getitem__
                    ):
                        place = under_way[future]
                        results[place] = future.result()
                        done(results[place])
                        del under_way[future]
                        self._count(items[place], results[place])
                        begin(1)
            except BaseException:
                self._stop.set()
                try:
                    pool.shutdown(cancel_futures=True)
                except KeyboardInterrupt:
                    cut()
                    pool.shutdown()
                for future in under_way:
                    if not future.cancelled() and future.exception() is None:
                        with suppress(KeyboardInterrupt):
                            done(future.result())
                raise
        return [results[place] for place in range(len(items))]

    def _count(self, item: Item, result: Summary | Failure) -> None:
        """UserError where so many items in a row gave no plan that the next ones will give none."""
        if isinstance(result, Failure) and result.kind in ("budget", "stopped"):
            return
        judged = self._judge(item, result)
        if not isinstance(judged, Drop):
            self._useless.clear()
            return
        self._useless.append(judged)
        if len(self._useless) < self.spec.give_up:
            return
        first, counts = self._useless[0], Counter(drop.reason for drop in self._useless)
        text = f", in {printable(repr(self._ask.start(first.text)))}" if first.text else ""
        raise UserError(
            f"{self.spec.url} gave no usable answer for {len(self._useless)} items in a row "
            f"({', '.join(f'{reason} {n}' for reason, n in counts.items())}). The first, for "
            f"{printable(first.id)}: {self._ask.safe(first.detail, 300)}{text}. What was answered is kept; "
            "mend the settings, or raise give_up, and start again"
        )

    def _lose(self, trouble: Trouble) -> None:
        """An item has had all its attempts, and no item an answer: that may be the item. Two in a row are the
        endpoint."""
        if self._hang_up and not self._answered and trouble.kind in _SILENT:
            self._lost += 1
            if self._lost == min(2, self._items):
                self.dead = trouble.detail

    def _watched(self, post: Post, pace: Pace, item: Item) -> Summary | Failure:
        """All attempts for one item, and a stop to all threads when one of them shows that no item will be
        answered."""
        try:
            return self._one(post, pace, item)
        except BaseException:
            self._stop.set()
            raise

    def _one(self, post: Post, pace: Pace, item: Item) -> Summary | Failure:
        spec, usage = self.spec, Usage()
        trouble = Trouble(kind="stopped", detail="the run was stopped before this item was asked for")
        for attempt in range(self._retries + 1):
            pace.wait()
            if self._stop.is_set():
                break
            if self.dead:
                trouble = Trouble(kind="unasked", detail=self.dead)
                break
            if spec.most_cost and self._spent >= spec.most_cost:
                return Failure(
                    id=item.id, kind="budget", detail=f"most_cost = {spec.most_cost:g} is spent", usage=usage
                )
            usage += Usage(requests=1)
            outcome = self._ask.attempt(post, item)
            if not isinstance(outcome, Trouble):
                self._answered, self._lost = True, 0
                with self._lock:
                    self._spent += outcome.usage.cost
                return replace(outcome, usage=outcome.usage + usage)
            trouble = outcome
            if attempt == self._retries or trouble.wait > spec.most_pause or self._lost:
                self._lose(trouble)
                break
            pace.hold(trouble.wait)
            self._sleep(
                max(trouble.wait, backoff(attempt, spec.first_pause, spec.most_pause, seed_of(item.id)))
            )
        return Failure(id=item.id, kind=trouble.kind, detail=trouble.detail, usage=usage)


def _usual(item: Item, result: Summary | Failure) -> str | Drop:
    return judge(item, result, FilterSpec())
