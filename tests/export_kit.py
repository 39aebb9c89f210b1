"""Small real runs to export, and what a role says in them, greedy."""

from __future__ import annotations

import json
import random
from pathlib import Path

from conftest import nothing
from torch_kit import bpe_of, model_of, on_disk

from forethought.exports.prompts import _first, turns_of
from forethought.look import find, sample
from forethought.look.chosen import to_show
from forethought.recipe.convert import from_dict
from forethought.recipe.schema import TreeSpec
from forethought.runs import run
from forethought.tasks import families

ENGINE = {"device": "cpu", "precision": "fp32", "threads": 1}
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIGH = {"optim": {"lr": 0.02, "warmup": 0}}  # so that what was trained says something else than what was not
# until a plan ends with its stop
ENDING = {"kind": "imitate", "roles": ["plan"], "until": {"steps": 30}, "batch": 4} | HIGH
PLANS = {"kind": "imitate", "roles": ["plan"], "until": {"steps": 3}, "batch": 2} | HIGH


def desk_run(out: Path, layout: str = "adapters") -> Path:
    """From scratch, in words: both roles learn in the base, then the plan in weights of its own."""
    tables = {
        "name": "desk",
        "layout": layout,
        "task": {"name": "desk", "levels": [1, 2], "widgets": 4},
        "model": {"layers": 2, "width": 32, "mlp": 32},
        "engine": ENGINE,
        "eval": {"tasks": 4, "every": 0},
        "probes": {"every": 0, "conflict_every": 0},
        "save": {"keep": 9},
        "stage": [{"kind": "imitate", "until": {"steps": 6}, "batch": 8} | HIGH, PLANS],
    }
    run.train(from_dict(tables), out, nothing)
    return out


def problems(path: Path, seed: int, n: int = 12) -> str:
    rng, lines = random.Random(seed), []
    for i in range(n):
        a, b = rng.randrange(100 * seed, 100 * seed + 99), rng.randrange(9)
        lines.append(
            {
                "id": f"{seed}-{i}",
                "problem": f"Ann has {a} apples and gets {b} more. How many?",
                "answer": str(a + b),
                "level": 1,
                "plan": "1. Note what she has. 2. Add what she gets.",
                "chain": f"She has {a} and gets {b}: {a} + {b} = {a + b}.",
            }
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def base_model(folder: Path, train: str, kind: str = "llama") -> str:
    """Somebody's own model with a chat template."""
    tokenizer = bpe_of([Path(train).read_text()], 420, ["<pad>", "<eos>", "<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template, tokenizer.eos_token = CHAT, "<|im_end|>"
    model = model_of(
        kind,
        vocab_size=len(tokenizer),
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
    )
    return on_disk(folder, model, tokenizer)


def text_run(
    out: Path, model: dict, layout: str = "adapters", stages: list[dict] | None = None, **fields
) -> Path:
    """Free text: the plan is learned in an adapter, the act stays the base (layout shared: one model)."""
    folder = out.parent
    tables = {
        "name": "apples",
        "layout": layout,
        "model": model,
        "engine": ENGINE,
        "adapter": {"rank": 4},
        "task": {
            "name": "math",
            "train": problems(folder / "train.jsonl", 1),
            "eval": [problems(folder / "test.jsonl", 7)],
            "budgets": {"plan": 40, "act": 24},
            "grader": "exact",
        },
        "eval": {"tasks": 3, "every": 0},
        "probes": {"every": 0, "conflict_every": 0},
        "stage": stages or [PLANS],
    } | fields
    run.train(from_dict(tables), out, nothing)
    return out


def greedy(out: Path, role: str, n: int = 3) -> list[str]:
    """What the role says on `n` held-out tasks in `forethought sample`."""
    rows = sample(find(out), n=n, tree=TreeSpec(temperature=0.0))
    return [next((turn["text"] for turn in row["turns"] if turn["role"] == role), "") for row in rows]


def prompts(out: Path, folder: Path, n: int = 3) -> list[str]:
    """What the first role reads on the same tasks."""
    recipe = find(out).recipe
    taskset = families.build(recipe.task, to_measure=True)
    try:
        role = next(iter(turns_of(recipe)[0].stops))
        return [_first(taskset, task, role).text(folder) for task in to_show(taskset, n, None, 0)]
    finally:
        taskset.close()


def budget(out: Path, role: str) -> int:
    """Most tokens of a turn: in these runs a word is one."""
    recipe = find(out).recipe
    taskset = families.build(recipe.task, to_measure=True)
    try:
        return taskset.budget(role)
    finally:
        taskset.close()


def generated(model, tokenizer, text: str, most: int, **settings) -> str:
    """What `transformers` says after a text, greedy, with the model's own generation config."""
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    out = model.generate(ids, do_sample=False, max_new_tokens=most, tokenizer=tokenizer, **settings)
    return tokenizer.decode(out[0, ids.shape[1] :]).strip()
