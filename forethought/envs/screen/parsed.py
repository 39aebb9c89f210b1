"""A parsed screen: what detectors and OCR found on a picture, merged to one list (OmniParser, arXiv
2408.00203).

    two boxes of controls overlap by more than 0.7     the smaller one stays
    more than 0.8 of a text lies inside a control      the text is the control's label
    more than 0.8 of a control lies inside a text      the control is none, it was found in the letters
    all other texts                                    stay as texts

`overlap` is the largest of three shares: intersection over union, and over either box, so that a box inside
another one overlaps it wholly. Merging a merged list changes nothing. The id of an element is its place in
the list, and means nothing on another picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from forethought.core.grounding import Box
from forethought.interface.elements import Line

SAME, WITHIN = 0.7, 0.8
TEXT, CONTROL = "text", "control"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One thing on the screen. `kind`: text or control; `label`: what stands in it; `source`: who found it,
    with `+ocr` where the label is read."""

    kind: str
    box: Box
    label: str = ""
    source: str = ""


def area(box: Box) -> float:
    """Pixels."""
    return max(box[2], 0.0) * max(box[3], 0.0)


def common(a: Box, b: Box) -> float:
    """Pixels in both."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def iou(a: Box, b: Box) -> float:
    """Intersection over union; 0 for boxes without area."""
    both = common(a, b)
    whole = area(a) + area(b) - both
    return both / whole if whole else 0.0


def overlap(a: Box, b: Box) -> float:
    """The largest of intersection over union, over `a`, and over `b`."""
    both = common(a, b)
    return max(iou(a, b), *(both / size for size in (area(a), area(b)) if size)) if both else 0.0


def within(a: Box, b: Box) -> float:
    """The share of `a` that lies in `b`."""
    return common(a, b) / area(a) if area(a) else 0.0


def merge(
    texts: Sequence[Found], controls: Sequence[Found], same: float = SAME, inside: float = WITHIN
) -> list[Found]:
    """The elements of a screen from above and from the left. What has no area is nothing."""
    texts = [one for one in texts if area(one.box)]
    controls = _smallest([one for one in controls if area(one.box)], same)
    controls = [one for one in controls if not any(within(one.box, text.box) > inside for text in texts)]
    labels: dict[int, list[Found]] = {}
    free = []
    for text in texts:
        homes = [i for i, one in enumerate(controls) if within(text.box, one.box) > inside]
        if homes:
            labels.setdefault(min(homes, key=lambda i: area(controls[i].box)), []).append(text)
        else:
            free.append(text)
    named = [_labelled(one, labels.get(i, [])) for i, one in enumerate(controls)]
    return sorted([*named, *free], key=lambda one: (one.box[1], one.box[0]))


def _smallest(controls: Sequence[Found], same: float) -> list[Found]:
    """Without those that a smaller one overlaps; of two that are as large the first."""
    order = sorted(range(len(controls)), key=lambda i: (area(controls[i].box), i))
    kept: list[int] = []
    for i in order:
        if not any(overlap(controls[i].box, controls[j].box) > same for j in kept):
            kept.append(i)
    return [controls[i] for i in sorted(kept)]


def _labelled(control: Found, texts: Sequence[Found]) -> Found:
    if not texts:
        return control
    read = " ".join(one.label for one in sorted(texts, key=lambda one: (one.box[1], one.box[0])))
    return replace(
        control, label=" ".join([control.label, read]).strip(), source=f"{control.source}+ocr".lstrip("+")
    )


def lines(found: Sequence[Found]) -> list[Line]:
    """A parsed screen as a snapshot: what can be read and pointed at, and no states."""
    return [
        Line(
            ref=f"e{i}",
            role="text" if one.kind == TEXT else "control",
            name=" ".join(one.label.split()),
            box=tuple(round(x) for x in one.box),
        )
        for i, one in enumerate(found, 1)
    ]


def recall(found: Sequence[Found], wanted: Sequence[Box], least: float = 0.5) -> float:
    """The share of wanted boxes of which some found box covers at least so much (intersection over union), or
    whose middle lies in a found box that is at most four times as large: what a click on it would hit."""
    if not wanted:
        return 1.0
    return sum(_is_found(found, box, least) for box in wanted) / len(wanted)


def _is_found(found: Sequence[Found], box: Box, least: float) -> bool:
    middle = (box[0] + box[2] / 2, box[1] + box[3] / 2, 0.0, 0.0)
    for one in found:
        x, y, width, height = one.box
        hit = x <= middle[0] <= x + width and y <= middle[1] <= y + height
        if iou(one.box, box) >= least or (hit and area(one.box) <= 4 * area(box)):
            return True
    return False
