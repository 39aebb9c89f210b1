"""The table of roles, layouts for any number of them, and the old spelling of plans and acts."""

from __future__ import annotations

import pytest

from forethought.core.errors import RecipeError
from forethought.engines.base import BASE
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict, to_dict
from forethought.recipe.layout import ALL, planners, policy_of, weights_of
from forethought.recipe.load import load, override
from forethought.recipe.roles import counts_of, roles_in, sampled_in
from forethought.recipe.schema import TreeSpec
from forethought.recipe.speaking import roles_of
from forethought.runs import handover
from forethought.runs.progress import Progress

THREE = "blink_think_link"
ROLES = ("blink", "think", "link")
REINFORCE = {"kind": "reinforce", "tree": {"blink": 3, "think": 2, "link": 2}}


def refusal(recipe: dict) -> str:
    with pytest.raises(RecipeError) as caught:
        check(from_dict(recipe))
    return str(caught.value)


def three(*stages: dict, **tables) -> dict:
    return {"workflow": THREE, "stage": list(stages) or [REINFORCE], **tables}


# Which roles there are, and which train ---------------------------------------------------------------------


def test_a_stage_that_names_no_roles_trains_all_of_the_workflow():
    recipe = from_dict(three())
    assert roles_of(recipe) == recipe.stage[0].roles == ROLES
    assert from_dict({"stage": [{}]}).stage[0].roles == ("plan", "act")
    check(recipe)


def test_another_workflow_brings_its_own_roles():
    recipe = override(from_dict({"stage": [{}, {"roles": ["plan"]}]}), [f"workflow={THREE}"])
    assert recipe.stage[0].roles == ROLES
    with pytest.raises(
        RecipeError,
        match="stage.1.roles.0: .* never 'plan'; this recipe runs under plan_steps, plan_then_act",
    ):
        check(recipe)


def test_the_roles_of_tables_that_were_read_as_they_are():
    assert roles_in({}) == ("plan", "act") and roles_in({"workflow": {"name": THREE}}) == ROLES
    own = {"workflow": "mine", "roles": {"judge": {}}, "stage": [{"roles": ["draft", "judge"]}]}
    assert roles_in(own) == ("judge", "draft")


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (
            {"roles": {"critic": {}}},
            "roles.critic: workflow \"blink_think_link\" speaks blink, think and link, and never 'critic'",
        ),
        ({"roles": {"think": {"budget": -1}}}, "roles.think.budget: must be at least 0, found -1"),
        (
            {"roles": {"think": {"stop": "a b"}}},
            "roles.think.stop: is one word that ends a turn, found 'a b'",
        ),
        ({"roles": {"think": {"policy": "e2e"}}}, "roles.think.policy: 'e2e' has a meaning of its own"),
        ({"roles": {"think": {"policy": "../x"}}}, "roles.think.policy: '../x' names a policy, metrics and"),
        ({"roles": {"think": {"policy": "core-x"}}}, "roles.think.policy: 'core-x': names that begin with"),
        (
            {"layout": "shared", "roles": {"think": {"policy": "mind"}}},
            "roles.think.policy: layout \"shared\" has one base, so nobody would use policy 'mind'",
        ),
        (
            {"roles": {"blink": {"policy": "think"}, "think": {"policy": "mind"}}},
            "roles.blink.policy: 'think' is a role that speaks through 'mind' itself",
        ),
        (
            {"layout": "models", "planner": {"init": "small"}, "roles": {"link": {"policy": "hand"}}},
            "roles.link.policy: planner says whose weights speak in which role",
        ),
        ({"stage": [{"roles": ["link", "link"]}]}, "stage.0.roles.1: role 'link' is listed twice"),
        (
            {"stage": [{"roles": ["link"], "weights": "adapter"}], "roles": {"link": {"policy": "base"}}},
            'stage.0.weights: link has policy = "base", so there is no adapter of its own to train',
        ),
        (
            {"stage": [REINFORCE | {"tree": {"blink": 2, "blnk": 2}}]},
            "stage.0.tree.blnk: unknown role 'blnk'",
        ),
        (
            {"stage": [REINFORCE | {"tree": {"blink": 4, "think": 0}}]},
            "stage.0.tree.think: 0 samples no think, so role 'think' cannot train",
        ),
        (
            {"stage": [REINFORCE | {"roles": ["link"], "tree": {"oracle": ["think"]}}]},
            "stage.0.tree.oracle: the oracle speaks before the policies: it takes the first of blink, think",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_with_its_address(tables, said):
    assert refusal(three(**tables) | tables).startswith(said)


def test_a_planner_that_nobody_speaks_through_is_refused():
    recipe = {"workflow": "act_only", "layout": "models", "planner": {"init": "small"}, "stage": [{}]}
    assert refusal(recipe).startswith("planner: nobody would speak through it")


def test_two_roles_of_one_name_are_refused_in_both_languages(tmp_path):
    (tmp_path / "a.json").write_text('{"roles": {"plan": {}, "plan": {"budget": 3}}, "stage": [{}]}')
    (tmp_path / "a.toml").write_text("[roles.plan]\nbudget = 3\n[roles.plan]\nbudget = 4\n[[stage]]\n")
    with pytest.raises(RecipeError, match="a.json: the key 'plan' stands twice in one table"):
        load(tmp_path / "a.json")
    with pytest.raises(RecipeError, match="a.toml: not valid TOML"):
        load(tmp_path / "a.toml")


# How often each speaks --------------------------------------------------------------------------------------


def test_turns_at_a_place_and_in_a_tree_by_hand():
    tree = TreeSpec(counts={"blink": 3, "link": 2})
    assert counts_of(tree, ROLES) == {"blink": 3, "think": 1, "link": 2}
    assert sampled_in(tree, ROLES) == {"blink": 3, "think": 3, "link": 6}
    assert sampled_in(TreeSpec(), ROLES) == {"blink": 4, "think": 4, "link": 4}
    given = TreeSpec(counts={"think": 2, "link": 3}, oracle=("blink",))
    assert sampled_in(given, ROLES) == {"think": 2, "link": 6}
    assert sampled_in(TreeSpec(counts={"think": 0}), ROLES) == {"blink": 4}


# Who is compared with whom ----------------------------------------------------------------------------------


@pytest.mark.parametrize("credit", ["role_baseline", "turn_level"])
@pytest.mark.parametrize(
    ("workflow", "tree", "alone"),
    [
        ("react", {"think": 4}, None),  # the act goes on with the thought's branch, which has peers
        ("react", {"think": 1, "act": 4}, "think"),
        ("react", {"think": 4, "act": 2}, None),
        ("plan_then_act", {"plan": 4}, "act"),  # an execution is a branch of its own
        ("plan_then_act", {"plan": 4, "act": 2}, None),
        (THREE, {"blink": 4, "link": 2}, "think"),
    ],
)
def test_peers_are_sought_on_the_branch_where_a_role_speaks(workflow, tree, alone, credit):
    roles = roles_of(from_dict({"workflow": workflow}))
    paid = {role: {"outcome": 1.0} for role in roles}
    stage = {"kind": "reinforce", "tree": tree, "credit": {"name": credit}, "reward": paid}
    recipe = {"workflow": workflow, "stage": [stage]}
    if alone:
        assert refusal(recipe).startswith(
            f"stage.0.tree.{alone}: role {alone!r} trains, and one {alone} has no"
        )
    else:
        check(from_dict(recipe))


def test_an_oracles_thought_gives_the_act_after_it_no_peers():
    stage = {
        "kind": "reinforce",
        "roles": ["act"],
        "tree": {"oracle": ["think"], "act": 1},
        "credit": {"name": "role_baseline"},
    }
    said = refusal({"workflow": "react", "stage": [stage]})
    assert said.startswith("stage.0.tree.act: one act under the oracle's think is a group of size 1")


# Whose weights ----------------------------------------------------------------------------------------------


def forked(recipe, *roles: str) -> tuple[dict[str, str], list[str]]:
    """(role -> policy, what was said) after a stage that trains `roles`."""
    engine, p, said = FakeEngine(["a"], {}), Progress(policies=handover.first_policies(recipe)), []
    stage = next(stage for stage in recipe.stage if stage.roles == roles)
    handover.take_up(engine, recipe, stage, p, lambda *words: said.append(words[2]))
    return p.policies, said


@pytest.mark.parametrize(
    ("layout", "policies", "weights"),
    [
        ("shared", dict.fromkeys(ROLES, BASE), "base"),
        ("adapter", dict.fromkeys(ROLES, ALL), "adapter"),
        ("adapters", {role: role for role in ROLES}, "adapter"),
        ("models", {role: role for role in ROLES}, "model"),
        ("mixed", {"blink": "blink", "think": "think", "link": BASE}, "base"),
    ],
)
def test_a_layout_gives_policies_to_any_number_of_roles(layout, policies, weights):
    recipe = from_dict(three(layout=layout))
    assert {role: policy_of(recipe, role) for role in ROLES} == policies
    assert weights_of(recipe, recipe.stage[0]) == weights


def test_roles_that_name_one_policy_share_its_weights():
    minds = {"blink": {"policy": "mind"}, "think": {"policy": "mind"}}
    recipe = from_dict(three(REINFORCE | {"roles": ["think"]}, roles=minds))
    policies, said = forked(recipe, "think")
    assert policies == {"blink": "mind", "think": "mind", "link": BASE}
    assert said == ["blink and think speak through an adapter that they share from here on"]


def test_the_planner_speaks_for_every_role_but_the_last():
    recipe = from_dict(three(layout="models", planner={"init": "small"}))
    assert planners(recipe) == {"blink": "blink", "think": "blink"}
    assert handover.first_policies(recipe) == {"blink": "blink", "think": "blink", "link": BASE}


# The old spelling -------------------------------------------------------------------------------------------


def test_plans_and_acts_of_earlier_recipes_are_read_as_what_they_mean_today():
    old = {"plans": 8, "acts": 0, "oracle_plan": False, "plan_tokens": 5, "act_tokens": 0, "top_p": 0.9}
    tree = {"plan": 8, "act": 0, "oracle": [], "tokens": {"plan": 5}, "top_p": 0.9}
    stages = [
        {"kind": "reinforce", "tree": one, "credit": credit}
        for one, credit in (
            (old, {"name": "rloo", "plan_weight": 3.0, "act_weight": 1.0}),
            (tree, {"name": "rloo", "weight": {"plan": 3.0}}),
        )
    ]
    before, now = (from_dict({"stage": [stage]}) for stage in stages)
    assert before == now and from_dict(to_dict(now)) == now
    oracle = from_dict({"stage": [{"kind": "reinforce", "tree": {"acts": 3, "oracle_plan": True}}]})
    assert oracle.stage[0].tree == TreeSpec(counts={"act": 3}, oracle=("plan",))


def test_a_whole_recipe_of_before_names_defaults_that_no_stage_reads():
    written = {
        "plans": 4,
        "acts": 1,
        "temperature": 1.0,
        "oracle_plan": False,
        "plan_tokens": 0,
        "act_tokens": 0,
    }
    stage = {"kind": "imitate", "tree": written, "credit": {"plan_weight": 1.0, "act_weight": 1.0}}
    recipe = from_dict({"stage": [stage]})
    check(recipe)
    assert recipe == from_dict({"stage": [{"kind": "imitate"}]})


def test_the_mask_of_plans_is_that_of_the_roles_before_the_last():
    stage = {"kind": "reinforce", "credit": {"name": "dr_grpo", "alpha": 0.2, "mask": "plan"}}
    recipe = from_dict({"stage": [stage]})
    assert recipe == from_dict({"stage": [{**stage, "credit": {"name": "dr_grpo", "alpha": 0.2}}]})
    assert recipe.stage[0].credit.mask == "preparing"
    for said in ("plan", '"plan"'):
        assert override(recipe, ["stage.0.credit.mask=entropy", f"stage.0.credit.mask={said}"]) == recipe
    assert override(recipe, ['stage.0.credit={name="dr_grpo",alpha=0.2,mask="plan"}']) == recipe
    with pytest.raises(RecipeError, match="stage.0.credit.mask: unknown choice 'plans'"):
        from_dict({"stage": [{**stage, "credit": {"mask": "plans"}}]})


def test_one_role_alone_has_nothing_before_it():
    stage = {"kind": "reinforce", "tree": {"act": 4}, "credit": {"alpha": 0.2}}
    said = refusal({"workflow": "act_only", "stage": [stage]})
    assert said.startswith('stage.0.credit.mask: "preparing" means the roles before the last, and act is the')


def test_overrides_in_the_old_spelling():
    recipe = from_dict({"stage": [{"kind": "reinforce", "roles": ["act"]}]})
    settings = ["plans=3", "acts=2", "plan_tokens=9", "oracle_plan=true"]
    found = override(recipe, [f"stage.0.tree.{one}" for one in settings] + ["stage.0.credit.act_weight=2"])
    tree = TreeSpec(counts={"plan": 3, "act": 2}, tokens={"plan": 9}, oracle=("plan",))
    assert found.stage[0].tree == tree and found.stage[0].credit.weight == {"act": 2.0}


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (
            {"tree": {"plans": 4, "plan": 3}},
            "stage.0.tree.plans: is the old spelling of stage.0.tree.plan, which is given too; take one of "
            "them out",
        ),
        (
            {"credit": {"plan_weight": 2.0, "weight": {"plan": 1.0}}},
            "stage.0.credit.plan_weight: is the old spelling of stage.0.credit.weight.plan, which is given "
            "too",
        ),
        ({"tree": {"plans": "many"}}, "stage.0.tree.plan: unknown key 'plan'"),
    ],
)
def test_both_spellings_at_once_and_wrong_types_are_refused(stage, said):
    with pytest.raises(RecipeError) as caught:
        from_dict({"stage": [stage]})
    assert str(caught.value).startswith(said)


PLANS = """
task = {{ name = "text", train = "data.jsonl", plan = "{plan}" }}
{workflow}
[[stage]]
kind = "reinforce"
tree = {{ {tree} }}
"""


@pytest.mark.parametrize(
    ("plan", "tree", "sets", "roles"),
    [
        ("none", "act = 4", ['task.plan="tags"', "stage.0.tree={ plan = 2, act = 2 }"], ("plan", "act")),
        ("tags", "plan = 4, act = 2", ['task.plan="none"', "stage.0.tree={ act = 2 }"], ("act",)),
        ("none", "act = 4", ['task.plan="tags"', "workflow.max_turns=9"], ("plan", "act")),
        ("tags", "act = 4", ['task.plan="none"', "workflow.max_turns=9"], ("act",)),
        ("none", "act = 4", ['task.plan="tags"', "workflow=plan_steps"], ("plan", "act")),
    ],
)
def test_a_set_of_the_plan_gives_what_the_file_gives(plan, tree, sets, roles, tmp_path):
    for workflow in ("", "workflow = { max_tokens = 5000 }"):
        file = tmp_path / "mine.toml"
        file.write_text(PLANS.format(plan=plan, tree=tree, workflow=workflow))
        recipe = load(file, sets)
        check(recipe)
        assert roles_of(recipe) == roles and recipe.stage[0].roles == roles
        if "workflow=plan_steps" not in sets:  # which is the whole table
            assert recipe.workflow.max_tokens == (5000 if workflow else 0)


def test_a_workflow_that_is_named_stays_where_the_plan_is_set(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(PLANS.format(plan="none", tree="act = 4", workflow='workflow = "act_only"'))
    with pytest.raises(RecipeError, match=r"^task\.plan: .* act_only speaks act; set workflow ="):
        check(load(file, ['task.plan="tags"']))
    file.write_text(PLANS.format(plan="none", tree="act = 4", workflow=""))
    with pytest.raises(RecipeError, match=r"^task\.plan: .* act_only speaks act; set workflow ="):
        check(load(file, ['task.plan="tags"', "workflow=act_only"]))
