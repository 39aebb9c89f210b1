"""From tasks to trees of rollouts: a workflow on each task, and one driver for all of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from itertools import groupby

from forethought.core.errors import UserError
from forethought.core.parts import Parts
from forethought.core.seeds import seed_of
from forethought.core.types import Task, Tree, Turn, Undrawn
from forethought.core.watchdog import TimeUp
from forethought.engines.base import Engine
from forethought.envs.guard import Fault
from forethought.envs.guarded import guarded
from forethought.recipe.roles import counts_of
from forethought.recipe.schema import RoleSpec, TreeSpec, WorkflowSpec
from forethought.tasks.base import Oracle, Taskset, face
from forethought.workflows import drawing
from forethought.workflows.drive import Free, Lockstep
from forethought.workflows.growing import Given, Growing, Play
from forethought.workflows.table import workflow_of
from forethought.workflows.trajectory import Trajectory, WorkflowError
from forethought.workflows.words import Words


class Rollouts:
    """Grows trees for one engine, one taskset and one workflow. RecipeError for a workflow that is not
    registered. `roles`: what differs from a role's defaults. `free`: requests leave when they are asked
    (`workflows.drive`)."""

    def __init__(
        self,
        engine: Engine,
        taskset: Taskset,
        workflow: WorkflowSpec | None = None,
        roles: Mapping[str, RoleSpec] | None = None,
        *,
        free: bool = False,
    ):
        self.engine, self.taskset, self.free = engine, guarded(taskset), free
        self.spec = workflow or WorkflowSpec()
        self.workflow = workflow_of(self.spec.name)
        self.roles = self.workflow.roles
        self.guard = self.taskset.guard
        self.parts = Parts(getattr(engine, "peak", None))
        often = self.workflow.speaks.often(self.spec.options, self.taskset.turns)
        self.words = Words(engine, self.taskset, self.roles, often, roles or {})

    def notes(self) -> list[str]:
        """What a run says at its start: on how many threads it computes and why, and by what; what the
        taskset has left out, and what of it is too long for the model."""
        facts = self.engine.facts()
        computes = [_computes(facts)] if "threads/why" in facts else []
        tight = [self.words.tight] if self.words.tight else []
        return [*computes, *self.engine.notes, *self.taskset.notes, *tight]

    # ---- demonstrations: of problems without plans, those that were given some

    def demonstrable(self, rng: random.Random, levels: list[int]) -> list[Task]:
        """Training tasks to demonstrate, one per level; where the taskset breaks, `Undrawn` ones."""
        return drawing.demonstrable(self.taskset, rng, levels)

    def turns(self, task: Task) -> list[tuple[Turn, tuple[int, ...]]]:
        """The turns of a task's demonstration under the workflow with their tokens, token for token what a
        rollout that says the same would read and say; [] where it could not be drawn, or the taskset breaks
        over it."""
        try:
            said = [] if isinstance(task.state, Undrawn) else self.workflow.demonstration(self.taskset, task)
            if said:
                self.words.encoded("task", "family", self.words.root_ids, task)
            found: list[tuple[Turn, tuple[int, ...]]] = []
            for turn in self._joined(said):
                if turn.role and found:
                    self._open(found, turn.role)
                found.append((turn, self._turn_ids(turn, found)))
            return found
        except Fault:
            return []

    def _joined(self, said: Sequence[Turn]) -> Iterator[Turn]:
        """The turns, with observations in a row as a trajectory reads them."""
        for role, turns in groupby(said, key=lambda turn: turn.role):
            if role is not None or self.words.spaced:
                yield from turns
            else:
                yield Turn(role=None, text=reduce(self.words.observed, (turn.text for turn in turns)))

    def _turn_ids(self, turn: Turn, before: list[tuple[Turn, tuple[int, ...]]]) -> tuple[int, ...]:
        words = self.words
        if turn.role is not None:
            return words.encoded("task", "demonstrate", words.turn, turn.role, turn.text)
        said = before[-1][1] if before else ()
        return words.encoded("task", "demonstrate", lambda text: words.observation(text, said), turn.text)

    def _open(self, found: list[tuple[Turn, tuple[int, ...]]], role: str) -> None:
        """The opening of the role's turn stands at the end of what is read before it."""
        opening, (before, said) = self.words.opening(role), found[-1]
        ids = self.words.piece(opening) if opening else ()
        if before.role is None:
            found[-1] = Turn(role=None, text=self.words.after(before.text, opening)), said + ids
        elif ids := self.words.observation(None, said) + ids:
            found.append((Turn(role=None, text=opening), ids))

    def check_room(self, tasks: Sequence[Task] = (), demonstrated: bool = False) -> None:
        """UserError where one of `tasks`, or of the longest that there are, does not fit the model's context
        with the longest turns allowed and what is read between them (`Words.check_room`). What the
        environment says is counted where the taskset tells its length or can demonstrate it; else it shows
        while rollouts grow (overlong)."""
        turns: list[list[tuple[str | None, int]]] = []
        for task in tasks or self.words.deepest():
            with suppress(UserError):  # a task without a demonstration is reported where it is demonstrated
                if self.oracle_plan(task):
                    turns.append([(turn.role, len(ids)) for turn, ids in self.turns(task)])
        self.words.check_room(tasks, demonstrated, self.words.most_read(turns))

    def all_demonstrable(self) -> bool:
        """Whether every task that `demonstrable` can draw has a demonstration."""
        return self.taskset.all_demonstrable

    def oracle_plan(self, task: Task) -> str:
        """The oracle's plan, "" where the taskset knows none for this task, or breaks over it."""
        if isinstance(task.state, Undrawn) or not face(self.taskset, Oracle):
            return ""
        with suppress(Fault):
            return self.taskset.oracle_plan(task) if self.taskset.has_plan(task) else ""
        return ""

    # ---- trees

    def grow(
        self,
        tasks: Sequence[Task],
        tree: TreeSpec,
        policies: Mapping[str, str],
        seed: int,
        *,
        noise: bool = True,
        with_oracle: bool = False,
        first: int = 0,
        places: Sequence[int] | None = None,
        update: int | None = None,
    ) -> list[Tree]:
        """One tree per task, with as many turns of each role at one place as `tree` says; `tree.oracle` are
        the roles that the oracle speaks.

        `policies` maps each role to the policy that speaks for it. The same seed gives the same trees.
        `with_oracle`: what the oracle says in the first role stands beside what the policy says, as the last
        branch, and is continued with them, so that a prompt is computed once for both. `first`: the place of
        the first task in a longer list, which then grows part by part as it would at once; `places`: of each
        task. `update`: number of the step whose update learns from the trees; it changes none of them.
        """
        play = self._play(tree, policies, noise, with_oracle, update)
        at = range(first, first + len(tasks)) if places is None else places
        return self._grown([Growing(play, t, seed_of(seed, i)) for i, t in zip(at, tasks, strict=True)])

    def execute(
        self,
        tasks: Sequence[Task],
        given: Sequence[Sequence[Sequence[tuple[str, tuple[int, ...]]]]],
        tree: TreeSpec,
        policy: str,
        seed: int,
        *,
        noise: bool = True,
        first: int = 0,
    ) -> list[Tree]:
        """One tree per task: what follows, by `policy`, on each of its given beginnings: a turn (text, token
        ids) of the first role, and where there are more of them, one of each role after it. Whoever wrote
        them, the ids are those of this engine's tokenizer. Nothing is parsed: give turns that the interface
        accepts."""
        play = self._play(tree, dict.fromkeys(self.roles, policy), noise, False)
        growing = [
            Growing(play, task, seed_of(seed, i), [_chain(turns) for turns in beginnings])
            for i, (task, beginnings) in enumerate(zip(tasks, given, strict=True), start=first)
        ]
        return self._grown(growing)

    def _play(
        self,
        tree: TreeSpec,
        policies: Mapping[str, str],
        noise: bool,
        with_oracle: bool,
        update: int | None = None,
    ) -> Play:
        budgets = {role: tree.tokens.get(role) or most for role, most in self.words.budgets.items()}
        return Play(
            words=self.words,
            taskset=self.taskset,
            workflow=self.workflow.name,
            policies=policies,
            counts=counts_of(tree, self.roles),
            budgets=budgets,
            options={**self.workflow.speaks.options, **self.spec.options},
            settings={name: getattr(tree, name) for name in ("temperature", "top_p", "top_k", "min_p")},
            noise=noise,
            turns=self.taskset.turns,
            max_turns=self.spec.max_turns,
            max_tokens=self.spec.max_tokens,
            oracle=self.oracle,
            oracles=frozenset(tree.oracle),
            with_oracle=with_oracle,
            update=update,
        )

    def _grown(self, growing: list[Growing]) -> list[Tree]:
        whole = [g for g in growing if not g.broken]
        for g in growing:
            if g.broken:
                self._fail_all(g)
        most = self.guard.limits.open_episodes or self.taskset.open_episodes
        step = max(1, most // whole[0].play.leaves if most and whole else len(whole))
        for start in range(0, len(whole), step):
            self._drive(whole[start : start + step])
        return [g.tree() for g in growing]

    def _drive(self, whole: list[Growing]) -> None:
        """These trees, to their ends."""
        trajectories = [Trajectory(g, 0) for g in whole]

        def lost(number: int, error: BaseException) -> None:
            known = error.fault if isinstance(error, WorkflowError) else None
            late = f"no end within {self.guard.limits.step_seconds:g} s between two awaits"
            said = late if isinstance(error, TimeUp) else ""
            fault = known or self.guard.fault("workflow", self.workflow.name, error, said)
            whole[number].lose(fault.reason)

        pool = self.taskset.episodes
        driver = (Free if self.free else Lockstep)(self.engine.sample, pool, self.guard.watch, lost)
        for g in whole:
            g.driver = driver
        with self.parts.part("sampling"), pool:
            driver.run([self.workflow.run(t, t.task, t.counts) for t in trajectories])
        for number, g in enumerate(whole):
            if g.play.counts[self.roles[0]] and not any(node.role for node in g.nodes):
                lost(number, WorkflowError("no role has spoken: is each fork and generate awaited?"))
        self.engine.forget_paths()

    def _fail_all(self, g: Growing) -> None:
        """Every branch that was to stand under the prompt has failed with the task."""
        play, role = g.play, self.roles[0]
        for given in g.given:
            at = g.add(parent=0, role=role, text=given.text, token_ids=given.ids)
            g.nodes[at].status, g.nodes[at].reason = "failed", g.broken
        if not g.given:
            for _ in range((1 if role in play.oracles else play.counts[role]) + play.with_oracle):
                g.empty(0, role, g.broken, play.policies[role])

    def knows_first_role(self, tasks: Sequence[Task]) -> bool:
        """Whether the oracle speaks the workflow's first role, by the first of these tasks that could be
        drawn: the taskset's demonstration may not know the roles of a workflow of one's own."""
        known = [task for task in tasks if not isinstance(task.state, Undrawn)]
        try:
            return not known or bool(self.workflow.oracle(self.taskset, known[0], self.roles[0]))
        except Fault:
            return True  # it breaks, which is counted where it is asked

    def oracle(self, task: Task, role: str, number: int = 0) -> Given:
        """What the oracle says in its turn `number` of a role, from 0; after its last turn, the last one
        again: an episode that is not over by then has left the demonstration."""
        with self.guard.watch():
            try:
                said = self.workflow.oracle(self.taskset, task, role)
                if not said:
                    return Given(text="", ids=(), fault=f"task: the oracle has no turn of {role}")
                text = said[min(number, len(said) - 1)]
                ids = self.words.encoded("task", "oracle_plan", self.words.turn, role, text)
                return Given(text=text, ids=ids)
            except Fault as fault:
                return Given(text="", ids=(), fault=fault.reason)


def _chain(turns: Sequence[tuple[str, tuple[int, ...]]]) -> Given:
    (text, ids), *rest = turns
    return Given(text=text, ids=ids, then=_chain(rest) if rest else None)


def _computes(facts: Mapping[str, object]) -> str:
    """An engine's threads and kernels in a line, each with its reason where it has one."""
    line = f"threads: {facts['threads']} ({facts['threads/why']})"
    if "threads/kernels" in facts:
        line += f", {facts['threads/kernels']} for the kernels"
    kernels, _, why = str(facts.get("kernels", "")).partition(": ")
    line += (f"; kernels: {kernels}" if kernels else "") + (f" ({why})" if why else "")
    if facts.get("products") and kernels == "c":
        why = str(facts.get("products/why") or "")
        line += f", products by {facts['products']}" + (f" ({why})" if why else "")
    if facts.get("sampling/why"):
        line += f"; rows by {facts['sampling']} ({facts['sampling/why']})"
    return line + (f"; {facts['precision']} ({facts['precision/why']})" if "precision/why" in facts else "")
