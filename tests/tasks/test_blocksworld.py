"""Blocksworld: grammars, executors, oracle and generator on numbers found by hand or by an independent
search."""

import json
import random
from itertools import permutations

import pytest
from conftest import opened

from forethought.core.errors import ForethoughtError, RecipeError, UserError
from forethought.tasks.blocksworld import words
from forethought.tasks.blocksworld.classes import BLOCKS, below_of, classes, split_of, top_level
from forethought.tasks.blocksworld.files import held_out
from forethought.tasks.blocksworld.problem import FREE, Problem, class_code
from forethought.tasks.blocksworld.strips import execute
from forethought.tasks.blocksworld.taskset import Blocksworld, class_hash, main, solve

# towers a b | g c | h from the bottom; goal: h on g, a on b
EXAMPLE = """(define (problem p) (:domain blocksworld-4ops) (:objects a b g c h)
(:init (handempty) (ontable a) (on b a) (ontable g) (on c g) (ontable h) (clear b) (clear c) (clear h))
(:goal (and (on h g) (on a b))))"""
PLAN = "clear g on b c on h g on a b </plan>"
ACTS = "unstack c g put c unstack b a stack b c pick h stack h g pick a stack a b </act>"


def write(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def pddl(problem, names):
    """The problem as PDDL, its blocks renamed to `names` and listed backwards."""
    new = dict(zip(problem.names, names, strict=True))
    under = [
        f"(ontable {new[x]})" if y is None else f"(on {new[x]} {new[y]})" for x, y in problem.under().items()
    ]
    clear = [f"(clear {new[x]})" for x in problem.names if x not in problem.under().values()]
    goal = [f"(on {new[x]} {new[y]})" for x, y in problem.wanted().items()]
    init, objects = " ".join(reversed(under + clear)), " ".join(reversed(list(names)))
    return (
        f"(define (problem p) (:domain d) (:objects {objects}) (:init (handempty) {init}) (:goal (and "
        f"{' '.join(goal)})))"
    )


@pytest.fixture
def taskset():
    return Blocksworld()


@pytest.fixture
def task(taskset, tmp_path):
    return taskset.problems(write(tmp_path / "one.jsonl", {"id": "one", "pddl": EXAMPLE}))[0]


# --- text, oracle, verdicts ---


def test_example_reads_as_the_documented_text(task):
    assert (task.id, task.level) == ("one", 8)  # b, c, h and a each move once
    assert task.context == "<init> ; a b ; g c ; h"
    assert task.prompt == "<goal> ; b a ; g h"


def test_oracle_of_the_example(taskset, task):
    plan, act = taskset.demonstrate(task)
    # stacks as early as it can
    assert (plan.role, plan.text) == ("plan", "clear a on a b clear g on h g </plan>")
    assert (act.role, act.text) == (
        "act",
        "unstack b a put b pick a stack a b unstack c g put c pick h stack h g </act>",
    )
    assert taskset.oracle_plan(task) == plan.text


def test_moves_down_one_tower_are_one_clear(taskset, tmp_path):
    tower = (
        EXAMPLE.replace("(ontable g)", "(on g b)")
        .replace("(clear b)", "")
        .replace("(on h g) (on a b)", "(on a h)")
    )
    task = taskset.problems(write(tmp_path / "f.jsonl", {"id": "t", "pddl": tower}))[0]  # towers a b g c | h
    assert taskset.oracle_plan(task) == "clear a on a h </plan>"
    assert (
        taskset.demonstrate(task)[1].text
        == "unstack c g put c unstack g b put g unstack b a put b pick a stack a h </act>"
    )


BLOCK = "expected a block of this problem (a b g c h)"
PLANS = [  # text, does it parse, does it reach the goal, part of the reason
    (PLAN, 1, 1, ""),
    ("clear g on h g </plan>", 1, 0, "the goal fact (on a b) does not hold at the end"),
    ("clear b on a b </plan>", 1, 0, "subgoal 1 'clear b': b is clear already"),
    ("clear g on h g on h g </plan>", 1, 0, "subgoal 3 'on h g': h is on g already"),
    ("on h g </plan>", 1, 0, "subgoal 1 'on h g': g is not clear (c is on it)"),
    ("on a h </plan>", 1, 0, "subgoal 1 'on a h': a is not clear (b is on it)"),
    ("on a </plan>", 0, 0, f"word 3: found '</plan>', {BLOCK}"),
    ("clear on a b </plan>", 0, 0, f"word 2: found 'on', {BLOCK}"),
    ("clear g on h", 0, 0, f"word 5: found the end of the text, {BLOCK}"),
    ("clear g", 0, 0, "word 3: found the end of the text, expected 'clear', 'on' or '</plan>'"),
    ("", 0, 0, "word 1: found the end of the text, expected 'clear' or 'on'"),
    ("</plan>", 0, 0, "word 1: found '</plan>', expected 'clear' or 'on'"),
    ("a b </plan>", 0, 0, "word 1: found 'a', expected 'clear' or 'on'"),
    ("stack a b </plan>", 0, 0, "word 1: found 'stack', expected 'clear' or 'on'"),
    ("on d b </plan>", 0, 0, f"word 2: found 'd', {BLOCK}"),
    ("on a a </plan>", 0, 0, "word 3: 'a' stands here a second time"),
    (PLAN + " on a b", 0, 0, "word 13: found 'on', expected the end of the text"),
]


@pytest.mark.parametrize(("text", "parses", "reaches", "reason"), PLANS)
def test_plans_are_parsed_strictly_and_executed_exactly(taskset, task, text, parses, reaches, reason):
    parsed, judged = taskset.parse_plan(task, text), taskset.judge_plan(task, text)
    assert (parsed.score, judged.score) == (parses, reaches)
    assert judged.reason == reason
    assert parsed.reason == ("" if parses else reason)


ACTS_CASES = [  # text, executable, goal, optimal, reason of the episode
    (ACTS, True, True, True, ""),
    (ACTS.replace("</act>", "unstack a b put a pick a stack a b </act>"), True, True, False, ""),
    ("pick h put h </act>", True, False, False, "the goal fact (on a b) does not hold at the end"),
    ("pick h stack h g </act>", False, False, False, "step 2: 'stack h g' needs (clear g)"),
    ("pick h pick c </act>", False, False, False, "step 2: 'pick c' needs (ontable c)"),
    ("unstack b a unstack c g </act>", False, False, False, "step 2: 'unstack c g' needs (handempty)"),
    ("put h </act>", False, False, False, "step 1: 'put h' needs (holding h)"),
    ("unstack c b put c </act>", False, False, False, "step 1: 'unstack c b' needs (on c b)"),
    ("pick h stack h </act>", False, False, False, f"word 5: found '</act>', {BLOCK}"),
    (
        "pick h",
        False,
        False,
        False,
        "word 3: found the end of the text, expected 'pick', 'put', 'unstack', 'stack' or '</act>'",
    ),
]


@pytest.mark.parametrize(("text", "executable", "goal", "optimal", "reason"), ACTS_CASES)
def test_acts_run_under_strict_strips(taskset, task, text, executable, goal, optimal, reason):
    assert taskset.judge_acts(task, text) == {"executable": executable, "goal": goal, "optimal": optimal}
    outcome = opened(taskset, task, 0, noise=False).step(text)
    assert (outcome.done, outcome.success, outcome.reason) == (True, goal, reason)


FOLLOWS = [
    (PLAN, [ACTS], 1, ""),
    ("clear g </plan>", ["unstack c g put c </act>"], 1, ""),  # a wrong plan, rightly followed
    (PLAN, ["unstack c g put c </act>"], 0, "the plan asks for 8 steps, found 2"),
    (
        "clear a on a b clear g on h g </plan>",
        [ACTS],
        0,
        "step 1: the plan asks for 'unstack b a', found 'unstack c g'",
    ),
    ("on h g </plan>", ["pick h stack h g </act>"], 0, "the plan cannot be carried out: " + PLANS[4][3]),
    ("on h </plan>", [ACTS], 0, f"the plan: word 3: found '</plan>', {BLOCK}"),
    (PLAN, ["pick </act>"], 0, f"word 2: found '</act>', {BLOCK}"),
    (PLAN, [], 0, "expected 1 turn of acts, found 0"),
]


@pytest.mark.parametrize(("plan", "acts", "score", "reason"), FOLLOWS)
def test_follows_is_about_the_plan_and_not_about_the_goal(taskset, task, plan, acts, score, reason):
    verdict = taskset.follows(task, plan, acts)
    assert (verdict.score, verdict.reason) == (score, reason)


def test_noise_slips_and_flips_only_where_asked_for(task):
    def step(noise, **options):
        outcome = opened(Blocksworld((8,), **options), task, 0, noise=noise).step(ACTS)
        return outcome.success, outcome.reason

    assert step(True, slip=1.0) == (False, "step 3: 'unstack b a' needs (handempty) (step 2 slipped)")
    assert step(True, flip=1.0) == (False, "flipped by noise; truly: success")
    assert step(False, slip=1.0, flip=1.0) == (True, "")
    assert step(True) == (True, "")
    both = [opened(Blocksworld((8,), slip=0.1), task, i, noise=True).step(ACTS).success for i in range(400)]
    assert 0.56 < sum(both) / 400 < 0.75  # 0.9 ** 4 = 0.656, four standard errors of 0.024 each way


def test_an_episode_is_used_once(taskset, task):
    episode = opened(taskset, task, 0, noise=False)
    episode.step(ACTS)
    with pytest.raises(ForethoughtError, match="task 'one' is over"):
        episode.step(ACTS)


# --- the class of a problem, and the length of its best plan ---


def test_class_code_is_equality_up_to_renaming():
    """Against the definition, on all 5,329 pairs of states of 4 blocks: the least of the 24 renamings."""
    chain_sets = [goal for goal in _maps(4)]
    assert len(chain_sets) == 73
    by_code, by_definition = {}, {}
    for below in chain_sets:
        for goal in chain_sets:
            names = ((below, goal), min(_renamed(below, goal, order) for order in permutations(range(4))))
            by_code.setdefault(class_code(below, goal), set()).add(names[1])
            by_definition.setdefault(names[1], set()).add(class_code(below, goal))
    assert len(by_code) == len(by_definition) == 228
    assert all(len(found) == 1 for found in (*by_code.values(), *by_definition.values()))


def _maps(n, start=()):
    if len(start) == n:
        feet = [b for b in range(n) if start[b] == FREE]
        over = {y: x for x, y in enumerate(start) if y != FREE}
        reached = 0
        for block in feet:
            while block is not None:
                reached, block = reached + 1, over.get(block)
        if reached == n:
            yield start
        return
    for y in range(FREE, n):
        if y == FREE or (y not in start and y != len(start)):
            yield from _maps(n, (*start, y))


def _renamed(below, goal, order):
    new = {FREE: FREE} | {block: order[block] for block in range(len(order))}
    return tuple(tuple(new[under[order.index(i)]] for i in range(len(order))) for under in (below, goal))


def test_number_of_classes():
    assert [len(classes(n)) for n in BLOCKS[:3]] == [22, 210, 2069]
    assert (
        [max(level for _, _, level, _ in classes(n)) for n in BLOCKS[:3]]
        == [top_level(n) for n in BLOCKS[:3]]
        == [8, 12, 16]
    )


@pytest.mark.parametrize("blocks", [3, 4, 5])
def test_levels_are_the_shortest_by_a_search_over_all_primitives(blocks):
    """Breadth first over every legal action of the STRIPS domain, the moves that `solve` never tries
    included."""
    names = words.LETTERS[:blocks]
    pairs = list(permutations(names, 2))
    steps = [(verb, x) for verb in ("pick", "put") for x in names] + [
        (verb, *p) for verb in ("unstack", "stack") for p in pairs
    ]
    lengths: dict = {}
    for heights, goal, level, _ in classes(blocks):
        if heights not in lengths:
            start = words.state(Problem(names=names, below=below_of(heights), goal=(FREE,) * blocks))
            lengths[heights], queue = {start: 0}, [start]
            for state in queue:
                for step in steps:
                    trace = execute(words.domain(), state, [step])
                    if trace.executable and trace.state not in lengths[heights]:
                        lengths[heights][trace.state] = lengths[heights][state] + 1
                        queue.append(trace.state)
        wanted = {("on", names[x], names[y]) for x, y in enumerate(goal) if y != FREE}
        assert level == min(length for state, length in lengths[heights].items() if wanted <= state), (
            heights,
            goal,
        )


# --- the generator ---


def test_tasks_have_their_level_and_their_split_and_round_trip():
    taskset = Blocksworld(blocks=[4, 5])
    known, seen = set(taskset.vocabulary()), {"train": set(), "eval": set()}
    for split in ("train", "eval"):
        for seed in range(400):
            level = taskset.levels[seed % len(taskset.levels)]
            (task,) = taskset.family(random.Random(seed), [level], split)
            plan, act = taskset.demonstrate(task)
            assert task.level == level and len(task.state.names) in (4, 5)
            assert taskset.judge_acts(task, act.text) == {"executable": True, "goal": True, "optimal": True}
            assert (
                taskset.judge_plan(task, plan.text).score
                == taskset.follows(task, plan.text, [act.text]).score
                == 1.0
            )
            assert (
                len(plan.text.split()) < taskset.budgets["plan"]
                and len(act.text.split()) < taskset.budgets["act"]
            )
            assert set(f"{task.context} {task.prompt} {plan.text} {act.text}".split()) <= known
            seen[split].add(class_hash(task.state))
    assert not seen["train"] & seen["eval"] and not (seen["train"] | seen["eval"]) & held_out()
    assert {split_of(h) for h in seen["train"]} == {"train"} and len(seen["train"]) > 200


def test_a_family_shares_its_initial_state_and_a_seed_repeats_it(taskset):
    family = taskset.family(random.Random(7), [8, 2, 4, 8], "train")
    assert [task.level for task in family] == [8, 2, 4, 8]
    assert len({task.context for task in family}) == 1 and len({task.prompt for task in family}) == 4
    assert len({task.id for task in family}) == 4
    assert family == taskset.family(random.Random(7), [8, 2, 4, 8], "train")
    assert family != taskset.family(random.Random(8), [8, 2, 4, 8], "train")


def test_goals_of_one_level_differ_where_there_are_enough(taskset):
    for seed in range(30):
        family = taskset.family(random.Random(seed), [8] * 5, "train")
        assert len({class_hash(task.state) for task in family}) == 5
    # there are 4
    assert len({class_hash(task.state) for task in taskset.family(random.Random(0), [2] * 50, "eval")}) < 50


def test_levels_that_no_initial_state_has_together_get_their_own():
    taskset = Blocksworld(
        (2, 8, 12), blocks=[4]
    )  # 12 needs a single tower, in which one move reaches no goal
    family = taskset.family(random.Random(0), [12, 2, 12], "train")
    assert [task.level for task in family] == [12, 2, 12]
    assert family[0].context == family[2].context != family[1].context
    assert len({task.context for task in taskset.family(random.Random(0), [8, 12], "train")}) == 1


def test_budgets_by_hand(taskset):
    assert Blocksworld((2, 4)).budgets == {"plan": 3 * 4 + 1, "act": 6 * 4 + 1}  # 2 moves and 2 to spare
    assert taskset.levels == (2, 4, 6, 8, 10, 12, 14, 16) and taskset.budgets == {"plan": 31, "act": 61}


def test_excluded_classes_are_in_no_split(tmp_path):
    hashes = {h for _, _, level, h in classes(4) if level == 12 and h not in held_out()}
    assert {split_of(h) for h in hashes} == {"train"} and len(hashes) == 1
    (task,) = Blocksworld((12,), blocks=[4]).family(random.Random(0), [12], "train")
    path = write(tmp_path / "test.jsonl", {"id": "x", "pddl": pddl(task.state, ["w", "x1", "y-2", "q"])})
    with pytest.raises(RecipeError, match="task.levels: level 12 has no train class over"):
        Blocksworld((12,), blocks=[4], exclude=str(path))


BAD_OPTIONS = [
    ({"bloks": [4]}, "task.bloks: unknown option of blocksworld 'bloks'; did you mean 'blocks'?"),
    ({"blocks": [2]}, "task.blocks: [2] is not a list of numbers among [3, 4, 5, 6]"),
    ({"blocks": []}, "task.blocks: [] is not"),
    ({"blocks": 4}, "task.blocks: expected a list, found the whole number 4"),
    ({"blocks": [True]}, "task.blocks.0: expected a whole number, found the truth value true"),
    ({"blocks": [3]}, "task.blocks: no class over [3] blocks is left for training; add 4, 5 or 6"),
    ({"levels": (3,)}, "task.levels: 3 is not an even number from 2 to 16"),
    ({"levels": (18,)}, "task.levels: 18 is not an even number from 2 to 16 (blocks = [4, 5])"),
    ({"levels": (14,), "blocks": [4]}, "task.levels: 14 is not an even number from 2 to 12"),
    ({"levels": ("4",)}, "task.levels: '4' is not"),
    ({"slip": 1.5}, "task.slip: must be between 0 and 1, found 1.5"),
    ({"flip": "no"}, "task.flip: expected a number, found the text 'no'"),
    ({"slip": float("nan")}, "task.slip: expected a finite number, found nan"),
    ({"exclude": 3}, "task.exclude: expected text, found the whole number 3"),
    ({"exclude": "/no/such.jsonl"}, "task.exclude: /no/such.jsonl: no such file"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options_are_refused_with_value_and_remedy(options, message):
    with pytest.raises(RecipeError) as caught:
        Blocksworld(**options)
    assert message in str(caught.value)


def test_a_level_that_the_recipe_did_not_name_is_refused():
    with pytest.raises(RecipeError, match=r"level 8 is not one of the task's \[2, 4\]"):
        Blocksworld((2, 4)).family(random.Random(0), [8], "train")


# --- files ---


def test_other_names_become_letters_in_their_order(taskset, tmp_path, task):
    text = pddl(task.state, ["red", "blue", "b1", "b2", "b3"])  # listed backwards: b3 b2 b1 blue red
    other = taskset.problems(write(tmp_path / "f.jsonl", {"id": "other", "pddl": text.upper()}))[0]
    assert other.context == "<init> ; a ; c b ; e d"  # h; g c; a b
    assert other.prompt == "<goal> ; c a ; d e" and other.level == 8
    assert class_hash(other.state) == class_hash(task.state)


BROKEN_LINES = [
    ("{", "f.jsonl:2: no JSON (Expecting"),
    ("[" * 100_000, "f.jsonl:2: JSON nested too deeply"),
    ({"id": "two"}, "f.jsonl:2: expected"),
    ({"id": True, "pddl": EXAMPLE}, "'id' is not a text"),
    ([1], "f.jsonl:2: expected"),
    ({"id": "one", "pddl": EXAMPLE}, "f.jsonl:2: the id 'one' was seen at "),
    ({"id": "two", "pddl": EXAMPLE[:-1]}, "f.jsonl:2: problem 'two': pddl:1: the '(' here is never closed"),
    (
        {"id": "two", "pddl": EXAMPLE.replace("on h g", "under h g")},
        "f.jsonl:2: problem 'two': unknown predicate 'under'",
    ),
    ({"id": "two", "pddl": EXAMPLE.replace("on h g", "on h")}, "(on h) has 1 arguments, 'on' takes 2"),
    (
        {"id": "two", "pddl": EXAMPLE.replace("(on h g)", "(clear h)")},
        "the goal holds (clear h); goals of this",
    ),
    ({"id": "two", "pddl": EXAMPLE.replace("(handempty)", "")}, "(handempty) is not in :init"),
    (
        {"id": "two", "pddl": EXAMPLE.replace("(ontable h)", "(holding h)")},
        "(holding h) and (handempty) are both in :init",
    ),
    (
        {"id": "two", "pddl": EXAMPLE.replace("(ontable h)", "")},
        "in :init 'h' is neither on the table nor on a block",
    ),
    (
        {"id": "two", "pddl": EXAMPLE.replace("(ontable h)", "(ontable h) (on h c)")},
        "in :init 'h' is on the table and on 'c'",
    ),
    (
        {"id": "two", "pddl": EXAMPLE.replace("(ontable h)", "(on h a)")},
        "in :init 'b' and 'h' are both on 'a'",
    ),
    (
        {"id": "two", "pddl": EXAMPLE.replace("(ontable a)", "(on a b)")},
        "in :init the blocks a b stand on each other in a circle",
    ),
    ({"id": "two", "pddl": EXAMPLE.replace("(clear h)", "")}, "in :init 'h' is neither clear nor covered"),
    (
        {"id": "two", "pddl": EXAMPLE.replace("(clear h)", "(clear h) (clear g)")},
        "in :init 'g' is clear and covered",
    ),
    (
        {"id": "two", "pddl": EXAMPLE.replace("(on a b)", "(on a b) (on b a)")},
        "in :goal the blocks a b stand on each other",
    ),
    (
        {"id": "two", "pddl": EXAMPLE.replace("(on a b)", "(on a b) (on a c)")},
        "in :goal 'a' is on 'b' and on 'c'",
    ),
]


@pytest.mark.parametrize(("line", "message"), BROKEN_LINES)
def test_broken_line_is_refused_with_file_line_and_reason(taskset, tmp_path, line, message):
    with pytest.raises(UserError) as caught:
        taskset.problems(write(tmp_path / "f.jsonl", {"id": "one", "pddl": EXAMPLE}, line))
    assert message in str(caught.value)


def test_nine_blocks_an_empty_file_and_no_file(taskset, tmp_path):
    nine = Problem(names=tuple("abcdefghi"), below=(FREE,) * 9, goal=(1, *(FREE,) * 8))
    with pytest.raises(UserError, match="problem 'nine': 9 blocks; this family has letters for 8"):
        taskset.problems(write(tmp_path / "f.jsonl", {"id": "nine", "pddl": pddl(nine, nine.names)}))
    with pytest.raises(UserError, match="holds no problems"):
        taskset.problems(write(tmp_path / "f.jsonl", ""))
    with pytest.raises(UserError, match="no such file"):
        taskset.problems(tmp_path / "none.jsonl")


def test_a_goal_that_holds_already_is_level_0_with_an_empty_plan(taskset, tmp_path):
    task = taskset.problems(
        write(tmp_path / "f.jsonl", {"id": "0", "pddl": EXAMPLE.replace("(on h g) (on a b)", "(on b a)")})
    )[0]
    assert (task.level, taskset.oracle_plan(task)) == (0, "</plan>")
    assert taskset.judge_plan(task, "</plan>").score == 1.0 and solve(task.state.below, task.state.goal) == []


def test_command_writes_hashes_and_refuses_a_broken_file(tmp_path, capsys, task):
    path = write(
        tmp_path / "f.jsonl", {"id": "1", "pddl": EXAMPLE}, {"id": "2", "pddl": pddl(task.state, "hgcba")}
    )
    assert main([str(path)]) == 0
    assert capsys.readouterr().out.split("\n")[2:] == [class_hash(task.state), ""]  # two problems, one class
    assert main([str(write(path, "{"))]) == main([]) == 2
