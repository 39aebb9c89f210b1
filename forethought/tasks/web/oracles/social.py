"""A feed of posts: icons below the name of who wrote."""

from __future__ import annotations

from forethought.interface.gui import Step
from forethought.tasks.web.oracles.view import View, submit, table

ICONS = ("Reply", "Retweet", "Like")


def post(view: View) -> list[Step]:
    """An icon of somebody's post, or an entry of its menu "more"."""
    user, wanted = view.said(r"user (@\S+?),"), view.quoted[0]
    if wanted in ICONS:
        return [view.click(view.below(user, "img", wanted.lower()))]
    if not view.past:
        return [view.click(view.below(user, "img", "more"))]
    entry = f"{wanted} {user}" if wanted in ("Mute", "Block") else wanted
    return [view.click(view.one("text", entry))]


def posts(view: View) -> list[Step]:
    """The same icon of all posts by somebody, or of so many, then submit."""
    user, icon = view.said(r"by (@\S+)"), view.quoted[0].lower()
    writers = [x.name for x in view.all() if view.state(x, "username")]
    theirs = [i for i, name in enumerate(writers) if name == user]
    if " post" in view.utterance and " all posts" not in view.utterance:
        theirs = theirs[: int(view.said(r"on (\d+) post"))]
    return [view.click(view.one("img", icon, at=i)) for i in theirs] + [submit(view)]


ORACLES = table(("social-media", post), ("social-media-all social-media-some", posts))
