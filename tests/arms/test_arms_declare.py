"""The file that declares arms, and the jobs that come of it: what is refused with which words, what is
trained once for several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from arms_kit import ARMS, write_files

from forethought.arms.declare import read
from forethought.arms.jobs import identity, jobs_of
from forethought.arms.pool import by_urgency
from forethought.core.errors import RecipeError
from forethought.estimate.for_model import for_model
from forethought.recipe.load import load, shipped_arms, written_in


def test_an_arm_is_a_recipe_with_the_groups_changes_and_its_own(tmp_path):
    more = '[[arm]]\ngroup = "desk"\nname = "long"\nset = ["stage.1.until.steps=9"]\nrecipe = "desk-shared"\n'
    declared, recipes = read(write_files(tmp_path, more))
    assert list(recipes) == [("desk", arm, seed) for arm in ("shared", "adapters", "long") for seed in (0, 1)]
    assert recipes["desk", "shared", 1] == load(tmp_path / "made.toml", ["seed=1", "engine.threads=1"])
    assert recipes["desk", "adapters", 0].stage[1].weights == "adapter"
    long = recipes["desk", "long", 1]  # a shipped recipe; seeds and threads are not the recipe's to choose
    assert (long.name, long.stage[1].until.steps, long.seed, long.engine.threads) == ("desk-shared", 9, 1, 1)
    assert (
        declared.group["desk"].metrics == ("eval/plan", "eval/act")
        and declared.arm[0].about == "one set of weights"
    )


def test_one_model_goes_to_every_arm_as_train_gives_it(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    own = '[[arm]]\ngroup = "desk"\nname = "llm"\nrecipe = "desk-llm"\nset = ["stage.0.until.steps=7"]\n'
    _, recipes = read(write_files(tmp_path, own), str(tmp_path))
    assert {recipe.model.path for recipe in recipes.values()} == {str(tmp_path)}
    shared, llm = recipes["desk", "shared", 1], recipes["desk", "llm", 0]
    assert shared == for_model(load(tmp_path / "made.toml", ["seed=1", "engine.threads=1"]), str(tmp_path),
                               written_in(tmp_path / "made.toml"))[0]  # fmt: skip
    plain = load("desk-llm", ["stage.0.until.steps=7", "seed=0", "engine.threads=1"])
    assert llm == replace(plain, model=replace(plain.model, path=str(tmp_path)))  # it names a model: no more


CLAIM = '[[claim]]\ngroup = "desk"\ntext = "so"\narm = "shared"\nmetric = "eval/act"\n'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds = [0, 1]", "seed = [0, 1]"), r"^seed: unknown key 'seed'; did you mean 'seeds'\?"),
        (
            ("seeds = [0, 1]", "seeds = [0, 0]"),
            r"^seeds: expected at least one seed, each from 0 and once, found "
            r"\[0, 0\]",
        ),
        (("seeds = [0, 1]", "seeds = []"), "^seeds: expected at least one seed"),
        (('name = "trial"', 'name = "a b"'), "^name: 'a b' names a folder"),
        (
            ('baseline = "shared"', 'baseline = "sharde"'),
            r"^group.desk.baseline: unknown arm 'sharde'; did you "
            r"mean 'shared'\?",
        ),
        (
            ('recipe = "made.toml"', 'recipe = "none.toml"'),
            r"^arm.0 \(desk/shared\): .*none.toml: is neither a "
            r"file nor a shipped recipe",
        ),
        (('recipe = "made.toml"\n', ""), r"^arm.0.recipe: neither the arm nor group.desk names a recipe"),
        (('name = "adapters"', 'name = "shared"'), "^arm.1.name: group 'desk' has two arms called 'shared'"),
        (('name = "adapters"', 'name = "../x"'), "^arm.1.name: '../x' names a folder"),
        (('name = "adapters"', ""), "^arm.1.name: '' names a folder"),
        (
            ('["layout=adapters"', '["layuot=adapters"'),
            r"^arm.1 \(desk/adapters\): layuot: unknown key 'layuot'; "
            r"did you mean 'layout'\?",
        ),
        (
            ('["layout=adapters"', '["eval.tasks=0"'),
            r"^arm.1 \(desk/adapters\): eval.tasks: must be at least 1",
        ),
        (('["layout=adapters"', '["task.widgets=1"'), r"^arm.1 \(desk/adapters\): "),
        (
            ('"eval/act"]', '"eval/act@7"]'),
            r"^group.desk.metrics.1: 'eval/act@7': level 7 is not evaluated "
            r"\(levels: 1, 2\)",
        ),
        (
            ('"eval/act"]', '"eval/atc"]'),
            r"^group.desk.metrics.1: unknown measurement 'atc'; did you mean "
            r"'act'\?",
        ),
        (('"eval/act"]', '"act"]'), "^group.desk.metrics.1: 'act' is not a metric"),
        (("[group.desk]", "[group.prefix]"), "^arm.0.group: unknown group 'desk'"),
        (
            ("[group.desk]", '[group.empty]\nrecipe = "desk"\n[group.desk]'),
            "^group.empty: no arm belongs to it",
        ),
        (("seeds = [0, 1]", "seeds = [0, 1"), r"not valid TOML: .*line"),
    ],
)
def test_a_bad_file_is_refused_with_its_address(tmp_path, change, message):
    assert change[0] in ARMS
    with pytest.raises(RecipeError, match=message):
        read(write_files(tmp_path, arms=ARMS.replace(*change)))


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (
            CLAIM,
            r"^claim.0: a claim has exactly one of at_least, at_most, change_at_least, change_at_most, than; "
            r"found none",
        ),
        (CLAIM + "at_most = 0.0\nat_least = 0.1", "found at_least and at_most"),
        (CLAIM + "at_most = 0.5\nmargin = 0.1", "^claim.0.margin: is for `than` and at least 0, found 0.1"),
        (
            CLAIM + 'than = ["adapters"]\nmargin = -0.1',
            "^claim.0.margin: is for `than` and at least 0, found -0.1",
        ),
        (CLAIM + 'than = ["shared"]', "^claim.0.than.0: 'shared' would be compared with itself"),
        (CLAIM + 'than = ["none"]', "^claim.0.than.0: unknown arm 'none'"),
        (
            CLAIM.replace("act", "act@3") + "at_most = 1",
            "^claim.0.metric: 'eval/act@3': level 3 is not evaluated",
        ),
        (CLAIM.replace('"so"', '""') + "at_most = 1", "^claim.0.text: a claim is a sentence"),
        (CLAIM.replace('arm = "shared"', 'arm = "x"') + "at_most = 1", "^claim.0.arm: unknown arm 'x'"),
    ],
)
def test_a_bad_claim_is_refused_with_its_address(tmp_path, claim, message):
    with pytest.raises(RecipeError, match=message):
        read(write_files(tmp_path, claim))


def test_a_folder_of_shared_stages_is_no_group(tmp_path):
    with pytest.raises(
        RecipeError, match="^group.prefix: the folder `prefix` holds the stages that arms share"
    ):
        read(write_files(tmp_path, arms=ARMS.replace("desk]", "prefix]").replace('"desk"', '"prefix"')))


def test_no_file(tmp_path):
    with pytest.raises(RecipeError, match="none.toml: no such file; a file of arms is a TOML file"):
        read(tmp_path / "none.toml")


def test_the_first_stage_is_trained_once_a_seed_whatever_the_layout(tmp_path):
    _, recipes = read(write_files(tmp_path))
    jobs = jobs_of(recipes, Path("out"))
    prefixes, runs = jobs[:2], jobs[2:]
    assert [
        (job.is_prefix, job.seed, len(job.recipe.stage), job.recipe.layout, job.after) for job in prefixes
    ] == [(True, 0, 1, "shared", None), (True, 1, 1, "shared", None)]
    assert [(job.name, job.seed, str(job.out), job.shared) for job in runs] == [
        (f"desk/{arm}", seed, f"out/desk/{arm}/seed-{seed}", 1)
        for arm in ("shared", "adapters")
        for seed in (0, 1)
    ]
    assert [job.after for job in runs] == [prefixes[0].out, prefixes[1].out] * 2
    assert prefixes[0].out.parent == Path("out/prefix") and prefixes[0].out.name.endswith("-seed-0")
    # 2 steps of 2 tasks; then 4 steps of 2 tasks with 3 plans each and no act
    assert [job.work() for job in jobs] == [4, 4, 24, 24, 24, 24]


@pytest.mark.parametrize(
    "override",
    [
        "stage.0.until.steps=3",
        "stage.0.isolation.replay=0.5",
        'stage.0.gates=[{metric="eval/act",at_least=0}]',
        "model.width=64",
        "task.widgets=5",
        "eval.tasks=3",
        "save.every=2",
        "probes.every=9",
        "max_bad_updates=4",
        'stage.0.roles=["plan"]',
    ],
)
def test_what_the_first_stage_reads_is_not_shared(tmp_path, override):
    made = load(write_files(tmp_path).parent / "made.toml")
    other = load(tmp_path / "made.toml", [override])
    assert identity(made, 1) != identity(other, 1)


def test_what_the_first_stage_does_not_read_is_shared(tmp_path):
    made = load(write_files(tmp_path).parent / "made.toml")
    other = load(
        tmp_path / "made.toml", ["name=other", "about=x", "layout=adapters", "stage.1.until.steps=9"]
    )
    assert identity(made, 1) == identity(other, 1) and identity(made, 2) != identity(other, 2)
    # from a model on disk, layout "adapters" imitates into adapters: then the layouts differ in what they
    # train
    on_disk = [
        load(tmp_path / "made.toml", ["model.path=m", f"layout={layout}"])
        for layout in ("shared", "adapters")
    ]
    assert identity(on_disk[0], 1) != identity(on_disk[1], 1)


def test_prefixes_of_prefixes(tmp_path):
    """Four runs of three stages: two share two stages, three share one, the fourth shares nothing."""
    path = write_files(tmp_path)
    third = '\n[[stage]]\nkind = "reinforce"\nroles = ["act"]\nuntil = { steps = 1 }\nbatch = 2\n'
    recipe = (tmp_path / "made.toml").read_text() + third
    (tmp_path / "made.toml").write_text(recipe)
    sets = {"a": "", "b": "stage.2.batch=3", "c": "stage.1.batch=3", "d": "stage.0.batch=3"}
    loaded = {
        ("g", name, 0): load(path.parent / "made.toml", [text] if text else []) for name, text in sets.items()
    }
    jobs = {job.name: job for job in jobs_of(loaded, Path("out"))}
    one, two = sorted((job for job in jobs.values() if job.is_prefix), key=lambda job: len(job.recipe.stage))
    assert (len(one.recipe.stage), len(two.recipe.stage), one.after, two.after, two.shared) == (
        1,
        2,
        None,
        one.out,
        1,
    )
    assert {name: (jobs[f"g/{name}"].after, jobs[f"g/{name}"].shared) for name in sets} == {
        "a": (two.out, 2),
        "b": (two.out, 2),
        "c": (one.out, 1),
        "d": (None, 0),
    }
    # what others wait for goes first, the rest by length: d trains all (4 + 24 + work of the third), c two
    # stages
    assert [job.name for job in by_urgency(list(jobs.values()))][:4] == [one.name, two.name, "g/c", "g/d"]


def test_a_run_alone_shares_nothing(tmp_path):
    _, recipes = read(write_files(tmp_path))
    alone = {key: recipe for key, recipe in recipes.items() if key[1] == "shared"}
    assert [(job.name, job.after) for job in jobs_of(alone, Path("out"))] == [("desk/shared", None)] * 2


@pytest.mark.parametrize("text", ["seed=4", "engine.threads=2"])
def test_what_the_command_decides_cannot_be_set_by_an_arm(tmp_path, text):
    path = tmp_path / "arms.toml"
    path.write_text(
        f'name = "a"\n[group.g]\nrecipe = "desk"\n[[arm]]\ngroup = "g"\nname = "x"\nset = ["{text}"]\n'
    )
    with pytest.raises(RecipeError, match="cannot be set here"):
        read(path)


def test_a_folder_is_no_file_of_arms(tmp_path):
    with pytest.raises(RecipeError, match="is a folder"):
        read(tmp_path)


@pytest.mark.parametrize("name", sorted(shipped_arms()))
def test_every_shipped_set_of_arms_can_be_read_by_name(name):
    declared, recipes = read(Path(name))
    assert (
        declared.name == name and declared.about and len(recipes) == len(declared.arm) * len(declared.seeds)
    )
