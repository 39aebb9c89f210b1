"""What is fuzzed: every parser, grader and reader, with valid inputs to begin from. Each is made in the process that fuzzes."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attacks_kit import mutate
from attacks_kit.subjects import GUIDE, IMITATE, PLAN, all_subjects, subject

Feed = Callable[[random.Random], object]
"""Make an input with these random numbers, and give it to what is attacked."""


@dataclass(frozen=True, slots=True)
class Target:
    """`make(folder)` gives the Feed; `share` of all inputs; `seconds`: most time of one input."""

    make: Callable[[Path], Feed]
    share: float
    seconds: float = 5.0


# --- task families ---


def _family(domain, levels: list[int]) -> Feed:
    """A model's plan and acts: parsed, judged, read, followed and played."""
    tasks = domain.family(random.Random(0), levels, "train") + domain.family(random.Random(1), levels, "train")
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
        episode = domain.episode(task, random.Random(0), noise=True)
        for text in said:
            if episode.step(text).done:
                break

    return feed


def desk(**options) -> Callable[[Path], Feed]:
    def make(folder: Path) -> Feed:
        from forethought.tasks.desk import Desk

        return _family(Desk((1, 2, 3), widgets=5, slip=0.1, **options), [1, 2, 3])

    return make


def blocksworld(folder: Path) -> Feed:
    from forethought import tasks
    from forethought.recipe.schema import TaskSpec

    domain = tasks.build(TaskSpec(name="blocksworld"))
    return _family(domain, list(domain.levels)[:3])


PROBLEMS = [{"id": str(i), "question": f"Tom has {i} apples and buys 4 more. How many?",
             "answer": f"{i} + 4 = <<{i}+4={i + 4}>>{i + 4}\n#### {i + 4}"}
            for i in range(1, 9)]  # fmt: skip
SAID = [r"<think>I add \(2 + 4\).</think> So \boxed{6}", r"\boxed{\frac{1}{2}}", r"the answer is \boxed{x = 3}", r"\boxed{(1, 2)}"]


def math(folder: Path) -> Feed:
    """A response in free text, up to its grade."""
    from forethought.tasks.math import Math

    (folder / "a.jsonl").write_text("".join(json.dumps(p) + "\n" for p in PROBLEMS[:4]), encoding="utf-8")
    (folder / "b.jsonl").write_text("".join(json.dumps(p | {"question": f"Otherwise {p['id']} birds?"}) + "\n" for p in PROBLEMS[4:]),
                                    "utf-8")
    domain = Math(train=str(folder / "a.jsonl"), eval=[str(folder / "b.jsonl")], grader="exact")
    tasks = domain.family(random.Random(0), list(domain.levels) * 2, "train")

    def feed(rng: random.Random) -> None:
        task = rng.choice(tasks)
        plan = mutate.text(rng, ["First add the apples.\nThen say the sum.</plan>"])
        domain.parse_plan(task, plan)
        domain.judge_plan(task, plan)
        domain.episode(task, random.Random(0), noise=False).step(mutate.text(rng, SAID))

    return feed


# --- grammars ---


def gui(calls: bool) -> Callable[[Path], Feed]:
    def make(folder: Path) -> Feed:
        from forethought.interface.gui import GuiGrammar, Op

        grammar = GuiGrammar(ops=(Op(name="Tap"), Op(name="Type", value="required"), Op(name="Back", target="forbidden")), places=("at",
                                                "below"))
        seeds = ['[{"op": "Tap", "target": "the Save button at the bottom"}, {"op": "Type", "target": "the field below", "value": "Ada"}]',
                 '[{"op": "Back"}]'] if not calls else [
                 'do(action="Tap", element_description="the Save button at the bottom")\ndo(action="Type", element_description="x below", '
                 'argument="Ada \\" \\u00e9")', "do(action='Back')"]  # fmt: skip
        parse = grammar.parse_calls if calls else grammar.parse
        return lambda rng: parse(mutate.text(rng, seeds))

    return make


def tags(folder: Path) -> Feed:
    from forethought.interface.tags import Tags

    kinds = [Tags(), Tags(plan="blink", act="link"), Tags(strict=False), Tags(required=("plan", "act"))]
    seeds = ["<plan>a b</plan>\n<think>hm</think>\n<act>do</act>", "<blink>x</blink> <link>y</link>", "a b </plan>", "text <plan>a</plan>"]

    def feed(rng: random.Random) -> None:
        kind, text = rng.choice(kinds), mutate.text(rng, seeds)
        kind.parse(text)
        kind.turn(rng.choice(("plan", "think", "act")), text)

    return feed


# --- answers ---

ANSWERS = ["-4", "1,234.50", r"\frac{1}{2}", r"3\frac{1}{2}", "0.5", "50%", r"90^\circ", "x = 3", "(1, 2)", r"[0, \infty)", r"\{1, 2, 3\}",
           r"2\sqrt{2}",
           "5 cm", r"5\text{ cm}^2", "(C)", "12:30", "5 June", "$18", "yes", "52_8", r"\pi", "1/3", "3 million", r"\pm 2",
           "0.\\overline{3}", "x^2 + 1",
           r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "no", "10^{-7}", "- 4", "1 2/3", r"\dfrac12", "a, b", "₂",
           "Monday"]  # fmt: skip


def answers(folder: Path) -> Feed:
    """No text breaks the grader "exact"; an answer equals itself, and equality has no direction."""
    from forethought.distill.numbers import digits_in, values_in
    from forethought.tasks.math_answers import boxed, canonical, hashed
    from forethought.tasks.math_grading import exact

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
    from forethought.tasks.math_grading import GRADERS

    grade = GRADERS["auto"]()
    return lambda rng: grade(rng.choice(ANSWERS), mutate.text(rng, ANSWERS, 300))


# --- readers of files ---


def _file(name: str, seeds: Callable[[], list[str]], read: Callable[[Path], object]) -> Callable[[Path], Feed]:
    """`read` gets a file of this name that holds one of the seeds, changed."""
    def make(folder: Path) -> Feed:
        path, texts = folder / name, seeds()

        def feed(rng: random.Random) -> None:
            path.write_bytes(mutate.data(rng, texts))
            read(path)

        return feed

    return make


def _rows(path: Path) -> object:
    from forethought.tasks.math_files import read

    return read(path)


def _jsonl() -> list[str]:
    other = [{"problem": "What is $1+1$?", "solution": r"It is \boxed{2}.", "level": "Level 3", "type": "Algebra"},
             {"question": "Q?", "answer": 27.0, "plan": "add", "chain": "2 + 25", "id": 7}]  # fmt: skip
    return ["".join(json.dumps(row) + "\n" for row in rows) for rows in (PROBLEMS[:3], other)]


PDDL = """(define (problem p) (:domain blocksworld-4ops) (:objects a b c)
 (:init (handempty) (ontable a) (on b a) (clear b) (ontable c) (clear c)) ; a comment
 (:goal (and (on a b) (on b c))))"""
DOMAIN = """(define (domain d) (:requirements :strips) (:predicates (on ?x ?y) (clear ?x))
 (:action stack :parameters (?x ?y) :precondition (and (clear ?y)) :effect (and (on ?x ?y) (not (clear ?y)))))"""


def pddl(folder: Path) -> Feed:
    from forethought.tasks.pddl import parse_domain, read_plan, read_problem

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


def _planbench(path: Path) -> object:
    from forethought.tasks.blocksworld_files import from_strips, records

    return [from_strips(record.problem, record.where) for record in records(path)]


# --- recipes ---


def tables(folder: Path) -> Feed:
    """Recipes that are tables already: converted, checked, written as TOML, and their task built where it is cheap."""
    from forethought.recipe.check import check
    from forethought.recipe.convert import from_dict, to_toml

    seeds = list(all_subjects().values())

    def feed(rng: random.Random) -> None:
        recipe = from_dict(mutate.structure(rng, seeds))
        check(recipe)
        to_toml(recipe)

    return feed


def _recipe(path: Path) -> object:
    from forethought.recipe.check import check
    from forethought.recipe.load import load

    recipe = load(path)
    check(recipe)
    return recipe


def _toml() -> list[str]:
    from forethought.recipe.convert import from_dict, to_toml

    shipped = [path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))]
    return [to_toml(from_dict(subject(IMITATE, PLAN))), *shipped]


def _json() -> list[str]:
    return [json.dumps(subject(GUIDE, IMITATE, PLAN), indent=1)]


def overrides(folder: Path) -> Feed:
    """--set ADDRESS=VALUE."""
    from forethought.recipe.check import check
    from forethought.recipe.convert import from_dict
    from forethought.recipe.load import override

    recipe = from_dict(subject(IMITATE, PLAN))
    seeds = ["stage.0.until.steps=50", "stage.1.optim.lr=1e-3", "task.levels=[1, 2]", "layout=adapters", "seed=3",
             "stage.1.reward.plan.valid=1",
             'task.tags={ plan = "p" }', "engine.threads=auto", "stage=[]", "eval.tasks=999", "model.path=x/y",
             "probes.formats.a='x+'"]  # fmt: skip
    return lambda rng: check(override(recipe, [mutate.text(rng, seeds, 6000)]))


def arms(folder: Path) -> Feed:
    from forethought.arms.declare import read

    seeds = [path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parents[2] / "recipes" / "arms").glob("*.toml"))]
    seeds = [text for text in seeds if len(text) < 3000] or [text[:3000] for text in seeds]
    path = folder / "arms.toml"

    def feed(rng: random.Random) -> None:
        path.write_bytes(mutate.data(rng, seeds))
        read(path)

    return feed


# --- what runs have written ---

NODES = [{"id": 0, "parent": None, "role": None, "text": "GOAL a v3", "status": "given", "reason": "", "reward_parts": {}, "reward": None,
          "advantage": None,
          "policy": None, "version": 0, "tokens": 4, "logprob": None},
         {"id": 1, "parent": 0, "role": "plan", "text": "a </plan>", "status": "finished", "reason": "", "reward_parts": {"format": 1.0,
                                                 "valid": 1.0},
          "reward": 2.0, "advantage": 0.5, "policy": "plan", "version": 1, "tokens": 2, "logprob": -0.5},
         {"id": 2, "parent": 1, "role": "act", "text": "a x1 y2 v3 </act>", "status": "finished", "reason": "",
          "reward_parts": {"outcome": 1.0,
          "format": 1.0, "follows": 1.0}, "reward": 1.0, "advantage": 0.1, "policy": "base", "version": 0, "tokens": 5,
          "logprob": -0.1}]  # fmt: skip
TREE = {"step": 3, "stage": 1, "free_text": False, "task": "t", "domain": "desk", "level": 1, "context": "a desk x1 y2",
        "prompt": "GOAL a v3",
        "oracle_plan": "a </plan>", "nodes": NODES}  # fmt: skip


def trees(folder: Path) -> Feed:
    """A saved tree, read, judged and shown."""
    from forethought.display.trees import print_found
    from forethought.report.trees import load_trees
    from forethought.traces.find import Filter, find

    (folder / "trees").mkdir(exist_ok=True)
    path = folder / "trees" / "step-000003.jsonl.gz"

    def feed(rng: random.Random) -> None:
        lines = [mutate.structure(rng, [TREE]), TREE]
        said = "".join(_dumped(line) + "\n" for line in lines).encode("utf-8", "surrogatepass")
        packed = gzip.compress(said, 1, mtime=0)
        if rng.random() < 0.2:
            at = rng.randrange(len(packed))
            packed = packed[:at] + (rng.randbytes(1) + packed[at + 1 :] if rng.random() < 0.5 else b"")
        path.write_bytes(packed)
        found = io.StringIO()
        with contextlib.suppress(UnicodeEncodeError):
            print_found(find(folder, Filter(), []), 0, found, full=True, as_json=rng.random() < 0.3)
        load_trees(folder, [])

    return feed


def run(folder: Path) -> Feed:
    """A run directory of which one file is changed, up to its page."""
    from forethought import report

    out = folder / "run"
    out.mkdir(exist_ok=True)
    files = {
        "recipe.json": [json.dumps(subject(IMITATE, PLAN))],
        "metrics.jsonl": ["".join(json.dumps({"step": i, "stage": 0, "stage_name": "imitate", "kind": "imitate", "stage_step": i,
                                              "seconds": i / 2,
                                              "eval/plan": 0.5, "eval/plan_low": 0.1, "eval/plan_high": 0.9, "eval/act": 0.25,
                                              "loss/sft": 1.5,
                                              "grad_norm/base": 0.1}) + "\n" for i in range(4))],
        "decisions.jsonl": [json.dumps({"step": 1, "stage": 0, "kind": "gate", "name": "eval/act", "outcome": "pass", "reason": "why",
                                        "numbers": {"change": 0.1}}) + "\n"],
        "summary.json": [json.dumps({"name": "x", "seed": 3, "status": "done", "step": 3, "seconds": 2.0, "stages": [
            {"name": "imitate", "kind": "imitate", "roles": ["plan", "act"], "steps": 3, "seconds": 1.0, "tokens_sampled": 0,
             "tokens_trained": 9}],
            "machine": {"threads": 1, "device": "cpu"}})],
    }  # fmt: skip
    structures = {name: [json.loads(line) for line in seeds[0].splitlines()] for name, seeds in files.items()}

    def feed(rng: random.Random) -> None:
        changed = rng.choice(list(files))
        for name, seeds in files.items():
            if name != changed:
                (out / name).write_text(seeds[0], encoding="utf-8")
            elif rng.random() < 0.5:
                (out / name).write_bytes(mutate.data(rng, seeds))
            else:
                (out / name).write_bytes((_dumped(mutate.structure(rng, structures[name])) + "\n").encode("utf-8", "surrogatepass"))
        report.write(out)

    return feed


def manifest(folder: Path) -> Feed:
    """A checkpoint whose manifest is changed, and the newest state of a run."""
    from forethought.store import Store

    checkpoint = folder / "checkpoints" / "step-000003"
    checkpoint.mkdir(parents=True, exist_ok=True)
    seeds = [{"state.json": [13, "0" * 32], "engine/model.safetensors": [10, "f" * 32]}]

    def feed(rng: random.Random) -> None:
        (checkpoint / "state.json").write_text('{"step": 3 }\n', encoding="utf-8")
        if rng.random() < 0.3:
            (checkpoint / "manifest.json").write_bytes(mutate.data(rng, [json.dumps(seeds[0])]))
        else:
            (checkpoint / "manifest.json").write_bytes(_dumped(mutate.structure(rng, seeds)).encode("utf-8", "surrogatepass"))
        Store(folder).latest()

    return feed


def _dumped(value: object) -> str:
    """JSON of what was changed; what JSON has no word for is its Python text."""
    return json.dumps(value, default=str)


# --- phrases and distillation ---


def _grams(path: Path) -> object:
    from forethought.grams.listing import read

    return read(path)


def _solutions(path: Path) -> object:
    from forethought.grams.sources import solutions

    return solutions(path)


GUIDED = {"id": "a", "question": "How many?", "plan": "Add.\nSay it.", "chain": "2 + 4 = 6", "answer": "6", "level": 1, "source": "x"}


def guided(folder: Path) -> Feed:
    from forethought.distill.files import read_jsonl

    path = folder / "guided.jsonl"

    def feed(rng: random.Random) -> None:
        if rng.random() < 0.5:
            path.write_bytes(mutate.data(rng, [json.dumps(GUIDED) + "\n" + json.dumps(GUIDED | {"id": "b"}) + "\n"]))
        else:
            path.write_bytes((_dumped(mutate.structure(rng, [GUIDED])) + "\n").encode("utf-8", "surrogatepass"))
        read_jsonl(path)

    return feed


def cache(folder: Path) -> Feed:
    from forethought.distill.cache import Cached
    from forethought.distill.rules import gsm8k

    path = folder / "cache.jsonl"
    line = {"key": "k", "text": "<plan>a</plan>", "truncated": False, "usage": {"requests": 1, "prompt_tokens": 2, "completion_tokens": 3,
                                            "cost": 0.1,
            "guessed": 0}}  # fmt: skip

    def feed(rng: random.Random) -> None:
        if rng.random() < 0.5:
            path.write_bytes(mutate.data(rng, [json.dumps(line) + "\n"]))
        else:
            path.write_bytes((_dumped(mutate.structure(rng, [line])) + "\n").encode("utf-8", "surrogatepass"))
        Cached(gsm8k(), path).close()

    return feed


def chains(folder: Path) -> Feed:
    """A worked solution becomes a plan by rules, and the filter judges what a model wrote."""
    from forethought.distill import rules
    from forethought.distill.filter import Drops, FilterSpec, admit, complete
    from forethought.distill.records import Item, Summary

    solver = rules.gsm8k()
    seeds = ["He has 2 + 4 = <<2+4=6>>6 apples.\nThen he eats <<6-1=5>>5.\n#### 5", "First, I add.\n\nThen \\boxed{6}."]

    def feed(rng: random.Random) -> None:
        item = Item(id="a", question="Tom has 2 apples and 4 more. How many?", chain=mutate.text(rng, seeds), answer=rng.choice(ANSWERS))
        drops = Drops(3) if _takes_number(Drops) else Drops()
        kept = complete([item], drops)
        results = solver.summarise(kept) if rng.random() < 0.5 else [
            Summary(id="a", text=mutate.text(rng, ["<plan>Add the apples.\nThen subtract one.</plan>"])) for _ in kept]
        admit(kept, results, FilterSpec(), drops)

    return feed


def _takes_number(kind: type) -> bool:
    import inspect

    return any(p.default is inspect.Parameter.empty for p in inspect.signature(kind).parameters.values())


REPLY = {"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "<plan>Add.</plan>"}, "finish_reason": "stop"}],
         "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}}  # fmt: skip


def endpoint(folder: Path) -> Feed:
    """A reply of any status, headers and body, without a socket."""
    from forethought.distill.endpoint import Endpoint
    from forethought.distill.endpoint_spec import EndpointSpec
    from forethought.distill.records import Item
    from forethought.distill.transport import Reply

    spec = EndpointSpec(base_url="http://127.0.0.1:1/v1", model="m", key_env="", retries=1, concurrency=1, give_up=1000, price_in=1.0,
                        most_cost=1e9)
    item = Item(id="a", question="How many?", chain="2 + 4 = 6", answer="6")

    def feed(rng: random.Random) -> None:
        def post(body) -> Reply:
            status = 200 if rng.random() < 0.8 else rng.choice((201, 204, 301, 400, 401, 404, 408, 413, 422, 429, 500, 503, 599))
            said = mutate.text(rng, [json.dumps(REPLY)]) if rng.random() < 0.4 else _dumped(mutate.structure(rng, [REPLY]))
            headers = {"retry-after": mutate.text(rng, ["3", "Wed, 21 Oct 2015 07:28:00 GMT"], 60)} if rng.random() < 0.2 else {}
            return Reply(status=status, headers=headers, body=said)

        Endpoint(spec, post=post, sleep=lambda seconds: None).summarise([item])

    return feed


def settings(folder: Path) -> Feed:
    """The settings of an endpoint, as a recipe says them."""
    from forethought.distill.check import endpoint_of
    from forethought.recipe.convert import from_dict

    seeds = [{"base_url": "https://x.org/v1", "model": "m", "key_env": "", "temperature": 0.5, "time_limit": 10, "retries": 2,
              "price_in": 0.1}]

    def feed(rng: random.Random) -> None:
        said = mutate.structure(rng, seeds)
        stage = {"kind": "distill", "distill": {"summariser": "endpoint", "problems": 4, "endpoint": said}}
        endpoint_of("stage.0.distill.endpoint", from_dict(subject(stage)).stage[0].distill)

    return feed


TARGETS: dict[str, Target] = {
    "desk words": Target(desk(), 9), "desk json": Target(desk(plans="json"), 6), "desk stepwise": Target(desk(stepwise=True), 6),
    "desk two parents": Target(desk(parents=2), 3), "blocksworld": Target(blocksworld, 8), "math responses": Target(math, 6),
    "GUI JSON": Target(gui(False), 7), "AutoGLM calls": Target(gui(True), 7), "tags": Target(tags, 10),
    "answers": Target(answers, 10), "answers with math-verify": Target(auto, 0.4, 20.0),
    "problems in JSONL": Target(_file("p.jsonl", _jsonl, _rows), 5), "PDDL": Target(pddl, 5),
    "PlanBench files": Target(_file("b.jsonl", lambda: [json.dumps({"id": "1", "pddl": PDDL}) + "\n"], _planbench), 2),
    "recipe tables": Target(tables, 4), "recipe TOML": Target(_file("r.toml", _toml, _recipe), 1.5),
    "recipe.json": Target(_file("recipe.json", _json, _recipe), 2), "--set": Target(overrides, 2), "arms": Target(arms, 0.3),
    "trees": Target(trees, 3), "run directories": Target(run, 1), "manifests": Target(manifest, 2),
    "lists of grams": Target(_file("g.txt", lambda: ["# Title\n\n# ---- cluster 1\nlet us check   # 3\ncheck our work  # 2\n"], _grams), 3),
    "solutions for grams": Target(_file("s.jsonl", lambda: [json.dumps({"text": "let us check", "correct": True}) + "\n", *_jsonl()],
                                        _solutions), 2),
    "guided records": Target(guided, 3), "caches of summaries": Target(cache, 2), "chains and plans": Target(chains, 3),
    "endpoint replies": Target(endpoint, 3), "endpoint settings": Target(settings, 1),
}  # fmt: skip
