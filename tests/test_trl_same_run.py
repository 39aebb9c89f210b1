"""A whole run of ours through TRL's GRPOTrainer, with our prompts and completions: step by step the same
reward in both logs, the same gradient and the same weights. What is left to differ between two runs is which
prompts are drawn and what is sampled.

    pip install -e '.[bench,test]' && pytest -m trl
"""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.trl
STEPS, GROUP = 4, 8


@pytest.fixture(scope="module")
def bench():
    file = Path(__file__).parents[1] / "benchmarks" / "trl_same_run.py"
    spec = importlib.util.spec_from_file_location("trl_same_run", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recorded(bench, args, folder: Path, monkeypatch) -> tuple[list, list, list]:
    """(trees, weights after the update, line of metrics.jsonl) of each step of our side of the benchmark."""
    from forethought.engines.torch.engine import TorchEngine
    from forethought.stages import reinforce

    groups, publish = reinforce.groups, TorchEngine.publish
    trees, weights = [], []

    def listening(s, k, tasks):
        found = groups(s, k, tasks)
        trees.append(found[0])
        return found

    def publishing(engine, policy):
        publish(engine, policy)
        if trees:
            weights.append({k: p.detach().clone() for k, p in engine.weights.parameters(policy).items()})

    monkeypatch.setattr(reinforce, "groups", listening)
    monkeypatch.setattr(TorchEngine, "publish", publishing)
    bench.ours(args, folder)
    lines = map(json.loads, (folder / f"ours-{args.seed}" / "metrics.jsonl").read_text().splitlines())
    return trees, weights, [line for line in lines if "seconds/step" in line]


def test_trl_makes_the_same_of_our_completions(bench, tmp_path, monkeypatch):
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    args = SimpleNamespace(model="", seed=0, steps=STEPS, prompts=4, group=GROUP, most=16, lr=2e-3)
    bench.prepare(tmp_path, args)
    args.model = str(tmp_path / "model")
    trees, weights, lines = recorded(bench, args, tmp_path, monkeypatch)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    prompts = [tokenizer.decode(tree.nodes[0].token_ids) for step in trees for tree in step]
    said = [[list(n.token_ids) for tree in step for n in tree.nodes[1:]] for step in trees]
    theirs: list[dict] = []

    class Replay(GRPOTrainer):
        def _generate_single_turn(self, prompt_ids, *_, **__):
            step = self.state.global_step
            asked = [text for text in prompts[4 * step : 4 * step + 4] for _ in range(GROUP)]
            assert [tokenizer.decode(ids) for ids in prompt_ids] == asked
            return said[step], None

    class Keep(TrainerCallback):
        def on_step_end(self, *_, model=None, **__):
            theirs.append({name: p.detach().clone() for name, p in model.named_parameters()})

    config = bench.trl_config(args, tmp_path, shuffle_dataset=False)
    assert isinstance(config, GRPOConfig)
    rows = Dataset.from_list([{"prompt": text, "most": args.most} for text in prompts])
    functions = list(bench.functions_of(tmp_path).values())
    trainer = Replay(args.model, functions, config, train_dataset=rows, callbacks=[Keep()])
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    for ours, entry, own, other in zip(lines, logged, weights, theirs, strict=True):
        assert ours["reward/act"] == pytest.approx(entry["reward"], abs=1e-6)
        # the standard deviation over G - 1, and over G
        ratio = ours["grad_norm/base"] / entry["grad_norm"]
        assert ratio == pytest.approx(math.sqrt(GROUP / (GROUP - 1)), rel=1e-3)
        apart = math.sqrt(sum(float((own[k] - other[k]).square().sum()) for k in other))
        moved = math.sqrt(sum(float((other[k] - before[k]).square().sum()) for k in other))
        assert apart < 0.003 * moved and moved > 0.1
    assert len(lines) == STEPS and not torch.equal(theirs[0]["lm_head.weight"], theirs[-1]["lm_head.weight"])
