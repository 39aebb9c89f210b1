"""What a workflow holds in its hands: where one path through a tree stands, and what can be done there.

A workflow is a coroutine `async def f(t: Trajectory, task: Task, n: Counts)`. It begins at the prompt, forks
into branches and lets roles speak on them:

    for plan in await t.fork("plan", n["plan"]):     # n branches, each with its first turn
        ...
        await plan.generate("act")                   # the next turn on the same branch
        outcome = await plan.step()                  # the environment answers to it

A branch ends when a turn is refused, leaves no room in the model's context (overlong) or fails. Nothing can
be said on a branch that has ended: a workflow that tries fails, and is counted, at the boundary "workflow".
"""

from __future__ import annotations

import math
from asyncio import CancelledError
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from numbers import Real
from threading import current_thread
from types import TracebackType
from typing import Any

from forethought.core.errors import CodeFault, ForethoughtError, UserError, unknown
from forethought.core.places import runs_at
from forethought.core.seeds import seed_of
from forethought.core.types import Outcome, Request, Task
from forethought.envs.guard import Boundary, Fault
from forethought.envs.guarded import Guarded
from forethought.envs.pool import Episode
from forethought.workflows.drive import together
from forethought.workflows.growing import ENDS, Given, Growing

__all__ = ["Counts", "Trajectory", "WorkflowError", "together"]

Counts = Mapping[str, int]
"""Role -> branches at a fork of that role."""


MOST_BRANCHES = 100_000  # at one fork; a number that large comes from a mistake


class WorkflowError(ForethoughtError):
    """A workflow did what it must not: its branch has failed. `fault`: it was counted as."""

    fault: Fault | None = None


class Trajectory:
    """Where a path stands: at the prompt, or on a branch after the turn just said.

    `address`: the number of each branch from the prompt down to this one, from 1, among those of the branch
    above it. What is drawn depends on the address, the role and how often the branch has asked before, and on
    nothing else: not on the order in which answers come.
    """

    __slots__ = (
        "address",
        "_tree",
        "_at",
        "_node",
        "_turn",
        "_before",
        "_branches",
        "_asks",
        "_forks",
        "_begun",
        "_turns",
        "_sampled",
        "_then",
        "_episode",
        "_steps",
        "_missed",
        "_oracles",
        "_luck",
        "_texts",
    )

    def __init__(self, tree: Growing, at: int, address: tuple[int, ...] = (), before: tuple[int, ...] = ()):
        self._tree, self._at, self.address = tree, at, address
        self._node = self._turn = tree.nodes[at]  # where it stands; the turn just said, before observations
        self._before = before  # tokens above `_at`
        self._branches = self._asks = self._forks = self._begun = 0  # branches, requests, forks, resets
        self._turns = self._sampled = 0  # turns and sampled tokens of the whole path
        self._then: Given | None = None  # a given turn that comes next, instead of a sampled one
        self._episode: Episode | None = None  # in the environment of this branch
        self._steps = self._missed = 0  # answers of the environment; those to a step that failed
        self._oracles = tree.play.oracles  # roles that the oracle speaks on this branch
        self._luck: int | None = None  # the seed of its episodes, where one was begun on the path
        self._texts: list[tuple[str, str]] = []  # (role, text) of the turns of this branch

    # ---- the turn just said

    @property
    def task(self) -> Task:
        """The task of this tree."""
        return self._tree.task

    @property
    def taskset(self) -> Guarded:
        """Its methods raise Fault where they break: call them inside `guard`."""
        return self._tree.play.taskset

    @property
    def counts(self) -> Counts:
        """How many branches the recipe wants of each role."""
        return self._tree.play.counts

    @property
    def options(self) -> Mapping[str, Any]:
        """Those of the workflow, from the recipe."""
        return self._tree.play.options

    @property
    def text(self) -> str:
        """Text of the last turn."""
        return self._turn.text

    @property
    def status(self) -> str:
        """Status of the last turn."""
        return self._turn.status

    @property
    def reason(self) -> str:
        """Why the turn was refused, is overlong or has failed, or what the environment said of it."""
        return self._turn.reason

    @property
    def accepted(self) -> bool:
        """It is complete and was not refused."""
        return self._turn.accepted

    @property
    def ended(self) -> bool:
        """Nothing can be said here any more. A turn that ran out of budget (truncated) does not end a
        branch."""
        return self._turn.status in ENDS

    def texts(self, role: str) -> list[str]:
        """What the role has said on this branch, in order."""
        return [text for speaker, text in self._texts if speaker == role]

    def reward(self, **parts: float) -> None:
        """Named parts of the reward of the turn just said, finite numbers; anything else fails the branch. A
        turn that failed or had no room earns none."""
        if self._turn.status in ("failed", "overlong"):
            return
        for name, value in parts.items():
            # a plain float first: to ask whether another kind is a number takes longer than the rest
            if not ((type(value) is float or isinstance(value, Real)) and math.isfinite(value)):
                self._fail(
                    self._fault(WorkflowError(f"reward {name} must be a finite number, found {value!r:.60}"))
                )
                return
        self._turn.reward_parts |= parts

    def refuse(self, reason: str) -> None:
        """The interface does not accept the turn just said: the branch ends. A truncated turn stays what it
        is; its reason is said."""
        turn = self._turn
        turn.reason = reason
        if turn.status in ("given", "finished"):
            turn.status = "refused"

    def note(self, reason: str) -> None:
        """Add a remark on the turn just said, for the reader of the trace."""
        if not self.ended:
            self._turn.reason = reason

    def guard(self, boundary: Boundary) -> AbstractContextManager[None]:
        """What breaks inside makes the turn just said `failed` at this boundary, and the branch ends.

        Calls of the taskset name their own boundary. The user's mistakes (UserError) and Ctrl-C pass.
        """
        return _Guard(self, boundary)

    # ---- what is said next

    async def fork(self, role: str, n: int = 1) -> list[Trajectory]:
        """`n` branches from here, each begun by a turn of `role`. 0: none. WorkflowError where `n` is not a
        whole number from 0 to `MOST_BRANCHES`."""
        if type(n) is not int or not 0 <= n <= MOST_BRANCHES:
            raise WorkflowError(f"fork of {role} needs a number from 0 to {MOST_BRANCHES:,}, found {n!r:.60}")
        play, tree = self._tree.play, self._tree
        if not n:
            return []
        if self._episode is not None and not self._steps:  # begun here: each branch has its own
            await self._close()
            if self._turn.status in ENDS:
                return []
        if self._turn.status in ENDS or role not in play.policies:
            await self._unready(role)
        if over := self._limit(role):
            if self._forks > play.max_turns:  # it ignores the limit
                await tree.driver.never()
            self._forks = play.max_turns + 1
            return self._branched([tree.empty(self._at, role, over, play.policies[role])])
        self._forks += 1
        first = not self.address and role == play.words.roles[0]
        given = list(tree.given) if first else [self._then] if self._then else []
        if role in self._oracles:
            given.append(self._oracle(role))
        outs = [] if given else await tree.driver.ask(self._request(role, n))
        if first and play.with_oracle:
            given.append(self._oracle(role))
        before = len(self._before) + len(self._node.token_ids)
        said = [tree.say(self._at, None, role, out, before) for out in outs]
        made = self._branched(said + [self._add_given(role, one) for one in given])
        for branch, one in zip(made[len(said) :], given, strict=True):
            branch._then = one.then
        if first and play.with_oracle:  # where the oracle began, it speaks whenever the role does
            made[-1]._oracles |= {role}
        return made

    async def generate(self, role: str) -> Trajectory:
        """The next turn of this branch, by `role`: this trajectory, which now stands after it."""
        tree, play = self._tree, self._tree.play
        if self._turn.status in ENDS or role not in play.policies:
            await self._unready(role)
        if over := self._limit(role):
            return self._moved(tree.empty(self._at, role, over, play.policies[role]))
        if role in self._oracles:
            return self._moved(self._add_given(role, self._oracle(role), self._node.branch))
        request = self._request(role, 1)
        [out] = await tree.driver.ask(request)
        return self._moved(tree.say(self._at, self._node.branch, role, out, len(request.context)))

    def observe(self, text: str, images: Sequence[bytes] = ()) -> None:
        """What the roles read next; in free text, two in a row are one message. Before anything was said it
        stands at the end of the prompt. `images`: PNG or JPEG files, kept for the reader of the trace; no
        model here reads them yet."""
        if not isinstance(text, str):
            self._fail(self._fault(WorkflowError(f"observe takes text, found {text!r:.60}")))
            return
        with _Guard(self, "workflow"):
            if self._at == 0 and not self._tree.asked:
                kept = self.taskset.episodes.images.keep(images) if images else ()
                return self._tree.show_first(text, kept, "workflow", self._tree.play.workflow)
            self._read("workflow", self._tree.play.workflow, text, images)

    def _read(self, boundary: Boundary, name: str, text: str, images: Sequence[bytes]) -> None:
        """Stand after what is read. Raises Fault where the tokenizer cannot write what `name` gave."""
        tree, words, said, last = self._tree, self._tree.play.words, self._turn.token_ids, self._node
        joins = not words.spaced and last is not self._turn and self._at not in tree.asked
        text = words.observed(last.text, text) if joins else text
        ids = words.known(text) or words.encoded(
            boundary, name, lambda text: words.observation(text, said), text
        )
        names = self.taskset.episodes.images.keep(images) if images else ()
        if joins:
            last.text, last.token_ids, last.images = text, ids, last.images + names
        else:
            self._stand(tree.read(self._at, last.branch, text, ids, names))

    # ---- the environment

    async def begin(self) -> None:
        """Reset the environment: what it shows first is what the roles read next. Before anything was said it
        stands at the end of the prompt (of its last message), for all branches, whose own episodes are reset
        with the same seed. A branch that does not call this has its episode reset at its first step, and
        reads nothing of it."""
        self._begun += 1
        if self._begun > self._tree.play.max_turns:
            await self._misused(f"the environment was to begin {self._begun:,} times")
        with _Guard(self, "environment"):
            self._luck = self._seed()
            seen = await self._tree.driver.call(self._new().reset())
            if not (seen.text or seen.images):
                return
            if self._at == 0 and not self._tree.asked:
                images = self.taskset.episodes.images
                self._tree.show_first(seen.text, images.keep(seen.images) if seen.images else ())
            else:
                self._read("environment", "reset", seen.text, seen.images)

    async def step(self, act: str | None = None) -> Outcome | None:
        """The environment's answer to the turn just said, or to `act` in its place; the turn's reward gets
        the answer's parts. While it is not done, its observation is what the roles read next. Done at the
        latest after the taskset's `turns`. None where something broke: then the branch has ended."""
        if self._turn.status in ENDS or (self._episode is not None and self._episode.over):
            await self._misused("the environment was to go on after its end")
        outcome = None
        try:
            episode = self._episode or await self._opened()
            text = self._turn.text if act is None else act
            if episode.here:
                outcome = episode.step_here(text)
            else:
                outcome = await self._tree.driver.call(episode.step(text))
            self._steps += 1
            self._missed += outcome.missed
            if outcome.parts:
                self.reward(**outcome.parts)
            if outcome.done or self._steps >= self._tree.play.turns:
                self.note(outcome.reason)
                if not episode.over:
                    await self._close()
                outcome = outcome if outcome.done else replace(outcome, done=True)
            else:
                if outcome.reason:
                    self.note(outcome.reason)
                self._read("environment", "step", outcome.observation or "", outcome.images)
        except BaseException as error:  # not by `_Guard`, whose making takes longer than what it does here
            if not self._broke("environment", error):
                raise
        return None if self._turn.status in ENDS else outcome

    async def consult(self, act: str) -> Outcome | None:
        """The environment's answer to an act that no role has said, in an episode of its own that ends with
        it: several at once by `together`. Nothing of it is read. Its luck is that of the branch and the act.
        None where something broke: then the branch has ended."""
        if not isinstance(act, str):
            self._fail(self._fault(WorkflowError(f"consult takes text, found {act!r:.60}")))
            return None
        episode = self._made(seed_of(self._seed(), "consult", act))
        try:
            await self._tree.driver.call(episode.reset())
            outcome: Outcome = await self._tree.driver.call(episode.step(act))
            if not episode.over:
                await self._tree.driver.call(episode.close())
            return outcome
        except BaseException as error:
            if not self._broke("environment", error):
                raise
            return None

    async def finish(self, reason: str) -> None:
        """The episode ends here, whatever the environment would have said next. The branch fails where its
        `close` breaks."""
        self.note(reason)
        await self._close()

    async def _close(self) -> None:
        if self._episode is not None and not self._episode.over:
            with _Guard(self, "environment"):
                await self._tree.driver.call(self._episode.close())

    def _made(self, seed: int) -> Episode:
        play, task = self._tree.play, self.task
        make = partial(play.taskset.environment, task, play.noise)
        return play.taskset.episodes.episode(make, task, seed)

    def _new(self) -> Episode:
        self._episode = self._made(self._seed())
        return self._episode

    async def _opened(self) -> Episode:
        """A new episode, reset; its first observation is not read."""
        episode = self._new()
        await self._tree.driver.call(episode.reset())
        return episode

    def _seed(self) -> int:
        if self._luck is not None:
            return self._luck
        address = self.address or (1,)
        return seed_of(self._tree.seed, "episode", *address[:-1], address[-1] - 1)

    # ---- how it is done

    async def _unready(self, role: str) -> None:
        """Nothing can be said here by `role`."""
        play = self._tree.play
        if role not in play.policies:
            message = (
                f"{play.workflow} speaks a role that this run lacks: {unknown('role', role, play.policies)}"
            )
            await self._tree.driver.stop(CodeFault("workflow", f"{message}{_here()}"))
        if self.ended:
            await self._misused(f"{role} was to speak on a branch that had ended ({self.status})")

    async def _misused(self, message: str) -> None:
        error = WorkflowError(message)
        fault = self._fault(error)
        if self.status != "failed":  # else its first reason stands: what comes after follows from it
            self._fail(fault)
        self._tree.misuses += 1
        if self._tree.misuses > 1:  # it ignores the error: it is never resumed
            await self._tree.driver.never()
        raise error

    def _fault(self, error: WorkflowError) -> Fault:
        """The error, counted, at the line of the workflow that runs now."""
        guard, workflow = self.taskset.guard, self._tree.play.workflow
        error.fault = guard.fault("workflow", workflow, error, place=runs_at(current_thread()))
        return error.fault

    def _limit(self, role: str) -> str:
        """Before a turn: which limit of a path is reached, or ""; else the opening of the turn is read."""
        play, tree = self._tree.play, self._tree
        if self._turns + self._forks >= play.max_turns:
            error = WorkflowError(f"no end within {play.max_turns:,} turns of a path (workflow.max_turns)")
        elif play.max_tokens and self._sampled >= play.max_tokens:
            error = WorkflowError(f"no end within {play.max_tokens:,} tokens of a path (workflow.max_tokens)")
        else:
            try:
                at = tree.open(self._at, self._node.branch, role)
            except Fault as fault:
                return fault.reason
            if at != self._at:
                self._stand(at)
            return ""
        return self._fault(error).reason

    def _request(self, role: str, n: int) -> Request:
        play = self._tree.play
        asked, self._asks = self._asks, self._asks + 1
        address = (*self.address, asked) if self.address or asked else ()
        budget = play.budgets[role]
        budget = min(budget, play.max_tokens - self._sampled) if play.max_tokens else budget
        return Request(
            policy=play.policies[role],
            context=self._before + self._node.token_ids,
            n=n,
            stops=play.words.stops(role),
            max_tokens=budget,
            **play.settings,
            seed=seed_of(self._tree.seed, role, *address),
            update=play.update,
        )

    def _branched(self, turns: Sequence[int]) -> list[Trajectory]:
        """A branch with each of these turns, which were just said here."""
        before, made = self._before + self._node.token_ids, []
        for at in turns:
            self._branches += 1
            branch = Trajectory(self._tree, at, (*self.address, self._branches), before)
            branch._turns, branch._sampled = self._turns, self._sampled
            branch._oracles, branch._luck = self._oracles, self._luck
            branch._said()
            made.append(branch)
        return made

    def _stand(self, at: int) -> None:
        """It now stands at `at`, which lies under where it stood."""
        self._before += self._node.token_ids
        self._at, self._node = at, self._tree.nodes[at]

    def _moved(self, at: int) -> Trajectory:
        """The turn at `at` was just said on this branch."""
        self._stand(at)
        self._turn = self._node
        self._said()
        return self

    def _said(self) -> None:
        turn = self._turn
        self._turns += 1
        self._sampled += len(turn.token_ids)
        self._texts.append((turn.role or "", turn.text))

    def _oracle(self, role: str) -> Given:
        """The oracle's next turn of the role on this path; after a step that failed, the turn before it
        again."""
        nodes, said = self._tree.nodes, 0
        at: int | None = self._at
        while at:
            said += nodes[at].role == role
            at = nodes[at].parent
        return self._tree.play.oracle(self.task, role, max(0, said - self._missed))

    def _add_given(self, role: str, given: Given, branch: int | None = None) -> int:
        return self._tree.add(
            parent=self._at,
            role=role,
            text=given.text,
            token_ids=given.ids,
            branch=branch,
            status="failed" if given.fault else "given",
            reason=given.fault,
        )

    def _fail(self, fault: Fault) -> None:
        """The turn just said has failed; where something was read since, a turn that was never said."""
        if self._node.role is None:
            role = self._turn.role or self._tree.play.words.roles[0]
            self._moved(self._tree.empty(self._at, role, fault.reason))
            return
        turn = self._turn
        turn.status, turn.reason, turn.reward_parts = "failed", fault.reason, {}

    def _broke(self, boundary: Boundary, error: BaseException) -> bool:
        """The branch has failed by what was raised behind a boundary; False where that is the user's, or the
        driver's end of this workflow."""
        if isinstance(error, Fault):
            self._fail(error)
            return True
        if isinstance(error, UserError | KeyboardInterrupt | GeneratorExit | CancelledError):
            return False
        self._fail(self.taskset.guard.fault(boundary, self._tree.play.workflow, error))
        return True


class _Guard:
    """`Trajectory.guard`. No generator, which would take longer than most of what it guards."""

    __slots__ = ("_t", "_boundary")

    def __init__(self, t: Trajectory, boundary: Boundary):
        self._t, self._boundary = t, boundary

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return error is not None and self._t._broke(self._boundary, error)


def _here() -> str:
    """The line of the workflow that runs now, in brackets, or ""."""
    place = runs_at(current_thread())
    return f" ({place})" if place else ""
