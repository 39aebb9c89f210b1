"""`forethought export`: what other programs open says what `forethought sample` says, and what cannot be
written leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from export_kit import (
    ENDING,
    ENGINE,
    base_model,
    budget,
    desk_run,
    generated,
    greedy,
    problems,
    prompts,
    text_run,
)
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import forethought as ft
from forethought import cli
from forethought.core.errors import CheckpointError, UserError
from forethought.engines.torch.export import folders
from forethought.exports import export
from forethought.exports.card import Folder, _run, hides_words


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    return desk_run(tmp_path_factory.mktemp("desk") / "run")


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """Adapters alone, on a model of one's own."""
    folder = tmp_path_factory.mktemp("own")
    model = base_model(folder / "model", problems(folder / "train.jsonl", 1))
    return text_run(folder / "run", {"path": model}, stages=[ENDING])


def opened(folder: Path):
    """As the card says."""
    if not (folder / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder))
    model.generation_config = GenerationConfig.from_pretrained(folder)
    return model, AutoTokenizer.from_pretrained(folder)


# What is written --------------------------------------------------------------------------------------------


def test_a_trained_base_and_an_adapter_on_it(desk, tmp_path, monkeypatch):
    found = export(desk, to=tmp_path / "out")
    assert found.folders == {"plan": ("plan",), "act": ("act",)} and found.notes == ()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["act", "plan"]
    monkeypatch.chdir("/")  # the base of an adapter is found from anywhere
    auto = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "out" / "plan"))
    plan, tokenizer = opened(tmp_path / "out" / "plan")
    said, read = greedy(desk, "plan"), prompts(desk, tmp_path / "out" / "plan")
    most = budget(desk, "plan")
    assert [generated(plan, tokenizer, text, most) for text in read] == said
    ending = {"eos_token_id": plan.generation_config.eos_token_id}
    assert [generated(auto, tokenizer, text, most, **ending) for text in read] == said
    act, tokenizer = opened(tmp_path / "out" / "act")
    assert [generated(act, tokenizer, text, most, **ending) for text in read] != said  # the adapter matters
    under = [f"{text} {plan_said}" for text, plan_said in zip(read, said, strict=True)]
    acts = greedy(desk, "act")
    for text, wanted in zip(under, acts, strict=True):
        if wanted:  # a plan that was accepted
            assert (
                generated(act, tokenizer, f"{text} <act>".replace(" <act>", ""), budget(desk, "act"))
                == wanted
            )


def test_a_turn_ends_with_the_stop_of_its_role(desk, tmp_path):
    export(desk, to=tmp_path / "out")
    for role in ("plan", "act"):
        said = json.loads((tmp_path / "out" / role / "generation_config.json").read_text())
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / role)
        assert said["eos_token_id"] == [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(f"</{role}>")]
        assert "stop_strings" not in said


def test_merged_it_says_the_same(desk, tmp_path):
    export(desk, to=tmp_path / "out", role="plan", merge=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plan"]
    model, tokenizer = opened(tmp_path / "out" / "plan")
    assert type(model).__name__ == "LlamaForCausalLM"
    read = prompts(desk, tmp_path / "out" / "plan")
    assert [generated(model, tokenizer, text, budget(desk, "plan")) for text in read] == greedy(desk, "plan")


def test_an_adapter_on_ones_own_model_in_free_text(own, tmp_path):
    found = export(own, to=tmp_path / "out")
    assert found.folders == {"plan": ("plan",)}
    base = str(own.parent / "model")
    assert found.notes == (
        f"act: {base} itself, which the run has not changed; nothing is written for it (--merge copies it)",
    )
    model, tokenizer = opened(tmp_path / "out" / "plan")
    assert (
        json.loads((tmp_path / "out" / "plan" / "adapter_config.json").read_text())["base_model_name_or_path"]
        == base
    )
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(base).chat_template
    config = json.loads((tmp_path / "out" / "plan" / "generation_config.json").read_text())
    assert config["stop_strings"] == ["</plan>"]  # several tokens of this tokenizer
    read, most = prompts(own, tmp_path / "out" / "plan"), budget(own, "plan")
    said = greedy(own, "plan")
    assert [generated(model, tokenizer, text, most) for text in read] == said
    assert all(text.endswith("</plan>") for text in said)  # or no stop would have been needed


def test_a_checkpoint_without_a_base_has_no_folder_of_that_name(own, tmp_path):
    """And one from before, which had the tokenizer there, is read as well."""
    engine = ft.open(own).checkpoints()[-1].path / "engine"
    assert not (engine / "base").exists() and (engine / "tokenizer" / "tokenizer.json").is_file()
    shutil.copytree(own, tmp_path / "run")
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        (checkpoint / "engine" / "tokenizer").rename(checkpoint / "engine" / "base")
        listed = json.loads((checkpoint / "manifest.json").read_text())
        before = {name.replace("engine/tokenizer/", "engine/base/"): entry for name, entry in listed.items()}
        (checkpoint / "manifest.json").write_text(json.dumps(before))
    assert greedy(tmp_path / "run", "plan") == greedy(own, "plan")
    export(tmp_path / "run", to=tmp_path / "out")
    export(own, to=tmp_path / "now")
    names = sorted(path.name for path in (tmp_path / "now" / "plan").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "out" / "plan").iterdir())
    of_checkpoint = AutoPeftModelForCausalLM.from_pretrained(str(engine / "adapters" / "plan"))
    assert type(of_checkpoint).__name__ == "PeftModelForCausalLM"


def test_merged_with_ones_own_model(own, tmp_path):
    found = export(own, to=tmp_path / "out", merge=True)
    assert found.folders == {"plan": ("plan",), "act": ("act",)}
    model, tokenizer = opened(tmp_path / "out" / "plan")
    read, most = prompts(own, tmp_path / "out" / "plan"), budget(own, "plan")
    assert [generated(model, tokenizer, text, most) for text in read] == greedy(own, "plan")
    base, copied = (
        AutoModelForCausalLM.from_pretrained(path)
        for path in (own.parent / "model", tmp_path / "out" / "act")
    )
    assert all(torch.equal(a, b) for a, b in zip(base.parameters(), copied.parameters(), strict=True))


def test_a_card_says_that_words_were_hidden(tmp_path):
    (tmp_path / "config.json").write_text('{"forethought_drawn": [3]}')
    assert hides_words(tmp_path / "adapter", tmp_path) and not hides_words(tmp_path / "none")
    own = {
        "path": tmp_path,
        "roles": ("act",),
        "kind": "model",
        "base": "",
        "began": "",
        "gguf": "",
        "stops": (),
    }
    folder = Folder(
        **own, model="AutoModelForCausalLM", tokenizer="AutoTokenizer", rank=8, most=4, hides=True
    )
    assert "`model.masks_absent`" in "\n".join(_run(folder, {}))
    assert "masks_absent" not in "\n".join(_run(replace(folder, hides=False), {}))


def test_a_tokenizer_that_transformers_would_open_as_another_one_is_said(tmp_path):
    model = base_model(tmp_path / "model", problems(tmp_path / "train.jsonl", 1), "qwen2")
    run = text_run(tmp_path / "run", {"path": model})
    found = export(run, to=tmp_path / "out", role="plan", merge=True)
    strange = folders.strange_tokenizer(tmp_path / "out" / "plan")  # not with every version of transformers
    assert strange == any("AutoTokenizer, and so vLLM, makes another" in note for note in found.notes)
    text = (tmp_path / "out" / "plan" / "README.md").read_text()
    assert ("PreTrainedTokenizerFast.from_pretrained" in text) == strange == ("AutoTokenizer" not in text)
    model, tokenizer = opened(tmp_path / "out" / "plan")[0], folders.tokenizer_of(tmp_path / "out" / "plan")
    read = prompts(run, tmp_path / "out" / "plan")
    assert [generated(model, tokenizer, text, budget(run, "plan")) for text in read] == greedy(run, "plan")


def test_one_folder_where_all_roles_share_weights(tmp_path):
    run = desk_run(tmp_path / "run", "shared")
    found = export(run, to=tmp_path / "out")
    assert found.folders == {"plan-act": ("plan", "act")}
    said = json.loads((tmp_path / "out" / "plan-act" / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "plan-act")
    assert said["eos_token_id"][1:] == tokenizer.convert_tokens_to_ids(["</plan>", "</act>"])


def test_a_model_for_each_role_and_an_earlier_step(tmp_path):
    run = desk_run(tmp_path / "run", "models")
    assert export(run, to=tmp_path / "out").folders == {"plan": ("plan",), "act": ("act",)}
    model, tokenizer = opened(tmp_path / "out" / "plan")
    read = prompts(run, tmp_path / "out" / "plan")
    assert [generated(model, tokenizer, text, budget(run, "plan")) for text in read] == greedy(run, "plan")
    early = export(run / "checkpoints" / "step-000000", to=tmp_path / "early")
    assert (early.step, early.folders) == (0, {"plan-act": ("plan", "act")})
    assert export(run, step=6, to=None).to == run / "export" / "step-000006"


def test_a_base_under_adapters_alone_has_a_folder(desk, tmp_path):
    """Asked for the plan alone, the base goes along."""
    found = export(desk, to=tmp_path / "out", role="plan")
    assert list(found.folders) == ["plan"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["base", "plan"]
    model, tokenizer = opened(tmp_path / "out" / "plan")
    read = prompts(desk, tmp_path / "out" / "plan")
    assert [generated(model, tokenizer, text, budget(desk, "plan")) for text in read] == greedy(desk, "plan")


def test_three_roles_and_two_engines(tmp_path):
    """What two roles share has one folder; a planner that is another model has its own files."""
    small = {"layers": 2, "width": 32, "mlp": 32}
    tables = {
        "task": {"name": "desk", "levels": [1], "widgets": 4},
        "model": small,
        "engine": ENGINE,
        "eval": {"tasks": 3},
        "stage": [{"kind": "imitate", "until": {"steps": 2}, "batch": 4}],
    }
    think = {"kind": "imitate", "roles": ["think"], "until": {"steps": 1}, "batch": 4}
    three = tables | {"workflow": "blink_think_link", "stage": [*tables["stage"], think]}
    run = ft.train(three, out=tmp_path / "three", progress=False)
    assert run.export(to=tmp_path / "a").folders == {"blink-link": ("blink", "link"), "think": ("think",)}
    text = (tmp_path / "a" / "blink-link" / "README.md").read_text()
    assert "A turn ends with `</blink>`, `</link>`" in text and "| think | " in text
    two = tables | {"layout": "models", "planner": small | {"init": "small", "width": 64}}
    run = ft.train(two, out=tmp_path / "two", progress=False)
    assert run.export(to=tmp_path / "b").folders == {"plan": ("plan",), "act": ("act",)}
    widths = [opened(tmp_path / "b" / role)[0].config.hidden_size for role in ("plan", "act")]
    assert widths == [64, 32] == [run.model(role).model.config.hidden_size for role in ("plan", "act")]


def test_a_task_of_ones_own_without_plans(tmp_path):
    model = base_model(tmp_path / "model", problems(tmp_path / "train.jsonl", 1))
    rows = [{"question": f"{a}+{b}?", "answer": str(a + b)} for a in range(6) for b in range(4)]
    for name, some in (("data", rows[:16]), ("eval", rows[16:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    recipe = {
        "model": {"path": model},
        "engine": ENGINE,
        "task": {
            "name": "text",
            "train": str(tmp_path / "data.jsonl"),
            "eval": [str(tmp_path / "eval.jsonl")],
            "prompt": "{question}",
            "answer": "answer",
            "plan": "none",
            "grader": "number",
            "budgets": {"act": 9},
        },
        "eval": {"tasks": 2},
        "stage": [{"kind": "reinforce", "until": {"steps": 1}, "batch": 2, "tree": {"act": 2}}],
    }
    run = ft.train(recipe, out=tmp_path / "run", progress=False)
    assert run.export(to=tmp_path / "out").folders == {"act": ("act",)}
    text = (tmp_path / "out" / "act" / "README.md").read_text()
    assert "A turn ends with the model's own end" in text and "max_new_tokens=9" in text
    assert "| e2e | 0.000 |" in text and "all turns of an episode" in text
    assert "<|im_start|>user\\n5+" in text or "<|im_start|>user\\n4+" in text
    assert text.count("| `task.") == 2  # both files, with their digests


# The card ---------------------------------------------------------------------------------------------------


def test_the_card_says_numbers_recipe_data_and_lines_that_run(own, tmp_path):
    export(own, to=tmp_path / "out", merge=True)
    text = (tmp_path / "out" / "plan" / "README.md").read_text()
    line = [line for line in ft.open(own).metrics() if "eval/plan" in line][-1]
    for name in ("plan", "act", "e2e"):
        value, low, high, n = (line[f"{key}/{name}"] for key in ("eval", "eval_low", "eval_high", "eval_n"))
        assert f"| {name} | {value:.3f} | {low:.3f} to {high:.3f} | {n:.0f} |" in text
    assert "1. imitate: trains plan (adapter)" in text
    data = json.loads((own / "data.json").read_text())
    assert f"`{data['task.train']['sha256']}`" in text and "| train.jsonl |" in text
    assert "## Licence" in text and str(own.parent / "model") in text
    code = re.search(r"```python\n(from transformers.*?)```", text, re.S)[1]
    said: list[str] = []
    exec(compile(code, "card", "exec"), {"print": said.append})  # noqa: S102
    assert "base_model" not in text.split("---")[1]  # a folder of this machine is no name on the hub
    prompt = re.search(r"^prompt = (.*)$", code, re.M)[1]
    assert "<|im_start|>assistant\\n<plan>" in prompt and len(said) == 1


def test_the_card_of_an_adapter_runs_too(desk, tmp_path, monkeypatch):
    export(desk, to=tmp_path / "out")
    monkeypatch.chdir("/")
    text = (tmp_path / "out" / "plan" / "README.md").read_text()
    code = re.search(r"```python\n(from peft.*?)```", text, re.S)[1]
    said: list[str] = []
    exec(compile(code, "card", "exec"), {"print": said.append})  # noqa: S102
    assert said[0].endswith("</plan>") or len(said[0].split()) == 256
    assert "made from scratch" in text and "no file was read" in text


def test_without_the_tasks_files_it_says_so_and_writes(own, tmp_path):
    away = own.parent / "away"
    (own.parent / "test.jsonl").rename(away)
    try:
        found = export(own, to=tmp_path / "out")
    finally:
        away.rename(own.parent / "test.jsonl")
    assert any("the task cannot be opened here" in note for note in found.notes)
    config = json.loads((tmp_path / "out" / "plan" / "generation_config.json").read_text())
    assert "stop_strings" not in config and config["eos_token_id"]


# From Python and the command line ---------------------------------------------------------------------------


def test_a_runs_model_in_python(desk, own):
    for run in (desk, own):
        model, tokenizer = ft.open(run).model("plan")
        assert type(model).__name__ == "PeftModelForCausalLM"
        merged = ft.open(run).model("plan", merge=True).model
        act = ft.open(run).model("act").model
        ids = tokenizer(prompts(run, Path(tokenizer.name_or_path))[0], return_tensors="pt").input_ids
        with torch.no_grad():
            plan, whole, other = (one(ids).logits for one in (model, merged, act))
        assert torch.allclose(plan, whole, atol=1e-4) and not torch.allclose(plan, other, atol=1e-2)
    with pytest.raises(ft.UserError, match="unknown role 'pln'; did you mean 'plan'"):
        ft.open(desk).model("pln")
    with pytest.raises(ft.UserError, match="no checkpoint of step 5; it has those of 0, 6, 9"):
        ft.open(desk).model("plan", step=5)
    assert ft.open(desk).model("plan", step=0).model is not None


def test_the_command_line(desk, tmp_path, capsys):
    assert cli.main(["export", str(desk), "--to", str(tmp_path / "out"), "--role", "act"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"step 9 -> {tmp_path / 'out'}",
        f"  act: act; how to run it: {tmp_path / 'out' / 'act' / 'README.md'}",
    ]
    assert err == "act: a whole model\n"
    assert ft.export(desk, to=tmp_path / "again", role="act").folders == {"act": ("act",)}


# What cannot be written -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 5}, "has no checkpoint of step 5; it has those of 0, 6, 9"),
        ({"role": "acts"}, "--role: unknown role 'acts'; did you mean 'act'"),
        ({"gguf": "f16"}, "is a list of words, and only BPE is converted|need the extra `gguf`"),
    ],
)
def test_what_is_not_there_is_named_and_nothing_is_left(desk, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        export(desk, to=tmp_path / "out", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_left_alone(desk, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty; give a folder that is new or empty"):
        export(desk, to=tmp_path)
    with pytest.raises(UserError, match="mine.txt is a file"):
        export(desk, to=tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert export(desk, to=tmp_path / "empty", role="act").folders


@pytest.mark.parametrize("kind", ["nothing", "folder", "model"])
def test_what_is_no_run(tmp_path, kind):
    path = tmp_path / "x"
    if kind != "nothing":
        path.mkdir()
    if kind == "model":
        (path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is not a run: it has no recipe.json"):
        export(path, to=tmp_path / "out")


def test_a_damaged_checkpoint(desk, tmp_path):
    shutil.copytree(desk, tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / "step-000009" / "engine" / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(CheckpointError, match="step-000009 is damaged"):
        export(tmp_path / "run", to=tmp_path / "out")
    assert export(tmp_path / "run", to=tmp_path / "out", step=6).step == 6  # the others are whole


def test_a_full_disk_leaves_nothing(desk, tmp_path, monkeypatch, capsys):
    def full(source, to):
        to.mkdir()
        (to / "config.json").write_text("{}")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to))

    monkeypatch.setattr("forethought.engines.torch.export.folders.shutil.copytree", full)
    assert cli.main(["export", str(desk), "--to", str(tmp_path / "out")]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_a_running_run_lets_go_is_said(desk, tmp_path, monkeypatch):
    shutil.copytree(desk, tmp_path / "run")
    copy = folders.copy_model

    def gone(saved, to):
        shutil.rmtree(saved.folder.parents[1])
        copy(saved, to)

    monkeypatch.setattr(folders, "copy_model", gone)
    with pytest.raises(
        UserError, match=r"step-000006 has gone while it was copied: .* newest 9 \(save.keep\)"
    ):
        export(tmp_path / "run", step=6)
    assert not (tmp_path / "run" / "export").exists()


def test_a_base_that_is_gone_is_named(own, tmp_path):
    model = own.parent / "model"
    model.rename(own.parent / "gone")
    try:
        with pytest.raises(UserError, match=f"{model} cannot be opened for policy 'plan'"):
            export(own, to=tmp_path / "out", role="plan", merge=True)
    finally:
        (own.parent / "gone").rename(model)
    assert list(tmp_path.iterdir()) == []
