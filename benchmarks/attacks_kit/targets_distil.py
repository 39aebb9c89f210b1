"""Lists of phrases, and what distillation reads and is answered."""

from __future__ import annotations

import json
import random
from pathlib import Path

from attacks_kit import mutate
from attacks_kit.feeds import Feed, dumped
from attacks_kit.subjects import subject
from attacks_kit.targets_texts import ANSWERS

# --- phrases and distillation ---


def grams(path: Path) -> object:
    from forethought.grams.listing import read

    return read(path)


def solutions_in(path: Path) -> object:
    from forethought.grams.sources import solutions

    return solutions(path)


GUIDED = {
    "id": "a",
    "question": "How many?",
    "plan": "Add.\nSay it.",
    "chain": "2 + 4 = 6",
    "answer": "6",
    "level": 1,
    "source": "x",
}


def guided(folder: Path) -> Feed:
    from forethought.stages.distill.files import read_jsonl

    path = folder / "guided.jsonl"

    def feed(rng: random.Random) -> None:
        if rng.random() < 0.5:
            path.write_bytes(
                mutate.data(rng, [json.dumps(GUIDED) + "\n" + json.dumps(GUIDED | {"id": "b"}) + "\n"])
            )
        else:
            path.write_bytes(
                (dumped(mutate.structure(rng, [GUIDED])) + "\n").encode("utf-8", "surrogatepass")
            )
        read_jsonl(path)

    return feed


def cache(folder: Path) -> Feed:
    from forethought.stages.distill.cache import Cached
    from forethought.stages.distill.rules import gsm8k

    path = folder / "cache.jsonl"
    line = {
        "key": "k",
        "text": "<plan>a</plan>",
        "truncated": False,
        "usage": {"requests": 1, "prompt_tokens": 2, "completion_tokens": 3, "cost": 0.1, "guessed": 0},
    }

    def feed(rng: random.Random) -> None:
        if rng.random() < 0.5:
            path.write_bytes(mutate.data(rng, [json.dumps(line) + "\n"]))
        else:
            path.write_bytes((dumped(mutate.structure(rng, [line])) + "\n").encode("utf-8", "surrogatepass"))
        Cached(gsm8k(), path).close()

    return feed


def chains(folder: Path) -> Feed:
    """A worked solution becomes a plan by rules, and the filter judges what a model wrote."""
    from forethought.stages.distill import rules
    from forethought.stages.distill.filter import Drops, FilterSpec, admit, complete
    from forethought.stages.distill.records import Item, Summary

    solver = rules.gsm8k()
    seeds = [
        "He has 2 + 4 = <<2+4=6>>6 apples.\nThen he eats <<6-1=5>>5.\n#### 5",
        "First, I add.\n\nThen \\boxed{6}.",
    ]

    def feed(rng: random.Random) -> None:
        item = Item(
            id="a",
            question="Tom has 2 apples and 4 more. How many?",
            chain=mutate.text(rng, seeds),
            answer=rng.choice(ANSWERS),
        )
        drops = Drops(3) if _takes_number(Drops) else Drops()
        kept = complete([item], drops)
        results = (
            solver.summarise(kept)
            if rng.random() < 0.5
            else [
                Summary(id="a", text=mutate.text(rng, ["<plan>Add the apples.\nThen subtract one.</plan>"]))
                for _ in kept
            ]
        )
        admit(kept, results, FilterSpec(), drops)

    return feed


def _takes_number(kind: type) -> bool:
    import inspect

    return any(p.default is inspect.Parameter.empty for p in inspect.signature(kind).parameters.values())


REPLY = {
    "id": "c",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "<plan>Add.</plan>"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
}


def endpoint(folder: Path) -> Feed:
    """A reply of any status, headers and body, without a socket."""
    from forethought.stages.distill.endpoint import Endpoint
    from forethought.stages.distill.endpoint_spec import EndpointSpec
    from forethought.stages.distill.records import Item
    from forethought.stages.distill.transport import Reply

    spec = EndpointSpec(
        base_url="http://127.0.0.1:1/v1",
        model="m",
        key_env="",
        retries=1,
        concurrency=1,
        give_up=1000,
        price_in=1.0,
        most_cost=1e9,
    )
    item = Item(id="a", question="How many?", chain="2 + 4 = 6", answer="6")

    def feed(rng: random.Random) -> None:
        def post(body) -> Reply:
            status = (
                200
                if rng.random() < 0.8
                else rng.choice((201, 204, 301, 400, 401, 404, 408, 413, 422, 429, 500, 503, 599))
            )
            said = (
                mutate.text(rng, [json.dumps(REPLY)])
                if rng.random() < 0.4
                else dumped(mutate.structure(rng, [REPLY]))
            )
            headers = (
                {"retry-after": mutate.text(rng, ["3", "Wed, 21 Oct 2015 07:28:00 GMT"], 60)}
                if rng.random() < 0.2
                else {}
            )
            return Reply(status=status, headers=headers, body=said)

        Endpoint(spec, post=post, sleep=lambda seconds: None).summarise([item])

    return feed


def settings(folder: Path) -> Feed:
    """The settings of an endpoint, as a recipe says them."""
    from forethought.recipe.convert import from_dict
    from forethought.stages.distill.check import endpoint_of

    seeds = [
        {
            "base_url": "https://x.org/v1",
            "model": "m",
            "key_env": "",
            "temperature": 0.5,
            "time_limit": 10,
            "retries": 2,
            "price_in": 0.1,
        }
    ]

    def feed(rng: random.Random) -> None:
        said = mutate.structure(rng, seeds)
        stage = {"kind": "distill", "distill": {"summariser": "endpoint", "problems": 4, "endpoint": said}}
        endpoint_of("stage.0.distill.endpoint", from_dict(subject(stage)).stage[0].distill)

    return feed
