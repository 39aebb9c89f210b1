"""Plan, then act: from tasks to trees of rollouts.

Plans of all tasks are sampled together, then the executions of all plans, turn by turn. What the interface
refuses is kept as data with its reason and is never executed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from forethought.core.errors import UserError
from forethought.core.seeds import seed_of
from forethought.core.types import Completion, Node, Request, Task, Tree, Turn, Undrawn
from forethought.engines.base import Engine
from forethought.envs.guard import Boundary, Fault
from forethought.envs.guarded import guarded
from forethought.recipe.roles import counts_of
from forethought.recipe.schema import TreeSpec
from forethought.recipe.speaking import SPEAKING
from forethought.tasks.base import Domain
from forethought.workflows.growing import Execution, Growing, drawn, undrawn

ROLES = SPEAKING["plan_then_act"]


class Rollouts:
    """Grows trees for one engine and one domain.

    `budgets`: role -> most tokens of a turn, from the domain's budget in words (words of a subword tokenizer
    are several tokens); where the domain is free text (`spaced` False) it says tokens itself.
    """

    def __init__(self, engine: Engine, domain: Domain):
        self.engine, self.domain = engine, guarded(domain)
        self.guard = self.domain.guard
        self.spaced = getattr(domain, "spaced", True)
        self._written: set[str] = set()  # words that the tokenizer is known to write
        longest = max(len(self.piece(word)) for word in domain.vocabulary()) if self.spaced else 1
        self.budgets = {role: words * longest for role, words in domain.budgets.items()}
        self.tight = ""  # what `check_room` found of problems that are too long for the model, in a sentence

    # ---- words to tokens: pieces are encoded apart and joined as ids, so that what was sampled is what
    # trains

    def piece(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece that follows other text. The space is what a subword tokenizer expects before
        a word."""
        return self.engine.encode(" " + text if self.spaced else text)

    def turn(self, role: str | None, text: str) -> tuple[int, ...]:
        """A demonstrated turn; one that the model ends by itself (its stop is "") has the model's own end."""
        ends = role is not None and not self.domain.stops.get(role, " ") and self.engine.end is not None
        return self.piece(text) + ((self.engine.end,) if ends else ())

    def encoded(
        self, boundary: Boundary, name: str, encode: Callable[..., tuple[int, ...]], *texts: object
    ) -> tuple[int, ...]:
        """What `encode` makes of texts that method `name` of the domain gave. Raises Fault where the
        tokenizer cannot write them."""

        def written() -> tuple[int, ...]:
            if self.spaced:
                told = texts[-1]
                self._check_words(f"{told.context} {told.prompt}" if isinstance(told, Task) else str(told))
            return encode(*texts)

        return self.guard.call(boundary, name, written, (), seconds=0.0, users=False)

    def _check_words(self, text: str) -> None:
        """UserError where a word becomes another token than its own: it would be trained on, or read, as the
        word that stands for all."""
        if new := set(text.split()) - self._written:
            self.engine.check_words(sorted(new), ())
            self._written |= new

    def root_ids(self, task: Task) -> tuple[int, ...]:
        """What stands before the first turn: the words of the task, or in free text the conversation by the
        chat template of the model, where it has one, and the opening of its turn. Nothing before a task that
        could not be drawn."""
        if isinstance(task.state, Undrawn):
            return ()
        if self.spaced:
            return (
                self.begun(task.context) + self.piece(task.prompt)
                if task.context
                else self.begun(task.prompt)
            )
        told = self.engine.chat(self.domain.messages(task))
        return (
            told + self.engine.encode(self.domain.opening)
            if told
            else self.begun(task.prompt + self.domain.opening)
        )

    def begun(self, text: str) -> tuple[int, ...]:
        """Token ids of the first text of a path: the model's own beginning, where it has one, and the
        text."""
        return self.engine.begin + self.engine.encode(text)

    def notes(self) -> list[str]:
        """What a run says at its start: on how many threads it computes and why, and by what; what the task
        family has left out, and what of it is too long for the model."""
        facts = self.engine.facts()
        computes = [_computes(facts)] if "threads/why" in facts else []
        return [
            *computes,
            *self.engine.notes,
            *getattr(self.domain, "notes", ()),
            *([self.tight] if self.tight else []),
        ]

    # ---- what the domain can show; families whose problems come without plans can show those that were given
    # some

    def shown(self, rng: random.Random, levels: list[int]) -> list[Task]:
        """Training tasks to demonstrate, one per level; where the family breaks, `Undrawn` ones."""
        try:
            return self.domain.shown(rng, levels)
        except Fault as fault:
            return undrawn(self.domain, levels, fault)

    def turns(self, task: Task) -> list[tuple[Turn, tuple[int, ...]]]:
        """The turns of a task's demonstration with their tokens; [] where it could not be drawn, or the
        family breaks over it."""
        try:
            shown = [] if isinstance(task.state, Undrawn) else self.domain.demonstrate(task)
            if shown:
                self.encoded("task", "family", self.root_ids, task)
            return [
                (turn, self.encoded("task", "demonstrate", self.turn, turn.role, turn.text)) for turn in shown
            ]
        except Fault:
            return []

    def shows(self) -> bool:
        """Whether every task that `shown` can draw has a demonstration."""
        return getattr(self.domain, "shows", True)

    def oracle_plan(self, task: Task) -> str:
        """The oracle's plan, "" where the domain knows none for this task, or breaks over it."""
        known = getattr(self.domain, "has_plan", lambda task: True)
        try:
            return (
                self.domain.oracle_plan(task) if not isinstance(task.state, Undrawn) and known(task) else ""
            )
        except Fault:
            return ""

    def stops(self, role: str) -> tuple[str, ...]:
        return (self.domain.stops[role],) if self.domain.stops[role] else ()

    def check_room(self, tasks: Sequence[Task] = (), shown: bool = False) -> None:
        """UserError where one of `tasks` (by default the longest that the domain knows, or some of its
        deepest level), with the longest turns allowed, does not fit the model's context.

        Problems that somebody gave (a family with a pool) differ in length: there some may be too long, which
        `tight` then says, but not all; with `shown`, where they are demonstrated too, none.
        """
        longest = [task for task in tasks or self._longest() if not isinstance(task.state, Undrawn)]
        prompt, level = max(((len(self.root_ids(task)), task.level) for task in longest), default=(0, 0))
        said, context = self.budgets["plan"] + self.domain.turns * self.budgets["act"], self.engine.context
        if prompt + said <= context:
            return
        given = hasattr(self.domain, "pool") and not shown
        sizes = [len(self.root_ids(task)) for task in tasks or self._all()] if given else []
        tight = [size for size in sizes if size + said > context]
        if len(tight) < len(sizes):
            none = sum(size >= context for size in tight)
            self.tight = (
                f"{len(tight):,} of {len(sizes):,} problems leave less than the {said:,} tokens "
                f"that plan and acts may take in "
                f"the model's context of {context:,}, and {none:,} of them none at all (the "
                f"longest prompt has {prompt:,}); what "
                "has no room is counted as overlong, not as wrong"
            )
            return
        raise UserError(
            f"{self.domain.name} at level {level} takes prompts of {prompt} tokens and {said} "
            f"for plan and acts; "
            f"the model's context is {context}. Take lower levels or a model with a longer "
            f"context"
        )

    def _all(self) -> list[Task]:
        """Every problem of a family with a pool, each once."""
        tasks = [
            task
            for level in self.domain.levels
            for split in ("train", "eval")
            for task in self.domain.pool(level, split)
        ]
        return list({task.id: task for task in tasks}.values())

    def _longest(self) -> list[Task]:
        if hasattr(self.domain, "longest"):
            return self.domain.longest(16)
        rng = random.Random(0)
        return [drawn(self.domain, rng, [max(self.domain.levels)], "train")[0] for _ in range(8)]

    def grow(
        self,
        tasks: Sequence[Task],
        tree: TreeSpec,
        policies: Mapping[str, str],
        seed: int,
        *,
        noise: bool = True,
        beside: bool = False,
        first: int = 0,
    ) -> list[Tree]:
        """One tree per task: as many plans as `tree` says (or the oracle's), and as many executions of each that the
        interface accepts.

        `policies` maps each role to the policy that speaks for it. The same seed gives the same trees.
        `beside`: the oracle's plan stands beside the policy's own as the last plan, and is executed with
        them, so that a prompt is computed once for both. `first`: the place of the first task in a longer
        list, which then grows part by part as it would at once.
        """
        growing = [Growing(self, task, seed_of(seed, i)) for i, task in enumerate(tasks, start=first)]
        whole = [g for g in growing if not g.broken]
        self._plan(whole, tree, policies["plan"])
        if beside:
            self._oracle(whole)
        counts = counts_of(tree, ROLES)
        for g in growing:
            if g.broken:  # every plan that it was to have failed with it
                for _ in range((1 if "plan" in tree.oracle else counts["plan"]) + beside):
                    g.add(
                        parent=0,
                        role="plan",
                        text="",
                        token_ids=(),
                        status="failed",
                        reason=g.broken,
                        policy=policies["plan"],
                    )
        if counts["act"]:
            self._act(growing, tree, policies["act"], noise)
        self.engine.forget_paths()
        return [Tree(task=g.task, nodes=tuple(g.nodes)) for g in growing]

    def execute(
        self,
        tasks: Sequence[Task],
        plans: Sequence[Sequence[tuple[str, tuple[int, ...]]]],
        tree: TreeSpec,
        policy: str,
        seed: int,
        *,
        noise: bool = True,
        first: int = 0,
    ) -> list[Tree]:
        """One tree per task: executions by `policy` of each of its plans, which are given as
        (text, token ids); whoever wrote them, the ids are those of this engine's tokenizer. Nothing is
        parsed: give plans that the interface accepts."""
        growing = [Growing(self, task, seed_of(seed, i)) for i, task in enumerate(tasks, start=first)]
        for g, given in zip(growing, plans, strict=True):
            for text, ids in given:
                g.add(
                    parent=0,
                    role="plan",
                    text=text,
                    token_ids=ids,
                    status="failed" if g.broken else "given",
                    reason=g.broken,
                )
        self._act(growing, tree, policy, noise)
        self.engine.forget_paths()
        return [Tree(task=g.task, nodes=tuple(g.nodes)) for g in growing]

    def _plan(self, growing: list[Growing], tree: TreeSpec, policy: str) -> None:
        engine, domain = self.engine, self.domain
        if "plan" in tree.oracle:
            self._oracle(growing)
            return
        requests = [
            Request(
                policy=policy,
                context=g.nodes[0].token_ids,
                n=counts_of(tree, ROLES)["plan"],
                stops=self.stops("plan"),
                max_tokens=tree.tokens.get("plan") or self.budgets["plan"],
                temperature=tree.temperature,
                top_p=tree.top_p,
                seed=seed_of(g.seed, "plan"),
            )
            for g in growing
        ]
        sampled = engine.sample(requests)
        with self.guard.watch():
            for g, outs in zip(growing, sampled, strict=True):
                for out in outs:
                    node = g.said(0, "plan", policy, out)
                    if out.status == "overlong":
                        continue
                    try:
                        parsed = domain.parse_plan(g.task, node.text)
                        valid = domain.judge_plan(g.task, node.text) if parsed.score else parsed
                    except Fault as fault:
                        g.failed(node, fault)
                        continue
                    status = node.status if parsed.score or node.status == "truncated" else "refused"
                    g.nodes[node.id] = replace(
                        node,
                        status=status,
                        reason=parsed.reason or valid.reason,
                        reward_parts={"format": parsed.score, "valid": valid.score},
                    )

    def _oracle(self, growing: list[Growing]) -> None:
        with self.guard.watch():
            for g in growing:
                try:
                    text = self.domain.oracle_plan(g.task)
                    g.add(
                        parent=0,
                        role="plan",
                        text=text,
                        token_ids=self.encoded("task", "oracle_plan", self.turn, "plan", text),
                    )
                except Fault as fault:
                    g.add(parent=0, role="plan", text="", token_ids=(), status="failed", reason=fault.reason)

    def _act(self, growing: list[Growing], tree: TreeSpec, policy: str, noise: bool) -> None:
        engine, domain = self.engine, self.domain
        budget = tree.tokens.get("act") or self.budgets["act"]

        def ask(g: Growing, node: Node, n: int, turn: int) -> Request:
            return Request(
                policy=policy,
                context=g.ids_to(node),
                n=n,
                stops=self.stops("act"),
                max_tokens=budget,
                temperature=tree.temperature,
                top_p=tree.top_p,
                seed=seed_of(g.seed, "act", node.id, turn),
            )

        plans = [
            (g, n)
            for g in growing
            for n in list(g.nodes)
            if n.role == "plan" and n.status in ("given", "finished")
        ]
        first = engine.sample([ask(g, n, counts_of(tree, ROLES)["act"], 0) for g, n in plans])
        live = []  # (execution, last node, completion)
        for (g, plan), outs in zip(plans, first, strict=True):
            for k, out in enumerate(outs):
                seed = seed_of(g.seed, "episode", plan.id, k)
                live.append((Execution(self, g, plan, seed, noise), plan, out))
        with domain.episodes as pool:
            with self.guard.watch():
                pool.drive([execution.begin() for execution, _, _ in live])
            for turn in range(1, domain.turns + 1):
                going = []
                with self.guard.watch():
                    pool.drive(
                        [self._acted(*item, policy, turn == domain.turns, going.append) for item in live]
                    )
                if not going:
                    return
                outs = engine.sample([ask(execution.tree, node, 1, turn) for execution, node in going])
                live = [(*item, out[0]) for item, out in zip(going, outs, strict=True)]

    async def _acted(
        self, execution: Execution, above: Node, out: Completion, policy: str, last: bool, goes_on: Callable
    ) -> None:
        node = execution.tree.said(above.id, "act", policy, out)
        # the episode was not lost, it could not go on: it has no outcome
        if out.status == "overlong":
            return
        try:
            seen = await execution.step(node, out, last)
        except Fault as fault:
            execution.tree.failed(node, fault)
            return
        if seen is not None:
            goes_on((execution, seen))


def _computes(facts: Mapping[str, object]) -> str:
    """An engine's threads and kernels in a line, each with its reason where it has one."""
    line = f"threads: {facts['threads']} ({facts['threads/why']})"
    if "threads/kernels" in facts:
        line += f", {facts['threads/kernels']} for the kernels"
    kernels, _, why = str(facts.get("kernels", "")).partition(": ")
    line += (f"; kernels: {kernels}" if kernels else "") + (f" ({why})" if why else "")
    return line + (f"; {facts['precision']} ({facts['precision/why']})" if "precision/why" in facts else "")
