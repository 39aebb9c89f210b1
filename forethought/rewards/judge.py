"""A model behind an OpenAI-compatible endpoint as a reward function. It is asked by the client of the
distillation (`stages/distill`): several requests at once, a rate limit, retries, a cache on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from forethought.core.errors import UserError
from forethought.stages.distill.cache import Cached
from forethought.stages.distill.endpoint import Endpoint
from forethought.stages.distill.endpoint_spec import EndpointSpec
from forethought.stages.distill.prompts import Prompt
from forethought.stages.distill.records import Failure, Item, Summary, Usage
from forethought.stages.distill.transport import Post

SYSTEM = (
    "You judge the answer of another model. Think briefly if you must, and end with one line that holds one "
    "number from {low:g} to {high:g} and nothing else: {high:g} is best."
)
SETTINGS = (
    *("endpoint", "model", "prompt", "scale", "system", "cache"),
    *(field.name for field in fields(EndpointSpec) if field.name not in ("base_url", "model")),
)
"""What a judge can be told in a recipe."""
NEVER = 10**9  # items in a row without an answer after which the client would give up
_FIELD = re.compile(r"\{(\w+)\}")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Judge:
    """`judge(prompts=..., completions=..., **columns)` -> a score from 0 to 1 for each completion, or None
    where the judge gave none.

    `prompt`: what the judge reads, with {prompt}, {completion} and any column in braces. `scale`: the least
    and the most that it may say; a number outside is no score. `cache`: a JSONL file of answers, which are
    paid for once. `settings`: those of `EndpointSpec` (key_env, per_minute, concurrency, retries, time_limit,
    price_in, price_out, most_cost, ...). Metrics, where they can be logged: judge/requests, judge/tokens,
    judge/cost, judge/failed. UserError for a setting or a key that cannot work; what an answer is like, and
    an endpoint that does not answer, is no error: `silence` then says so, and of the `asked` completions all
    have `failed`. `post` is for tests."""

    def __init__(
        self,
        endpoint: str,
        model: str,
        prompt: str = "{prompt}\n\nThe answer:\n{completion}",
        scale: tuple[float, float] = (0, 10),
        *,
        system: str = SYSTEM,
        cache: str | Path = "judge-cache.jsonl",
        post: Post | None = None,
        sleep: Callable[[float], object] | None = None,
        **settings: Any,
    ):
        self.low, self.high = scale
        if not self.low < self.high:
            raise UserError(f"scale goes from the least to the most, found {scale!r}")
        if "completion" not in _FIELD.findall(prompt):
            raise UserError("the prompt of a judge says {completion} where the answer is to stand")
        self.prompt, self.cache = prompt, Path(cache)
        spec = EndpointSpec(base_url=endpoint, model=model, **{"give_up": NEVER} | settings)
        for name, value in (("{low:g}", self.low), ("{high:g}", self.high)):
            system = system.replace(name, f"{value:g}")
        said = Prompt(system, "{question}{chain}")  # the whole text is ours; the client fills in two parts
        self.asked = self.failed = 0
        self._client = Endpoint(
            spec, said, judge=lambda item, result: "", post=post, sleep=sleep, hang_up=True
        )

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """A score for each completion. Equal ones are asked about once."""
        lists = {name: values for name, values in columns.items() if isinstance(values, list)}
        items = [
            Item(id=str(i), question=self._asked(i, prompts[i], completions[i], lists), chain="", answer="")
            for i in range(len(completions))
        ]
        cached = Cached(self._client, self.cache)
        try:
            results = cached.summarise(items)
        finally:
            cached.close()
        scores = [self._score(result) for result in results]
        sent = [r for r in results if isinstance(r, Failure) or not r.cached]
        if sent:
            self.asked = len(sent)
            self.failed = sum(isinstance(result, Failure) for result in sent)
        if log_metric is not None:
            for name, value in _counts(results, scores).items():
                log_metric(f"judge/{name}", value)
        return scores

    @property
    def silence(self) -> str:
        """What to say of an endpoint that answered nothing when it was last asked; "" of another."""
        if not self._client.dead or self.failed < self.asked:
            return ""
        return f"the judge at {self._client.spec.url} did not answer: {self._client.dead}"

    def _asked(self, i: int, prompt: Any, completion: Any, lists: dict[str, list[Any]]) -> str:
        said = {name: values[i] for name, values in lists.items() if i < len(values)}
        said |= {"prompt": _text(prompt), "completion": _text(completion)}
        return _FIELD.sub(lambda found: str(said.get(found[1], found[0])), self.prompt)

    def _score(self, result: Summary | Failure) -> float | None:
        """The last number that was said, from 0 to 1."""
        numbers = _NUMBER.findall(result.text) if isinstance(result, Summary) else []
        value = float(numbers[-1]) if numbers else None
        if value is None or not self.low <= value <= self.high:
            return None
        return (value - self.low) / (self.high - self.low)


def _text(said: Any) -> str:
    """Of messages, what was said, a line each."""
    if isinstance(said, str):
        return said
    return "\n".join(str(message["content"]) for message in said)


def _counts(results: Sequence[Summary | Failure], scores: Sequence[float | None]) -> dict[str, float]:
    spent = Usage()
    for result in results:
        if isinstance(result, Failure) or not result.cached:
            spent += result.usage
    return {
        "requests": float(spent.requests),
        "tokens": float(spent.prompt_tokens + spent.completion_tokens),
        "cost": spent.cost,
        "failed": float(scores.count(None)),
    }
