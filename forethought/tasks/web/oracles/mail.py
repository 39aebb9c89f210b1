"""An inbox: delete, star, reply, forward; what is asked in one wording, or in anybody's own words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from forethought.envs.web.miniwob import folder
from forethought.interface.gui import Step
from forethought.tasks.web.oracles.view import View, table

ICONS = {"delete": "trash", "star": "star"}
NO_NAMES = frozenset(
    "please find send go the give look navigate forward get take open can could let locate i copy email want "
    "wants".split()
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What to do with the mail of whom. `text`: the reply, or to whom it is forwarded."""

    sender: str
    act: str
    text: str = ""


def _carry_out(view: View, wish: Wish) -> list[Step]:
    """From the list to the mail, to the form, and sent."""
    if view.all("heading", "Primary"):
        if icon := ICONS.get(wish.act):
            return [view.click(view.below(wish.sender, "img", icon))]
        return [view.click(view.one("text", wish.sender))]
    send = [x for x in view.all("img") if "send-" in x.name]
    if send:
        field = view.one("textarea" if wish.act == "reply" else "textbox")
        return [view.type(field, wish.text), view.click(send[0])]
    return [view.click(view.one("text", wish.act.capitalize()))]


def plain(view: View) -> list[Step]:
    """The wording of email-inbox."""
    sender, asked = view.said(r"email by (\w+)"), view.utterance
    if "trash" in asked:
        return _carry_out(view, Wish(sender, "delete"))
    if "star" in asked:
        return _carry_out(view, Wish(sender, "star"))
    if "reply" in asked:
        return _carry_out(view, Wish(sender, "reply", view.quoted[0]))
    return _carry_out(view, Wish(sender, "forward", view.said(r"email to (\w+)")))


ACTS = {"delete": "delete", "important": "star", "star": "star", "reply": "reply", "forward": "forward"}
PARTS = ("NAME", "DEST", "MSG")
_PART = re.compile("|".join(PARTS))


class _Group:
    """What a part of a template stands for: a group where it stands the first time, anything after that."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, part: re.Match[str]) -> str:
        if part[0] in self.seen:
            return ".+?"
        self.seen.add(part[0])
        return f"(?P<{part[0]}>{'.+?' if part[0] == 'MSG' else '[A-Za-z]+'})"


@cache
def _wordings() -> list[tuple[str, re.Pattern[str]]]:
    """(what is done, pattern) of each template of the page's own."""
    source = folder().parent.joinpath("common/special/email-inbox-nl/templates.js").read_text("utf-8")
    found, act = [], ""
    for row in source.split("\n"):
        if head := re.match(r'\s*"(\w+)":\s*\{', row):
            act = head[1]
        said = re.match(r'\s*"(.*)",?\s*$', row)
        if said and any(part in said[1] for part in PARTS):
            pattern = _PART.sub(_Group(), re.escape(said[1].replace('\\"', '"')))
            found.append((act, re.compile(f"^{pattern}$", re.IGNORECASE)))
    return found


def free(view: View) -> list[Step]:
    """Any wording."""
    senders = [x.name for x in view.all() if view.state(x, "email-sender")]
    return _carry_out(view, _wish(view.utterance, tuple(senders)))


def _wish(asked: str, senders: tuple[str, ...]) -> Wish:
    known = []
    for act, pattern in _wordings():
        if found := pattern.match(asked):
            told = found.groupdict()
            known.append(
                Wish(told.get("NAME", ""), ACTS.get(act, act), told.get("MSG") or told.get("DEST") or "")
            )
    for wish in known:
        if wish.sender in senders:
            return wish
    # the list is not on the screen any more, or the wording is new: names are capitalised words
    return known[0] if known and not senders else _guess(asked, senders)


def _guess(asked: str, senders: tuple[str, ...]) -> Wish:
    """Who sent it stands behind from or by, or before 's or sent; the other one gets it."""
    capitals = dict.fromkeys(re.findall(r"\b[A-Z][a-z]+", asked))
    names = [name for name in capitals if name.lower() not in NO_NAMES]
    sent = re.findall(r"(?:from|by) ([A-Z][a-z]+)", asked)
    sent += re.findall(r"([A-Z][a-z]+)(?:'s| sent| wrote| has sent)", asked)
    sender = [*sent, *(name for name in names if name in senders)][0]
    return Wish(sender, "forward", [name for name in names if name != sender][-1])


ORACLES = table(
    ("email-inbox", plain),
    ("email-inbox-forward-nl email-inbox-forward-nl-turk email-inbox-nl-turk", free),
)
