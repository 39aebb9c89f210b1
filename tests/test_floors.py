"""The floors of docs/design.md, section 3: who may import whom. Imports inside functions and under
TYPE_CHECKING count."""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import forethought

ROOT = Path(forethought.__file__).parent

# Room -> floor. A module belongs to the room with the longest name that its own begins with; arrows point
# down only.
FLOORS = {
    "cli": 11,
    "api": 11,
    "__main__": 12,
    "look": 10,
    "exports": 10,
    "arms": 10,  # what is made of runs: looked at again, many at once
    "runs": 9,
    "rewards": 8.5,  # what the reward functions of a user's own call: the client of the distillation
    "stages": 8,
    "estimate": 8,
    "measure": 7,
    "grams": 7,
    "learn": 6,
    "report": 6,
    "workflows": 5,
    "tasks": 5,
    "display": 5,
    "envs": 4,
    "traces": 4,
    # the protocol alone, as engines.base is one: who rolls out knows no family
    "tasks.base": 3,
    "tasks.guided": 3,
    "envs.base": 2,
    "engines": 3,
    "store": 3,
    "recipe": 2,
    "interface": 2,
    "learn.losses": 1.5,  # functions of numbers: every engine and the check of a recipe read the same rows
    "core": 1,
    "": 0,  # forethought/__init__.py
}
ONE_ROOM = {"tasks.guided": "tasks.base"}
# The folders of the embedded engine, in the same way
TORCH_FLOORS = {
    "engine": 5,
    "calibrate": 6,
    "export": 5,
    "models": 4,
    "sampling": 3,
    "machine": 2,
    "loss": 2,
    "policies": 1,
    "forest": 0,
}
TORCH = {"torch", "transformers", "peft", "safetensors.torch", "accelerate"}
TORCH_ROOMS = ("engines.torch",)
NOWHERE = {"trl", "vllm", "ray", "pickle"}
# extras: one place of a room each
ONE_PLACE = {
    "gguf": {"engines.torch.models.gguf"},
    "bitsandbytes": {"engines.torch.models.four_bits"},
    "httpx": {"stages.distill.transport"},
    "httpcore": {"stages.distill.transport"},
    "datasets": {"stages.distill.parquet", "tasks.text.sources"},
    "sklearn": {"grams.kmeans"},
    "tensorboard": {"runs.trackers.event_files"},
    "wandb": {"runs.trackers.wandb_runs"},
    "trackio": {"runs.trackers.trackio_runs"},
    "mlflow": {"runs.trackers.mlflow_runs"},
    "gymnasium": {"envs.adapters.gym"},
    "playwright": {"envs.web.browser"},
    "mcp": {"envs.adapters.mcp"},
    "cv2": {"envs.screen.parsers"},
    "rapidocr_onnxruntime": {"envs.screen.parsers"},
    "openenv": {"envs.adapters.openenv"},
    "verifiers": {"envs.adapters.verifiers"},
}
MOST_LINES = 520

Sources = dict[str, str]  # module name below forethought ("" for its __init__) -> source


def package() -> Sources:
    names = {path: path.relative_to(ROOT).with_suffix("").parts for path in ROOT.rglob("*.py")}
    return {
        ".".join(p for p in parts if p != "__init__"): path.read_text("utf-8")
        for path, parts in sorted(names.items())
    }


def imports(module: str, sources: Sources, is_package: bool) -> set[str]:
    """Dotted names that `module` imports, anywhere in it; those of the library begin with `forethought`."""
    found: set[str] = set()
    here = ["forethought", *module.split(".")] if module else ["forethought"]
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + is_package] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                found.add(
                    inner if below(inner) in sources or not origin.startswith("forethought") else origin
                )
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            found |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return found


def below(name: str) -> str | None:
    """`forethought.a.b` -> `a.b`, `forethought` -> "", anything else -> None."""
    return (
        ""
        if name == "forethought"
        else name.removeprefix("forethought.")
        if name.startswith("forethought.")
        else None
    )


def room_of(module: str) -> str | None:
    words = module.split(".")
    names = (".".join(words[:n]) for n in range(len(words), 0, -1))
    room = next((name for name in names if name in FLOORS), None)
    return ONE_ROOM.get(room, room)


def is_within(name: str, packages: set[str]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in packages)


def graph(sources: Sources, packages: set[str]) -> dict[str, set[str]]:
    return {module: imports(module, sources, module in packages) for module in sources}


def violations(sources: Sources, packages: set[str] = frozenset({""})) -> list[str]:
    """Every arrow that the floors forbid, as one sentence each. `packages`: the modules that are an
    __init__.py."""
    wrong = []
    for module, names in graph(sources, packages).items():
        room = room_of(module)
        if room is None:
            wrong.append(f"{module}: stands on no floor; give it one in this test and in docs/design.md")
            continue
        for name in sorted(names):
            target = below(name)
            if target is None:
                if is_within(name, NOWHERE):
                    wrong.append(f"{module} imports {name}, which has no place in the package")
                for extra, places in ONE_PLACE.items():
                    if is_within(name, {extra}) and module not in places:
                        wrong.append(
                            f"{module} imports {name}, which is for {' and '.join(sorted(places))} alone"
                        )
                if is_within(name, TORCH) and not is_within(module, set(TORCH_ROOMS)):
                    wrong.append(f"{module} imports {name}: torch lives in {' and '.join(TORCH_ROOMS)} alone")
                continue
            other = room_of(target)
            if other is not None and other != room and FLOORS[other] >= FLOORS[room]:
                wrong.append(
                    f"{module} (floor {FLOORS[room]}) imports {target} (floor {FLOORS[other]}): "
                    f"arrows point down only"
                )
    return wrong


def cycle(sources: Sources, packages: set[str]) -> list[str]:
    arrows = {
        m: {below(n) for n in names if below(n) in sources} for m, names in graph(sources, packages).items()
    }
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def packages_on_disk() -> set[str]:
    return {".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.rglob("__init__.py")}


# The package ------------------------------------------------------------------------------------------------


def test_arrows_point_down_only():
    assert violations(package(), packages_on_disk()) == []


def test_arrows_between_the_folders_of_the_engine_point_down_only():
    inside = {
        m.removeprefix("engines.torch."): s for m, s in package().items() if m.startswith("engines.torch.")
    }
    wrong = []
    for module, names in graph(package(), packages_on_disk()).items():
        for name in names:
            a, b = (m.removeprefix("engines.torch.").split(".")[0] for m in (module, below(name) or ""))
            if (
                module.removeprefix("engines.torch.") in inside
                and (below(name) or "").startswith("engines.torch.")
                and a != b
            ):
                wrong += [f"{module} -> {name}"] * (TORCH_FLOORS[b] >= TORCH_FLOORS[a])
    assert wrong == []


def test_no_cycle_of_folders():
    """Packages as wholes, lazy imports counted: what one room needs of another never needs it back."""
    arrows: dict[str, set[str]] = {}
    for module, names in graph(package(), packages_on_disk()).items():
        for name in names:
            a, b = room_of(module), room_of(below(name) or "")
            if a and b and a != b:
                arrows.setdefault(a, set()).add(b)
    graphlib.TopologicalSorter(arrows).prepare()


def test_no_import_cycles():
    assert cycle(package(), packages_on_disk()) == []


def test_no_module_is_longer_than_a_sitting():
    long = {name: source.count("\n") for name, source in package().items() if source.count("\n") > MOST_LINES}
    assert long == {}


def test_nothing_but_engines_and_probes_loads_torch():
    """Import everything else in one fresh process, answer --help, load a recipe, and look what came along."""
    free = [
        m
        for m in package()
        if m
        and room_of(m) not in ("runs", "stages", "look", "arms", "")
        and not is_within(m, set(TORCH_ROOMS))
    ]
    script = f"""
import contextlib, importlib, io, json, sys
from forethought import cli
with contextlib.redirect_stdout(io.StringIO()):
    for argv in (["--help"], ["recipes"], ["train", "--dry-run"]):
        with contextlib.suppress(SystemExit):
            cli.main(argv)
early = sorted(set(sys.modules) & {{"torch", "transformers", "peft", "numpy", "rich"}})
for name in {free!r}:
    importlib.import_module("forethought." + name)
late = sorted(set(sys.modules) & {(TORCH | NOWHERE | set(ONE_PLACE)) - {"pickle"}!r})
print(json.dumps([early, late]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], []]
    assert {"cli", "recipe.load", "recipe.check", "display"} <= set(free)


# The walk itself: each rule is broken once, by hand ---------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source", "sentence"),
    [
        (
            "measure.gates",
            "from forethought import runs",
            "measure.gates (floor 7) imports runs (floor 9): arrows point down only",
        ),
        (
            "engines.base",
            "def f():\n    import forethought.store",
            "engines.base (floor 3) imports store (floor 3): arrows point down only",
        ),
        (
            "engines.base",
            "if TYPE_CHECKING:\n    from forethought.store import Store",
            "engines.base (floor 3) imports store (floor 3): arrows point down only",
        ),
        (
            "measure.gates",
            "importlib.import_module('forethought.runs')",
            "measure.gates (floor 7) imports runs (floor 9): arrows point down only",
        ),
        (
            "recipe.x",
            "from .. import store",
            "recipe.x (floor 2) imports store (floor 3): arrows point down only",
        ),
        (
            "recipe.x",
            "from ..store import Store",
            "recipe.x (floor 2) imports store (floor 3): arrows point down only",
        ),
        (
            "core.errors",
            "from forethought.recipe import load",
            "core.errors (floor 1) imports recipe (floor 2): arrows point down only",
        ),
        ("", "import forethought.core", " (floor 0) imports core (floor 1): arrows point down only"),
        (
            "measure.gates",
            "def f():\n    import torch.nn",
            "measure.gates imports torch.nn: torch lives in engines.torch alone",
        ),
        (
            "store",
            "from torch.utils.tensorboard import SummaryWriter",
            "store imports torch.utils.tensorboard.SummaryWriter: torch lives in engines.torch alone",
        ),
        (
            "engines.base",
            "from safetensors import torch",
            "engines.base imports safetensors.torch: torch lives in engines.torch alone",
        ),
        (
            "engines.torch.policies",
            "import vllm",
            "engines.torch.policies imports vllm, which has no place in the package",
        ),
        (
            "store",
            "def f():\n    import httpx",
            "store imports httpx, which is for stages.distill.transport alone",
        ),
        (
            "tasks.base",
            "from forethought.tasks.desk import Desk",
            "tasks.base (floor 3) imports tasks.desk (floor 5): arrows point down only",
        ),
        (
            "display.seen",
            "import forethought.workflows.growing",
            "display.seen (floor 5) imports workflows.growing (floor 5): arrows point down only",
        ),
        ("helpers", "", "helpers: stands on no floor; give it one in this test and in docs/design.md"),
    ],
)
def test_a_forbidden_arrow_is_found(module, source, sentence):
    rooms = {"runs": "", "store": "", "recipe": "", "core": "", "": ""}
    assert violations(rooms | {module: source}) == [sentence]


def test_allowed_arrows_are_allowed():
    assert (
        violations(
            {
                "": "",
                "cli": "from forethought import __version__, runs",
                "runs": "import forethought.engines.torch",
                "store": "",
                "report": "from forethought import store",
                "tasks.desk": "from forethought.interface import parse\nfrom .base import Taskset",
                "tasks.base": "",
                "interface": "",
                "engines.torch": "import torch, peft",
                "measure.probes": "from forethought.learn import batches",
                "workflows": "from forethought.tasks.base import Taskset",
                "learn": "from forethought.workflows import Rollouts",
                "learn.credit.grpo": "from forethought.learn.credit.groups import peers",
                "learn.credit.groups": "import torchlike",
            }
        )
        == []
    )


def test_a_cycle_is_found():
    circle = {
        "": "",
        "learn.a": "from forethought.learn import b",
        "learn.b": "def f():\n    from .a import x",
    }
    assert sorted(set(cycle(circle, {""}))) == ["learn.a", "learn.b"]
    assert cycle(circle | {"learn.b": ""}, {""}) == []
