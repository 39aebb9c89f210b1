"""Seconds by part from the speed of a machine, by hand; where speeds come from and are kept; one object of
JSON."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, replace

import pytest

from forethought import cli
from forethought.estimate import Assumptions, as_json, cpu, estimate
from forethought.estimate.lengths import Seen, seen
from forethought.estimate.memory import Numbers, activations
from forethought.estimate.shapes import Shape
from forethought.estimate.speed import SWITCH, Speed, machine, speed_of
from forethought.estimate.timed import SAVED, TURN, WRITE, timed
from forethought.recipe.convert import from_dict
from forethought.recipe.load import load

TINY = Shape(layers=2, width=8, heads=2, kv_heads=1, head=4, mlp=16, vocabulary=100, tied=True)
SPEED = Speed(
    step=1.0,
    row=0.1,
    read=0.01,
    learn_base=0.5,
    learn_adapter=0.25,
    reuse_base=0.3,
    reuse_adapter=0.15,
    call_base=0.2,
    call_adapter=0.4,
    forward=0.1,
    look=0.05,
    update=1e-3,
    held=5e8,
    publish=0.7,
    fresh=0.3,
)
# level 1 on two widgets: a screen of 2 x 4 words, `GOAL x v0`, a plan of 2 words, an act of 5
TASK = {"name": "desk", "levels": [1], "widgets": 2}
IMITATE = {"kind": "imitate", "weights": "base", "until": {"steps": 3}, "batch": 4, "share": 2}
PLAN = {
    "kind": "reinforce",
    "roles": ["plan"],
    "until": {"steps": 5},
    "batch": 2,
    "tree": {"plan": 3, "act": 0},
}


def recipe_of(*stages, **tables):
    quiet = {"probes": {"every": 0}, "eval": {"tasks": 6, "every": 0}, "engine": {"sample_rows": 100}}
    return from_dict({"task": TASK, "stage": list(stages)} | quiet | tables)


def test_lengths_are_those_of_demonstrations():
    found = seen(recipe_of(IMITATE), 0.4)
    assert found == Seen(
        told=0.0,
        context=8.0,
        prompt=3.0,
        said={"plan": 2.0, "act": 5.0},
        longest={"plan": 2.0, "act": 5.0},
        budget={"plan": 3.0, "act": 6.0},
        drawn=True,
    )


def test_imitation_by_hand():
    """4 prompts of 3 tokens, 2 screens of 8, 4 x 7 tokens said: 56; every parameter is updated."""
    found = timed(recipe_of(IMITATE), TINY, SPEED, Assumptions())
    assert found.training == pytest.approx(3 * (56 * 0.5 + 0.2 + TINY.parameters * 1e-3))
    assert (found.sampling, found.probes) == (0, 0)
    assert found.other == pytest.approx(3 * 4 * 2 * TURN)
    assert found.saving == pytest.approx(2 * (SAVED + 12 * TINY.parameters / WRITE))
    tokens = recipe_of(IMITATE | {"batch_tokens": 100})
    assert timed(tokens, TINY, SPEED, Assumptions()).training == pytest.approx(
        3 * (2 * 56 * 0.5 + 0.2 + TINY.parameters * 1e-3)
    )


def test_each_policy_reads_a_demonstration_up_to_what_it_learns_last():
    """`plan` learns from a quarter of 4: prompts of 3, plans of 2, and a screen of 8 where one of its 2 tasks
    is among them; `act` reads all 56 tokens. With one adapter for both all are read once."""
    stage = IMITATE | {"weights": "adapter", "loss_share": {"plan": [0.25]}}
    own = 0.4 + TINY.adapter(16) * 1e-3 + 0.7
    plan = 4 * 0.25 * (3 + 2) + 2 * 8 * (1 - 0.75**2)
    found = timed(recipe_of(stage, layout="adapters"), TINY, SPEED, Assumptions())
    assert found.training == pytest.approx(3 * ((plan + 56) * 0.25 + 2 * own))
    found = timed(recipe_of(stage, layout="adapter"), TINY, SPEED, Assumptions())
    assert found.training == pytest.approx(3 * (56 * 0.25 + own))


def test_the_first_evaluation_of_a_trained_model_ends_where_it_gives_up():
    """4 of 6 tasks are not played: prompts of 11 words and the plan of 2 unread, budgets of 3 and 6 unsaid; a
    word is 1.6 tokens. The last evaluation plays 2, then 4: plans of 2 and acts of 5 decode twice."""
    given = {"model": {"path": "somewhere"}, "eval": {"tasks": 6, "every": 0}}
    tables = [given | {"eval": given["eval"] | {"give_up": n}} for n in (0, 2)]
    whole, ended = (
        timed(recipe_of(PLAN, **table), TINY, SPEED, Assumptions()).evaluation for table in tables
    )
    each = 1.6 * (0.01 * (11 + 2) + 0.1 * (3 + 6)) + 2 * TURN
    assert whole - ended == pytest.approx(4 * each - (1.6 * (2 + 5) * 1.0 + 2 * 0.3))


def test_reinforcement_by_hand():
    """2 prompts of 11 are read; 6 plans of 2 tokens in two steps of decoding; the adapter reads prompts and
    plans."""
    found = timed(recipe_of(PLAN), TINY, SPEED, Assumptions())
    assert found.sampling == pytest.approx(5 * (2 * 11 * 0.01 + 2 * 1.0 + 6 * 2 * 0.1 + 0.3))
    size = TINY.adapter(16)
    assert found.training == pytest.approx(5 * ((2 * 11 - 8 - 8 + 16 + 12) * 0.25 + 0.4 + size * 1e-3 + 0.7))
    assert found.other == pytest.approx(5 * 6 * TURN)


def test_an_update_reads_what_sampling_left_in_15_of_16_steps(monkeypatch):
    """Prompts of 11 on one screen of 8, 6 plans of 2 tokens; each token leaves 752 bytes. A budget of 3 asks
    for 18 tokens a call, of at most twice a quarter of the memory."""
    assert TINY.left == 4 * (2 * (2 * 8 + 2 * 8 + 2 * 4 + 2 * 16) + 100)
    plain = timed(recipe_of(PLAN), TINY, SPEED, Assumptions(), cpu())
    quiet = {"sample_rows": 100}
    tokens = 2 * (8 + 3) + 6 * 2

    def saved(memory: float, stage=PLAN, **engine) -> float:
        hardware = replace(cpu(), memory=memory)
        recipe = recipe_of(stage, engine=quiet | {"reuse_forward": "on"} | engine)
        return plain.training - timed(recipe, TINY, SPEED, Assumptions(), hardware).training

    assert saved(1e6) == pytest.approx(5 * tokens * 15 / 16 * (0.25 - 0.15))
    enough = 4 * tokens * TINY.left
    assert saved(enough) > 0 == saved(enough - 4)
    assert saved(1e6, reuse_forward="auto") == saved(1e6, layers="torch") == saved(1e6, weights="bf16") == 0
    longer = PLAN | {"tree": {"plan": 3, "act": 0, "tokens": {"plan": 50}}}
    assert saved(enough, longer) == 0, "rows that may become too long leave nothing"


def test_what_sampling_leaves_is_memory():
    recipe = recipe_of(PLAN, engine={"sample_rows": 100, "reuse_forward": "on"})
    memory, plain = (estimate(one, cpu()).stages[0].memory for one in (recipe, recipe_of(PLAN)))
    n = estimate(recipe, cpu()).lengths
    shape = estimate(recipe, cpu()).shape
    kept = (2 * n.prompt + 6 * n.said["plan"]) * shape.left
    assert memory.sampling == plain.sampling | {"activations left for the update": kept}
    assert memory.training.keys() == plain.training.keys()
    name = "activations of a micro-batch"
    assert memory.training[name] == max(plain.training[name], kept + plain.training[name] / shape.layers)


def test_a_model_that_has_seen_too_few_demonstrations_does_not_end_its_turns():
    """12 demonstrations: after imitation too an evaluation goes to the end of budgets of 3 and 6, and 6 plans
    of the planner are cut off; after 1,200 it takes what demonstrations take."""
    few, many = (recipe_of(IMITATE | {"until": {"steps": n}}, PLAN) for n in (3, 300))
    found = [timed(one, TINY, SPEED, Assumptions()) for one in (few, many)]
    assert found[0].sampling - found[1].sampling == pytest.approx(5 * (3 - 2) * (1.0 + 6 * 0.1))
    full = 6 * (11 + 2) * 0.01 + 3 + 6 * 3 * 0.1 + 6 + 6 * 6 * 0.1 + 12 * TURN + 0.3
    apart = 6 * 11 * 0.01 + 0.3  # the planner's adapter reads the prompts for itself
    assert found[0].evaluation == pytest.approx(3 * full + apart)
    assert found[1].evaluation < found[0].evaluation


def test_probes_by_hand():
    """2 tasks of each of 2 levels, both on one screen. Imitation trains the base for both roles: at its start
    and after its second of 3 steps the base reads plans and acts. Reinforcement: at its start the base, which
    acts, reads both, `plan` and its frozen copy the plans alone; then those two after steps 2 and 4."""
    probes = {"every": 2, "tasks": 2, "conflict_every": 0}
    recipe = recipe_of(IMITATE, PLAN, probes=probes, task=TASK | {"levels": [1, 2]})
    n = seen(recipe, 0.4)
    plans = 2 * (n.context + 2 * (n.prompt + n.said["plan"])) * 0.1 + 0.05
    both = 2 * (n.context + 2 * (n.prompt + n.said["plan"] + n.said["act"])) * 0.1 + 0.05
    found = timed(recipe, TINY, SPEED, Assumptions()).probes
    assert found == pytest.approx(2 * both + both + 3 * 2 * plans)
    alone = replace(recipe, probes=replace(recipe.probes, kl_start=False))
    assert timed(alone, TINY, SPEED, Assumptions()).probes == pytest.approx(2 * both + both + 3 * plans)


def test_memory_is_that_of_turns_as_long_as_demonstrations():
    """The policy that reads most reads 56 tokens; two policies sample, each from a copy with its
    adapter added in that lies in memory once more as the kernels read it. With full budgets it is more."""
    recipe = recipe_of(IMITATE | {"weights": "adapter"}, layout="adapters")
    (memory,) = timed(recipe, TINY, SPEED, Assumptions(), cpu()).memories
    n = TINY.parameters
    assert memory.stays["weights as the kernels read them"] == 2 * 4 * n
    assert memory.stays["copies that sample, adapter added in"] == 2 * 4 * n
    assert memory.stays["the process"] == 5e8
    kept = memory.training["activations of a micro-batch"]
    assert kept == 56 * TINY.layers * activations(TINY, Numbers(stored=4, computed=4))
    bound = estimate(recipe, cpu()).stages[0].memory
    assert kept < bound.training["activations of a micro-batch"]


def test_an_evaluation_by_hand():
    """At first 6 plans of 3 tokens and 6 acts of 6 under the oracle's plans, all by the base, which reads the
    prompts once; at the end plans of 2, and acts of 5 under both, by the adapter and by the base."""
    found = timed(recipe_of(PLAN), TINY, SPEED, Assumptions())
    first = 6 * 11 * 0.01 + 3 + 6 * 3 * 0.1 + 6 * TURN + 6 * 2 * 0.01 + 6 + 6 * 6 * 0.1 + 6 * TURN
    later = 6 * 11 * 0.01 + 2 + 6 * 2 * 0.1 + 6 * TURN + 6 * (11 + 2) * 0.01 + 5 + 12 * 5 * 0.1 + 12 * TURN
    assert found.evaluation == pytest.approx(first + later + 3 * 0.3)


def test_rows_beyond_those_decoded_together_come_one_after_the_other():
    few = recipe_of(PLAN, engine={"sample_rows": 3})
    found = timed(few, TINY, SPEED, Assumptions())
    assert found.sampling == pytest.approx(5 * (2 * 11 * 0.01 + 2 * 2 * 1.0 + 6 * 2 * 0.1 + 0.3))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(SWITCH, "1")
    return tmp_path / "forethought"


def test_a_speed_is_timed_once_and_kept_for_the_machine(here, monkeypatch):
    asked = []

    def run(question):
        asked.append(question)
        return asdict(SPEED)

    recipe = recipe_of(PLAN)
    assert speed_of(TINY, recipe, cpu(), run) == SPEED == speed_of(TINY, recipe, cpu(), run)
    assert len(asked) == 1 and asked[0]["shape"]["width"] == 8
    assert speed_of(replace(TINY, layers=3), recipe, cpu(), run) == SPEED
    assert len(asked) == 2
    monkeypatch.setattr("forethought.estimate.speed.machine", lambda: [*machine(), "another"])
    assert speed_of(TINY, recipe, cpu(), run) == SPEED
    assert len(asked) == 3


@pytest.mark.parametrize("text", ["", "[]", '{"step": 1}', '{"step": "x"}', "not JSON"])
def test_a_damaged_speed_is_timed_again(here, text):
    recipe = recipe_of(PLAN)
    assert speed_of(TINY, recipe, cpu(), lambda _: asdict(SPEED)) == SPEED
    [path] = here.glob("speed-*.json")
    path.write_text(text)
    again = replace(SPEED, step=2.0)
    assert speed_of(TINY, recipe, cpu(), lambda _: asdict(again)) == again


def test_where_nothing_can_be_timed_there_is_no_speed(here, monkeypatch):
    def breaks(question):
        raise subprocess.CalledProcessError(1, "python")

    recipe, run = recipe_of(PLAN), lambda _: asdict(SPEED)
    told: list[str] = []
    assert speed_of(TINY, recipe, cpu(), breaks, told.append) is None
    assert told[0].startswith("timing this machine") and told[1].startswith("it could not be timed (")
    assert speed_of(TINY, recipe, replace(cpu(), here=False), run) is None  # another machine is meant
    assert speed_of(TINY, recipe, replace(cpu(), memory=1e4), run) is None  # its head would not fit
    assert speed_of(TINY, recipe, cpu(), lambda _: asdict(SPEED) | {"row": float("nan")}) is None
    monkeypatch.setenv(SWITCH, "0")
    assert speed_of(TINY, recipe, cpu(), run) is None


def test_one_object_of_json_has_seconds_and_bytes_by_part(capsys):
    assert cli.main(["train", "desk", "--dry-run", "--json", "--hardware", "h100"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recipe"] == "desk" and found["timed"] is False
    assert found["seconds"]["total"] == pytest.approx(
        sum(found["seconds"][name] for name in ("sampling", "training", "evaluation"))
    )
    assert 0 < found["bytes"]["training"] <= found["bytes"]["peak"]
    assert [stage["name"] for stage in found["stages"]] == ["imitate", "reinforce"]


def test_what_was_timed_stands_in_the_object_and_in_the_lines(monkeypatch):
    monkeypatch.setattr("forethought.estimate.account.speed_of", lambda *_, **__: SPEED)
    account = estimate(load("desk"), cpu(), timing=True)
    found = as_json(account)
    assert found["timed"] is True
    assert set(found["seconds"]) == {
        "sampling",
        "training",
        "evaluation",
        "probes",
        "saving",
        "other",
        "total",
    }
    assert found["bytes"]["peak"] > 5e8
    from forethought.estimate import lines

    said = "\n".join(lines(account))
    assert "by the speed that was timed here" in said and SWITCH in said


def test_a_run_of_no_time_has_no_empty_brackets(monkeypatch):
    from forethought.estimate import lines

    monkeypatch.setattr("forethought.estimate.account.speed_of", lambda *_, **__: SPEED)
    account = estimate(load("desk"), cpu(), timing=True)
    nothing = dict.fromkeys(("sampling", "training", "evaluation", "probes", "saving", "other"), 0.0)
    for seconds, said in ((0.0, "less than a second"), (0.3, "less than a second"), (7.0, "7 s (other 7 s)")):
        told = lines(replace(account, timed=replace(account.timed, **nothing | {"other": seconds})))
        assert f"by the speed that was timed here: {said}" in told


def test_a_small_model_on_a_large_gpu_samples_in_minutes_not_days():
    """A captured graph starts 30 layers in 0.6 ms; a millisecond for each of them was days of sampling."""
    from forethought.estimate import HARDWARE

    shape = {"layers": 30, "width": 576, "heads": 9, "mlp": 1536}
    recipe = from_dict(
        {"model": shape, "task": {"name": "desk"}, "stage": [PLAN | {"until": {"steps": 1000}}]}
    )
    account = estimate(recipe, HARDWARE["h200"], Assumptions(used=1.0))
    steps = 1000 * account.lengths.said["plan"]
    assert account.stages[0].sampling / steps < 1.5e-3
