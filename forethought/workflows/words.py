"""The words of a taskset as tokens of a model. Pieces are encoded apart and joined as ids, so that what was
sampled is what trains."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from forethought.core.errors import UserError
from forethought.core.types import Node, Task, Undrawn
from forethought.engines.base import Engine
from forethought.envs.guard import Boundary
from forethought.envs.guarded import Guarded
from forethought.recipe.schema import RoleSpec
from forethought.tasks.base import Asks, FreeText, Pool, face, needed
from forethought.workflows.drawing import drawn

HERE = "forethought"  # stands for the task where only what is written around it is looked for
SHORT, KEPT = 2000, 4096  # characters of a piece whose tokens are kept; how many are


def longest_turns(budgets: Mapping[str, int], often: Mapping[str, int]) -> int:
    """Most tokens (or words) of all turns on one path, by the budgets of a turn of each role."""
    return sum(most * often[role] for role, most in budgets.items())


def read_between(
    shown: Sequence[Sequence[tuple[str | None, int]]], last: str, turns: int, stated: int
) -> int:
    """Most tokens (or words) that are read between the turns of one path. What is read before the last role
    speaks again comes as often as it does; how long it is, demonstrations show, which are given as (role,
    tokens) of their turns, and the taskset may say of its observations (`stated`)."""
    before = again = 0
    for said in shown:
        read, spoken = 0, False
        for role, tokens in said:
            read += tokens if role is None else 0
            if role == last:
                before, again = (before, max(again, read)) if spoken else (max(before, read), again)
                read, spoken = 0, True
    return before + (turns - 1) * max(again, stated)


class Words:
    """What one engine makes of the texts of one taskset.

    `roles`: those of the workflow; the first one speaks under the prompt. `often`: how often each speaks at
    most on one path, by default the last one before every answer of the environment and the others once.
    `own`: what the recipe says of roles, instead of the taskset. `budgets`: role -> most tokens of a turn,
    from the taskset's budget in words (words of a subword tokenizer are several tokens); where the taskset is
    free text (`spaced` False) it says tokens itself.
    """

    def __init__(
        self,
        engine: Engine,
        taskset: Guarded,
        roles: Sequence[str],
        often: Mapping[str, int] | None = None,
        own: Mapping[str, RoleSpec] | None = None,
    ):
        self.engine, self.taskset, self.roles = engine, taskset, tuple(roles)
        self.often = often or {role: taskset.turns if role == roles[-1] else 1 for role in roles}
        self.spaced = taskset.spaced
        self._written: set[str] = set()  # words that the tokenizer is known to write
        self._pieces: dict[str, tuple[int, ...]] = {}  # what siblings read they read in the same words
        rows = {role: (own or {}).get(role) or RoleSpec() for role in self.roles}
        self._stops = {role: rows[role].stop or taskset.stop(role) for role in self.roles}
        self._ends = {role: (stop,) if stop else () for role, stop in self._stops.items()}
        self._openings = {role: taskset.opening(role) for role in self.roles}
        marks = free.marks() if not self.spaced and (free := face(taskset, FreeText)) else ()
        self._own = frozenset([*marks, *self._openings.values(), *self._stops.values()])
        self._front, self._back = self._around()
        # tokens of a word
        self.longest = max(len(self.piece(word)) for word in taskset.words(self.roles)) if self.spaced else 1
        self.budgets = {role: rows[role].budget or taskset.budget(role) * self.longest for role in self.roles}
        self.tight = ""  # what `check_room` found of problems that are too long for the model, in a sentence

    # ---- a role's turn

    def stop(self, role: str) -> str:
        """The word that ends a turn of the role; "": the model's own end."""
        return self._stops[role]

    def stops(self, role: str) -> tuple[str, ...]:
        """Stop texts of a role; empty where its turn ends with the model's own end."""
        return self._ends[role]

    def opening(self, role: str) -> str:
        """What stands before a turn of the role, or ""."""
        return self._openings[role]

    def turn(self, role: str | None, text: str) -> tuple[int, ...]:
        """A turn that was not sampled. Where the model ends the role's turns itself (the stop is ""), it has
        the model's own end."""
        end = () if role is None or self.stop(role) or self.engine.end is None else (self.engine.end,)
        ids = self.piece(text) if self.spaced else self.engine.plain(text, self._own, turn=True)
        return ids + end

    def said(self, role: str, ids: Sequence[int], finished: bool) -> str:
        """The text of a sampled turn."""
        # the model's own end is not a text
        shown = ids[:-1] if not self.spaced and self.engine.ends.issuperset(ids[-1:]) else ids
        text, stop = self.engine.decode(shown).strip(), self.stop(role)
        if stop and finished and (at := text.rfind(stop)) >= 0:
            # the last token may go on behind the stop that it ends: `><` in `</plan><think>`
            return text[: at + len(stop)]
        return text

    def completion(self, node: Node) -> str:
        """The text of a sampled turn as TRL gives it to reward functions: white space kept, special tokens
        left out; in words, as it stands in the tree."""
        return node.text if self.spaced else self.engine.decode(node.token_ids, special=False)

    # ---- pieces

    def piece(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece that follows other text. The space is what a subword tokenizer expects before
        a word."""
        if (ids := self._pieces.get(text)) is None:
            ids = self.engine.encode(" " + text) if self.spaced else self.engine.plain(text, self._own)
            if len(text) <= SHORT:
                if len(self._pieces) >= KEPT:
                    self._pieces.clear()
                self._pieces[text] = ids
        return ids

    def known(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece in words that was written before, or ()."""
        return self._pieces.get(text, ()) if self.spaced else ()

    def observation(self, text: str | None, said: Sequence[int]) -> tuple[int, ...]:
        """What is read after the turn `said` (None: nothing was observed), without the opening of the next
        turn: in free text a message of the other side, by the chat template of a model that has one."""
        if not self.spaced and (text is not None or (said and said[-1] in self.engine.ends)):
            rendered = self.engine.observation(text, said, self.taskset.side)
            if rendered is not None:
                return rendered
        return () if text is None else self.piece(text)

    def observed(self, text: str, more: str) -> str:
        """Two observations in a row of free text, read as one message."""
        return f"{text}\n{more}" if text and more else text + more

    def begun(self, text: str) -> tuple[int, ...]:
        """Token ids of the first text of a path: what comes before it in every path, and the text."""
        ids = self.engine.encode(text) if self.spaced else self.engine.plain(text, self._own)
        return self._front + ids

    def shared(self, task: Task) -> list[tuple[str, tuple[int, ...]]]:
        """Pieces at the beginning of a prompt that other tasks have too, one after the other, as (what makes
        two of them the same, token ids): what every task is told, and its context."""
        told = [("", self._front)] if self._told else []
        if not task.context:
            return told
        begin = () if self._told else self._front
        return [*told, (task.context, begin + self.engine.encode(task.context))]

    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids before and after the task's own words in its first message: the chat template's, where
        the model has one, and what the taskset tells a reader of language before a task."""
        self._told = self.taskset.told if self.spaced else ""
        if not self._told:
            return self.engine.begin, ()
        chat = self.engine.chat([{"role": "user", "content": f"{self._told}\n\n{HERE}"}])
        if chat is None:
            return self.engine.begin + self.engine.encode(f"{self._told}\n\n"), ()
        front, _, back = self.engine.decode(chat).partition(HERE)
        return self.engine.encode(front), self.engine.encode(back)

    def after(self, text: str, more: str) -> str:
        """Two texts in a row."""
        return f"{text} {more}" if self.spaced and text and more else text + more

    def encoded(
        self, boundary: Boundary, name: str, encode: Callable[..., tuple[int, ...]], *texts: object
    ) -> tuple[int, ...]:
        """What `encode` makes of texts that method `name` of the taskset gave. Raises Fault where the
        tokenizer cannot write them."""

        def written() -> tuple[int, ...]:
            if self.spaced:
                told = texts[-1]
                self._check_words(f"{told.context} {told.prompt}" if isinstance(told, Task) else str(told))
            return encode(*texts)

        return self.taskset.guard.call(boundary, name, written, (), seconds=0.0, users=False)

    def _check_words(self, text: str) -> None:
        """UserError where a word becomes another token than its own: it would be trained on, or read, as the
        word that stands for all."""
        if new := set(text.split()) - self._written:
            self.engine.check_words(sorted(new), ())
            self._written |= new

    # ---- the prompt

    def root_ids(self, task: Task, role: str | None = None, first: str = "") -> tuple[int, ...]:
        """What stands before the first turn, which `role` speaks (by default the workflow's first role): the
        words of the task, or in free text the conversation by the chat template of the model, where it has
        one, and the opening of the role's turn. Nothing before a task that could not be drawn. `first`: what
        the environment shows first, at the end of the prompt (of its last message)."""
        if isinstance(task.state, Undrawn):
            return ()
        opening = self.opening(role or self.roles[0])
        if self.spaced:
            if task.context:
                return self.begun(task.context) + self.prompt_ids(task, role, first)
            said = self.after(task.prompt, first)
            if self._back:
                return self.begun(said) + self._back + self.engine.encode(opening)
            return self.begun(self.after(said, opening))
        messages = list(needed(self.taskset, Asks, "spaced = False").messages(task))
        if first and messages:
            messages[-1] = {**messages[-1], "content": self.observed(messages[-1]["content"], first)}
        told = self.engine.chat(messages, self._own, opening.strip()) if messages else None
        if told:
            return told + self.engine.encode(opening)
        return self.begun(self.observed(task.prompt, first) + opening)

    def prompt_ids(self, task: Task, role: str | None = None, first: str = "") -> tuple[int, ...]:
        """What follows the context of a task that has one."""
        said, opening = self.after(task.prompt, first), self.opening(role or self.roles[0])
        if self._back:
            return self.piece(said) + self._back + self.engine.encode(opening)
        return self.piece(self.after(said, opening))

    def root_text(self, task: Task, role: str | None = None, first: str = "") -> str:
        """The prompt to be read by people. Of free text, whose template is not shown, without the opening."""
        opening = self.opening(role or self.roles[0]) if self.spaced else ""
        prompt = self.after(task.prompt, first) if self.spaced else self.observed(task.prompt, first)
        return self.after(f"{task.context} {prompt}".strip(), opening)

    # ---- room in the model's context

    @property
    def longest_turns(self) -> int:
        """Most tokens that the roles may take on one path."""
        return longest_turns(self.budgets, self.often)

    def most_read(self, shown: Sequence[Sequence[tuple[str | None, int]]]) -> int:
        """Most tokens that are read between the turns of one path, as `read_between` has it."""
        stated = 0
        if self.taskset.turns > 1 and self.taskset.observation:
            stated = self.taskset.observation * self.longest
            stated += 0 if self.spaced else len(self.observation("", ()))
        return read_between(shown, self.roles[-1], self.taskset.turns, stated)

    def check_room(self, tasks: Sequence[Task] = (), demonstrated: bool = False, read: int = 0) -> None:
        """UserError where one of `tasks` (by default the longest that the taskset knows, or some of its
        deepest level), with the longest turns allowed and `read` tokens between them, does not fit the
        model's context.

        Problems from files (a taskset with a pool) differ in length: some of them may be too long,
        which `tight` then says, but not all; where they are `demonstrated` too, none.
        """
        given = face(self.taskset, Pool)
        longest = [task for task in tasks or self.deepest() if not isinstance(task.state, Undrawn)]
        prompt, level = max(((len(self.root_ids(task)), task.level) for task in longest), default=(0, 0))
        said, context = self.longest_turns, self.engine.context
        if prompt + said + read <= context:
            return
        may_be_tight = given and not demonstrated
        sizes = (
            [len(self.root_ids(task)) for task in tasks or self._all(given)] if given and may_be_tight else []
        )
        tight = [size for size in sizes if size + said + read > context]
        what = " and ".join([*self.roles[:-1], f"{self.roles[-1]}s"])
        if len(tight) < len(sizes):
            none = sum(size >= context for size in tight)
            what += " and what is read between them" if read else ""
            self.tight = (
                f"{len(tight):,} of {len(sizes):,} problems leave less than the {said + read:,} tokens that "
                f"{what} may take in the model's context of {context:,}, and {none:,} of them none at all "
                f"(the longest prompt has {prompt:,}); what has no room is counted as overlong, not as wrong"
            )
            return
        what += f" with {read} read between them" if read else ""
        raise UserError(
            f"{self.taskset.name} at level {level} takes prompts of {prompt} tokens and {said} for {what}; "
            f"the model's context is {context}. Take lower levels or a model with a longer context"
        )

    def _all(self, given: Pool) -> list[Task]:
        """Every problem of a taskset with a pool, each once."""
        tasks = [
            task
            for level in self.taskset.levels
            for split in ("train", "eval")
            for task in given.pool(level, split)
        ]
        return list({task.id: task for task in tasks}.values())

    def deepest(self) -> list[Task]:
        """The longest tasks that the taskset knows, or some of its deepest level."""
        if given := face(self.taskset, Pool):
            return given.longest(16)
        rng = random.Random(0)
        return [drawn(self.taskset, rng, [max(self.taskset.levels)], "train")[0] for _ in range(8)]
