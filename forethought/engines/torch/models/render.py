"""What somebody else wrote as token ids: the messages of a conversation up to the assistant's turn, and what
the chat template writes after a turn, from its end to the opening of the next one. In text that the model did
not say nothing becomes a special token: a prompt that holds `<|im_end|>` ends no turn.

A conversation is the ids of its prompt, sampled ids, the ids made here, sampled ids, and so on. What was
sampled is never tokenised again, and the whole is what the template itself makes of the conversation. One
thing that a template may do is not followed: to leave out what was said earlier. (Qwen3's leaves out the
thinking of every turn before the last message of a user.) A trajectory only grows, in the model's context as
in training.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from forethought.core.errors import UserError
from forethought.core.types import Side
from forethought.engines.torch.models.chat import (
    FORMS,
    SAID,
    Endless,
    Form,
    Messages,
    lost,
    outside,
    refusal,
    rendered,
    special_of,
    text_of,
)
from forethought.engines.torch.models.pictures import Pictures

SEEN = "observation"  # where only what the template writes around one is looked for
HINT = "use a template in which the {side} answers the assistant"


class Frame(NamedTuple):
    """What the template writes behind an answer, around a message that follows it."""

    form: Form  # how it takes the message
    specials: tuple[int, ...]  # its special tokens, in order
    after: str  # all that stands behind the message


class Names:
    """The names of special tokens, to be found in texts."""

    def __init__(self, names: Iterable[str]):
        self._names = frozenset(names)
        self._firsts = {name[0] for name in self._names if name}
        words = "|".join(sorted(map(re.escape, self._names)))
        self._begins = re.compile(f"(?=(?:{words or '(?!)'})).", re.DOTALL)
        self._less: dict[frozenset[str], Names] = {}

    def but(self, own: Collection[str]) -> Names:
        """Without those of `own`."""
        less = self._names.intersection(own)
        if less and less not in self._less:
            self._less[less] = Names(self._names - less)
        return self._less[less] if less else self

    def found_in(self, text: str) -> bool:
        """Whether the text holds one."""
        return any(c in text for c in self._firsts) and any(name in text for name in self._names)

    def apart(self, text: str, cut: str) -> str:
        """Cut behind its first character, the name of a special token is text like any other."""
        return self._begins.sub(rf"\g<0>{cut}", text)


def _unused(text: str) -> str:
    return next(c for c in map(chr, range(0xFDD0, sys.maxunicode)) if c not in text)


class Renderer:
    """For a tokenizer with a chat template. `end`: the token with which the template ends a turn; `ends`:
    every token with which the model may; `source`: the model's name, for errors; `encode`: token ids of a
    text, where that is not the tokenizer's affair alone; `pictures`: those that any text may name, with
    special tokens around them."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        end: int | None,
        ends: frozenset[int],
        source: str,
        encode: Callable[[str], Sequence[int]] | None = None,
        pictures: Pictures | None = None,
    ):
        self._around = pictures.around if pictures else ()
        self._encode = encode or partial(tokenizer.encode, add_special_tokens=False)
        self.tokenizer, self.end, self.ends, self.source = tokenizer, end, ends, source or "the model"
        self.special = special_of(tokenizer) | (ends & tokenizer.added_tokens_decoder.keys())
        self._all = Names(tokenizer.convert_ids_to_tokens(i) for i in self.special)
        self._ends = Names(tokenizer.convert_ids_to_tokens(i) for i in ends & self.special)
        self._frames: dict[Side | None, Frame] = {}

    def chat(self, messages: Messages, own: Collection[str] = (), opens: str = "") -> tuple[int, ...] | None:
        """A conversation up to the assistant's turn, which `opens` (`chat.text_of`); None where no message
        holds the name of a special token other than those of `own`, so that the text is to be encoded as it
        stands."""
        names = self._all.but(own)
        if not any(names.found_in(m["content"]) for m in messages):
            return None
        cut = _unused("".join(m["content"] for m in messages))
        apart = [{**m, "content": names.apart(m["content"], cut)} for m in messages]
        return self._ids(text_of(self.tokenizer, apart, self.source, opens), cut)

    def plain(self, text: str, own: Collection[str] = (), turn: bool = False) -> tuple[int, ...] | None:
        """A text that stands by itself, in the same way. `turn`: the model's own, in which only what ends a
        turn is no token."""
        names = (self._ends if turn else self._all).but(own)
        if not names.found_in(text):
            return None
        cut = _unused(text)
        return self._ids(names.apart(text, cut), cut)

    def observation(self, text: str | None, said: Sequence[int], side: Side) -> tuple[int, ...]:
        """What follows the turn `said`: its end, unless the model has ended it itself; `text` as a message of
        the other side, in which nothing becomes a special token (None: no message); the opening of the next
        turn. UserError where the template does not take it."""
        by = None if text is None else side
        frame = self._frames.get(by) or self._frames.setdefault(by, self._frame(by))
        cut = _unused(text or "")
        try:
            written = self._behind(frame.form, by, text and self._all.apart(text, cut))
        except Endless:
            raise
        except Exception as error:  # a template is a program of its own
            raise self._refused(error, None, by) from error
        if text and (missing := lost(written.replace(cut, ""), [{"role": side, "content": text}])):
            raise self._refused(None, missing, by)
        ids = self._ids(outside(written, frame.after), cut)
        if (specials := self._specials(ids)) != frame.specials:
            raise UserError(
                f"the chat template of {self.source} writes other special tokens around "
                f"{(text or '')[:60]!r} than around other text ({len(specials)} for {len(frame.specials)})"
            )
        if specials and said and said[-1] in self.ends and specials[0] in (self.end, said[-1]):
            return ids[ids.index(specials[0]) + 1 :]
        return ids

    def _frame(self, by: Side | None) -> Frame:
        messages, error, missing = [{"role": by, "content": SEEN}] if by else [], None, None
        for form in FORMS:
            try:
                written = self._behind(form, by, SEEN)
            except Endless:
                raise
            except Exception as e:
                error = error or e
                continue
            if not (found := lost(written, messages)):
                after = written.rpartition(SEEN)[2]
                return Frame(form, self._specials(self._ids(outside(written, after))), after)
            missing = missing or found
        raise self._refused(error, missing, by)

    def _refused(
        self, error: Exception | None, missing: Mapping[str, str] | None, by: Side | None
    ) -> UserError:
        why = refusal(error, missing, HINT.format(side=by or "other side"))
        return UserError(f"the chat template of {self.source} {why}")

    def _behind(self, form: Form, by: Side | None, text: str | None) -> str:
        """What the template writes after an answer, with the message that follows it, if any; LookupError
        where it leaves the answer out."""
        messages = [("user", "?"), ("assistant", SAID), *([(by, text)] if by else [])]
        whole = rendered(self.tokenizer, [{"role": role, "content": form(said)} for role, said in messages])
        _, found, behind = whole.partition(SAID)
        if not found:
            raise LookupError("it leaves out what the assistant says")
        return behind

    def _ids(self, text: str, cut: str | None = None) -> tuple[int, ...]:
        pieces = text.split(cut) if cut else [text]
        return tuple(i for piece in pieces for i in self._encode(piece))

    def _specials(self, ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(i for i in ids if i in self.special and i not in self._around)
