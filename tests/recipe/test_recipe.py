"""Recipes: what loads, what is refused and how the refusal reads. Every expected message is written by
hand."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from forethought.core.errors import RecipeError
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict, to_dict, to_toml
from forethought.recipe.kinds import KINDS
from forethought.recipe.kinds.imitate import Imitate
from forethought.recipe.kinds.reinforce import Reinforce
from forethought.recipe.load import load, shipped, write_resolved
from forethought.recipe.schema import (
    EvalSpec,
    GateSpec,
    OptimSpec,
    Recipe,
    TaskSpec,
    TrainingSpec,
    TreeSpec,
    UntilSpec,
)
from forethought.stages.step import STEPS
from forethought.tasks import families

EVERYTHING = """
name = "all"
seed = 7
layout = "shared"
task = { name = "desk", levels = [1, 2], slip = 0.15, names = ["a", "b"], deep = { x = 1 } }
eval = { tasks = 10, levels = [2] }

[[stage]]
kind = "imitate"
until = { steps = 3, metric = "eval/plan", at_least = 1 }
loss_share = { plan = [1, 0.5] }
optim = { name = "muon", betas = [0, 0.5] }

[[stage]]
kind = "reinforce"
roles = ["plan"]
tree = { plan = 8, act = 0 }
reward = { plan = { valid = 1 } }
gates = [{ metric = "eval/act@2", max_drop = 0.01, on_fail = "roll_back" }]
"""

# The same recipe in records. A whole number where a number is asked for is that number.
EXPECTED = Recipe(
    name="all",
    seed=7,
    layout="shared",
    task=TaskSpec(name="desk", levels=(1, 2), options={"slip": 0.15, "names": ("a", "b"), "deep": {"x": 1}}),
    eval=EvalSpec(tasks=10, levels=(2,)),
    stage=(
        Imitate(
            roles=("plan", "act"),
            until=UntilSpec(steps=3, metric="eval/plan", at_least=1.0),
            loss_share={"plan": (1.0, 0.5)},
            optim=OptimSpec(name="muon", betas=(0.0, 0.5)),
        ),
        Reinforce(
            roles=("plan",),
            tree=TreeSpec(counts={"plan": 8, "act": 0}),
            reward={"plan": {"valid": 1.0}},
            gates=(GateSpec(metric="eval/act@2", max_drop=0.01, on_fail="roll_back"),),
        ),
    ),
)


@pytest.fixture
def toml(tmp_path):
    def write(text: str, name: str = "r.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(action, *args) -> str:
    with pytest.raises(RecipeError) as caught:
        action(*args)
    assert caught.value.exit_code == 2
    return str(caught.value)


# Loading ----------------------------------------------------------------------------------------------------


def test_a_recipe_becomes_the_records_it_says(toml):
    recipe = load(toml(EVERYTHING))
    assert recipe == EXPECTED
    assert type(recipe.stage[0].until.at_least) is float and type(recipe.stage[0].optim.betas[0]) is float


def test_the_resolved_recipe_feeds_back_in(tmp_path, toml):
    recipe = load(toml(EVERYTHING))
    write_resolved(recipe, tmp_path / "recipe.json")
    assert load(tmp_path / "recipe.json") == load(tmp_path) == EXPECTED
    # nothing is left beside it
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["r.toml", "recipe.json"]
    data = json.loads((tmp_path / "recipe.json").read_text())
    assert data["task"] == {
        "name": "desk",
        "levels": [1, 2],
        "slip": 0.15,
        "names": ["a", "b"],
        "deep": {"x": 1},
    }
    assert data["stage"][1]["until"]["at_least"] is None


def test_the_printed_recipe_feeds_back_in():
    odd = TaskSpec(options={'quote "\n\x7f': 'é\\ "', "on": True, "none": None})
    recipe = Recipe(name="t", about='two\nlines, a "quote"', task=odd, stage=(Imitate(roles=("act",)),))
    back = from_dict(tomllib.loads(to_toml(recipe)))
    assert back.task.options == {'quote "\n\x7f': 'é\\ "', "on": True}  # TOML has no word for nothing
    assert (back.name, back.about, back.stage) == (recipe.name, recipe.about, recipe.stage)
    assert from_dict(tomllib.loads(to_toml(EXPECTED))) == EXPECTED


def test_every_shipped_recipe_loads_checks_and_round_trips():
    names = [name for name, _, _ in shipped()]
    assert names == sorted(names) and {"desk", "desk-shared", "blocksworld"} <= set(names)
    for name, path, about in shipped():
        recipe = load(name)
        check(recipe)
        if recipe.task.name != "math":  # its problems are files, of the reader or the hub
            taskset = families.build(recipe.task)
            assert {level for stage in recipe.stage for level in stage.levels} <= set(taskset.levels)
        assert recipe.name == name == path.stem and recipe.about == about != ""
        assert from_dict(to_dict(recipe)) == recipe and from_dict(tomllib.loads(to_toml(recipe))) == recipe


def test_the_two_desk_recipes_differ_in_layout_and_rate_only():
    desk, shared = to_dict(load("desk")), to_dict(load("desk-shared"))
    different = {key for key in desk if desk[key] != shared[key]}
    assert different == {"name", "about", "layout", "stage"} and desk["stage"][0] == shared["stage"][0]
    rl, shared_rl = desk["stage"][1], shared["stage"][1]
    assert {key for key in rl if rl[key] != shared_rl[key]} == {"weights", "optim"}


def test_a_shipped_name_wins_over_a_directory_and_a_path_reaches_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("desk").mkdir()
    assert load("desk").name == "desk"
    assert "is a directory without a recipe.json" in refusal(load, "./desk")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[[stage]]\ntree = { tempature = 0.5 }",
            "stage.0.tree.tempature: unknown key 'tempature'; did you mean 'temperature'? "
            "(known: min_p, oracle, temperature, tokens, top_k, top_p)",
        ),
        ("sead = 1", "sead: unknown key 'sead'; did you mean 'seed'?"),
        ("seed = 1.0", "seed: expected a whole number, found the number 1.0"),
        ("seed = true", "seed: expected a whole number, found the truth value true"),
        ("adapter = { alpha = true }", "adapter.alpha: expected a number, found the truth value true"),
        ("adapter = { alpha = nan }", "adapter.alpha: expected a finite number, found nan"),
        ("adapter = { alpha = inf }", "adapter.alpha: expected a finite number, found inf"),
        (
            f"adapter = {{ alpha = {10**400} }}",
            "adapter.alpha: a whole number of 1329 bits is too large; give one below 2**63",
        ),
        ("task = { slip = nan }", "task.slip: expected a finite number, found nan"),
        (
            "task = { day = 2025-01-01 }",
            "task.day: expected a number, text, a list or a table, found a date, datetime.date(2025, 1, 1)",
        ),
        (
            "task = { options = { slip = 1 } }",
            'task.options: write options beside the name: task = { name = "desk", slip = 0.1 }',
        ),
        ("eval = { noise = 1 }", "eval.noise: expected true or false, found the whole number 1"),
        (
            "engine = { gradient_checkpointing = 1 }",
            "engine.gradient_checkpointing: expected true or false or 'auto', found the whole number 1",
        ),
        (
            "engine = { threads = 1.5 }",
            "engine.threads: expected a whole number or 'auto', found the number 1.5",
        ),
        ("about = 3", "about: expected text, found the whole number 3"),
        ("task = 3", "task: expected a table, found the whole number 3"),
        (
            'layout = "adaptors"',
            "layout: unknown choice 'adaptors'; did you mean 'adapters'? (known: adapter, adapters, "
            "mixed, models, shared)",
        ),
        ('model = { init = "big" }', "model.init: expected one of 'small', '', found the text 'big'"),
        (
            '[stage]\nkind = "imitate"',
            "stage: expected a list, found a table with kind; a list of tables is "
            "written [[...]] or [{ ... }]",
        ),
        (
            '[[stage]]\nroles = "plan"',
            "stage.0.roles: expected a list, found the text 'plan'; a list is written [1, 2]",
        ),
        ("[[stage]]\nlevels = [1, 2.5]", "stage.0.levels.1: expected a whole number, found the number 2.5"),
        (
            "[[stage]]\noptim = { betas = [0.9] }",
            "stage.0.optim.betas: expected a list of exactly 2, found 1: the list [0.9]",
        ),
        (
            '[[stage]]\nreward = { plan = { valid = "1" } }',
            "stage.0.reward.plan.valid: expected a number, found the text '1'",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_address(toml, text, message):
    assert refusal(load, toml(text)).startswith(message)


def test_a_file_that_cannot_be_read_says_which_and_where(toml, tmp_path):
    path = toml("name = 'x'\nseed = = 1\n")
    assert refusal(load, path) == f"{path}: not valid TOML: Invalid value (at line 2, column 8)"
    path = toml("name = 'x'\nseed = [1,\n", "open.toml")
    assert refusal(load, path).endswith("(at line 3, the end of the file)")
    path = toml('{"seed": 1,}', "recipe.json")
    assert refusal(load, path).startswith(f"{path}: not valid JSON: ") and "line 1" in refusal(load, path)
    path = toml("[1]", "list.json")
    assert refusal(load, path) == f"{path}: expected a table, found the list [1]"
    path = tmp_path / "latin.toml"
    path.write_bytes(b"name = '\xe9'")
    assert refusal(load, path) == f"{path}:1: not UTF-8 (byte 9 of the line); save the file as UTF-8"
    assert refusal(load, "dsk").startswith(
        "dsk: is neither a file nor a shipped recipe; did you mean 'desk'? (shipped: blocksworld, "
    )


# Overrides --------------------------------------------------------------------------------------------------


def test_overrides_reach_written_values_defaults_and_names_that_a_recipe_chooses(toml):
    recipe = load(
        toml(EVERYTHING),
        [
            "stage.0.until.steps=50",
            "stage.1.tree.temperature=0.5",
            "stage.1.roles.0=act",
            "layout=adapters",
            'about="a = b"',
            "name=7",
            "model.path=",
            "task.slip=0",
            "task.deep.x=[1, 2]",
            "task.fresh=yes",
            "stage.1.reward.act.follows=2",
            "stage.1.gates=[]",
            "stage.0.until.steps=51",
        ],
    )
    # the later one counts
    assert recipe.stage[0].until == UntilSpec(steps=51, metric="eval/plan", at_least=1.0)
    assert recipe.stage[1].tree == TreeSpec(counts={"plan": 8, "act": 0}, temperature=0.5)
    assert recipe.stage[1].roles == ("act",) and recipe.stage[1].gates == ()
    assert recipe.stage[1].reward == {"plan": {"valid": 1.0}, "act": {"follows": 2.0}}
    assert (recipe.layout, recipe.about, recipe.name, recipe.model.path) == ("adapters", "a = b", "7", "")
    assert recipe.task.options == {"slip": 0, "names": ("a", "b"), "deep": {"x": (1, 2)}, "fresh": "yes"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage.2.until.steps=5", "stage.2: no such entry: stage has 2 entries, 0 to 1"),
        ("stage.-1.until.steps=5", "stage.-1: no such entry: stage has 2 entries, 0 to 1"),
        ("stage.first.batch=5", "stage.first: no such entry: stage has 2 entries, 0 to 1"),
        (
            "stage.0.gates.0.metric=x",
            "stage.0.gates.0: no such entry: stage.0.gates is empty; set the whole list",
        ),
        (
            "stage.0.loss_share.act.0=1",
            "stage.0.loss_share.act.0: no such entry: stage.0.loss_share.act is empty; set the whole list",
        ),
        ("stage.1.tre.plans=5", "stage.1.tre: unknown key 'tre'; did you mean 'tree'?"),
        ("stage.0.until.step=5", "stage.0.until.step: unknown key 'step'; did you mean 'steps'?"),
        (
            "optim.lr=0.1",
            "optim.lr: unknown key 'optim', which is a stage's: --set stage.N.optim.lr=0.1, where N counts",
        ),
        ("batch=8", "batch: unknown key 'batch', which is a stage's: --set stage.N.batch=8, where N counts"),
        ("optm.lr=0.1", "optm: unknown key 'optm'"),
        ("seed.x=5", "seed.x: nothing lies under seed, which is the whole number 7"),
        ("task.slip.x=5", "task.slip.x: nothing lies under task.slip, which is the number 0.15"),
        ("seed=x", "seed: expected a whole number, found the text 'x'"),
        ("seed=1\nname='x'", "seed: expected a whole number, found the text \"1\\nname='x'\""),
        ("seed", "seed: an override is written address=value, such as stage.0.until.steps=50"),
        ("=5", "=5: an override is written address=value, such as stage.0.until.steps=50"),
    ],
)
def test_an_override_that_fits_nowhere_names_what_exists(toml, override, message):
    assert refusal(load, toml(EVERYTHING), [override]).startswith(message)


# Checking ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage=[]", "stage: a recipe needs at least one stage"),
        ("name=a/b", "name: 'a/b' names run directories"),
        ("max_bad_updates=0", "max_bad_updates: must be at least 1, found 0"),
        ("eval.tasks=0", "eval.tasks: must be at least 1, found 0"),
        ("eval.levels=[3]", "eval.levels.0: level 3 is not one of task.levels: 1, 2"),
        ("save.every=0", "save.every: must be at least 1, found 0"),
        ("save.keep=0", "save.keep: must be at least 1, found 0"),
        ("model.init=''", "model: nothing to start from"),
        ("model.width=100", "model.width: 100 must divide into 4 heads of an even width"),
        ("engine.device=gpu", "engine.device: unknown device 'gpu'"),
        ("adapter.rank=0", "adapter.rank: must be at least 1, found 0"),
        # roles and weights
        (
            'stage.0.roles=["plann"]',
            "stage.0.roles.0: unknown role 'plann'; did you mean 'plan'? (known: act, plan)",
        ),
        ('stage.0.roles=["act", "act"]', "stage.0.roles.1: role 'act' is listed twice"),
        ("stage.1.weights=adapter", 'stage.1.weights: layout "shared" has no adapters'),
        # until and optim
        ("stage.0.until.steps=0", "stage.0.until.steps: must be at least 1, found 0"),
        ("stage.0.until.patience=0", "stage.0.until.patience: must be at least 1, found 0"),
        ("stage.0.until={steps=1, at_least=0.5}", "stage.0.until.metric: at_least needs a metric to compare"),
        ('stage.0.until={metric="eval/plan"}', "stage.0.until: metric 'eval/plan' needs at_least or at_most"),
        (
            "stage.0.until.at_least=95",
            "stage.0.until.at_least: eval/plan is a share between 0 and 1, found 95.0",
        ),
        (
            "eval.every=0",
            "eval.every: 0 leaves no evaluation inside a stage, so stage.0.until.metric could never "
            "end it earlier",
        ),
        ("stage.0.optim.lr=0", "stage.0.optim.lr: must be greater than 0, found 0.0"),
        (
            "stage.0.optim.betas=[0.9, 1]",
            "stage.0.optim.betas.1: must be at least 0 and less than 1, found 1.0",
        ),
        ("stage.0.optim.decay=1.5", "stage.0.optim.decay: must be between 0 and 1, found 1.5"),
        ("stage.0.optim.clip_norm=0", "stage.0.optim.clip_norm: must be greater than 0, found 0.0"),
        # which tasks
        ("stage.0.batch=0", "stage.0.batch: must be at least 1, found 0"),
        ("stage.0.share=5", "stage.0.share: 5 tasks on one context do not divide a batch of 32"),
        ("stage.0.levels=[2, 3]", "stage.0.levels.1: level 3 is not one of task.levels: 1, 2"),
        ("stage.0.levels=[2, 2]", "stage.0.levels.1: level 2 is listed twice"),
        ("stage.0.level_weights=[1]", "stage.0.level_weights: has 1 numbers for 2 levels (1, 2)"),
        ("stage.0.level_weights=[1, -1]", "stage.0.level_weights.1: must be at least 0, found -1.0"),
        (
            "stage.0.level_weights=[0, 0]",
            "stage.0.level_weights: levels 1 and 2 all have weight 0, so there is nothing to draw",
        ),
        (
            "stage.0.easy_first=0.5",
            "stage.0.easy_levels: easy_first = 0.5 needs the levels to draw from at first",
        ),
        ("stage.0.easy_levels=[3]", "stage.0.easy_levels.0: level 3 is not one of task.levels: 1, 2"),
        # gates
        (
            "stage.1.gates.0.at_least=0.5",
            "stage.1.gates.0: a gate has exactly one condition of at_least, "
            "at_most, max_drop, max_rise, "
            "max_slope_down; found at_least and max_drop",
        ),
        ('stage.1.gates=[{metric="eval/act"}]', "stage.1.gates.0: a gate has exactly one condition"),
        (
            "stage.1.gates.0.metric=evl/act",
            "stage.1.gates.0.metric: 'evl/act': unknown family of metrics 'evl'; did you mean 'eval'?",
        ),
        (
            "stage.1.gates.0.metric=eval/atc",
            "stage.1.gates.0.metric: 'eval/atc': unknown measurement 'atc'; did you mean 'act'?",
        ),
        (
            "stage.1.gates.0.metric=eval/act@x",
            "stage.1.gates.0.metric: 'eval/act@x': what follows @ is a level, such as eval/act@5",
        ),
        (
            "stage.1.gates.0.metric=eval/act@1",
            "stage.1.gates.0.metric: 'eval/act@1': level 1 is not evaluated (levels: 2)",
        ),
        ("stage.1.gates.0.max_drop=-0.1", "stage.1.gates.0.max_drop: must be at least 0, found -0.1"),
        (
            "stage.1.gates.0.max_drop=2",
            "stage.1.gates.0.max_drop: eval/act@2 is a share between 0 and 1, found 2.0",
        ),
        (
            "stage.1.gates.0.confidence=1",
            "stage.1.gates.0.confidence: must be at least 0 and less than 1, found 1.0",
        ),
        ("stage.1.gates.0.window=1", "stage.1.gates.0.window: must be at least 2, found 1"),
        # imitate
        (
            "stage.0.reward.plan.valid=1",
            "stage.0.reward: unknown key of imitate 'reward'; take it out, or make the stage kind = "
            '"reinforce"',
        ),
        ("stage.0.credit.name=rloo", "stage.0.credit: unknown key of imitate 'credit'"),
        ("stage.0.tree.plan=8", "stage.0.tree: unknown key of imitate 'tree'"),
        ("stage.0.updates=2", "stage.0.updates: unknown key of imitate 'updates'"),
        ("stage.0.loss_share.plan=[1]", "stage.0.loss_share.plan: has 1 numbers for 2 levels (1, 2)"),
        ("stage.0.loss_share.plan=[1, 2]", "stage.0.loss_share.plan.1: must be between 0 and 1, found 2.0"),
        ("stage.0.loss_share.plan=[0, 0]", "stage.0.loss_share.plan: no plan token would ever carry loss"),
        (
            "stage.0.loss_share.pln=[1, 1]",
            "stage.0.loss_share.pln: unknown role of this stage 'pln'; did you mean 'plan'?",
        ),
        # tree
        ("stage.1.tree.plan=1", "stage.1.tree: one rollout is a group of size 1, which has no baseline"),
        (
            "stage.1.tree={plan=1, act=4}",
            "stage.1.tree.plan: role 'plan' trains, and one plan has no peers",
        ),
        ("stage.1.tree={plan=0, act=4}", "stage.1.tree.plan: must be at least 1, found 0"),
        ("stage.1.tree.plann=3", "stage.1.tree.plann: unknown role 'plann'; did you mean 'plan'?"),
        ("stage.1.tree.tokens.plann=3", "stage.1.tree.tokens.plann: unknown role 'plann'"),
        ("stage.1.tree.tokens.plan=-3", "stage.1.tree.tokens.plan: must be at least 0, found -3"),
        ('stage.1.tree.oracle=["plann"]', "stage.1.tree.oracle.0: unknown role 'plann'"),
        ('stage.1.tree.oracle=["act"]', "stage.1.tree.oracle: the oracle speaks before the policies"),
        ("stage.1.credit.weight.plann=2", "stage.1.credit.weight.plann: unknown role 'plann'"),
        ("stage.1.tree.temperature=0", "stage.1.tree.temperature: must be greater than 0, found 0.0"),
        ("stage.1.tree.top_k=-1", "stage.1.tree.top_k: must be at least 0, found -1"),
        (
            "stage.1.tree.top_k=1",
            "stage.1.tree.top_k: must be 0 (all tokens) or at least 2: with 1 all rollouts of a task are the "
            "same",
        ),
        ("stage.1.tree.min_p=1", "stage.1.tree.min_p: must be at least 0 and below 1, found 1.0"),
        ("stage.1.tree.top_p=0", "stage.1.tree.top_p: must be greater than 0 and at most 1, found 0.0"),
        (
            'stage.1.tree.oracle=["plan"]',
            "stage.1.tree.oracle: the oracle speaks for 'plan', so there is nothing",
        ),
        ('stage.1.roles=["act"]', "stage.1.tree.act: 0 samples no act, so role 'act' cannot train"),
        # reward, credit, update
        (
            "stage.1.reward={act={outcome=1}}",
            "stage.1.reward.act: role 'act' is not sampled (tree.act is 0), so it earns no reward",
        ),
        ("stage.1.reward={pla={valid=1}}", "stage.1.reward.pla: unknown role 'pla'; did you mean 'plan'?"),
        (
            "stage.1.reward={plan={vald=1}}",
            "stage.1.reward.plan.vald: unknown part of the plan reward 'vald'; did you mean 'valid'?",
        ),
        (
            "stage.1.reward={plan={follows=1}}",
            "stage.1.reward.plan.follows: unknown part of the plan reward 'follows'",
        ),
        ("stage.1.reward={plan={valid=0}}", "stage.1.reward: every weight is 0"),
        (
            "stage.1.reward={plan={outcome=1}}",
            "stage.1.reward.plan.outcome: the outcome of a plan needs tree.act >= 1",
        ),
        (
            "stage.1.reward={}",
            "stage.1.reward: an empty table means outcome = 1, and the outcome of a plan needs tree.act >= 1",
        ),
        (
            "stage.1.credit.name=grp",
            "stage.1.credit.name: unknown credit 'grp'; did you mean 'grpo'? (known: "
            "dr_grpo, grpo, rae, reinforce_pp, reinforce_pp_baseline, rloo, role_baseline, turn_level, "
            "webrl, webrl_released)",
        ),
        (
            'stage.1.credit={alpha=0.2,mask="placebo"}',
            'stage.1.credit.mask: only plan trains, so "placebo" would draw all of its tokens',
        ),
        ("stage.1.credit.eps=0", "stage.1.credit.eps: must be greater than 0, found 0.0"),
        (
            "stage.1.credit.weight.plan=0",
            "stage.1.credit: the advantages of plan all have weight 0, so nothing would train",
        ),
        ("stage.1.loss_share.plan=[1, 1]", "stage.1.loss_share: unknown key of reinforce"),
        ("stage.1.ref_kl=-1", "stage.1.ref_kl: must be at least 0, found -1.0"),
        ("stage.1.updates=0", "stage.1.updates: must be at least 1, found 0"),
        ("stage.1.clip_low=1.5", "stage.1.loss.clip_low: must be at most 1, found 1.5"),
        ("stage.1.clip_high=0", "stage.1.loss.clip_high: must be greater than 0, found 0"),
    ],
)
def test_what_cannot_work_together_is_refused(toml, override, message):
    check(load(toml(EVERYTHING)))  # without the override it works
    assert refusal(lambda: check(load(toml(EVERYTHING), [override]))).startswith(message)


def reinforce(roles, tree, credit="grpo", reward=None):
    return {
        "kind": "reinforce",
        "roles": roles,
        "tree": tree,
        "credit": {"name": credit},
        "reward": reward or {},
    }


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        # a flat group: every leaf is everyone's peer
        (reinforce(["plan", "act"], {"plan": 4, "act": 1}), None),
        (reinforce(["act"], {"plan": 1, "act": 2}), None),
        (reinforce(["act"], {"oracle": ["plan"], "act": 2}), None),
        (reinforce(["act"], {"plan": 4, "act": 1}), None),
        (
            reinforce(
                ["plan", "act"],
                {"plan": 2, "act": 2},
                "role_baseline",
                {"plan": {"valid": 1}, "act": {"follows": 1}},
            ),
            None,
        ),
        (
            reinforce(["act"], {"oracle": ["plan"], "act": 1}),
            "stage.0.tree.act: one act under the oracle's plan is a group of size 1",
        ),
        (reinforce(["act"], {"plan": 1, "act": 1}), "stage.0.tree: one rollout is a group of size 1"),
        (
            reinforce(["act"], {"plan": 4, "act": 1}, "role_baseline"),
            "stage.0.tree.act: role 'act' trains, and one act has no peers to be compared with; use at least "
            "2",
        ),
        (
            reinforce(
                ["act"],
                {"oracle": ["plan"], "act": 2},
                reward={"plan": {"valid": 1}, "act": {"outcome": 1}},
            ),
            "stage.0.reward.plan: role 'plan' is not sampled (the oracle speaks for it), so it earns no "
            "reward",
        ),
        (
            reinforce(["plan", "act"], {"plan": 2, "act": 2}, "role_baseline", {"plan": {"valid": 1}}),
            "stage.0.reward.act: role_baseline credits each role by its own reward, and 'act' has none",
        ),
    ],
)
def test_groups_need_peers(stage, message):
    recipe = from_dict({"layout": "shared", "stage": [stage]})
    if message is None:
        check(recipe)
    else:
        assert refusal(check, recipe).startswith(message)


def test_one_role_may_not_move_the_base_under_the_others():
    stage = {"roles": ["plan"], "weights": "base"}
    check(from_dict({"layout": "shared", "stage": [stage]}))
    check(from_dict({"layout": "adapters", "stage": [{"weights": "base"}]}))
    assert refusal(check, from_dict({"layout": "adapters", "stage": [stage]})) == (
        "stage.0.weights: the base lies under the weights of every role, so training it for plan would move "
        "the frozen act; "
        "train all roles on the base, or use the role's own weights "
        '(where sharing is the point: layout = "shared")'
    )


def test_the_base_is_finished_before_the_first_adapter_lies_on_it():
    base, adapter = {"weights": "base"}, {"roles": ["plan"]}
    check(from_dict({"layout": "adapters", "stage": [base, base, adapter, adapter]}))
    check(from_dict({"layout": "shared", "stage": [adapter, base]}))
    assert refusal(check, from_dict({"layout": "adapters", "stage": [base, adapter, base]})).startswith(
        "stage.2.weights: stage.1 has given a role weights of its own from this base, and training the base "
        "now would move it under them"
    )


def test_one_number_per_level_needs_the_levels():
    stage = {"level_weights": [1, 2]}
    assert refusal(check, from_dict({"stage": [stage]})).startswith(
        "stage.0.level_weights: has one number per level, so the levels"
    )
    check(from_dict({"stage": [stage | {"levels": [8, 9]}]}))
    easy = stage | {"levels": [8, 9], "level_weights": [1, 0], "easy_levels": [9], "easy_first": 0.1}
    assert "levels 9 all have weight 0" in refusal(check, from_dict({"stage": [easy]}))


def test_a_gate_may_read_an_evaluation_that_runs_only_at_the_ends():
    gate = {"metric": "eval/act", "max_drop": 0.01}
    check(
        from_dict(
            {"eval": {"every": 0}, "stage": [{"gates": [gate, {"metric": "entropy/act", "at_most": 3}]}]}
        )
    )


# Kinds of stages --------------------------------------------------------------------------------------------


def test_each_kind_reads_its_own_keys_and_the_error_says_which_kind_reads_a_foreign_one():
    assert set(KINDS) == {"imitate", "reinforce", "webrl", "distill"}
    assert [kind().kind for kind in KINDS.values()] == list(KINDS)
    for kind, key, value, reader in (
        ("imitate", "updates", 2, '"reinforce" or "webrl"'),
        ("reinforce", "phases", 2, '"webrl"'),
        ("reinforce", "loss_share", {"plan": [1.0, 1.0]}, '"imitate"'),
        ("distill", "optim", {"lr": 0.1}, '"imitate", "reinforce" or "webrl"'),
    ):
        with pytest.raises(RecipeError, match=f"stage.0.{key}: unknown key of {kind} .* kind = {reader}$"):
            from_dict({"stage": [{"kind": kind, key: value}]})
    with pytest.raises(RecipeError, match="stage.0.kind: unknown kind of stage 'imitat'; did you mean"):
        from_dict({"stage": [{"kind": "imitat"}]})
    with pytest.raises(RecipeError, match="stage.0.kind: unknown kind of stage '3'"):
        from_dict({"stage": [{"kind": 3}]})


def test_a_run_of_before_named_the_defaults_of_all_kinds_in_every_stage():
    were = ("imitate", "reinforce", "distill")
    every = {k: v for kind in were for k, v in to_dict(Recipe(stage=(KINDS[kind](),)))["stage"][0].items()}
    for kind in were:
        old = every | {"kind": kind, "roles": ["plan", "act"]}
        assert from_dict({"stage": [old]}) == from_dict({"stage": [{"kind": kind}]})
        with pytest.raises(RecipeError, match="stage.0.ref_kl: unknown key of"):
            from_dict({"stage": [old | {"kind": "imitate", "ref_kl": 0.1}]})


def test_an_override_changes_the_kind(toml):
    recipe = load(toml("[[stage]]\nbatch = 3\n"), ["stage.0.kind=reinforce", "stage.0.tree.plan=8"])
    assert recipe.stage == (Reinforce(batch=3, roles=("plan", "act"), tree=TreeSpec(counts={"plan": 8})),)


def test_every_kind_that_trains_has_a_step():
    assert set(STEPS) == {name for name, kind in KINDS.items() if issubclass(kind, TrainingSpec)}


def test_a_recipe_without_a_name_has_that_of_its_file(tmp_path):
    (tmp_path / "mine.toml").write_text('task = { name = "desk" }\n[[stage]]\n')
    assert load(tmp_path / "mine.toml").name == "mine"
    (tmp_path / "mine.toml").write_text('name = "other"\ntask = { name = "desk" }\n[[stage]]\n')
    assert load(tmp_path / "mine.toml").name == "other"
