"""What an engine has chosen by itself, or found on its machine, and what changes bits: kept with every
checkpoint.

`Engine.chosen()` gives the record, the run puts it into the checkpoint's state, and two functions take it up
again. `pinned` gives back what a recipe can say ("auto" becomes what it was), before the engine is built.
`differences` says what the machine could not honour: from there on a resumed run is a good run, and no longer
the run that was never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from forethought.recipe.schema import EngineSpec

AUTO = ("auto", 0)  # how a recipe leaves a number or a name to the engine
COMPARED = {  # what of the record changes bits -> what it is called
    "device": "device",
    "chip": "processor",
    "instructions": "instructions",
    "precision": "precision",
    "threads": "threads",
    "layers": "layers computed by",
    "sampling": "rows sampled by",
    "products": "instructions of the products",
    "kernels": "kernels",
    "kernels/build": "build of the kernels",
    "torch": "torch",
    "transformers": "transformers",
}


def pinned(spec: EngineSpec, chosen: Mapping[str, object]) -> EngineSpec:
    """The recipe's table with its open choices filled in as they were made; what the recipe names stays.
    Chosen keys that no recipe has are ignored."""
    left = {"device"}  # another one is the user's to name
    if chosen.get("device") != "cpu":
        left.add("threads")  # those beside a GPU say nothing of a CPU
    open_ = [
        f.name
        for f in fields(spec)
        if getattr(spec, f.name) in AUTO and f.name in chosen and f.name not in left
    ]
    return replace(spec, **{name: _short(chosen[name]) for name in open_})


def differences(before: Mapping[str, object] | None, now: Mapping[str, object]) -> list[str]:
    """What changes bits and differs from before, one line each. `before`: None if a checkpoint does not
    say."""
    if before is None:
        return ["the checkpoint does not say on what it was computed"]
    return [
        f"{name}: {before.get(key) or 'none'} before, {now.get(key) or 'none'} now"
        for key, name in COMPARED.items()
        if _short(before.get(key)) != _short(now.get(key))
    ]


def _short(value: object) -> object:
    """Without the reason that follows a choice in words ("torch: no C compiler was found")."""
    return value.partition(": ")[0] if isinstance(value, str) else value
