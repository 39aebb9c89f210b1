"""One request for one plan: what is sent, and what its answer comes to: a summary, a failure, or trouble that
may pass."""

from __future__ import annotations

import re
from dataclasses import dataclass

from forethought.core.errors import UserError
from forethought.display.show import printable
from forethought.stages.distill.body import Unreadable
from forethought.stages.distill.endpoint_spec import EndpointSpec
from forethought.stages.distill.pace import retry_after
from forethought.stages.distill.prompts import Prompt
from forethought.stages.distill.records import Failure, Item, Summary, Usage
from forethought.stages.distill.reply import Nonsense, parse, read, tokens
from forethought.stages.distill.transport import Post, Reply, Unanswered

# of English text per token: for estimates, and where a reply does not say how many tokens it took
CHARACTERS = 3.5
_AGAIN = {408, 425, 429, *range(500, 600)}
_THIS_ITEM = {400, 413, 422}  # about what was asked; every other status is about how, and so about every item
_SECRET = 8  # characters; a shorter key ("EMPTY", "none") is no secret, and its letters are words of plans


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """An attempt that may go better next time, and the seconds the endpoint asks us to wait."""

    kind: str
    detail: str
    wait: float = 0.0


class Asker:
    """`attempt` is called from several threads. What an endpoint says goes into messages without the key and
    without control characters. UserError for an answer that concerns every item."""

    def __init__(self, spec: EndpointSpec, prompt: Prompt, key: str):
        self.spec, self._prompt, self._key = spec, prompt, key

    def attempt(self, post: Post, item: Item) -> Summary | Failure | Trouble:
        """One request: a summary, a failure that stays one, or trouble that another attempt may overcome."""
        body: dict[str, object] = {
            "model": self.spec.model,
            "messages": self._prompt.messages(item),
            self.spec.tokens_field: self.spec.max_tokens,
        }
        if self.spec.temperature is not None:
            body["temperature"] = self.spec.temperature
        try:
            reply = post(body)
        except Unanswered as error:
            return Trouble(kind=error.kind, detail=self.safe(str(error)))
        except Unreadable as error:
            return Failure(id=item.id, kind="unreadable", detail=self.safe(str(error)))
        if reply.status == 200:
            return self._read(item, reply)
        said = f"status {reply.status}: {self.safe(reply.body)}"
        if reply.status in _AGAIN:
            wait = retry_after(reply.headers)
            asks = (
                f" (asks to wait {wait:.0f} s, most_pause is {self.spec.most_pause:g} s)"
                if wait > self.spec.most_pause
                else ""
            )
            return Trouble(
                kind="rate_limit" if reply.status == 429 else "server", detail=said + asks, wait=wait
            )
        if reply.status in _THIS_ITEM:
            return Failure(id=item.id, kind="refused", detail=said)
        raise UserError(
            f"{self.spec.url} answers {said}. Check base_url, model and the key in "
            f"{self.spec.key_env or 'key_env'}{self._hint(reply)}"
        )

    def _hint(self, reply: Reply) -> str:
        if 300 <= reply.status < 400 and (target := reply.headers.get("location")):
            return f"; redirects are not followed, and this one leads to {self.safe(target)}"
        if reply.status == 404 and not re.search(r"/v\d", self.spec.url):
            return "; the base_url of most servers ends in /v1"
        return ""

    def _read(self, item: Item, reply: Reply) -> Summary | Failure | Trouble:
        """A reply of status 200. An empty text is a summary too, which was paid for and which the filter
        drops."""
        parsed = None
        try:
            parsed = parse(reply.body)
            said = read(parsed)
        except Nonsense as error:
            detail = f"{error}: {self.safe(reply.body)}"
            if error.status in _AGAIN:
                return Trouble(kind="rate_limit" if error.status == 429 else "server", detail=detail)
            usage = Usage() if parsed is None else self._usage(item, parsed, "")
            return Failure(id=item.id, kind="nonsense", detail=detail, usage=usage)
        usage = self._usage(item, parsed, said.text)
        text = said.text.replace(self._key, "***") if len(self._key) >= _SECRET else said.text
        return Summary(
            id=item.id, text=text, truncated=said.truncated, note=self.safe(said.note, 300), usage=usage
        )

    def _usage(self, item: Item, parsed: object, text: str) -> Usage:
        """The tokens that the reply states, else what its text suggests. The request itself is counted by who
        sent it."""
        stated = tokens(parsed)
        counts = stated or (guess(self._prompt.plain(item)), guess(text))
        return Usage(
            prompt_tokens=counts[0],
            completion_tokens=counts[1],
            cost=self.spec.price(*counts),
            guessed=int(stated is None),
        )

    def safe(self, text: str, most: int = 200) -> str:
        """The start of what the endpoint said, for a message: without the key, and without what moves a
        terminal's cursor."""
        return printable(self.start(text, most))

    def start(self, text: str, most: int = 200) -> str:
        """The same, as it was said but for the key and white space."""
        text = " ".join((text.replace(self._key, "***") if self._key else text)[: 50 * most].split())
        return text if len(text) <= most else text[: most - 3] + "..."


def guess(text: str) -> int:
    """Tokens of a text."""
    return round(len(text) / CHARACTERS)
