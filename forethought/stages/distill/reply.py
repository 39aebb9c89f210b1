"""What a reply of an OpenAI-compatible endpoint says: its text, whether it ran out of tokens, what it cost,
or why there is no text.

Nothing in a reply is trusted to have the type that it should have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MOST_TOKENS = 10**9  # in one reply: more is no count, and would only spoil the sums
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_THOUGHT_PARTS = ("thinking", "reasoning", "redacted_thinking")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """`text` may be empty: the model wrote none, and `note` says what it did instead."""

    text: str
    truncated: bool = False
    note: str = ""


class Nonsense(ValueError):
    """The reply is none of this protocol. `status`: of an error that came under status 200, where it gives
    one."""

    def __init__(self, what: str, status: int = 0):
        self.status = status
        super().__init__(what)


def parse(body: str) -> Any:
    """The JSON of a body. Numbers that no count is (10^400, NaN) are read as they are, or as none. Nonsense
    where it is not JSON."""
    try:
        return json.loads(
            body.removeprefix("\ufeff"), parse_int=lambda digits: int(digits) if len(digits) <= 18 else None
        )
    except (ValueError, RecursionError):
        raise Nonsense("the reply is not JSON") from None


def read(said: Any) -> Said:
    """The first choice of a parsed reply. Nonsense where there is none."""
    choices = said.get("choices") if isinstance(said, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(message, dict):
        raise _without_message(said, first)
    finish = first.get("finish_reason") if isinstance(first, dict) else None
    text = _text(message.get("content"))
    if text is None:
        raise Nonsense("the reply has no choices[0].message.content")
    return Said(
        text=whole(text),
        truncated=finish in ("length", "max_tokens"),
        note="" if text.strip() else _instead(message, finish),
    )


def tokens(said: Any) -> tuple[int, int] | None:
    """(of the prompt, of the answer) as the reply states them; None where it does not, or states what cannot
    be."""
    stated = said.get("usage") if isinstance(said, dict) else None
    if not isinstance(stated, dict):
        return None
    counts = [stated.get("prompt_tokens"), stated.get("completion_tokens")]
    asked, said_ = (n if type(n) is int and 0 <= n <= _MOST_TOKENS else None for n in counts)
    return None if asked is None or said_ is None else (asked, said_)


def whole(text: str) -> str:
    """JSON can hold half a character, and files cannot."""
    return text.encode("utf-8", "replace").decode()


def _text(content: Any) -> str | None:
    """The text of a content: text itself, none (""), or the text parts of a list. None for anything else."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return None
    texts = []
    for part in content:
        part = {"type": "text", "text": part} if isinstance(part, str) else part
        if not isinstance(part, dict):
            return None
        if part.get("type") in _THOUGHT_PARTS or part.get("type") == "refusal":
            continue
        if not isinstance(part.get("text"), str):
            return None
        texts.append(part["text"])
    return "".join(texts)


def _instead(message: Mapping[str, Any], finish: Any) -> str:
    """What the model did that wrote nothing. Its thinking is not searched for a plan: what stands there may
    be a draft."""
    refusal = message.get("refusal")
    if not isinstance(refusal, str):
        refusal = next(
            (part.get("refusal") for part in _parts(message) if part.get("type") == "refusal"), None
        )
    if isinstance(refusal, str) and refusal.strip():
        return f"the model refused: {whole(refusal.strip())[:200]}"
    if message.get("tool_calls") or message.get("function_call"):
        return "the model called tools and wrote nothing"
    where = next((name for name in _THOUGHTS if message.get(name)), "")
    where = where or (
        "parts of thinking" if any(part.get("type") in _THOUGHT_PARTS for part in _parts(message)) else ""
    )
    if where:
        return (
            f"content is empty, the text stands in {where}; give more max_tokens for the thinking, or let "
            "the server answer without it"
        )
    return "the model's answer was filtered" if finish == "content_filter" else ""


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _without_message(said: Any, first: Any) -> Nonsense:
    """Some servers put their errors under status 200, in the place of the reply or of the choice."""
    error = next(
        (holder["error"] for holder in (said, first) if isinstance(holder, dict) and holder.get("error")),
        None,
    )
    if error is None:
        return Nonsense("the reply has no choices[0].message.content")
    code = error.get("code") if isinstance(error, dict) else None
    return Nonsense(
        "the reply is an error under status 200", code if type(code) is int and 100 <= code < 600 else 0
    )
