"""How fast this machine is at a model of a given shape, as `engines/torch/calibrate` times it: in a
process of its own, once, kept in the user's cache. Nothing here loads torch.

FORETHOUGHT_CALIBRATE=0 in the environment turns it off; estimates then stand on a machine's peak numbers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from forethought import __version__
from forethought.core import cores
from forethought.estimate.hardware import Hardware
from forethought.estimate.shapes import Shape
from forethought.recipe.schema import Recipe

SWITCH = "FORETHOUGHT_CALIBRATE"
MOST_SECONDS = 300.0  # that timing may take
HEAD_SHARE = 1 / 16  # of the memory: a head and embedding that would fill more are not built to be timed
_ENGINES = Path(__file__).parents[1] / "engines" / "torch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Seconds of the whole model, and bytes (`calibrate.speeds`)."""

    step: float  # of decoding, without its rows
    row: float  # of a row in a step
    read: float  # of a token of a prompt
    learn_base: float  # of a token that trains whole weights
    learn_adapter: float
    reuse_base: float  # of one whose forward pass sampling has left
    reuse_adapter: float
    call_base: float  # of such a pass beside its tokens
    call_adapter: float
    forward: float  # of a token that is only looked at
    look: float  # of a forward pass, beside its tokens
    update: float  # of a parameter that the optimizer moves
    publish: float  # of an adapter that has moved, until it can sample,
    fresh: float  # and what its first call takes more
    held: float  # bytes that the process holds beside the model


Run = Callable[[Mapping[str, Any]], Mapping[str, float]]


def speed_of(
    shape: Shape,
    recipe: Recipe,
    hardware: Hardware,
    run: Run | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Speed | None:
    """This machine's, from the cache or timed now; None where it cannot be had: another machine is meant, it
    is turned off, the model is too large to be built, or timing fails. `run` times it (for tests); `tell`
    hears that it takes a while."""
    large = 4.0 * shape.vocabulary * shape.width * (1 if shape.tied else 2) > HEAD_SHARE * hardware.memory
    if not hardware.here or large or os.environ.get(SWITCH) == "0":
        return None
    # of the whole model: few of its layers are timed
    engine = replace(recipe.engine, reuse_forward="on" if recipe.engine.reuses(shape.parameters) else "off")
    asked = {"shape": asdict(shape), "engine": asdict(engine), "adapter": asdict(recipe.adapter)}
    path = _folder() / f"speed-{_digest([asked, machine()])}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return _read(json.loads(path.read_text(encoding="utf-8")))
    tell(f"timing this machine at layers of this model, once ({SWITCH}=0: not at all)")
    try:
        found = _read((run or _timed)(asked))
    except (OSError, ValueError, TypeError, KeyError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:] or ["no reason"]
        tell(f"it could not be timed ({said[0]}); the estimate stands on its peak numbers")
        return None
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(json.dumps(asdict(found)), encoding="utf-8")
        os.replace(beside, path)
    return found


def machine() -> list[object]:
    """All that a speed depends on beside the question: processor, cores, versions, and the code that was
    timed."""
    chip = ""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        chip = "".join(re.findall(r"^(?:model name|flags)\s*:.*$", text, re.M)[:2])
    code = hashlib.sha256()
    for path in sorted(_ENGINES.rglob("*")):
        if path.suffix in (".py", ".c", ".h"):
            code.update(path.read_bytes())
    return [chip, cores.usable(), __version__, metadata.version("torch"), code.hexdigest()]


def _read(said: Mapping[str, Any]) -> Speed:
    values = {f.name: float(said[f.name]) for f in fields(Speed)}
    if not all(0 <= value < 1e15 for value in values.values()):
        raise ValueError("a speed that cannot be")
    return Speed(**values)


def _timed(asked: Mapping[str, Any]) -> Mapping[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "forethought.engines.torch.calibrate"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "forethought"


def _digest(of: object) -> str:
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:24]
