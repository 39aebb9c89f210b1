"""What is fuzzed: every parser, grader and reader, with valid inputs to begin from. Each is made in the
process that fuzzes."""

from __future__ import annotations

import json

from attacks_kit.feeds import Target
from attacks_kit.targets_distil import cache, chains, endpoint, grams, guided, settings, solutions_in
from attacks_kit.targets_files import (
    PDDL,
    arms,
    file,
    json_text,
    jsonl,
    overrides,
    pddl,
    planbench,
    problems,
    recipe_at,
    tables,
    toml,
)
from attacks_kit.targets_runs import manifest, run, trees
from attacks_kit.targets_texts import answers, auto, blocksworld, desk, gui, math, tags

TARGETS: dict[str, Target] = {
    "desk words": Target(desk(), 9),
    "desk json": Target(desk(plans="json"), 6),
    "desk stepwise": Target(desk(stepwise=True), 6),
    "desk two parents": Target(desk(parents=2), 3),
    "blocksworld": Target(blocksworld, 8),
    "math responses": Target(math, 6),
    "GUI JSON": Target(gui(False), 7),
    "AutoGLM calls": Target(gui(True), 7),
    "tags": Target(tags, 10),
    "answers": Target(answers, 10),
    "answers with math-verify": Target(auto, 0.4, 20.0),
    "problems in JSONL": Target(file("p.jsonl", jsonl, problems), 5),
    "PDDL": Target(pddl, 5),
    "PlanBench files": Target(
        file("b.jsonl", lambda: [json.dumps({"id": "1", "pddl": PDDL}) + "\n"], planbench), 2
    ),
    "recipe tables": Target(tables, 4),
    "recipe TOML": Target(file("r.toml", toml, recipe_at), 1.5),
    "recipe.json": Target(file("recipe.json", json_text, recipe_at), 2),
    "--set": Target(overrides, 2),
    "arms": Target(arms, 0.3),
    "trees": Target(trees, 3),
    "run directories": Target(run, 1),
    "manifests": Target(manifest, 2),
    "lists of grams": Target(
        file(
            "g.txt", lambda: ["# Title\n\n# ---- cluster 1\nlet us check   # 3\ncheck our work  # 2\n"], grams
        ),
        3,
    ),
    "solutions for grams": Target(
        file(
            "s.jsonl",
            lambda: [json.dumps({"text": "let us check", "correct": True}) + "\n", *jsonl()],
            solutions_in,
        ),
        2,
    ),
    "guided records": Target(guided, 3),
    "caches of summaries": Target(cache, 2),
    "chains and plans": Target(chains, 3),
    "endpoint replies": Target(endpoint, 3),
    "endpoint settings": Target(settings, 1),
}
