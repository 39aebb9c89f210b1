"""The same batch through the loss of TRL's GRPOTrainer and through ours: the same loss, and the same gradient
of every parameter.

    pip install -e '.[bench,test]' && pytest -m trl

What corresponds (read from TRL 1.16 and shown here):

| TRL `loss_type`   | `stage.loss_norm` | what the loss is divided by                             |
|-------------------|-------------------|---------------------------------------------------------|
| "grpo"            | "sequences"       | each response by its tokens, then by the responses      |
| "bnpo", "dapo"    | "tokens"          | the tokens of the batch                                 |
| "dr_grpo"         | "constant"        | responses x the longest that one may be                 |

TRL's `epsilon`, `epsilon_high` and `beta` are `loss.clip_low`, `loss.clip_high` and `ref_kl`, whose loss is
divided as the rest is. Other losses, by name:

| TRL                                                       |
`stage.loss`                                     |
|-----------------------------------------------------------|--------------------------------------------------|
| `importance_sampling_level = "sequence"`, loss_type grpo  | "gspo" with `loss_norm =
"sequences"`            |
| loss_type "cispo", epsilon_high                           | "cispo", clip_high = epsilon_high - 1,
"tokens"  |
| loss_type "sapo", sapo_temperature_pos, _neg              | examples/loss_row.py,
"sequences"                |

 "bnpo" and "dapo" differ in TRL when gradients are accumulated: "bnpo" averages the means of its
micro-batches, so that a token counts more in a micro-batch of few tokens; "dapo" divides by the tokens of all
of them. Ours does what "dapo" does, for every norm.

Where the two part:

- The KL: ours is the term of GRPO as published, k3 = r - log r - 1 with r = ref / policy on the tokens that
  were sampled, which is TRL's with `use_bias_correction_kl = False`. Its gradient is (1 - r) grad log p, on
  policy that of KL(ref || policy): the policy is held where the reference is, not kept out of where it is
  not. TRL multiplies k3 by policy / old by default (arXiv 2512.02556), whose gradient on policy is log(policy
  / ref) grad log p, that of KL(policy || ref). A test below works both out over a whole vocabulary: TRL's
  default is right where KL(policy || ref) is meant. Ours gives its gradient by the advantage A - ref_kl x
  log(policy / ref).

- The advantage of a group: TRL divides by the sample standard deviation (over G - 1), ours by that of the
  group itself (over G), as the formula of arXiv 2402.03300 is read there; sqrt(G / (G - 1)) lies between
  them, 1.15 for G = 4.
- A tree: to TRL a plan with z executions is z rows that repeat the plan. Ours holds the plan once, with the
  mean of their advantages, so its tokens weigh 1 and not z. `credit.weight.plan = z` gives TRL's gradient,
  but for the denominator.
- A response of a plan and its acts is one sequence to TRL's "grpo" and two turns to "sequences".
"""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("trl", reason="TRL is not installed; it comes with the extra `bench`")
pytestmark = pytest.mark.trl

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from torch_kit import SIZE, WORDS, engine_of, model_of  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402
from trl.trainer.utils import nanstd  # noqa: E402

from forethought.core.types import Node, Task, Tree  # noqa: E402
from forethought.engines.torch.models.small import tokenizer_of  # noqa: E402
from forethought.learn import credit  # noqa: E402
from forethought.learn.batches import for_policy, tree_segments  # noqa: E402
from forethought.learn.curriculum import LevelSampler  # noqa: E402
from forethought.recipe.kinds.reinforce import Reinforce  # noqa: E402
from forethought.recipe.schema import CreditSpec, LossSpec, OptimSpec, TreeSpec  # noqa: E402
from forethought.stages.step import Stage  # noqa: E402
from forethought.stages.update import on_rollouts  # noqa: E402

G, MOST = 4, 9  # responses of a prompt, and the longest that one may be
NORMS = {"grpo": "sequences", "bnpo": "tokens", "dapo": "tokens", "dr_grpo": "constant"}
ALL_NORMS = NORMS | {"cispo": "tokens", "sapo": "sequences"}
SAPO = f"{Path(__file__).parents[1] / 'examples' / 'loss_row.py'}:SAPO"
LOW, HIGH = 0.1, 0.3
CLIPPED = LossSpec(options={"clip_low": LOW, "clip_high": HIGH})
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
POLICIES = {"plan": "base", "act": "base"}


def some(rng: random.Random, n: int) -> tuple[int, ...]:
    return tuple(rng.randrange(3, SIZE) for _ in range(n))


def trees_of(rng: random.Random, prompts: int = 3) -> list[Tree]:
    """Prompts of 2 to 6 tokens, each with G responses of 1 to MOST tokens, half of them right."""
    trees = []
    for p in range(prompts):
        root = Node(id=0, parent=None, role=None, text="", token_ids=some(rng, rng.randint(2, 6)))
        nodes = [
            Node(
                id=1 + g,
                parent=0,
                role="plan",
                text="",
                token_ids=some(rng, rng.randint(1, MOST)),
                policy="base",
                status="finished",
                reward=float(g % 2),
            )
            for g in range(G)
        ]
        trees.append(
            Tree(task=Task(id=str(p), taskset="made", level=1, context="", prompt=""), nodes=(root, *nodes))
        )
    return trees


class Both:
    """One set of weights in an engine of ours and in TRL's trainer."""

    def __init__(
        self,
        tmp_path,
        kind: str,
        loss_type: str,
        beta: float = 0.0,
        corrected: bool = False,
        loss: LossSpec = CLIPPED,
        **arguments,
    ):
        ours = model_of(kind)
        theirs = AutoModelForCausalLM.from_config(
            copy.deepcopy(ours.config), attn_implementation="eager"
        ).float()
        theirs.load_state_dict(ours.state_dict())
        self.engine = engine_of(ours, tokenizer_of(WORDS))
        self.engine.prepare("base", OptimSpec(lr=0.01, warmup=0, clip_norm=1e9))
        self.loss_type, self.beta = loss_type, beta
        arguments = GRPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to=[],
            loss_type=loss_type,
            per_device_train_batch_size=G,
            num_generations=G,
            max_completion_length=MOST,
            temperature=1.0,
            disable_dropout=True,
            use_bias_correction_kl=corrected,
            **{"epsilon": LOW, "epsilon_high": HIGH} | arguments,
        )
        self.trainer = GRPOTrainer(
            model=theirs,
            reward_funcs=lambda **_: [],
            args=arguments,
            processing_class=tokenizer_of(WORDS),
            train_dataset=Dataset.from_dict({"prompt": ["w1"]}),
        )
        # given to GRPOConfig, it would load a reference by name; the log-probs come with the batch
        self.trainer.beta = beta
        self.trainer.current_gradient_accumulation_steps = 1
        self.trainer.model.train()
        self.stage = Stage(
            self.engine,
            SimpleNamespace(budgets={}),
            Reinforce(
                roles=("plan",),
                tree=TreeSpec(counts={"plan": G, "act": 0}, tokens={"plan": MOST, "act": MOST}),
                loss=loss,
                loss_norm=ALL_NORMS[loss_type],
                ref_kl=beta,
            ),
            POLICIES,
            LevelSampler([1]),
            0,
        )

    def copy_weights(self) -> None:
        self.trainer.model.load_state_dict(self.engine.weights.base.state_dict())

    def logprobs(self, trees) -> list[Tree]:
        """The trees with the log-probs of the engine's newest weights on their nodes."""
        written = [{n.id: (0.0,) * len(n.token_ids) for n in t.nodes if n.role} for t in trees]
        segments = tree_segments(self.stage.rollouts, trees, written, "tokens")
        found = iter(self.engine.logprobs(for_policy(segments, "base", POLICIES)))
        return [replace(t, nodes=tuple(replace(n, logprobs=next(found)) for n in t.nodes)) for t in trees]

    def ours(self, trees, advantages, references=None) -> tuple[float, dict[str, torch.Tensor], float]:
        """(loss, gradients, share of tokens where the clip holds) as a step of the stage has them."""
        segments = tree_segments(self.stage.rollouts, trees, advantages, self.stage.spec.loss_norm)
        if references:
            flat = iter(references)
            segments = [s if s.stream is None else replace(s, ref_logprobs=next(flat)) for s in segments]
        objective = on_rollouts(self.stage, [], trees, advantages)[1]
        self.engine.forget("base")
        metrics = self.engine.forward_backward(for_policy(segments, "base", POLICIES), objective)
        loss = metrics["loss/pg"].total + (self.beta * metrics["kl/ref"].total if references else 0.0)
        gradients = {name: p.grad.clone() for name, p in self.engine.weights.base.named_parameters()}
        [clipped] = [metrics[name].value() for name in ("clip/share",) if name in metrics] or [math.nan]
        return loss / objective.denominators["pg"], gradients, clipped

    def theirs(self, rows: list[dict], parts: int = 1) -> tuple[float, dict[str, torch.Tensor], float]:
        """The same by TRL, in `parts` micro-batches of one update. A row: prompt, ids, old, advantage, and
        ref where there is one."""
        trainer, model = self.trainer, self.trainer.model
        model.zero_grad()
        trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = parts
        tokens, size, loss = sum(len(r["ids"]) for r in rows), len(rows) // parts, 0.0
        for start in range(0, len(rows), size):
            part = trainer._compute_loss(model, _padded(rows[start : start + size], tokens))
            part.backward()
            loss += part.item()
        return (
            loss,
            {name: p.grad for name, p in model.named_parameters()},
            (trainer._metrics["train"]["clip_ratio/region_mean"] or [math.nan])[-1],
        )

    def agree(self, trees, advantages, references=None, parts: int = 1) -> float:
        """Assert that they do; returns our share of clipped tokens."""
        rows = rows_of(trees, advantages, references)
        loss, gradients, clipped = self.ours(trees, advantages, references)
        wanted, expected, share = self.theirs(rows, parts)
        assert loss == pytest.approx(wanted, abs=1e-5)
        torch.testing.assert_close(gradients, expected, **CLOSE)
        assert max(g.abs().max().item() for g in expected.values()) > 0.01  # there is something to compare
        # there ours weighs a token as the loss does, TRL's metric does not
        if parts == 1 and self.loss_type != "grpo":
            assert clipped == pytest.approx(share, abs=1e-6)
        return clipped


def rows_of(trees, advantages, references=None) -> list[dict]:
    flat = iter(references or ())
    return [
        {
            "prompt": t.nodes[0].token_ids,
            "ids": n.token_ids,
            "old": n.logprobs,
            "advantage": a[n.id][0],
            "ref": next(flat, None),
        }
        for t, a in zip(trees, advantages, strict=True)
        for n in t.nodes[1:]
    ]


def _padded(rows: list[dict], tokens: int) -> dict[str, torch.Tensor]:
    """Prompts padded on the left, responses on the right, as TRL's trainer makes them; what is padded holds
    numbers that would show."""

    def pad(values, width, left, fill):
        return [
            ([fill] * (width - len(v)) + list(v)) if left else (list(v) + [fill] * (width - len(v)))
            for v in values
        ]

    def ones(values):
        return [[1] * len(v) for v in values]

    wide, long = max(len(r["prompt"]) for r in rows), max(len(r["ids"]) for r in rows)
    prompts, ids = [r["prompt"] for r in rows], [r["ids"] for r in rows]
    found = {
        "prompt_ids": torch.tensor(pad(prompts, wide, True, 0)),
        "prompt_mask": torch.tensor(pad(ones(prompts), wide, True, 0)),
        "completion_ids": torch.tensor(pad(ids, long, False, 0)),
        "completion_mask": torch.tensor(pad(ones(ids), long, False, 0)),
        "advantages": torch.tensor([r["advantage"] for r in rows]),
        "num_items_in_batch": torch.tensor(float(tokens)),
        "old_per_token_logps": torch.tensor(pad([r["old"] for r in rows], long, False, -1.0)),
    }
    if rows[0]["ref"] is not None:
        found["ref_per_token_logps"] = torch.tensor(pad([r["ref"] for r in rows], long, False, -2.0))
    return found


def moved(rng: random.Random, logprobs: tuple[float, ...], by: float = 0.5) -> tuple[float, ...]:
    """Log-probs of a policy that is somewhat another one."""
    return tuple(logp + rng.uniform(-by, by) for logp in logprobs)


# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("beta", [0.0, 0.2])
@pytest.mark.parametrize("loss_type", NORMS)
def test_one_batch_gives_one_loss_and_one_gradient(tmp_path, loss_type, beta, kind):
    """Prompts and responses of many lengths, ratios from 0.6 to 1.6 so that the clip holds on both sides, a
    reference further off."""
    rng, both = random.Random(3), Both(tmp_path, kind, loss_type, beta)
    trees = [
        replace(t, nodes=tuple(replace(n, logprobs=moved(rng, n.logprobs)) for n in t.nodes))
        for t in both.logprobs(trees_of(rng))
    ]
    references = [moved(rng, n.logprobs, 1.0) for t in trees for n in t.nodes[1:]] if beta else None
    advantages = [credit.assign(t, CreditSpec(name="grpo"), ("plan",)) for t in trees]
    assert 0.05 < both.agree(trees, advantages, references) < 0.95


@pytest.mark.parametrize("loss_type", NORMS)
def test_three_updates_on_one_batch(tmp_path, loss_type):
    """The old log-probs stay those of the weights that sampled: the first update is on policy, after it the
    ratio moves and the clip begins to hold."""
    rng, both = random.Random(4), Both(tmp_path, "llama", loss_type)
    trees = both.logprobs(trees_of(rng))
    advantages = [credit.assign(t, CreditSpec(name="dr_grpo"), ("plan",)) for t in trees]
    clipped = []
    for _ in range(3):
        clipped.append(both.agree(trees, advantages))
        both.engine.optim_step("base")
        both.engine.publish("base")
        both.copy_weights()
    assert clipped[0] == 0.0 < clipped[1]


@pytest.mark.parametrize(
    ("loss_type", "same"), [("dapo", True), ("grpo", True), ("dr_grpo", True), ("bnpo", False)]
)
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path, loss_type, same):
    """In TRL too, but for "bnpo": its micro-batches of a prompt each count alike, whatever number of tokens
    they have. A token of the batch is to weigh the same wherever it lies, so ours and "dapo" are right, and
    `loss_norm = "tokens"` is "dapo"."""
    rng, both = random.Random(5), Both(tmp_path, "llama", loss_type)
    trees = both.logprobs(trees_of(rng))
    advantages = [credit.assign(t, CreditSpec(name="grpo"), ("plan",)) for t in trees]
    if same:
        both.agree(trees, advantages, parts=3)
    else:
        both.agree(trees, advantages)
        with pytest.raises(AssertionError):
            both.agree(trees, advantages, parts=3)


LOSSES = {
    "dapo": ("dapo", LossSpec(name="dapo"), {"epsilon": 0.2, "epsilon_high": 0.28}),
    "gspo": (
        "grpo",
        LossSpec(name="gspo", options={"clip_low": 0.05, "clip_high": 0.1}),
        {"importance_sampling_level": "sequence", "epsilon": 0.05, "epsilon_high": 0.1},
    ),
    "cispo": (
        "cispo",
        LossSpec(name="cispo", options={"clip_high": 0.2}),
        {"epsilon_high": 1.2},
    ),
    "sapo": (
        "sapo",
        LossSpec(name=SAPO, options={"negative": 2.0}),
        {"sapo_temperature_neg": 2.0},
    ),
}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("beta", [0.0, 0.2])
@pytest.mark.parametrize("name", LOSSES)
def test_the_other_rows_of_losses_are_trls(tmp_path, name, beta, parts):
    """Ratios from 0.6 to 1.6, the means of a response's log-ratios on both sides of its bounds."""
    loss_type, loss, arguments = LOSSES[name]
    rng, both = random.Random(8), Both(tmp_path, "llama", loss_type, beta, loss=loss, **arguments)
    trees = [
        replace(t, nodes=tuple(replace(n, logprobs=moved(rng, n.logprobs)) for n in t.nodes))
        for t in both.logprobs(trees_of(rng))
    ]
    references = [moved(rng, n.logprobs, 1.0) for t in trees for n in t.nodes[1:]] if beta else None
    advantages = [credit.assign(t, CreditSpec(name="grpo"), ("plan",)) for t in trees]
    rows = rows_of(trees, advantages, references)
    loss, gradients, measured = both.ours(trees, advantages, references)
    wanted, expected = both.theirs(rows, parts)[:2]
    assert loss == pytest.approx(wanted, abs=1e-5)
    torch.testing.assert_close(gradients, expected, **CLOSE)
    assert max(g.abs().max().item() for g in expected.values()) > 0.01
    assert name == "sapo" or 0.05 < measured < 0.95  # some are clipped, some are not


def test_the_gradient_of_either_kl_by_hand():
    """Over a whole vocabulary of three, on policy: what the estimators expect is what their direction of the
    KL has."""
    logits = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()

    def gradient(of) -> list[float]:
        return torch.autograd.grad(of(logits.log_softmax(-1)), logits)[0].tolist()

    def k3(logp):
        return (ref - logp).exp() - (ref - logp) - 1

    def expected(of):  # over the tokens that this very policy samples
        return lambda logp: (logp.detach().exp() * of(logp)).sum()

    forward = gradient(lambda logp: (ref.exp() * (ref - logp)).sum())
    reverse = gradient(lambda logp: (logp.exp() * (logp - ref)).sum())
    assert gradient(expected(k3)) == pytest.approx(forward)
    assert gradient(expected(lambda logp: (logp - logp.detach()).exp() * k3(logp))) == pytest.approx(reverse)
    # as a part of the advantage
    assert gradient(expected(lambda logp: logp * (logp.detach() - ref))) == pytest.approx(reverse)
    assert forward != pytest.approx(reverse, rel=0.1)


@pytest.mark.parametrize("loss_type", NORMS)
def test_trls_own_kl_is_ours_as_a_part_of_the_advantage(tmp_path, loss_type):
    """On policy, where the clip is linear in the advantage: `use_bias_correction_kl = True` and A - beta
    log(policy / ref)."""
    rng, both = random.Random(7), Both(tmp_path, "llama", loss_type, beta=0.2, corrected=True)
    trees = both.logprobs(trees_of(rng))
    advantages = [credit.assign(t, CreditSpec(name="grpo"), ("plan",)) for t in trees]
    references = [moved(rng, n.logprobs, 1.0) for t in trees for n in t.nodes[1:]]
    flat = iter(references)
    less = [
        {
            n.id: tuple(
                x - 0.2 * (logp - ref) for x, logp, ref in zip(a[n.id], n.logprobs, next(flat), strict=True)
            )
            for n in t.nodes[1:]
        }
        for t, a in zip(trees, advantages, strict=True)
    ]
    _, expected, _ = both.theirs(rows_of(trees, advantages, references))
    torch.testing.assert_close(both.ours(trees, less)[1], expected, **CLOSE)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(both.ours(trees, advantages, references)[1], expected, **CLOSE)


@pytest.mark.parametrize("z", [2, 3])
def test_a_tree_is_trls_rows_when_plans_weigh_as_often_as_they_are_executed(tmp_path, z):
    """Two plans of z executions each, one normalisation over all; TRL has 2z rows. On policy, where the clip
    is linear in the advantage."""
    rng, both = random.Random(6), Both(tmp_path, "llama", "dapo")
    nodes = [Node(id=0, parent=None, role=None, text="", token_ids=some(rng, 4))]
    add = lambda **f: nodes.append(Node(id=len(nodes), text="", policy="base", status="finished", **f))  # noqa: E731
    for _ in range(2):
        plan = len(nodes)
        add(parent=0, role="plan", token_ids=some(rng, rng.randint(2, 5)), reward=0.0)
        for _ in range(z):
            add(
                parent=plan,
                role="act",
                token_ids=some(rng, rng.randint(2, 4)),
                reward=float(rng.random() < 0.5),
            )
    nodes[-1] = replace(nodes[-1], reward=2.0)  # some spread in any case
    [tree] = both.logprobs(
        [Tree(task=Task(id="0", taskset="made", level=1, context="", prompt=""), nodes=tuple(nodes))]
    )
    leaves = tree.leaves()
    own = credit.assign(tree, CreditSpec(name="grpo"), ("plan", "act"))
    rows = [
        {
            "prompt": tree.nodes[0].token_ids,
            "ids": tree.nodes[n.parent].token_ids + n.token_ids,
            "ref": None,
            "old": tree.nodes[n.parent].logprobs + n.logprobs,
            "advantage": own[n.id][0],
        }
        for n in leaves
    ]
    _, expected, _ = both.theirs(rows)
    weighed = credit.assign(tree, CreditSpec(name="grpo", weight={"plan": float(z)}), ("plan", "act"))
    _, gradients, _ = both.ours([tree], [weighed])
    scale = sum(len(n.token_ids) for n in tree.nodes[1:]) / sum(len(r["ids"]) for r in rows)
    torch.testing.assert_close({name: g * scale for name, g in gradients.items()}, expected, **CLOSE)
    _, plain, _ = both.ours([tree], [own])
    with pytest.raises(AssertionError):
        torch.testing.assert_close({name: g * scale for name, g in plain.items()}, expected, **CLOSE)


def test_the_standard_deviation_of_a_group_is_the_one_difference_of_the_advantages():
    rewards = [0.0, 1.0, 1.0, 0.5]
    nodes = [Node(id=0, parent=None, role=None, text="", token_ids=(3,))]
    nodes += [
        Node(
            id=1 + g,
            parent=0,
            role="plan",
            text="",
            token_ids=(3,),
            policy="base",
            status="finished",
            reward=r,
        )
        for g, r in enumerate(rewards)
    ]
    tree = Tree(task=Task(id="0", taskset="made", level=1, context="", prompt=""), nodes=tuple(nodes))
    ours = [credit.assign(tree, CreditSpec(name="grpo", eps=0.0), ("plan",))[1 + g][0] for g in range(4)]
    told = torch.tensor(rewards)
    theirs = ((told - told.mean()) / nanstd(told)).tolist()
    assert [a / b for a, b in zip(ours, theirs, strict=True)] == pytest.approx(
        [math.sqrt(4 / 3)] * 4, rel=1e-6
    )
