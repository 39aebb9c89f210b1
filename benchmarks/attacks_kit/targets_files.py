"""Files that a person brings: problems, recipes, arms."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from attacks_kit import mutate
from attacks_kit.feeds import Feed
from attacks_kit.subjects import GUIDE, IMITATE, PLAN, all_subjects, subject
from attacks_kit.targets_texts import PROBLEMS

# --- readers of files ---


def file(name: str, seeds: Callable[[], list[str]], read: Callable[[Path], object]) -> Callable[[Path], Feed]:
    """`read` gets a file of this name that holds one of the seeds, changed."""

    def make(folder: Path) -> Feed:
        path, texts = folder / name, seeds()

        def feed(rng: random.Random) -> None:
            path.write_bytes(mutate.data(rng, texts))
            read(path)

        return feed

    return make


def problems(path: Path) -> object:
    from forethought.tasks.math.files import read

    return read(path)


def jsonl() -> list[str]:
    other = [
        {"problem": "What is $1+1$?", "solution": r"It is \boxed{2}.", "level": "Level 3", "type": "Algebra"},
        {"question": "Q?", "answer": 27.0, "plan": "add", "chain": "2 + 25", "id": 7},
    ]
    return ["".join(json.dumps(row) + "\n" for row in rows) for rows in (PROBLEMS[:3], other)]


PDDL = """(define (problem p) (:domain blocksworld-4ops) (:objects a b c)
 (:init (handempty) (ontable a) (on b a) (clear b) (ontable c) (clear c)) ; a comment
 (:goal (and (on a b) (on b c))))"""
DOMAIN = """(define (domain d) (:requirements :strips) (:predicates (on ?x ?y) (clear ?x))
 (:action stack :parameters (?x ?y) :precondition (and (clear ?y))
  :effect (and (on ?x ?y) (not (clear ?y)))))"""


def pddl(folder: Path) -> Feed:
    from forethought.tasks.blocksworld.pddl import parse_domain, read_plan, read_problem

    domain = parse_domain(DOMAIN)

    def feed(rng: random.Random) -> None:
        which = rng.randrange(3)
        if which == 0:
            parse_domain(mutate.text(rng, [DOMAIN]))
        elif which == 1:
            read_problem(mutate.text(rng, [PDDL]), rng.choice((None, domain)))
        else:
            read_plan(mutate.text(rng, ["(pick-up a)\n(stack a b) ; x\n"]))

    return feed


def planbench(path: Path) -> object:
    from forethought.tasks.blocksworld.files import from_strips, records

    return [from_strips(record.problem, record.where) for record in records(path)]


# --- recipes ---


def tables(folder: Path) -> Feed:
    """Recipes that are tables already: converted, checked, written as TOML, and their task built where it is
    cheap."""
    from forethought.recipe.check import check
    from forethought.recipe.convert import from_dict, to_toml

    seeds = list(all_subjects().values())

    def feed(rng: random.Random) -> None:
        recipe = from_dict(mutate.structure(rng, seeds))
        check(recipe)
        to_toml(recipe)

    return feed


def recipe_at(path: Path) -> object:
    from forethought.recipe.check import check
    from forethought.recipe.load import load

    recipe = load(path)
    check(recipe)
    return recipe


def toml() -> list[str]:
    from forethought.recipe.convert import from_dict, to_toml

    shipped = [
        path.read_text(encoding="utf-8")
        for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
    ]
    return [to_toml(from_dict(subject(IMITATE, PLAN))), *shipped]


def json_text() -> list[str]:
    return [json.dumps(subject(GUIDE, IMITATE, PLAN), indent=1)]


def overrides(folder: Path) -> Feed:
    """--set ADDRESS=VALUE."""
    from forethought.recipe.check import check
    from forethought.recipe.convert import from_dict
    from forethought.recipe.load import override

    recipe = from_dict(subject(IMITATE, PLAN))
    seeds = [
        "stage.0.until.steps=50",
        "stage.1.optim.lr=1e-3",
        "task.levels=[1, 2]",
        "layout=adapters",
        "seed=3",
        "stage.1.reward.plan.valid=1",
        'task.tags={ plan = "p" }',
        "engine.threads=auto",
        "stage=[]",
        "eval.tasks=999",
        "model.path=x/y",
        "probes.formats.a='x+'",
    ]
    return lambda rng: check(override(recipe, [mutate.text(rng, seeds, 6000)]))


def arms(folder: Path) -> Feed:
    from forethought.arms.declare import read

    seeds = [
        path.read_text(encoding="utf-8")
        for path in sorted((Path(__file__).parents[2] / "recipes" / "arms").glob("*.toml"))
    ]
    seeds = [text for text in seeds if len(text) < 3000] or [text[:3000] for text in seeds]
    path = folder / "arms.toml"

    def feed(rng: random.Random) -> None:
        path.write_bytes(mutate.data(rng, seeds))
        read(path)

    return feed
