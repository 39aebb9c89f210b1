"""Texts that a model or a person wrote: plans, acts, answers, tagged sections."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from attacks_kit import mutate
from attacks_kit.feeds import Feed

# --- task families ---


def _family(domain, levels: list[int]) -> Feed:
    """A model's plan and acts: parsed, judged, read, followed and played."""
    tasks = domain.family(random.Random(0), levels, "train") + domain.family(
        random.Random(1), levels, "train"
    )
    turns = [domain.demonstrate(task) for task in tasks]
    plans = [t.text for some in turns for t in some if t.role == "plan"]
    acts = [t.text for some in turns for t in some if t.role == "act"]

    def feed(rng: random.Random) -> None:
        task = rng.choice(tasks)
        plan = mutate.text(rng, plans) if rng.random() < 0.7 else rng.choice(plans)
        said = [mutate.text(rng, acts) for _ in range(max(1, domain.turns))]
        accepted = domain.parse_plan(task, plan).score
        domain.judge_plan(task, plan)
        if accepted:
            domain.meaning(task, plan)
        domain.follows(task, plan, said[:1])
        episode = domain.environment(task, noise=True)
        episode.reset(task, 0)
        for text in said:
            if episode.step(text).done:
                break

    return feed


def desk(**options) -> Callable[[Path], Feed]:
    def make(folder: Path) -> Feed:
        from forethought.tasks.desk.taskset import Desk

        return _family(Desk((1, 2, 3), widgets=5, slip=0.1, **options), [1, 2, 3])

    return make


def blocksworld(folder: Path) -> Feed:
    from forethought.recipe.schema import TaskSpec
    from forethought.tasks import families

    domain = families.build(TaskSpec(name="blocksworld"))
    return _family(domain, list(domain.levels)[:3])


PROBLEMS = [
    {
        "id": str(i),
        "question": f"Tom has {i} apples and buys 4 more. How many?",
        "answer": f"{i} + 4 = <<{i}+4={i + 4}>>{i + 4}\n#### {i + 4}",
    }
    for i in range(1, 9)
]
SAID = [
    r"<think>I add \(2 + 4\).</think> So \boxed{6}",
    r"\boxed{\frac{1}{2}}",
    r"the answer is \boxed{x = "
    r"3}",
    r"\boxed{(1, 2)}",
]


def math(folder: Path) -> Feed:
    """A response in free text, up to its grade."""
    from forethought.tasks.math.taskset import Math

    (folder / "a.jsonl").write_text("".join(json.dumps(p) + "\n" for p in PROBLEMS[:4]), encoding="utf-8")
    (folder / "b.jsonl").write_text(
        "".join(json.dumps(p | {"question": f"Otherwise {p['id']} birds?"}) + "\n" for p in PROBLEMS[4:]),
        "utf-8",
    )
    domain = Math(train=str(folder / "a.jsonl"), eval=[str(folder / "b.jsonl")], grader="exact")
    tasks = domain.family(random.Random(0), list(domain.levels) * 2, "train")

    def feed(rng: random.Random) -> None:
        task = rng.choice(tasks)
        plan = mutate.text(rng, ["First add the apples.\nThen say the sum.</plan>"])
        domain.parse_plan(task, plan)
        domain.judge_plan(task, plan)
        episode = domain.environment(task, noise=False)
        episode.reset(task, 0)
        episode.step(mutate.text(rng, SAID))

    return feed


# --- grammars ---


def gui(calls: bool) -> Callable[[Path], Feed]:
    def make(folder: Path) -> Feed:
        from forethought.interface.gui import GuiGrammar, Op

        grammar = GuiGrammar(
            ops=(Op(name="Tap"), Op(name="Type", value="required"), Op(name="Back", target="forbidden")),
            places=("at", "below"),
        )
        seeds = (
            [
                '[{"op": "Tap", "target": "the Save button at the bottom"}, {"op": "Type", "target": "the '
                'field below", "value": "Ada"}]',
                '[{"op": "Back"}]',
            ]
            if not calls
            else [
                'do(action="Tap", element_description="the Save button at the bottom")\ndo(action="Type", '
                'element_description="x below", '
                'argument="Ada \\" \\u00e9")',
                "do(action='Back')",
            ]
        )
        parse = grammar.parse_calls if calls else grammar.parse
        return lambda rng: parse(mutate.text(rng, seeds))

    return make


def tags(folder: Path) -> Feed:
    from forethought.tasks.sections import tags_of

    renamed = tags_of(plan="blink", act="link")
    kinds = [tags_of(), renamed, tags_of(strict=False), tags_of(required=("plan", "act"))]
    seeds = [
        "<plan>a b</plan>\n<think>hm</think>\n<act>do</act>",
        "<blink>x</blink> <link>y</link>",
        "a b </plan>",
        "text <plan>a</plan>",
    ]

    def feed(rng: random.Random) -> None:
        kind, text = rng.choice(kinds), mutate.text(rng, seeds)
        kind.parse(text)
        kind.turn(rng.choice(("plan", "think", "act")), text)

    return feed


# --- answers ---

ANSWERS = [
    "-4",
    "1,234.50",
    r"\frac{1}{2}",
    r"3\frac{1}{2}",
    "0.5",
    "50%",
    r"90^\circ",
    "x = 3",
    "(1, 2)",
    r"[0, \infty)",
    r"\{1, 2, 3\}",
    r"2\sqrt{2}",
    "5 cm",
    r"5\text{ cm}^2",
    "(C)",
    "12:30",
    "5 June",
    "$18",
    "yes",
    "52_8",
    r"\pi",
    "1/3",
    "3 million",
    r"\pm 2",
    "0.\\overline{3}",
    "x^2 + 1",
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
    "no",
    "10^{-7}",
    "- 4",
    "1 2/3",
    r"\dfrac12",
    "a, b",
    "₂",
    "Monday",
]


def answers(folder: Path) -> Feed:
    """No text breaks the grader "exact"; an answer equals itself, and equality has no direction."""
    from forethought.stages.distill.numbers import digits_in, values_in
    from forethought.tasks.math.grading import exact
    from forethought.tasks.text.answers import boxed, canonical, hashed

    def feed(rng: random.Random) -> None:
        gold, answer = rng.choice(ANSWERS), mutate.text(rng, ANSWERS, 2000)
        boxed(f"so \\boxed{{{answer}}}")
        hashed(f"x\n#### {answer}")
        canonical(answer)
        digits_in(answer)
        values_in(answer)
        if exact(gold, answer).score != exact(answer, gold).score:
            raise AssertionError(f"{gold!r} = {answer!r} depends on the side")
        if answer.strip() and not exact(answer, answer).score:
            raise AssertionError(f"{answer!r} does not equal itself")

    return feed


def auto(folder: Path) -> Feed:
    from forethought.tasks.math.grading import GRADERS

    grade = GRADERS["auto"]()
    return lambda rng: grade(rng.choice(ANSWERS), mutate.text(rng, ANSWERS, 300))
