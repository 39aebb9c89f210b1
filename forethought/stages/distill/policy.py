"""Plans from a policy of an engine: the model that is trained (PTA-GRPO, arXiv 2510.01833, finds
self-summaries nearly as good as those of a much larger model), or any other local model in an engine of its
own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forethought.core.seeds import seed_of
from forethought.core.types import Completion, Request
from forethought.engines.base import BASE, Engine
from forethought.interface.tags import Tags
from forethought.stages.distill.prompts import Prompt
from forethought.stages.distill.records import Done, Failure, Item, Summary, Usage, nothing
from forethought.tasks.sections import PLAN, tags_of


class Policy:
    """`summarise` asks `policy` for one plan per item, `batch` items per call.

    `model` names the weights for cache and provenance (a path and a step); the policy's version is added to
    it. The context ends with the opening tag, so that the model is already inside its plan, and the closing
    tag is the stop. A model without a chat template reads plain text. Greedy by default.
    """

    def __init__(
        self,
        engine: Engine,
        model: str,
        *,
        name: str = "policy",
        policy: str = BASE,
        prompt: Prompt = Prompt(),
        tags: Tags = tags_of(),
        max_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        batch: int = 64,
    ):
        self.name, self.engine, self.policy, self._prompt, self.tags = name, engine, policy, prompt, tags
        self.max_tokens, self.temperature, self.seed, self.batch = max_tokens, temperature, seed, batch
        self.model, self.prompt = f"{model}@{engine.policies()[policy]}", prompt.template
        self.settings: Mapping[str, object] = {
            "policy": policy,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "opening": tags.open(PLAN),
        }

    def estimate(self, items: Sequence[Item]) -> Usage:
        """One request for each item, each of at most `max_tokens`."""
        return Usage(requests=len(items), completion_tokens=self.max_tokens * len(items))

    def summarise(self, items: Sequence[Item], done: Done = nothing) -> list[Summary | Failure]:
        """One result for each item, in order, `batch` at a time."""
        results: list[Summary | Failure] = []
        for start in range(0, len(items), self.batch):
            for result in self._some(items[start : start + self.batch]):
                results.append(result)
                done(result)
        return results

    def _some(self, items: Sequence[Item]) -> list[Summary | Failure]:
        asked = [(item, self._request(item)) for item in items]
        fit = [self._fits(request) for _, request in asked]
        outs = iter(
            self.engine.sample([request for (_, request), fits in zip(asked, fit, strict=True) if fits])
        )
        self.engine.forget_paths()
        return [
            self._result(item, request, next(outs)[0]) if fits else self._no_room(item, request)
            for (item, request), fits in zip(asked, fit, strict=True)
        ]

    def _fits(self, request: Request) -> bool:
        return len(request.context) + self.max_tokens <= self.engine.context

    def _request(self, item: Item) -> Request:
        own = (self.tags.open(PLAN), self.tags.close(PLAN))
        said = self.engine.chat(self._prompt.messages(item), own)
        if said is None:
            said = (*self.engine.begin, *self.engine.plain(self._prompt.plain(item), own))
        context = (
            *said,
            *self.engine.encode(self.tags.open(PLAN)),
        )
        return Request(
            policy=self.policy,
            context=context,
            n=1,
            stops=(self.tags.close(PLAN),),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=seed_of(self.seed, "distill", item.id),
        )

    def _result(self, item: Item, request: Request, out: Completion) -> Summary:
        usage = Usage(requests=1, prompt_tokens=len(request.context), completion_tokens=len(out.token_ids))
        # the last token may go on behind its stop
        said, end, _ = self.engine.decode(out.token_ids).partition(self.tags.close(PLAN))
        text = self.tags.open(PLAN) + said + end
        return Summary(id=item.id, text=text, truncated=out.status == "truncated", usage=usage)

    def _no_room(self, item: Item, request: Request) -> Failure:
        detail = (
            f"{len(request.context)} tokens of prompt and {self.max_tokens} of plan are more than the "
            f"model's context of {self.engine.context}"
        )
        return Failure(id=item.id, kind="too_long", detail=detail)
