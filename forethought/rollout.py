"""Plan, then act: from tasks to trees of rollouts.

Plans of all tasks are sampled together, then the executions of all plans, turn by turn. What the interface refuses is kept as
data with its reason and is never executed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from forethought.engines.base import Engine
from forethought.errors import UserError
from forethought.recipe.schema import TreeSpec
from forethought.tasks.base import Domain
from forethought.types import Completion, Node, Request, Task, Tree


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on all parts and on nothing else (not on the process, not on the order of calls)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()) >> 1


class Rollouts:
    """Grows trees for one engine and one domain.

    `budgets`: role -> most tokens of a turn, from the domain's budget in words (words of a subword tokenizer are several tokens);
    where the domain is free text (`spaced` False) it says tokens itself.
    """

    def __init__(self, engine: Engine, domain: Domain):
        self.engine, self.domain = engine, domain
        self.spaced = getattr(domain, "spaced", True)
        longest = max(len(self.piece(word)) for word in domain.vocabulary()) if self.spaced else 1
        self.budgets = {role: words * longest for role, words in domain.budgets.items()}
        self.tight = ""  # what `check_room` found of problems that are too long for the model, in a sentence

    # ---- words to tokens: pieces are encoded apart and joined as ids, so that what was sampled is what trains

    def piece(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece that follows other text. The space is what a subword tokenizer expects before a word."""
        return self.engine.encode(" " + text if self.spaced else text)

    def turn(self, role: str | None, text: str) -> tuple[int, ...]:
        """A demonstrated turn; one that the model ends by itself (its stop is "") has the model's own end."""
        ends = role is not None and not self.domain.stops.get(role, " ") and self.engine.end is not None
        return self.piece(text) + ((self.engine.end,) if ends else ())

    def root_ids(self, task: Task) -> tuple[int, ...]:
        """What stands before the first turn: the words of the task, or in free text the conversation by the chat template of the
        model, where it has one, and the opening of its turn."""
        if self.spaced:
            return self.engine.encode(task.context) + self.piece(task.prompt) if task.context else self.engine.encode(task.prompt)
        told = self.engine.chat(self.domain.messages(task))
        return told + self.engine.encode(self.domain.opening) if told else self.engine.encode(task.prompt + self.domain.opening)

    def notes(self) -> list[str]:
        """What a run says at its start: on how many threads it computes and why, and by what; what the task family has left out, and what
        of it is too long for the model."""
        facts = self.engine.facts()
        computes = [_computes(facts)] if "threads/why" in facts else []
        return [*computes, *getattr(self.domain, "notes", ()), *([self.tight] if self.tight else [])]

    # ---- what the domain can show; families whose problems come without plans can show those that were given some

    def shown(self, rng: random.Random, levels: list[int]) -> list[Task]:
        """Training tasks to demonstrate, one per level."""
        return self.domain.shown(rng, levels) if hasattr(self.domain, "shown") else self.domain.family(rng, levels, "train")

    def shows(self) -> bool:
        """Whether every task that `shown` can draw has a demonstration."""
        return getattr(self.domain, "shows", True)

    def oracle_plan(self, task: Task) -> str:
        """The oracle's plan, "" where the domain knows none for this task."""
        known = getattr(self.domain, "has_plan", lambda task: True)
        return self.domain.oracle_plan(task) if known(task) else ""

    def stops(self, role: str) -> tuple[str, ...]:
        return (self.domain.stops[role],) if self.domain.stops[role] else ()

    def check_room(self, tasks: Sequence[Task] = (), shown: bool = False) -> None:
        """UserError where one of `tasks` (by default the longest that the domain knows, or some of its deepest level), with the longest
        turns allowed, does not fit the model's context.

        Problems that somebody gave (a family with a pool) differ in length: there some may be too long, which `tight` then says, but
        not all; with `shown`, where they are demonstrated too, none.
        """
        prompt, level = max((len(self.root_ids(task)), task.level) for task in tasks or self._longest())
        said, context = self.budgets["plan"] + self.domain.turns * self.budgets["act"], self.engine.context
        if prompt + said <= context:
            return
        given = hasattr(self.domain, "pool") and not shown
        sizes = [len(self.root_ids(task)) for task in tasks or self._all()] if given else []
        tight = [size for size in sizes if size + said > context]
        if len(tight) < len(sizes):
            none = sum(size >= context for size in tight)
            self.tight = (f"{len(tight):,} of {len(sizes):,} problems leave less than the {said:,} tokens that plan and acts may take in "
                          f"the model's context of {context:,}, and {none:,} of them none at all (the longest prompt has {prompt:,}); what "
                          "has no room is counted as overlong, not as wrong")
            return
        raise UserError(f"{self.domain.name} at level {level} takes prompts of {prompt} tokens and {said} for plan and acts; "
                        f"the model's context is {context}. Take lower levels or a model with a longer context")

    def _all(self) -> list[Task]:
        """Every problem of a family with a pool, each once."""
        tasks = [task for level in self.domain.levels for split in ("train", "eval") for task in self.domain.pool(level, split)]
        return list({task.id: task for task in tasks}.values())

    def _longest(self) -> list[Task]:
        if hasattr(self.domain, "longest"):
            return self.domain.longest(16)
        rng = random.Random(0)
        return [self.domain.family(rng, [max(self.domain.levels)], "train")[0] for _ in range(8)]

    def grow(self, tasks: Sequence[Task], tree: TreeSpec, policies: Mapping[str, str], seed: int, *, noise: bool = True,
             beside: bool = False, first: int = 0) -> list[Tree]:
        """One tree per task: `tree.plans` plans (or the oracle's), `tree.acts` executions of each that the interface accepts.

        `policies` maps each role to the policy that speaks for it. The same seed gives the same trees. `beside`: the oracle's plan
        stands beside the policy's own as the last plan, and is executed with them, so that a prompt is computed once for both.
        `first`: the place of the first task in a longer list, which then grows part by part as it would at once.
        """
        growing = [_Growing(self, task, seed_of(seed, i)) for i, task in enumerate(tasks, start=first)]
        self._plan(growing, tree, policies["plan"])
        if beside:
            self._oracle(growing)
        if tree.acts:
            self._act(growing, tree, policies["act"], noise)
        return [Tree(task=g.task, nodes=tuple(g.nodes)) for g in growing]

    def execute(self, tasks: Sequence[Task], plans: Sequence[Sequence[tuple[str, tuple[int, ...]]]], tree: TreeSpec, policy: str,
                seed: int, *, noise: bool = True, first: int = 0) -> list[Tree]:
        """One tree per task: `tree.acts` executions by `policy` of each of its plans, which are given as (text, token ids); whoever
        wrote them, the ids are those of this engine's tokenizer. Nothing is parsed: give plans that the interface accepts."""
        growing = [_Growing(self, task, seed_of(seed, i)) for i, task in enumerate(tasks, start=first)]
        for g, given in zip(growing, plans, strict=True):
            for text, ids in given:
                g.add(parent=0, role="plan", text=text, token_ids=ids)
        self._act(growing, tree, policy, noise)
        return [Tree(task=g.task, nodes=tuple(g.nodes)) for g in growing]

    def _plan(self, growing: list[_Growing], tree: TreeSpec, policy: str) -> None:
        engine, domain = self.engine, self.domain
        if tree.oracle_plan:
            self._oracle(growing)
            return
        requests = [
            Request(policy=policy, context=g.nodes[0].token_ids, n=tree.plans, stops=self.stops("plan"),
                    max_tokens=tree.plan_tokens or self.budgets["plan"], temperature=tree.temperature, top_p=tree.top_p,
                    seed=seed_of(g.seed, "plan"))
            for g in growing
        ]
        for g, outs in zip(growing, engine.sample(requests), strict=True):
            for out in outs:
                node = g.said(0, "plan", policy, out)
                if out.status == "overlong":
                    continue
                parsed = domain.parse_plan(g.task, node.text)
                valid = domain.judge_plan(g.task, node.text) if parsed.score else parsed
                status = node.status if parsed.score or node.status == "truncated" else "refused"
                g.nodes[node.id] = replace(node, status=status, reason=parsed.reason or valid.reason,
                                           reward_parts={"format": parsed.score, "valid": valid.score})

    def _oracle(self, growing: list[_Growing]) -> None:
        for g in growing:
            text = self.domain.oracle_plan(g.task)
            g.add(parent=0, role="plan", text=text, token_ids=self.turn("plan", text))

    def _act(self, growing: list[_Growing], tree: TreeSpec, policy: str, noise: bool) -> None:
        engine, domain = self.engine, self.domain
        budget = tree.act_tokens or self.budgets["act"]

        def ask(g: _Growing, node: Node, n: int, turn: int) -> Request:
            return Request(policy=policy, context=g.ids_to(node), n=n, stops=self.stops("act"), max_tokens=budget,
                           temperature=tree.temperature, top_p=tree.top_p, seed=seed_of(g.seed, "act", node.id, turn))

        plans = [(g, n) for g in growing for n in list(g.nodes) if n.role == "plan" and n.status in ("given", "finished")]
        first = engine.sample([ask(g, n, tree.acts, 0) for g, n in plans])
        live = []  # (tree, plan, episode, texts so far, last node, completion)
        for (g, plan), outs in zip(plans, first, strict=True):
            for k, out in enumerate(outs):
                rng = random.Random(seed_of(g.seed, "episode", plan.id, k))
                live.append((g, plan, domain.episode(g.task, rng, noise), [], plan, out))
        for turn in range(1, domain.turns + 1):
            going = []
            for g, plan, episode, texts, above, out in live:
                node = g.said(above.id, "act", policy, out)
                if out.status == "overlong":  # the episode was not lost, it could not go on: it has no outcome
                    continue
                texts.append(node.text)
                outcome = episode.step(node.text)
                if outcome.done or turn == domain.turns:
                    parts = {"format": float(out.status == "finished"), "outcome": float(outcome.success),
                             "follows": domain.follows(g.task, plan.text, texts).score, **({"timed_out": 1.0} if outcome.timed_out else {})}
                    g.nodes[node.id] = replace(node, reward_parts=parts, reason=outcome.reason)
                else:
                    seen = g.add(parent=node.id, role=None, text=outcome.observation or "", token_ids=self.piece(outcome.observation or ""))
                    going.append((g, plan, episode, texts, seen))
            if not going:
                return
            outs = engine.sample([ask(g, node, 1, turn) for g, _, _, _, node in going])
            live = [(*item, out[0]) for item, out in zip(going, outs, strict=True)]


def _computes(facts: Mapping[str, object]) -> str:
    """An engine's threads and kernels in a line, each with its reason where it has one."""
    line = f"threads: {facts['threads']} ({facts['threads/why']})"
    if "threads/sampling" in facts:
        line += f", {facts['threads/sampling']} for sampling"
    kernels, _, why = str(facts.get("kernels", "")).partition(": ")
    return line + (f"; kernels: {kernels}" if kernels else "") + (f" ({why})" if why else "")


class _Growing:
    """A tree in the making."""

    def __init__(self, rollouts: Rollouts, task: Task, seed: int):
        self.rollouts, self.task, self.seed = rollouts, task, seed
        self.nodes = [Node(id=0, parent=None, role=None, text=f"{task.context} {task.prompt}".strip(),
                           token_ids=rollouts.root_ids(task))]

    def add(self, **fields) -> Node:
        node = Node(id=len(self.nodes), **fields)
        self.nodes.append(node)
        return node

    def said(self, parent: int, role: str, policy: str, out: Completion) -> Node:
        engine, ids = self.rollouts.engine, out.token_ids
        shown = ids[:-1] if not self.rollouts.spaced and engine.ends.issuperset(ids[-1:]) else ids  # the model's own end is no text
        text, stop = engine.decode(shown).strip(), self.rollouts.domain.stops.get(role)
        if stop and (at := text.rfind(stop)) >= 0 and out.status == "finished":
            text = text[: at + len(stop)]  # the last token may go on behind the stop that it ends: `><` in `</plan><think>`
        reason = ""
        if out.status == "overlong":
            reason = f"{len(self.ids_to(self.nodes[parent])):,} tokens before it leave no room in the model's context of {engine.context:,}"
        return self.add(parent=parent, role=role, text=text, token_ids=ids, status=out.status, reason=reason, policy=policy,
                        version=out.version, logprobs=out.logprobs)

    def ids_to(self, node: Node) -> tuple[int, ...]:
        ids: tuple[int, ...] = ()
        at: int | None = node.id
        while at is not None:
            ids = self.nodes[at].token_ids + ids
            at = self.nodes[at].parent
        return ids
