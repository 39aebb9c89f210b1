"""What a model is told: everything that was said, outside of any thinking, from the beginning that its
tokenizer knows to the end that its template writes; what a template loses is refused by name."""

from __future__ import annotations

import json
import re

import pytest
from tokenizers import processors
from torch_kit import bpe_of, engine_of, model_of, on_disk
from transformers import PreTrainedTokenizerFast

from forethought.core.errors import UserError
from forethought.core.types import Turn
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.models.chat import ends_of, opens_thinking, text_of
from forethought.engines.torch.models.loading import from_path
from forethought.engines.torch.models.tokenizer import begin_of
from forethought.learn.batches import demonstration_segments
from forethought.recipe.convert import from_dict
from forethought.recipe.schema import AdapterSpec, EngineSpec
from forethought.tasks import families
from forethought.tasks.base import Pool, needed
from forethought.workflows.rollout import Rollouts

MESSAGES = [
    {"role": "system", "content": "Answer in a box."},
    {"role": "user", "content": "  What is 6 x 7?\n"},
]
HEAD, FOOT = (
    "<|im_start|>{{ m.role }}\n",
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
)
CHATML = "{% for m in messages %}" + HEAD + "{{ m.content }}" + FOOT
PARTS = "{% for m in messages %}" + HEAD + "{% for p in m.content %}{{ p.text }}{% endfor %}" + FOOT
TYPED = (
    "{% for m in messages %}" + HEAD + "{% for p in m.content %}{% if p['type'] == 'text' %}{{ "
    "p['text'] }}{% endif %}{% endfor %}" + FOOT
)
EITHER = (
    "{% for m in messages %}" + HEAD + "{% if m.content is string %}{{ m.content }}{% else %}{% for p "
    "in m.content %}{{ p.text }}"
    "{% endfor %}{% endif %}" + FOOT
)
SPECIAL = ["<pad>", "<eos>", "<s>", "<|im_start|>", "<|im_end|>", "<|eot|>"]


def tokenizer_of(template: object = CHATML) -> PreTrainedTokenizerFast:
    tokenizer = bpe_of(["What is six times seven? " * 3], 300, SPECIAL)
    tokenizer.chat_template = template
    return tokenizer


def opening(opened: str) -> str:
    return CHATML.replace("assistant\n{% endif", f"assistant\n{opened}{{% endif")


# What is said -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        CHATML,
        PARTS,
        TYPED,
        EITHER,
        CHATML.replace("m.content", "m.content|trim"),
        [{"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": CHATML}],
        {"tool_use": "{{ tools|length }}", "default": CHATML},
    ],
    ids=["text", "parts", "typed", "either", "trimmed", "list", "named"],
)
def test_everything_that_is_said_is_read(template):
    if isinstance(template, list):
        template = {one["name"]: one["template"] for one in template}
    text = text_of(tokenizer_of(template), MESSAGES, "here")
    assert (
        text.startswith("<|im_start|>system\nAnswer in a box.<|im_end|>\n<|im_start|>user\n")
        and "What is 6 x 7?" in text
    )
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n") and "'type'" not in text


LOSES = {
    "no system message": (
        "{% for m in messages if m.role != 'system' %}" + HEAD + "{{ m.content }}" + FOOT,
        r"here loses what the system says \('Answer in a box.'\); where it takes no system "
        r".*--set task.system=\"\"",
    ),
    "only the last message": ("{{ messages[-1].content }}", "loses what the system says"),
    "no user": (
        "{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}",
        r"loses what the "
        r"user says \('What is 6 x 7\?'\)",
    ),
    "capitals": (CHATML.replace("m.content", "m.content|upper"), "loses what the system says"),
    "the first words": (CHATML.replace("m.content", "m.content[:9]"), "loses what the system says"),
    "parts as a list": (
        CHATML.replace(
            "{{ m.content }}",
            "{% if m.content is string %}{{ m.content|upper }}{% else %}{{ m.content }}{% endif %}",
        ),
        "loses what the system says",
    ),
    "no system message by its own words": (
        "{{ raise_exception('System role not supported') }}",
        r"refuses .*System role not supported.*",
    ),
    "tools": ("{{ tools|length }}", "here fails on the conversation .TypeError: .*it may need tools"),
    "a number": ("{{ 1 // 0 }}", "fails on the conversation .ZeroDivisionError"),
    "broken": ("{% for m in messages %}", "refuses the conversation"),
    "code": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "here (refuses|fails)"),
    "no default": (
        {"rag": CHATML, "tool_use": CHATML},
        "fails on the conversation .ValueError: .*none called default",
    ),
    "no text": (5, "here fails on the conversation"),
}


@pytest.mark.parametrize("name", LOSES)
def test_what_is_lost_is_refused_by_name(name):
    template, said = LOSES[name]
    tokenizer = tokenizer_of()
    tokenizer.chat_template = template
    with pytest.raises(UserError) as e:
        text_of(tokenizer, MESSAGES, "here")
    assert re.search(said, str(e.value)) and "\n" not in str(e.value), e.value


@pytest.mark.parametrize(
    ("opened", "read"),
    [
        ("<think>\n", "<think>\n\n</think>\n\n"),
        ("<think>", "<think>\n\n</think>\n\n"),
        ("<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"),
        ("", ""),
        ("[THINK]", "[THINK]\n\n[/THINK]\n\n"),
        ("<seed:think>\n", "<seed:think>\n\n</seed:think>\n\n"),
        ("<think>\nOkay,", "<think>\nOkay,\n\n</think>\n\n"),
        ("<reasoning>\n", "<reasoning>\n\n</reasoning>\n\n"),
    ],
)
def test_the_plan_is_opened_outside_of_thinking(opened, read):
    tokenizer = tokenizer_of(opening(opened))
    assert text_of(tokenizer, MESSAGES, "here").endswith(f"<|im_start|>assistant\n{read}")
    assert bool(opens_thinking(tokenizer)) == (opened != read)


@pytest.mark.parametrize(
    ("opened", "opens", "read"),
    [
        ("<think>\n", "<think>", ""),
        ("<think>", "<think>", ""),
        ("<think>\n\n</think>\n\n", "<think>", "<think>\n\n</think>\n\n"),  # told not to think: once more
        ("", "<think>", ""),
        ("<think>\n", "<plan>", "<think>\n\n</think>\n\n"),
        ("<seed:think>\n", "<think>", "<seed:think>\n\n</seed:think>\n\n"),
        ("<think>\nOkay,", "<think>", "<think>\nOkay,\n\n</think>\n\n"),
    ],
)
def test_a_turn_that_opens_thinking_itself_finds_it_once(opened, opens, read):
    """A plan whose tag is the mark of thinking is the model's own thinking."""
    tokenizer = tokenizer_of(opening(opened))
    assert text_of(tokenizer, MESSAGES, "here", opens).endswith(f"<|im_start|>assistant\n{read}")


def test_the_plan_of_a_thinking_model_is_its_thinking(tmp_path):
    """DeepSeek-R1's way: the template ends with <think>, and the plan's turn begins inside of it."""
    tokenizer = tokenizer_of(opening("<think>\n"))
    model = model_of(vocab_size=len(tokenizer), max_position_embeddings=512)
    path = on_disk(tmp_path / "m", model, tokenizer)
    for file in ("train", "test"):
        row = {"id": file, "problem": f"What is 2 and {len(file)}?", "answer": "7", "level": 1}
        (tmp_path / f"{file}.jsonl").write_text(json.dumps(row) + "\n")
    for tag, read in (("think", "<think>"), ("plan", "<think>\n\n</think>\n\n<plan>")):
        task = {
            "name": "math",
            "train": str(tmp_path / "train.jsonl"),
            "eval": [str(tmp_path / "test.jsonl")],
            "tags": {"plan": tag, "think": "work"},
            "system": "",
        }
        taskset = families.build(from_dict({"task": task}).task)
        engine = TorchEngine(from_path(path), EngineSpec(device="cpu", threads=1), AdapterSpec())
        words = Rollouts(engine, taskset).words
        (one,) = needed(taskset, Pool, "problems").pool(1, "train")
        said = engine.decode(words.root_ids(one))
        assert said.endswith(f"What is 2 and 5?<|im_end|>\n<|im_start|>assistant\n{read}")
        assert words.stops("plan") == (f"</{tag}>",)


def test_thinking_that_the_user_talks_of_is_none():
    told = [{"role": "user", "content": "What does <think> mean?"}]
    assert text_of(tokenizer_of(), told, "here").endswith(
        "What does <think> mean?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_thinking_that_is_ended_is_said(tmp_path):
    tokenizer = tokenizer_of(opening("<think>\n"))
    loaded = from_path(on_disk(tmp_path, model_of(vocab_size=len(tokenizer)), tokenizer))
    engine = TorchEngine(loaded, EngineSpec(device="cpu", threads=1), AdapterSpec())
    (note,) = engine.notes
    assert (
        "begins the assistant's turn with <think>; the thinking is ended again" in note
        and str(tmp_path) in note
    )


# Where a turn ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (CHATML, "<|im_end|>"),
        (PARTS, "<|im_end|>"),
        (CHATML.replace("m.content", "m.content|upper"), "<|im_end|>"),
        (CHATML.replace("m.content", "m.content[:2]"), "<eos>"),
        ("{{ 1 // 0 }}", "<eos>"),
        (None, "<eos>"),
        ("<s>{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "<eos>"),
        # no special token ends a turn
        # the answer is left out
        (
            "{% for m in messages if m.role == 'user' %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}",
            "<eos>",
        ),
        (CHATML.replace("<|im_end|>", "\n<|eot|>"), "<|eot|>"),
    ],
)
def test_a_turn_ends_as_the_template_ends_it_or_as_text_does(template, end):
    tokenizer = tokenizer_of(template)
    found, every = ends_of(tokenizer, model_of(vocab_size=len(tokenizer)))
    assert tokenizer.convert_ids_to_tokens(found) == end and every >= {found, tokenizer.eos_token_id}


@pytest.mark.parametrize(
    ("told", "every"), [([2, 0], {0, 1, 2}), (2, {1, 2}), (None, {1}), ([2, -1, 99999], {1, 2}), (["2"], {1})]
)
def test_every_end_of_the_generation_config_ends_a_turn_and_nothing_else(told, every):
    tokenizer = tokenizer_of(None)
    model = model_of(vocab_size=len(tokenizer))
    model.generation_config.eos_token_id = told
    assert ends_of(tokenizer, model) == (1, every)
    assert engine_of(model, tokenizer).ends == every


# Where a text begins ----------------------------------------------------------------------------------------


def with_begin(tokenizer: PreTrainedTokenizerFast, end: bool = False) -> PreTrainedTokenizerFast:
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<s> $A{' <eos>' if end else ''}", special_tokens=[("<s>", 2), ("<eos>", 1)]
    )
    tokenizer.bos_token = "<s>"
    return tokenizer


@pytest.mark.parametrize("end", [False, True])
def test_a_text_without_a_template_begins_as_the_tokenizer_begins_it(end, tmp_path):
    tokenizer = with_begin(tokenizer_of(None), end)
    assert begin_of(tokenizer) == (2,) and begin_of(tokenizer_of(None)) == ()
    rollouts = rollouts_of(tokenizer, tmp_path)
    (task,) = rollouts.taskset.pool(0, "train")
    ids = rollouts.words.root_ids(task)
    assert (
        ids[0] == 2
        and 2 not in ids[1:]
        and ids[1:] == rollouts.engine.encode(task.prompt + rollouts.taskset.opens["plan"])
    )
    shown = demonstration_segments(rollouts, [task], [{"plan"}])
    assert shown[0].token_ids == ids and all(2 not in s.token_ids for s in shown[1:])


def test_a_text_with_a_template_begins_as_the_template_begins_it(tmp_path):
    rollouts = rollouts_of(with_begin(tokenizer_of(CHATML)), tmp_path)
    (task,) = rollouts.taskset.pool(0, "train")
    assert 2 not in rollouts.words.root_ids(task)


def test_a_beginning_that_only_the_configuration_asks_for(tmp_path):
    tokenizer = tokenizer_of(None)
    tokenizer.bos_token = "<s>"
    path = on_disk(tmp_path, model_of(vocab_size=len(tokenizer)), tokenizer)
    from test_torch_loading import edit

    assert begin_of(from_path(path).tokenizer) == ()
    edit(tmp_path / "tokenizer_config.json", add_bos_token=True)
    assert begin_of(from_path(path).tokenizer) == (2,)
    from_path(path).tokenizer.save_pretrained(tmp_path / "again")
    assert begin_of(PreTrainedTokenizerFast.from_pretrained(tmp_path / "again")) == (2,)


def rollouts_of(tokenizer: PreTrainedTokenizerFast, folder) -> Rollouts:
    import json

    for name, start in (("train", 1), ("test", 7)):
        row = {
            "id": name,
            "question": f"Ann has {start} nuts and gets {start} more. How many?",
            "answer": f"She adds.\n#### {2 * start}",
        }
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    taskset = families.build(
        from_dict(
            {
                "task": {
                    "name": "math",
                    "train": str(folder / "train.jsonl"),
                    "eval": [str(folder / "test.jsonl")],
                    "graded": False,
                    "grader": "exact",
                    "budgets": {"plan": 9, "act": 9},
                    "system": "Plan first.",
                }
            }
        ).task
    )
    taskset.demonstrate = lambda task: [Turn(role="plan", text="Add.")]
    path = on_disk(
        folder / "model", model_of(vocab_size=len(tokenizer), max_position_embeddings=512), tokenizer
    )
    return Rollouts(TorchEngine(from_path(path), EngineSpec(device="cpu", threads=1), AdapterSpec()), taskset)
