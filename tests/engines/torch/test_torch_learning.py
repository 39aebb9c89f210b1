"""Learning to an optimum that is known beforehand: a bandit that is asked for in words."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch_kit  # noqa: F401  one thread

from forethought.core.metrics import reduce
from forethought.core.types import Batch, Segment, Task, Turn, Verdict
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.models.loading import load
from forethought.learn.curriculum import LevelSampler
from forethought.recipe.convert import from_dict
from forethought.recipe.schema import AdapterSpec, EngineSpec, ModelSpec, TrainingSpec
from forethought.stages.step import Stage
from forethought.tasks.base import Taskset
from forethought.workflows.rollout import Rollouts

COLOURS, ARMS = ("red", "green", "blue", "white"), ("one", "two", "three", "four")
RIGHT = dict(zip(COLOURS, ("three", "one", "four", "two"), strict=True))


class Bandit(Taskset):
    """ASK COLOUR <plan> -> ARM </plan>. Demonstrations pull the right arm in `hint` of all cases, else any:
    by chance, 1 in 4."""

    name, levels = "bandit", (1,)
    opens = {"plan": "<plan>"}
    stops, budgets = {"plan": "</plan>", "act": "</act>"}, {"plan": 3, "act": 1}

    def __init__(
        self, right: Callable[[str, str], bool] = lambda colour, arm: RIGHT[colour] == arm, hint: float = 0.25
    ):
        self.right, self.hint = right, hint

    def vocabulary(self) -> list[str]:
        return ["ASK", "<plan>", "</plan>", "</act>", *COLOURS, *ARMS]

    def family(self, rng: random.Random, levels: list[int], split: str) -> list[Task]:
        drawn = [
            (c := rng.choice(COLOURS), RIGHT[c] if rng.random() < self.hint else rng.choice(ARMS))
            for _ in levels
        ]
        return [
            Task(id=c, taskset="bandit", level=1, context="", prompt=f"ASK {c}", state=(c, a))
            for c, a in drawn
        ]

    def oracle_plan(self, task: Task) -> str:
        return f"{task.state[1]} </plan>"

    def demonstrate(self, task: Task) -> list[Turn]:
        return [Turn(role="plan", text=self.oracle_plan(task)), Turn(role="act", text="</act>")]

    def parse_plan(self, task: Task, text: str) -> Verdict:
        words = text.split()
        return Verdict(score=float(len(words) == 2 and words[0] in ARMS and words[1] == "</plan>"))

    def judge_plan(self, task: Task, text: str) -> Verdict:
        return Verdict(
            score=float(self.parse_plan(task, text).score and self.right(task.state[0], text.split()[0]))
        )


def engine_for(bandit: Bandit) -> TorchEngine:
    """Its adapters cover the head: behind a frozen norm and a frozen head, certainty would have a ceiling."""
    adapter = AdapterSpec(
        rank=4,
        targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"),
    )
    return TorchEngine(
        load(ModelSpec(layers=2, width=32, mlp=32), bandit.vocabulary(), 64, 0),
        EngineSpec(device="cpu", precision="fp32", threads=1),
        adapter,
    )


def learn(engine: TorchEngine, bandit: Bandit, stage: dict, policy: str = "base") -> list[dict]:
    """A stage from its first step to its last."""
    spec: TrainingSpec = from_dict({"stage": [stage]}).stage[0]
    policies = {"plan": policy, "act": "base"}
    references = {policy: "ref"} if spec.ref_kl else {}
    for source, name in references.items():
        engine.fork(source, name, "frozen")
    at_work = Stage(engine, Rollouts(engine, bandit), spec, policies, LevelSampler([1]), 0, references)
    for trained in at_work.trained():
        engine.prepare(trained, spec.optim)
    return [reduce(at_work.step(k).metrics) for k in range(spec.until.steps)]


def probabilities(engine: TorchEngine, policy: str) -> dict[str, dict[str, float]]:
    """colour -> arm -> exact probability of that arm."""
    out = {}
    for colour in COLOURS:
        segments = [Segment(parent=-1, token_ids=engine.encode(f"ASK {colour} <plan>"))]
        segments += [Segment(parent=0, token_ids=engine.encode(" " + arm), stream="sft") for arm in ARMS]
        logps = engine.logprobs(Batch(policy=policy, segments=tuple(segments)))[1:]
        out[colour] = {arm: math.exp(logp[0]) for arm, logp in zip(ARMS, logps, strict=True)}
    return out


GRAMMAR = {
    "kind": "imitate",
    "weights": "base",
    "until": {"steps": 60},
    "batch": 64,
    "optim": {"lr": 0.01, "decay": 0.5},
}
PULL = {
    "kind": "reinforce",
    "roles": ["plan"],
    "until": {"steps": 60},
    "batch": 8,
    "tree": {"plan": 8, "act": 0},
    "reward": {"plan": {"valid": 1}},
    "optim": {"lr": 0.005, "decay": 0.3},
}


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Callable[[Bandit], TorchEngine]:
    """An engine that knows the grammar and has a hint of the arms, as often as it is asked for."""
    bandit, folder = Bandit(), tmp_path_factory.mktemp("started") / "engine"
    first = engine_for(bandit)
    learn(first, bandit, GRAMMAR)
    first.save(folder)

    def again(bandit: Bandit) -> TorchEngine:
        engine = engine_for(bandit)
        engine.load(folder)
        return engine

    return again


def right(engine: TorchEngine, policy: str) -> list[float]:
    """For each colour, the exact probability of the arm that pays."""
    found = probabilities(engine, policy)
    return [found[c][RIGHT[c]] for c in COLOURS]


def test_imitation_learns_the_distribution_that_is_shown(started):
    """Shown: 1/4 + 3/4 * 1/4 = 7/16 for the right arm, 3/16 for each other. The grammar is certain."""
    found = probabilities(started(Bandit()), "base")
    for colour, arms in found.items():
        assert sum(arms.values()) > 0.98
        assert arms == pytest.approx(
            {arm: 7 / 16 if arm == RIGHT[colour] else 3 / 16 for arm in ARMS}, abs=0.15
        )
    assert sum(arms[RIGHT[c]] for c, arms in found.items()) / 4 == pytest.approx(7 / 16, abs=0.06)


@pytest.mark.parametrize(
    ("credit", "policy"), [("grpo", "plan"), ("rloo", "base"), ("role_baseline", "plan")]
)
def test_reinforcement_reaches_the_optimum(started, credit, policy):
    """From 7/16 to the one arm that pays, for every colour; what learns in an adapter leaves the base where
    it was."""
    bandit = Bandit()
    engine = started(bandit)
    if policy == "plan":
        engine.fork("base", "plan")
    before = probabilities(engine, "base")
    history = learn(
        engine,
        bandit,
        PULL | {"credit": {"name": credit}, "weights": "base" if policy == "base" else "adapter"},
        policy,
    )
    assert sum(line["reward/plan"] for line in history[:3]) / 3 < 0.6
    assert min(right(engine, policy)) > 0.95
    assert sum(line["reward/plan"] for line in history[-5:]) / 5 > 0.95
    # a step whose groups are all solved has none
    entropy = [line["entropy/plan"] for line in history if "entropy/plan" in line]
    assert entropy[-1] < entropy[0] / 3
    assert (probabilities(engine, "base") == before) == (policy == "plan")


@pytest.mark.parametrize("control", ["nothing pays", "chance pays", "another arm pays"])
def test_controls_do_not(started, control):
    """Without a reward no bit moves; a coin for a reward finds nothing; and paid otherwise, the same steps
    unlearn the hint."""
    coin = random.Random(0)
    pays = {
        "nothing pays": lambda colour, arm: False,
        "chance pays": lambda colour, arm: coin.random() < 0.5,
        "another arm pays": lambda colour, arm: arm == ARMS[ARMS.index(RIGHT[colour]) - 1],
    }[control]
    bandit = Bandit(pays)
    engine = started(bandit)
    before = probabilities(engine, "base")
    learn(engine, bandit, PULL | {"until": {"steps": 40}}, "base")
    if control == "nothing pays":
        assert probabilities(engine, "base") == before
    elif control == "chance pays":
        assert sum(right(engine, "base")) / 4 < 0.75
    else:
        assert max(right(engine, "base")) < 0.15


def test_reinforcement_finds_even_the_grammar_where_there_is_a_way_to_it():
    """No demonstration at all: a reward for each half of the grammar, then for the arm. By chance, 1 plan in
    200 is right."""
    bandit = Bandit()
    engine = engine_for(bandit)
    history = learn(
        engine,
        bandit,
        PULL
        | {
            "until": {"steps": 90},
            "batch": 16,
            "optim": {"lr": 0.005},
            "reward": {"plan": {"valid": 1, "format": 0.3}},
        },
    )
    assert history[0]["reward/plan.valid"] < 0.1
    assert sum(line["reward/plan.valid"] for line in history[-5:]) / 5 > 0.7


def test_the_reference_holds_the_policy_where_the_theory_says(started):
    """Maximise p(right) - weight * KL(reference || policy), with q the reference's own probability of the
    right arm.

    The k3 estimate has the value of KL(policy || reference), but its gradient on the policy's own samples is
    that of the other direction: E[(1 - ref/pi) grad log pi] = grad KL(ref || pi). So p = w q / (z - 1), 1 - p
    = w (1 - q) / z, and z makes them 1.
    """
    weight, bandit = 0.25, Bandit()
    engine = started(bandit)
    learn(
        engine,
        bandit,
        PULL
        | {
            "ref_kl": weight,
            "credit": {"name": "rloo"},
            "tree": {"plan": 16, "act": 0},
            "optim": {"lr": 0.005, "decay": 0.6},
        },
        "base",
    )
    for q, p in zip(right(engine, "ref"), right(engine, "base"), strict=True):
        b = 1 + weight  # z^2 - (1 + w) z + w (1 - q) = 0
        z = (b + math.sqrt(b * b - 4 * weight * (1 - q))) / 2
        assert p == pytest.approx(weight * q / (z - 1), abs=0.04)
        # 0.88, 0.88, 0.88, 0.84 on the machine where this was written
        # what KL(policy || reference) would ask for: 0.98
        other = q * math.exp(1 / weight) / (q * math.exp(1 / weight) + 1 - q)
        assert abs(p - other) > 0.06
