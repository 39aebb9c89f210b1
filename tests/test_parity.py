"""`examples/one_file_grpo.py` and the library give the same numbers: what can be read in one sitting is what
runs.

Same weights, same trees of token ids, same rewards: advantages, log-probs, greedy sampling, loss and every
gradient agree. The engine computes them on one packed row, the one file on padded rows with a cache.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from tolerance import rounding  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from forethought.core.types import Node, Objective, Request, Task, Tree  # noqa: E402
from forethought.engines.torch.engine import TorchEngine  # noqa: E402
from forethought.engines.torch.forest.attention import NAME  # noqa: E402
from forethought.engines.torch.models.loading import Loaded  # noqa: E402
from forethought.learn import credit  # noqa: E402
from forethought.learn.batches import for_policy, tree_segments  # noqa: E402
from forethought.learn.losses import term  # noqa: E402
from forethought.recipe.schema import AdapterSpec, CreditSpec, EngineSpec, OptimSpec  # noqa: E402

EXAMPLE = Path(__file__).parents[1] / "examples" / "one_file_grpo.py"
CLOSE = {"rtol": 1e-5, "atol": rounding([1.0])}
# the library's view of tasks that share no beginning of their prompts
ALONE = SimpleNamespace(words=SimpleNamespace(shared=lambda task: []))
P, M, Z = 3, 3, 2  # tasks, plans of each, executions of each plan


@pytest.fixture(scope="module")
def one():
    spec = importlib.util.spec_from_file_location("one_file_grpo", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture()
def pair(one):
    """(the one file's model, an engine around a copy of it)."""
    model, copy = (one.small_model(seed=3, layers=2, width=32) for _ in range(2))
    copy.set_attn_implementation(NAME)
    # ids as in the one file
    words = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate([*one.WORDS, "<eos>"])}, unk_token="<pad>")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    engine = TorchEngine(
        Loaded(copy, tokenizer, ""), EngineSpec(device="cpu", precision="fp32", threads=1), AdapterSpec()
    )
    engine.prepare("base", OptimSpec())
    return model, engine


@pytest.fixture()
def sampled(one, pair):
    """(prompts, plans, acts, rewards) as the one file has them: random tokens of uneven lengths, one plan of
    each task refused and so not executed, and old log-probs far enough from the model's that the clip holds
    some tokens on either side."""
    rng = random.Random(5)
    some = lambda least, most, end: (
        [rng.randrange(1, len(one.WORDS)) for _ in range(rng.randint(least, most))] + [end]
    )  # noqa: E731
    prompts = torch.tensor(
        [one.ids_of(one.prompt(*one.make_task(rng, one.make_screen(rng), 2))) for _ in range(P)]
    )
    plan = [*one.padded([some(1, 4, one.END_PLAN) for _ in range(P * M)])]
    act = [*one.padded([some(2, 9, one.END_ACT) for _ in range(P * M * Z)])]
    for task in range(P):
        act[1].view(P, M, Z, -1)[task, task] = False
    rewards = torch.tensor([float(rng.random() < 0.5) for _ in range(P * M * Z)]).view(P, M, Z)
    rewards[[0, 1, 2], [0, 1, 2]] = 0.0
    with torch.no_grad():
        prefix = one.Prefix(pair[0], prompts)
        for n, branch in ((M, plan), (Z, act)):
            logp = prefix.repeat(n).extend(branch[0], branch[1])
            branch.append(
                logp + torch.tensor([rng.uniform(-0.5, 0.5) for _ in range(logp.numel())]).view_as(logp)
            )
    return prompts, plan, act, rewards


def trees_of(prompts, plan, act, rewards) -> list[Tree]:
    """The same as the library's records: a plan without executions was refused, only executions carry a
    reward."""
    tokens = lambda branch, r: {
        "token_ids": tuple(branch[0][r][branch[1][r]].tolist()),  # noqa: E731
        "logprobs": tuple(branch[2][r][branch[1][r]].tolist()),
    }
    trees = []
    for p, prompt in enumerate(prompts.tolist()):
        nodes = [Node(id=0, parent=None, role=None, text="", token_ids=tuple(prompt))]
        for m in range(M):
            first = (p * M + m) * Z
            executed = bool(act[1][first].any())
            above = len(nodes)
            nodes.append(
                Node(
                    id=above,
                    parent=0,
                    role="plan",
                    text="",
                    policy="base",
                    status="finished" if executed else "refused",
                    **tokens(plan, p * M + m),
                )
            )
            for z in range(Z if executed else 0):
                nodes.append(
                    Node(
                        id=len(nodes),
                        parent=above,
                        role="act",
                        text="",
                        policy="base",
                        status="finished",
                        reward=rewards[p, m, z].item(),
                        **tokens(act, first + z),
                    )
                )
        task = Task(id=str(p), taskset="", level=1, context="", prompt="")
        trees.append(Tree(task=task, nodes=tuple(nodes)))
    return trees


def nodes_in_order(trees: list[Tree], role: str) -> list[tuple[Tree, Node]]:
    return [(tree, n) for tree in trees for n in tree.nodes if n.role == role]


def assigned(trees: list[Tree]) -> list:
    return [credit.assign(tree, CreditSpec(name="grpo", eps=1e-4), ("plan", "act")) for tree in trees]


def test_advantages_are_the_same(one, sampled):
    trees = trees_of(*sampled)
    of_plans, of_acts = one.advantages(sampled[3])
    executed = sampled[2][1].any(1)
    given = {
        (tree.task.id, node_id): values
        for tree, a in zip(trees, assigned(trees), strict=True)
        for node_id, values in a.items()
    }
    for role, wanted in (("plan", of_plans), ("act", of_acts[executed])):
        for (tree, node), value in zip(nodes_in_order(trees, role), wanted.tolist(), strict=True):
            assert given[tree.task.id, node.id] == pytest.approx(
                [value] * len(node.token_ids), abs=rounding([value], steps=16)
            )
    assert of_plans.abs().max() > 0.1


def test_advantages_by_hand(one):
    """Four responses 1 0 0 0: mean 1/4, population std sqrt(3)/4, so sqrt(3) and three times -1/sqrt(3)."""
    of_plans, of_acts = one.advantages(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    s = math.sqrt(3)
    scale = (s / 4) / (s / 4 + one.EPS)
    torch.testing.assert_close(of_acts, scale * torch.tensor([s, -1 / s, -1 / s, -1 / s]))
    torch.testing.assert_close(of_plans, scale * torch.tensor([(s - 1 / s) / 2, -1 / s]))


def test_logprobs_are_the_same(one, pair, sampled):
    model, engine = pair
    prompts, plan, act, _ = sampled
    trees = trees_of(*sampled)
    batch = for_policy(
        tree_segments(ALONE, trees, assigned(trees), "tokens"), "base", {"plan": "base", "act": "base"}
    )
    ours = iter(logp for logp in engine.logprobs(batch) if logp)
    with torch.no_grad():
        prefix = one.Prefix(model, prompts)
        plans = prefix.repeat(M).extend(plan[0], plan[1])
        acts = prefix.repeat(Z).extend(act[0], act[1])
    for p in range(P):
        for m in range(p * M, p * M + M):
            for theirs, mask in [
                (plans[m], plan[1][m]),
                *((acts[r], act[1][r]) for r in range(m * Z, m * Z + Z) if act[1][r].any()),
            ]:
                torch.testing.assert_close(torch.tensor(next(ours)), theirs[mask], **CLOSE)
    assert next(ours, None) is None


def test_loss_and_gradients_are_the_same(one, pair, sampled):
    model, engine = pair
    trees = trees_of(*sampled)
    segments = tree_segments(ALONE, trees, assigned(trees), "tokens")
    tokens = sum(len(s.advantage) for s in segments)
    objective = Objective((term("grpo", tokens, options={"clip_low": one.CLIP, "clip_high": one.CLIP}),))
    metrics = engine.forward_backward(
        for_policy(segments, "base", {"plan": "base", "act": "base"}), objective
    )
    loss = one.grpo_loss(model, *sampled)
    loss.backward()
    # times a ratio near 1: the loss is a mean of these, of either sign
    most = max(abs(a) for s in segments for a in s.advantage)
    assert metrics["loss/pg"].value() == pytest.approx(loss.item(), abs=rounding([most]))
    assert 0.1 < metrics["clip/share"].value() < 0.9
    theirs = dict(model.named_parameters())
    ours = engine.weights.parameters("base")
    assert set(ours) == set(theirs)
    scale = max(p.grad.abs().max().item() for p in theirs.values())
    assert scale > 1e-3
    for name, p in theirs.items():
        torch.testing.assert_close(
            ours[name].grad, p.grad, rtol=0, atol=2e-5 * scale, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_greedy_sampling_is_the_same(one, pair):
    model, engine = pair
    rng = random.Random(1)
    prompts = [one.ids_of(one.prompt(*one.make_task(rng, one.make_screen(rng), 3))) for _ in range(4)]
    requests = [
        Request(
            policy="base",
            context=tuple(p),
            n=1,
            stops=("</plan>",),
            max_tokens=one.MOST_PLAN,
            temperature=0.0,
        )
        for p in prompts
    ]
    ids, mask, logps = one.Prefix(model, torch.tensor(prompts)).sample(
        one.END_PLAN, one.MOST_PLAN, greedy=True
    )
    for row, (out,) in enumerate(engine.sample(requests)):
        assert list(out.token_ids) == ids[row][mask[row]].tolist()
        torch.testing.assert_close(torch.tensor(out.logprobs), logps[row][mask[row]], **CLOSE)


# The file itself --------------------------------------------------------------------------------------------


def test_it_stands_alone_and_is_short():
    source = EXAMPLE.read_text("utf-8")
    assert source.count("\n") <= 390  # as the formatter breaks them
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"torch", "transformers"}


def test_it_runs(tmp_path):
    command = [
        sys.executable,
        str(EXAMPLE),
        "--imitate",
        "2",
        "--steps",
        "2",
        "--check",
        str(tmp_path / "check.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "after GRPO at depth 3" in done.stdout
    record = json.loads((tmp_path / "check.json").read_text())
    assert [len(record[k]) for k in ("imitation", "grpo", "reward")] == [2, 4, 2]
    assert all(math.isfinite(x) for x in record["imitation"] + record["grpo"])
    assert 3 < record["imitation"][0] < 5  # of the order of ln 38 nats: nothing is known yet
    assert {side for row in record["after GRPO"].values() for side in row} == {"plan", "act", "e2e"}
