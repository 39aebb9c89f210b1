"""What a target of the fuzzer is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Feed = Callable[[random.Random], object]
"""Make an input with these random numbers, and give it to what is attacked."""


@dataclass(frozen=True, slots=True)
class Target:
    """`make(folder)` gives the Feed; `share` of all inputs; `seconds`: most time of one input."""

    make: Callable[[Path], Feed]
    share: float
    seconds: float = 5.0


def dumped(value: object) -> str:
    """JSON of what was changed; what JSON has no word for is its Python text."""
    return json.dumps(value, default=str)
