"""What a model that reads language is told of a desk before it sees one: the notation of the screen, the
rules, and what a plan and an act look like."""

from __future__ import annotations

from forethought.interface.tags import Tags

PLANS = {
    "words": "the names of the widgets to open, from the goal's widget up to one that hangs from {root}",
    "path": "the names of the widgets to open, from one that hangs from {root} down to the goal's widget",
    "json": (
        "a JSON list of steps in the order in which they are done, each with op, target "
        '("widget e in the {root} area") and, for the last one, value'
    ),
}


def told(plans: str, parents: int, stepwise: bool, root: str, tags: Tags) -> str:
    """The rules as sentences. `plans`: the language of the plans; `parents`: how many each widget lists."""
    listed = "the widget that it hangs from" if parents == 1 else "the two widgets that it hangs from"
    opened = "that widget has been clicked" if parents == 1 else "one of them has been clicked"
    act = (
        "Then do one click in each turn: the name and the place of a widget, and after the goal's the value. "
        if stepwise
        else "Then act: each widget from the top one to the goal's, with its name and its place, then the "
        "value. "
    )
    return (
        f"A screen shows widgets. Each is listed with its name, {listed}, and its place as x and y. A widget "
        f"that hangs from {root} can be clicked at once, any other only after {opened}. GOAL names the "
        f"widget to reach and the value to set. First write the plan: {PLANS[plans].format(root=root)}. End "
        f"it with {tags.close('plan')}. {act}End with {tags.close('act')}."
    )
