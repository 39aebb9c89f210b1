"""Several engines as one: each holds a model of another shape, and every policy lives in exactly one of them.

Outside, the name of an engine is the name of its base: `Joined(main, {"draft": other})` has the policies of
`main`, with "base" among them, and "draft", which the other engine calls its base. What is forked from
"draft" lives beside it. Token ids travel between the models as they are, so all must have one tokenizer.
Whatever needs the weights of two engines at once (assign, factor, an exact KL, a region of another shape) is
a ValueError.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path

from forethought.core.errors import CheckpointError, UserError
from forethought.core.metrics import Metric
from forethought.core.types import Batch, Completion, Objective, Request, TokenStats
from forethought.engines.base import (
    BASE,
    Engine,
    Kind,
    Sampler,
    Surgery,
    Tell,
    Trainer,
    UpdateRefused,
)

NOTE = "joined.json"


def _routed(face: type, name: str, policies: Sequence[str], regions: Sequence[str] = ()) -> Callable:
    """A method of a face that goes, as it is, to the one engine that has the policies and regions which the
    named arguments hold ("": none)."""
    asked = getattr(face, name)
    signature = inspect.signature(asked)

    @wraps(asked)
    def call(self: Joined, *args, **kwargs):
        given = signature.bind(self, *args, **kwargs).arguments
        own = [given[argument] for argument in policies]
        held = [given[argument] for argument in regions if given.get(argument)]
        key, inner = self._together(*own, regions=held)
        values = given | dict(zip(policies, inner, strict=True))
        del values["self"]
        return getattr(self.engines[key], name)(**values)

    return call


class Joined:
    """See `engines.base`. Words and their check are the main engine's, once `probes` have shown that the
    others agree; what one policy is asked for goes to the engine that has it."""

    publish = _routed(Sampler, "publish", ["policy"])
    assign = _routed(Trainer, "assign", ["dst", "src"])
    prepare = _routed(Trainer, "prepare", ["policy"])
    release = _routed(Trainer, "release", ["policy"])
    set_aside = _routed(Surgery, "set_aside", ["policy"])
    conflict = _routed(Surgery, "conflict", ["policy"])
    combine = _routed(Surgery, "combine", ["policy"])
    forget = _routed(Trainer, "forget", ["policy"])
    overlap = _routed(Surgery, "overlap", [], ["a", "b"])
    hold = _routed(Surgery, "hold", ["policy"], ["region"])
    transplant = _routed(Surgery, "transplant", ["dst", "src"], ["region"])
    slerp = _routed(Surgery, "slerp", ["dst", "src"], ["outside"])

    def __init__(self, main: Engine, others: Mapping[str, Engine], probes: Sequence[str]):
        """`probes`: texts, such as the words of the task, that all tokenizers must write and read alike
        (UserError if not)."""
        self.engines: dict[str, Engine] = {BASE: main, **others}
        names = [
            self._outside(key, name) for key, engine in self.engines.items() for name in engine.policies()
        ]
        if BASE in others or len(set(names)) < len(names):
            raise ValueError(
                f"two engines have policies of one name: {sorted(names)}, and the main one's base is {BASE!r}"
            )
        self.end, self.ends, self.begin = main.end, main.ends, main.begin
        self.encode, self.plain, self.decode = main.encode, main.plain, main.decode
        self.chat, self.observation, self.check_words = main.chat, main.observation, main.check_words
        self.notes = list(dict.fromkeys(note for engine in self.engines.values() for note in engine.notes))
        self.context = min(engine.context for engine in self.engines.values())
        self.exact = all(engine.exact for engine in self.engines.values())
        self.regions: dict[str, str] = {}  # region -> the engine that has it
        for key, engine in others.items():
            _check_tokenizers(main, engine, key, probes)

    # ---- whose policy it is

    def _outside(self, key: str, inner: str) -> str:
        return key if inner == BASE else inner

    def _at(self, policy: str) -> tuple[str, str]:
        """(the engine's name, the policy's name in it)"""
        if policy in self.engines:
            return policy, BASE
        for key, engine in self.engines.items():
            if policy in engine.policies():
                return key, policy
        raise KeyError(f"no policy {policy!r}; there are {sorted(self.policies())}")

    def _together(self, *policies: str, regions: Sequence[str] = ()) -> tuple[str, list[str]]:
        """(the name of the one engine that has them all, the policies' names in it); ValueError where there
        is no such engine."""
        places = [self._at(policy) for policy in policies]
        if lost := [region for region in regions if region not in self.regions]:
            raise ValueError(f"no region {lost[0]!r}; there are {sorted(self.regions)}")
        if len(keys := {key for key, _ in places} | {self.regions[region] for region in regions}) > 1:
            raise ValueError(
                f"{' and '.join(repr(name) for name in [*policies, *regions])} belong to different models "
                f"({', '.join(sorted(keys))}), whose weights have nothing in common"
            )
        return keys.pop(), [inner for _, inner in places]

    # ---- policies

    def policies(self) -> dict[str, int]:
        """Versions of all engines' policies, by the names used outside."""
        return {
            self._outside(key, name): version
            for key, engine in self.engines.items()
            for name, version in engine.policies().items()
        }

    def fork(self, src: str, dst: str, kind: Kind = "adapter") -> None:
        """Made in the engine that holds `src`. ValueError for a name that any engine uses."""
        if dst in self.policies():
            raise ValueError(f"policy {dst!r} exists already")
        key, inner = self._at(src)
        self.engines[key].fork(inner, dst, kind)

    def factor(self, dst: str, start: str) -> float:
        """Made in the engine that holds `start`. ValueError for a name that any engine uses."""
        if dst in self.policies():
            raise ValueError(f"policy {dst!r} exists already")
        key, (inner,) = self._together(start)
        return self.engines[key].factor(dst, inner)

    def drop(self, name: str) -> None:
        """KeyError for the base of any of the engines."""
        key, inner = self._at(name)
        if inner == BASE:
            raise KeyError(f"policy {name!r} cannot be dropped; there are {sorted(self.policies())}")
        self.engines[key].drop(inner)

    # ---- sampling and training

    def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Each request goes to the engine that holds its policy; the order of the results is that of the
        requests."""
        mine: dict[str, list[int]] = {}
        inner = []
        for i, request in enumerate(requests):
            key, policy = self._at(request.policy)
            mine.setdefault(key, []).append(i)
            inner.append(replace(request, policy=policy))
        results: list[list[Completion]] = [[] for _ in requests]
        for key, indices in mine.items():
            for i, found in zip(indices, self.engines[key].sample([inner[i] for i in indices]), strict=True):
                results[i] = found
        return results

    def forget_paths(self) -> None:
        """Passed to every engine."""
        for engine in self.engines.values():
            engine.forget_paths()

    def logprobs(self, batch: Batch) -> list[tuple[float, ...]]:
        """Asked of the engine that holds the policy."""
        key, policy = self._at(batch.policy)
        return self.engines[key].logprobs(replace(batch, policy=policy))

    def forward_backward(self, batch: Batch, objective: Objective) -> dict[str, Metric]:
        """Reference policies must live in the same engine as the policy that trains; ValueError otherwise."""
        named = [term.reference for term in objective.terms if term.reference]
        key, (policy, *inner) = self._together(batch.policy, *named)
        names = dict(zip(["", *named], ["", *inner], strict=True))
        own = Objective(tuple(replace(t, reference=names[t.reference]) for t in objective.terms))
        with self._refusing(key):
            return self.engines[key].forward_backward(replace(batch, policy=policy), own)

    def check_gradients(self, policies: Sequence[str]) -> None:
        """Asked of each engine for its own policies. A refusal clears the gradients of all engines."""
        for key, engine in self.engines.items():
            if own := [inner for at, inner in map(self._at, policies) if at == key]:
                with self._refusing(key):
                    engine.check_gradients(own)

    def optim_step(self, policy: str, lr_scale: float = 1.0) -> dict[str, Metric]:
        """One step in the engine that holds the policy; the metric `grad_norm/` gets the name used
        outside."""
        key, inner = self._at(policy)
        with self._refusing(key):
            metrics = self.engines[key].optim_step(inner, lr_scale)
        own = f"grad_norm/{inner}"  # the one metric that names its policy
        return {f"grad_norm/{policy}" if name == own else name: metric for name, metric in metrics.items()}

    @contextmanager
    def _refusing(self, key: str) -> Iterator[None]:
        """A refused update clears the gradients of every policy, those of the other engines too."""
        try:
            yield
        except UpdateRefused as e:
            for engine in self.engines.values():
                for name in engine.policies():
                    engine.forget(name)
            raise UpdateRefused(str(e) if key == BASE else f"in the model {key!r}: {e}") from e

    def find_region(self, name: str, policy: str, start: str, share: float) -> int:
        """Both policies must live in one engine, which then owns the region."""
        key, inner = self._together(policy, start)
        count = self.engines[key].find_region(name, *inner, share)
        self.regions[name] = key
        return count

    def random_region(self, name: str, like: str, seed: int) -> int:
        """Drawn in the engine that owns `like`."""
        key, _ = self._together(regions=[like])
        count = self.engines[key].random_region(name, like, seed)
        self.regions[name] = key
        return count

    def inspect(self, batch: Batch, against: Sequence[str] = ()) -> list[TokenStats | None]:
        """KL is known only to policies of the same engine; ValueError otherwise."""
        key, (policy, *references) = self._together(batch.policy, *against)
        found = self.engines[key].inspect(replace(batch, policy=policy), references)
        names = dict(zip(references, against, strict=True))
        return [
            stats and replace(stats, kl={names[inner]: kl for inner, kl in stats.kl.items()})
            for stats in found
        ]

    # ---- files

    def finite(self) -> str:
        """The first engine's finding, with the name of its model."""
        for key, engine in self.engines.items():
            if found := engine.finite():
                return found if key == BASE else f"{found}, in the model {key!r}"
        return ""

    def save(self, directory: Path) -> None:
        """A folder for each engine, by its name, and a note of what is where."""
        for key, engine in self.engines.items():
            engine.save(directory / key)
        note = {"engines": sorted(self.engines), "regions": self.regions}
        (directory / NOTE).write_text(json.dumps(note, indent=1, sort_keys=True), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """CheckpointError, with nothing moved, where the directory was saved by other engines than these."""
        note = (
            json.loads((directory / NOTE).read_text(encoding="utf-8"))
            if (directory / NOTE).exists()
            else {"engines": []}
        )
        if note["engines"] != sorted(self.engines):
            raise CheckpointError(
                f"{directory} holds {note['engines'] or 'one model'}, this run has {sorted(self.engines)}; "
                "resume with the recipe that wrote it"
            )
        for key, engine in self.engines.items():
            engine.load(directory / key)
        self.regions = dict(note["regions"])

    def chosen(self) -> Mapping[str, object]:
        """The main engine's: all of them are on one machine, and `run` prepares it once for all."""
        return self.engines[BASE].chosen()

    def listen(self, tell: Tell) -> None:
        """Each engine's decisions are passed on, with the name of its model in front."""
        for key, engine in self.engines.items():
            name = "" if key == BASE else f"the model {key!r}: "
            engine.listen(
                lambda outcome, reason, numbers, name=name: tell(outcome, f"{name}{reason}", numbers)
            )

    def facts(self) -> Mapping[str, object]:
        """The main engine's, with the models' names joined and their parameters added up, and both once more
        by model."""
        found = {key: engine.facts() for key, engine in self.engines.items()}
        return {
            **found[BASE],
            "model": ", ".join(f"{key}: {facts['model']}" for key, facts in found.items()),
            "parameters": sum(facts["parameters"] for facts in found.values()),
            **{f"parameters/{key}": facts["parameters"] for key, facts in found.items()},
        }


def _check_tokenizers(main: Engine, other: Engine, key: str, probes: Sequence[str]) -> None:
    for probe in probes:
        ids = main.encode(probe)
        if other.encode(probe) != ids or other.decode(ids) != main.decode(ids):
            names = f"{main.facts()['model']} and {other.facts()['model']} (for {key!r})"
            raise UserError(
                f"{names} have different tokenizers: {probe!r} is {list(ids)} for one and "
                f"{list(other.encode(probe))} for the other; both models must have the same tokenizer, "
                "because one reads what the other writes"
            )
