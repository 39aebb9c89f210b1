"""The images that environments show. A node holds their names; the bytes of a step's images lie here once
each, until the step is over and those of its saved trees stand in the run directory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from forethought.core.types import Tree
from forethought.envs.values import kind_of

UNREAD = (
    "the environment shows images: those of saved trees are kept in images/, and the model, which reads text "
    "alone, does not see them"
)


class Images:
    """Name -> bytes, of the images of one step. A name is the digest of the bytes (128 bits, in hex) and the
    extension of their kind: the same image has the same name in every run."""

    def __init__(self) -> None:
        self.by_name: dict[str, bytes] = {}
        self.seen = 0  # so far, in all steps
        self.announced = False  # that the model reads text alone

    def keep(self, images: Iterable[bytes]) -> tuple[str, ...]:
        """Their names, for `Node.images`. Each begins as a PNG or JPEG file does."""
        names = tuple(map(name_of, images))
        self.by_name.update(zip(names, images, strict=True))
        self.seen += len(names)
        return names

    def of(self, trees: Iterable[Tree]) -> dict[str, bytes]:
        """Name -> bytes, of the images that nodes of these trees show."""
        return {name: self.by_name[name] for tree in trees for node in tree.nodes for name in node.images}

    def clear(self) -> None:
        """The step is over: what is not saved is gone."""
        self.by_name.clear()


def name_of(image: bytes) -> str:
    """Digest of the bytes with the format as suffix: equal images have one name."""
    return f"{hashlib.blake2b(image).hexdigest()[:32]}.{kind_of(image)}"
