"""What a model reads when it is asked for a plan: a question, its worked solution, and what a plan is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from forethought.core.errors import UserError
from forethought.stages.distill.records import Item
from forethought.tasks.sections import PLAN, TAGS

SYSTEM = (
    "You are given a problem and a solution that was worked out in full. Write down the plan that this "
    "solution follows, for someone who has not seen it. Name the phases, the choices between ways to go, and "
    "what to do when a case splits. Leave out every calculation, every number that the problem does not "
    "state, and the answer. Be short: a few lines, one phase a line. Put the plan between <plan> and "
    "</plan>, and write nothing outside of them."
)
USER = "Problem:\n{question}\n\nSolution:\n{chain}\n\nNow the plan alone."
_FIELD = re.compile(r"\{(question|chain)\}")

Message = dict[str, str]
"""{"role": "system" | "user", "content": text}, as chat templates and endpoints take it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """`user` holds {question} and {chain}; other braces are text. UserError where one of them is missing."""

    system: str = SYSTEM
    user: str = USER

    def __post_init__(self) -> None:
        if missing := [name for name in ("question", "chain") if f"{{{name}}}" not in self.user]:
            raise UserError(
                f"the prompt for plans lacks {{{missing[0]}}}; write where the {missing[0]} is to stand in it"
            )

    @property
    def template(self) -> str:
        """The prompt before an item is filled in; part of the cache's key."""
        return f"{self.system}\n\n{self.user}".strip()

    def text(self, item: Item) -> str:
        """The user's part. Filled in one pass: a question that itself says {chain} stays as it is."""
        values = {"question": item.question, "chain": item.chain}
        return _FIELD.sub(lambda found: values[found[1]], self.user)

    def messages(self, item: Item) -> list[Message]:
        """Chat messages for one item."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.text(item)}]

    def plain(self, item: Item) -> str:
        """For a model without a chat template."""
        return f"{self.system}\n\n{self.text(item)}\n\n".lstrip()


def with_examples(prompt: Prompt, examples: Sequence[tuple[Item, str]]) -> Prompt:
    """The prompt after worked examples, for a task family whose plans have a language of their own."""
    shown = [f"{prompt.text(item)}\n{TAGS.open(PLAN)}{plan}{TAGS.close(PLAN)}" for item, plan in examples]
    rule = "The plan is written as in these examples, in the same words and in no other form."
    return replace(prompt, system="\n\n".join([prompt.system, rule, *shown]).strip())


def digest(text: str) -> str:
    """sha256, hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
