"""What a process imports before it answers, and before its first step. Imports are most of a start, so what
nobody needs yet is not there.

What is there is looked up in a fresh process.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys

import pytest
from torch_kit import model_of, on_disk

from forethought.engines.torch import collector_paused

HEAVY = {
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "safetensors",
    "numpy",
    "tensorboard",
    "rich",
}
UNASKED = {"peft", "tensorboard", "rich", "httpx", "datasets", "trl"}  # by a first step of whole weights


def fresh(script: str, *argv: str):
    """What `script` prints last, as JSON, in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# The command line -------------------------------------------------------------------------------------------

VERB = """
import atexit, contextlib, gc, io, json, sys
# runs after what main registers
atexit.register(lambda: print(json.dumps([code, sorted(sys.modules), gc.get_freeze_count()])))
from forethought import cli
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    try:
        code = cli.main(sys.argv[1:])
    except SystemExit as e:
        code = e.code
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "--help"),
        (0, "--version"),
        (0, "train --help"),
        (0, "recipes"),
        (0, "recipes desk"),
        (0, "train --dry-run"),
        (0, "train blocksworld --dry-run --hardware h200"),
        (2, "train no-such-recipe"),
        (2, "train --set stage.0.stepz=1"),
        (2, "report no-such-run"),
        (2, "no-such-verb"),
    ],
)
def test_what_needs_no_model_waits_for_none(code, words):
    found, modules, _ = fresh(VERB, *words.split())
    assert found == code
    assert HEAVY & set(modules) == set()


def test_python_does_not_look_for_garbage_in_everything_before_it_ends():
    _, modules, frozen = fresh(VERB, "recipes")
    assert frozen > 10 * len(modules)  # all of them, with what they hold


# The engine -------------------------------------------------------------------------------------------------

STEP = """
import json, sys
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.models.loading import from_path
from forethought.recipe.schema import AdapterSpec, EngineSpec, OptimSpec
from forethought.core.types import Batch, Objective, Request, Segment
from forethought.learn.losses import term

loaded = set(sys.modules)
spec = EngineSpec(device="cpu", precision="fp32", threads=1)
engine = TorchEngine(from_path(sys.argv[1]), spec, AdapterSpec(rank=2))
engine.prepare("base", OptimSpec())

def step(policy):
    [[out]] = engine.sample([Request(policy=policy, context=(3, 4, 5), n=1, stops=(), max_tokens=4)])
    prompt = Segment(parent=-1, token_ids=(3, 4, 5))
    ids = out.token_ids
    said = Segment(parent=0, token_ids=ids, role="act", stream="sft", weight=(1.0,) * len(ids))
    engine.forward_backward(
        Batch(policy=policy, segments=(prompt, said)), Objective((term("sft", len(ids)),))
    )
    engine.optim_step(policy)
    return len(out.token_ids)

tokens = step("base")
modules = sorted(sys.modules)
adapters_before = len(engine.weights._lora_layers())
engine.fork("base", "plan")
engine.prepare("plan", OptimSpec())
step("plan")
adapters = [adapters_before, len(engine.weights._lora_layers())]
print(json.dumps([tokens, modules, *adapters, "peft" in sys.modules]))
"""


def test_whole_weights_train_without_peft_and_the_first_adapter_brings_it(tmp_path):
    tokens, modules, before, after, peft = fresh(STEP, on_disk(tmp_path, model_of("llama")))
    assert tokens >= 1 and {"torch", "transformers.models.llama.modeling_llama"} <= set(modules)
    assert UNASKED & set(modules) == set()
    assert before == 0
    assert peft and after == 2 * 7  # layers x (q, k, v, o, gate, up, down): found once PEFT is there


IMPORT = """
import gc, json
passes = gc.get_stats()[2]["collections"]
import forethought.engines.torch
print(json.dumps([gc.isenabled(), gc.get_freeze_count(), gc.get_stats()[2]["collections"] - passes,
                  len(gc.get_objects(generation=2)), len(gc.get_objects(generation=0))]))
"""


def test_the_collector_does_not_walk_through_what_is_being_imported():
    on, frozen, passes, old, young = fresh(IMPORT)
    assert on and passes == 0  # none over everything
    assert frozen > 100_000 > 10 * (old + young)  # nor will one ever


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_left_as_it_was_found(on):
    was = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        with collector_paused():
            assert not gc.isenabled()
        assert gc.isenabled() is on
        with pytest.raises(ImportError), collector_paused():
            raise ImportError
        assert gc.isenabled() is on
    finally:
        (gc.enable if was else gc.disable)()
        gc.unfreeze()
