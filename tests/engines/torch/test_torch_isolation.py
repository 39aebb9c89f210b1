"""Isolation, probes and layouts with real models, a few steps each: who moves, who does not, by how much they
differ."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import lines_of, nothing
from safetensors.torch import load_file
from torch_kit import engine_of, model_of

from forethought.engines.torch.models.small import tokenizer_of
from forethought.measure.probes.held_out import HeldOut
from forethought.recipe.convert import from_dict
from forethought.recipe.schema import TaskSpec
from forethought.runs import run
from forethought.store import Store
from forethought.tasks import families
from forethought.workflows.rollout import Rollouts

ROLES = {"plan": "base", "act": "base"}
BEGUN = 8  # steps of imitation, after which some plans are accepted and some are not
PLAN = {
    "kind": "reinforce",
    "roles": ["plan"],
    "until": {"steps": 3},
    "batch": 4,
    "tree": {"plan": 6, "act": 0},
    "reward": {"plan": {"format": 1, "valid": 1}},
    "optim": {"lr": 0.01},
}


def recipe(*stages, **fields):
    tables = {
        "name": "tiny",
        "layout": "shared",
        "task": {"name": "desk", "levels": [1, 2], "widgets": 4},
        "model": {"layers": 2, "width": 32, "mlp": 32},
        "adapter": {"rank": 2},
        "probes": {"tasks": 2, "every": 1, "conflict_every": 1},
        "engine": {"device": "cpu", "precision": "fp32", "threads": 1},
        "eval": {"tasks": 2, "every": 0},
    }
    imitate = {"kind": "imitate", "until": {"steps": BEGUN}, "batch": 8, "share": 4, "optim": {"lr": 0.02}}
    return from_dict(tables | fields | {"stage": [imitate, *(dict(s) for s in stages)]})


def go(out: Path, *stages, **fields) -> list[dict]:
    run.train(recipe(*stages, **fields), out, nothing)
    return lines_of(out / "metrics.jsonl")


def base_of(out: Path, folder: str = "base") -> dict[str, torch.Tensor]:
    return load_file(Store.open(out).latest()[0] / "engine" / folder / "model.safetensors")


def moved(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> int:
    assert a.keys() == b.keys()
    return sum(int((a[k] != b[k]).sum()) for k in a)


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """The imitation alone: where every stage below begins."""
    out = tmp_path_factory.mktemp("begun") / "run"
    go(out)
    return out


# probes on a Hugging Face model -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def llm(request):
    """A random model of a Hugging Face config, with a tokenizer that knows the task's words."""
    taskset = families.build(TaskSpec(name="desk", levels=(1, 2), options={"widgets": 4}))
    tokenizer = tokenizer_of(taskset.vocabulary())
    model = model_of(request.param, vocab_size=len(tokenizer), initializer_range=0.3)
    return Rollouts(engine_of(model, tokenizer), taskset)


def test_held_out_probes_are_what_the_models_own_forward_says(llm):
    """Perplexity, entropy and success by role, from `transformers` alone, one demonstration at a time."""
    held_out = HeldOut(llm, (1, 2), 3, seed=0)
    found = held_out.measure(ROLES).metrics
    model = llm.engine.weights.base
    model.set_attn_implementation("eager")
    sums = {role: {"logp": 0.0, "entropy": 0.0, "tokens": 0, "right": []} for role in ROLES}
    try:
        for i, segment in enumerate(held_out.segments):
            if segment.stream is None:
                continue
            path, at = [], i
            while at >= 0:
                path.insert(0, held_out.segments[at].token_ids)
                at = held_out.segments[at].parent
            ids = [t for ids in path for t in ids]
            with torch.no_grad():
                logp = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)
            n = len(segment.token_ids)
            rows, mine = logp[len(ids) - n - 1 : -1], sums[segment.role]
            mine["logp"] += rows.gather(-1, torch.tensor(segment.token_ids)[:, None]).sum().item()
            mine["entropy"] -= (rows.exp() * rows).sum().item()
            mine["tokens"] += n
            mine["right"].append(rows.argmax(-1).tolist() == list(segment.token_ids))
    finally:
        model.set_attn_implementation("forethought")
    for role, mine in sums.items():
        assert found[f"probe/ppl_{role}"] == pytest.approx(math.exp(-mine["logp"] / mine["tokens"]), rel=1e-4)
        assert found[f"probe/entropy_{role}"] == pytest.approx(mine["entropy"] / mine["tokens"], rel=1e-4)
        assert found[f"probe/success_{role}"] == sum(mine["right"]) / len(mine["right"])


def test_kl_to_the_start_is_nothing_at_the_start(llm):
    llm.engine.fork("base", "start", "frozen")
    found = HeldOut(llm, (1, 2), 2, seed=0).measure(ROLES, {"start": {"base": "start"}}).metrics
    assert found["probe/kl_start_plan"] == found["probe/kl_start_act"] == 0.0
    llm.engine.drop("start")


# isolation in shared weights --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("isolation", "metric"),
    [
        ({"replay": 0.5}, "loss/sft"),
        ({"keep_kl": 0.5}, "kl/keep"),
        ({"replay": 0.5, "surgery": "pcgrad"}, "surgery/cosine"),
        ({"replay": 0.5, "keep_kl": 0.5}, "kl/keep"),
    ],
)
def test_what_keeps_acting_in_place_takes_part_in_every_step(tmp_path, isolation, metric):
    lines = [line for line in go(tmp_path / "run", PLAN | {"isolation": isolation}) if line["stage"] == 1]
    assert all(metric in line for line in lines[1:]) and all(
        math.isfinite(line[metric]) for line in lines[1:]
    )
    assert {"conflict/all", "conflict/embed", "conflict/head"} <= lines[-1].keys() and -1 <= lines[-1][
        "conflict/all"
    ] <= 1


def test_a_held_region_ends_the_stage_bit_for_bit_as_it_began(tmp_path, begun):
    isolation = {"core": "core", "core_share": 0.25, "core_steps": 2, "group_above": 1.1}
    stage = PLAN | {"isolation": isolation, "optim": {"lr": 0.01, "weight_decay": 0.5}}
    go(tmp_path / "held", stage)
    go(tmp_path / "free", stage | {"isolation": {}})
    before = base_of(begun)
    total = sum(t.numel() for t in before.values())
    held, free = moved(before, base_of(tmp_path / "held")), moved(before, base_of(tmp_path / "free"))
    assert free - total * 0.25 <= held <= total * 0.75 and held < free


@pytest.mark.parametrize("core", ["core", "random"])
def test_the_same_number_of_weights_is_held(tmp_path, core):
    go(
        tmp_path / "run",
        PLAN | {"isolation": {"core": core, "core_share": 0.1, "core_steps": 1, "group_above": 1.1}},
    )
    [said] = [d for d in lines_of(tmp_path / "run" / "decisions.jsonl") if d["name"] == "core"]
    total = sum(t.numel() for t in base_of(tmp_path / "run").values())
    assert said["numbers"]["weights"] == pytest.approx(0.1 * total, rel=0.05)


@pytest.mark.parametrize("to", ["model", "adapter"])
def test_at_the_switch_acting_has_its_start_back_bit_for_bit(tmp_path, begun, to):
    """A cosine below 1 is always measured, so the switch comes with the first probe."""
    adaptive = {"to": to, "min_cosine": 1.0, "window": 1, "max_drop": 1.0}
    lines = go(tmp_path / "run", PLAN | {"adaptive": adaptive})
    [move] = [d for d in lines_of(tmp_path / "run" / "decisions.jsonl") if d["name"] == "isolation"]
    assert move["outcome"] == "isolate" and move["step"] == BEGUN + 1 and "cosine" in move["reason"]
    assert moved(base_of(begun), base_of(tmp_path / "run")) == 0
    folder = Store.open(tmp_path / "run").latest()[0] / "engine"
    assert (folder / ("models" if to == "model" else "adapters") / "plan").is_dir()
    assert lines[-1]["probe/kl_start_plan"] > 0
    if to == "model":  # on this branch nothing is lost: what was learned by then goes on
        assert moved(base_of(begun), base_of(tmp_path / "run", "models/plan")) > 0


def test_an_adapted_run_that_is_stopped_after_the_switch_goes_on_as_the_straight_one(tmp_path):
    stage = PLAN | {
        "adaptive": {"to": "model", "min_cosine": 1.0, "window": 1, "max_drop": 1.0},
        "until": {"steps": 4},
    }
    fields = {"save": {"every": 1}}
    go(tmp_path / "straight", stage, **fields)

    class Stop(BaseException):
        pass

    def watch(event):
        if event.kind == "step" and event.step == BEGUN + 2:
            raise Stop

    with pytest.raises(Stop):
        run.train(recipe(stage, **fields), tmp_path / "stopped", watch)
    run.resume(tmp_path / "stopped", nothing)
    for folder in ("base", "models/plan"):
        assert moved(base_of(tmp_path / "straight", folder), base_of(tmp_path / "stopped", folder)) == 0


# layouts ----------------------------------------------------------------------------------------------------


def test_two_base_models_plan_and_act(tmp_path):
    """A planner of another size: imitation trains both, reinforcement the planner alone."""
    planner = {"layers": 3, "width": 48, "mlp": 64, "heads": 4}
    fields = {"layout": "models", "planner": planner, "save": {"every": 1, "keep": 9}}
    go(tmp_path / "run", PLAN, **fields)
    folders = [Store.open(tmp_path / "run").state(step)[0] / "engine" for step in (BEGUN, BEGUN + 3)]
    acts = [load_file(next((f / "base").rglob("model.safetensors"))) for f in folders]
    plans = [load_file(next((f / "plan").rglob("model.safetensors"))) for f in folders]
    assert moved(*acts) == 0 and moved(*plans) > 0
    assert {t.shape for t in acts[0].values()} != {t.shape for t in plans[0].values()}
    config = json.loads(next((folders[1] / "plan").rglob("config.json")).read_text())
    assert config["num_hidden_layers"] == 3
    state = Store.open(tmp_path / "run").latest()[1]["progress"]
    assert state["policies"] == {"plan": "plan", "act": "base"}


@pytest.mark.parametrize(
    ("layout", "folder"),
    [
        ("adapter", "adapters/all"),
        ("adapters", "adapters/plan"),
        ("mixed", "adapters/plan"),
        ("models", "models/plan"),
    ],
)
def test_one_recipe_switches_between_layouts(tmp_path, begun, layout, folder):
    go(tmp_path / "run", PLAN, layout=layout)
    assert moved(base_of(begun), base_of(tmp_path / "run")) == 0
    assert (Store.open(tmp_path / "run").latest()[0] / "engine" / folder).is_dir()


def test_extending_a_run_gives_the_bits_of_the_straight_one(tmp_path, begun):
    run.extend(recipe(PLAN), begun, tmp_path / "extended", nothing)
    go(tmp_path / "straight", PLAN)
    assert moved(base_of(tmp_path / "extended"), base_of(tmp_path / "straight")) == 0


@pytest.mark.parametrize("isolation", [{}, {"replay": 0.5}, {"replay": 0.5, "surgery": "pcgrad"}])
def test_probes_change_no_bit_of_a_run(tmp_path, isolation):
    stage = PLAN | {"isolation": isolation}
    go(tmp_path / "probed", stage)
    go(tmp_path / "plain", stage, probes={"every": 0, "conflict_every": 0})
    assert moved(base_of(tmp_path / "probed"), base_of(tmp_path / "plain")) == 0
