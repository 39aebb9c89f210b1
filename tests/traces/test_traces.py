"""Saved trees found again: what is seen in one, which of them a filter lets through, and the same answer from
the page and the terminal."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from conftest import desk_recipe, fake_desk, lines_of, nothing

from forethought.cli import main
from forethought.core.errors import RecipeError, UserError
from forethought.recipe.check import check
from forethought.runs import run
from forethought.traces.files import read_trees, saved_steps
from forethought.traces.find import Filter, find
from forethought.traces.judged import DISAGREEMENTS, MEASURES, SIGNS, judge, reason_group

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "trees.py"
ROOT = {"id": 0, "parent": None, "role": None, "text": "PROMPT", "status": "given"}


def node(id_, parent, role, score=None, status="finished", reason="", **parts):
    parts |= {} if score is None else {"valid": score} if role == "plan" else {"outcome": score}
    return {
        "id": id_,
        "parent": parent,
        "role": role,
        "text": f"{role}{id_}",
        "status": status,
        "reason": reason,
        "reward_parts": parts,
        "tokens": 10,
        "policy": None if status == "given" else "base",
        "version": 3,
        "reward": score,
        "advantage": 0.25,
    }


def tree(*plans, step=1, stage=0, level=3, task="t-1", prompt="GOAL a", free_text=False):
    """Plans as (valid, [outcomes]); a plan whose outcomes are None was refused."""
    nodes = [ROOT]
    for valid, outcomes in plans:
        refused = outcomes is None
        nodes.append(
            node(
                len(nodes),
                0,
                "plan",
                valid,
                "refused" if refused else "finished",
                "word 2: found 'x'" if refused else "",
            )
        )
        plan = len(nodes) - 1
        for outcome in outcomes or ():
            nodes.append(
                node(len(nodes), plan, "act", outcome, reason="" if outcome else "nothing is at x3 y4")
            )
    return {
        "step": step,
        "stage": stage,
        "level": level,
        "task": task,
        "prompt": prompt,
        "domain": "made",
        "free_text": free_text,
        "nodes": nodes,
    }


def verdicts(judged):
    return [n["verdict"] for n in judged["nodes"]]


# what is seen in a tree -------------------------------------------------------------------------------------


def test_a_plan_is_judged_by_the_executor_and_by_what_was_done_under_it():
    judged = judge(
        {
            "step": 1,
            "nodes": [
                ROOT,
                node(1, 0, "plan", 1.0),
                node(2, 1, "act", 0.0),
                node(3, 1, "act", 1.0),
                node(4, 0, "plan", 0.0),
                node(5, 4, "act", 0.0),
                node(6, 0, "plan", 0.0, "refused"),
                node(7, 0, "plan", 1.0),
                node(8, 7, "act", None, "failed"),
                node(9, 0, "plan", None, "given"),
                node(10, 9, "act"),
                node(11, 0, "plan", 0.0, "truncated", format=0.0),
                node(12, 9, "act"),
                node(13, 12, None, None, "given"),
                node(14, 13, "act", 1.0),
            ],
        }
    )
    assert verdicts(judged) == [
        "",
        "execution_failed",
        "wrong",
        "right",
        "wrong",
        "wrong",
        "refused",
        "right",
        "failed",
        "right",
        "unjudged",
        # a cut off plan is refused too; a turn with more to come is not judged
        "refused",
        "",
        "",
        "right",
    ]
    assert judged["signs"] == [
        "disagree",
        "split",
        "wrong",
        "execution_failed",
        "refused",
        "truncated",
        "broke",
    ]
    assert [n["executions"] for n in judged["nodes"] if n["role"] == "plan"] == [
        [1, 2],
        [0, 1],
        [0, 0],
        [0, 0],
        [1, 1],
        [0, 0],
    ]
    assert judge({"step": 1, "nodes": [ROOT, node(1, 0, "plan", 1.0)]})["signs"] == []


@pytest.mark.parametrize(
    ("plans", "signs", "number"),
    [
        ([(1.0, [0, 0]), (1.0, [1, 1])], ["disagree", "valid_failed", "lone", "execution_failed"], 2),
        ([(0.0, [0, 1]), (1.0, [1, 1])], ["disagree", "invalid_solved", "split", "wrong"], 2),
        ([(0.0, [1]), (0.0, [0])], ["disagree", "invalid_solved", "lone", "wrong"], 2),
        ([(1.0, [1, 1, 0]), (1.0, [1, 1, 0])], ["disagree", "split", "execution_failed"], 2),
        ([(1.0, [1, 0]), (0.0, None)], ["disagree", "split", "lone", "execution_failed", "refused"], 2),
        # a refused plan is one that never works
        # a third is not half
        ([(1.0, [1, 0, 0]), (0.0, [0])], ["disagree", "split", "wrong", "execution_failed"], 1),
        ([(1.0, [1])], [], 0),  # alone among no others
        ([(1.0, [1, 1]), (0.0, [0, 0])], ["disagree", "lone", "wrong"], 1),
        ([(1.0, []), (0.0, [])], ["wrong"], 0),  # plans that nobody executed
    ],
)
def test_where_plan_and_outcome_disagree(plans, signs, number):
    judged = judge(tree(*plans))
    assert (judged["signs"], judged["disagreements"]) == (signs, number)


def test_a_plan_in_free_words_is_accepted_not_right():
    """Nothing executes it, so it can neither be right while its executions fail, nor wrong while they
    succeed."""
    judged = judge(tree((1.0, [0, 0]), (1.0, [1, 0]), (0.0, None), free_text=True))
    assert [n["verdict"] for n in judged["nodes"] if n["role"] == "plan"] == [
        "accepted",
        "accepted",
        "refused",
    ]
    assert judged["signs"] == ["disagree", "split", "lone", "refused"]


def test_quality_is_counted_where_there_are_executions():
    judged = judge(
        {
            "step": 1,
            "nodes": [
                ROOT,
                node(1, 0, "plan", 1.0, outcome=0.9, analytic=0.7),
                node(2, 1, "act", 1.0),
                node(3, 1, "act", 0.0),
                node(4, 0, "plan", 0.0, "refused", outcome=0.0),
                node(5, 0, "plan", 1.0),
            ],
        }
    )
    assert [n["quality"] for n in judged["nodes"] if n["role"] == "plan"] == [
        {"outcome": 0.5, "valid": 1.0, "analytic": 0.7},
        {"outcome": 0.0, "valid": 0.0},
        {"valid": 1.0},
    ]
    assert judged["sampled"] == 50


@pytest.mark.parametrize(
    ("plans", "solved"),
    [
        ([(1.0, [0, 1])], True),
        ([(1.0, [0, 0])], False),
        ([(0.0, None), (0.0, None)], False),
        ([(1.0, [])], None),
        ([(0.0, None), (1.0, [])], None),
    ],
)
def test_a_task_is_solved_by_an_execution_and_failed_without_one(plans, solved):
    assert judge(tree(*plans))["solved"] is solved


@pytest.mark.parametrize(
    ("reason", "group"),
    [
        ("nothing is at x3 y4", "nothing is at … …"),
        (
            "word 12: found 'v5', expected a widget's name or '</plan>'",
            "found …, expected a widget's name or …",
        ),
        (
            "character 140: '\\boxed' inside '<plan>': a plan holds no answer",
            "… inside …: a plan holds no answer",
        ),
        ("expected 72, found \\frac{1}{2}", "expected …, found …"),
        ("k was clicked before q or e was open", "… was clicked before … or … was open"),
        ("timed out: comparing took more than 5.5 s", "timed out: comparing took more than … …"),
        ("x" * 200, "x" * 99 + "…"),
        ("the acting does not\nend", "the acting does not end"),
    ],
)
def test_reasons_of_one_kind_read_alike(reason, group):
    assert reason_group(reason) == group


# filters, in Python and on the page -------------------------------------------------------------------------

TREES = [
    tree((1.0, [0, 0]), (1.0, [1, 1]), step=1, task="desk-1"),
    tree((1.0, [1, 0, 0, 0, 0]), (0.0, None), step=1, stage=1, level=4, task="desk-2"),
    tree((0.0, [0]), step=2, stage=1, level=4, task="Desk-3", prompt="sell 7 tickets"),
    tree((1.0, []), step=3, stage=1, level=5, task="gsm8k-4", prompt="Tickets"),
]
QUESTIONS = [  # the filter in Python, as the page holds it, its fragment, the trees that pass
    ({}, {}, "#trees", [0, 1, 2, 3]),
    ({"step": 1}, {"step": 1}, "#trees?step=1", [0, 1]),
    ({"stage": 1, "level": 4}, {"stage": 1, "level": 4}, "#trees?stage=1&level=4", [1, 2]),
    ({"stage": 0}, {"stage": 0}, "#trees?stage=0", [0]),
    ({"task": "desk"}, {"task": "desk"}, "#trees?task=desk", [0, 1, 2]),
    ({"task": "tickets"}, {"task": "tickets"}, "#trees?task=tickets", [2, 3]),
    ({"reason": "nothing is at"}, {"reason": "nothing is at"}, "#trees?reason=nothing+is+at", [0, 1, 2]),
    ({"reason": "at x3"}, {"reason": "at x3"}, "#trees?reason=at+x3", [0, 1, 2]),
    ({"signs": ("refused", "split")}, {"signs": ["refused", "split"]}, "#trees?signs=refused%2Csplit", [1]),
    ({"signs": ("disagree",)}, {"signs": ["disagree"]}, "#trees?signs=disagree", [0, 1]),
    ({"solved": True}, {"solved": True}, "#trees?solved=yes", [0, 1]),
    ({"solved": False}, {"solved": False}, "#trees?solved=no", [2]),
    ({"quality": (0.2, 0.8)}, {"low": 0.2, "high": 0.8}, "#trees?low=0.2&high=0.8", [1]),
    ({"quality": (0.5, 1.0)}, {"low": 0.5}, "#trees?low=0.5", [0]),
    ({"quality": (0.0, 0.0)}, {"low": 0, "high": 0}, "#trees?low=0&high=0", [0, 2]),
    (
        {"quality": (0.0, 0.5), "measure": "valid"},
        {"high": 0.5, "measure": "valid"},
        "#trees?high=0.5&measure=valid",
        [1, 2],
    ),
]


def test_what_a_filter_lets_through():
    judged = [judge(one) for one in TREES]
    for asked, _, _, expected in QUESTIONS:
        assert [i for i, one in enumerate(judged) if Filter(**asked).passes(one)] == expected, asked


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run JavaScript")
def test_the_page_filters_as_the_terminal_does_and_its_address_says_it(tmp_path):
    rules = (
        resources.files("forethought.report").joinpath("assets", "tree_filter.js").read_text(encoding="utf-8")
    )
    trees = json.dumps([judge(one) | {"place": i} for i, one in enumerate(TREES)])
    asked = json.dumps([page for _, page, _, _ in QUESTIONS])
    (tmp_path / "ask.js").write_text(f"""{rules}
const trees = {trees}, signs = {json.dumps(list(SIGNS))}, measures = {json.dumps(MEASURES)};
const answers = {asked}.map((part) => {{
  const f = {{ ...NO_FILTER, ...part }}, said = toFragment(f);
  const back = fromFragment(said, signs, measures);
  return [trees.map((tree, i) => passes(tree, f) ? i : -1).filter((i) => i >= 0), said,
          JSON.stringify(back || NO_FILTER) === JSON.stringify(f), toCommand(f)];
}});
const order = (name) => select(trees, {{ ...NO_FILTER, order: name }}).map((tree) => tree.place);
const oddly = "#trees?signs=refused,nothing&order=best&low=x&measure=luck&step=&solved=maybe";
const odd = fromFragment(oddly, signs, measures);
const asks = (part) => wantedNode({{ ...NO_FILTER, ...part }});
console.log(JSON.stringify({{
  answers, orders: Object.keys(ORDERS).map(order), odd, other: fromFragment("#curves", signs, measures),
  nodes: trees[1].nodes.filter(asks({{ signs: ["refused", "split"] }})).map((n) => n.id),
  any: asks({{ task: "x" }}),
  quoted: toCommand({{ ...NO_FILTER, task: "it's" }}) }}));
""")
    done = subprocess.run(
        ["node", str(tmp_path / "ask.js")], capture_output=True, text=True, timeout=60, check=True
    )
    said = json.loads(done.stdout)
    assert [answer[:3] for answer in said["answers"]] == [
        [expected, fragment, True] for _, _, fragment, expected in QUESTIONS
    ]
    assert said["orders"] == [[3, 2, 0, 1], [0, 1, 2, 3], [0, 1, 3, 2], [2, 0, 1, 3], [1, 0, 2, 3]]
    assert {k: v for k, v in said["odd"].items() if v} == {
        "signs": ["refused"],
        "measure": "outcome",
        "order": "newest",
    }
    assert (said["other"], said["nodes"], said["any"], said["quoted"]) == (
        None,
        [1, 7],
        None,
        r"forethought traces DIR --task 'it'\''s'",
    )
    commands = [answer[3].removeprefix("forethought traces DIR").strip() for answer in said["answers"]]
    assert (
        commands[8] == "--sign refused --sign split"
        and commands[11] == "--failed"
        and commands[2] == "--stage 2 --level 4"
    )
    assert commands[-1] == "--quality 0-0.5 --measure valid"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"signs": ("refuse",)}, "unknown sign 'refuse'; did you mean 'refused'"),
        ({"measure": "luck"}, "unknown measure of quality 'luck'"),
        ({"quality": (0.8, 0.2)}, "the lower end first; found 0.8-0.2"),
        ({"quality": (0.0, 2.0)}, "between 0 and 1"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Filter(**fields)


def test_every_sign_has_a_label_and_disagreements_are_signs():
    assert set(DISAGREEMENTS) < set(SIGNS) and all(label and about for label, about in SIGNS.values())


# on disk ----------------------------------------------------------------------------------------------------


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.fixture
def saved(tmp_path):
    """A run directory with the trees of above, by their steps."""
    (tmp_path / "recipe.json").write_text("{}")
    for step in (1, 2, 3):
        write(tmp_path / "trees" / f"step-{step:06d}.jsonl.gz", [one for one in TREES if one["step"] == step])
    return tmp_path


def test_trees_are_found_by_step_and_place(saved):
    found = [(one["task"], passes) for one, passes in find(saved, Filter(level=4), [])]
    assert found == [("desk-1", False), ("desk-2", True), ("Desk-3", True), ("gsm8k-4", False)]
    (saved / "trees" / "step-000001.jsonl.gz").write_text("not gzip")
    # the file of its step alone is read
    assert [one["task"] for one, _ in find(saved, Filter(step=2), [])] == ["Desk-3"]
    with pytest.raises(UserError, match="no trees of step 7; the nearest step with trees is 3"):
        next(find(saved, Filter(step=7), []))
    with pytest.raises(UserError, match="step-000001.jsonl.gz cannot be read"):
        next(find(saved, Filter(), []))


def test_part_of_a_file_can_be_read(saved):
    path = write(saved / "trees" / "step-000004.jsonl.gz", TREES)
    assert [one["task"] for one in read_trees(path, [], {1, 3})] == ["desk-2", "gsm8k-4"]
    assert list(saved_steps(saved)) == [1, 2, 3, 4] and saved_steps(saved / "nowhere") == {}


def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(saved):
    path = write(
        saved / "trees" / "step-000004.jsonl.gz",
        [one | {"prompt": str(i) * 5000} for i, one in enumerate(TREES * 50)],
    )
    path.write_bytes(path.read_bytes()[:-400])
    notes = []
    assert 0 < len(read_trees(path, notes)) < 200 and notes == [
        "step-000004.jsonl.gz is cut off: its last trees are missing."
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"nodes": []}, "'step' must be a whole number, not None"),
        ({"step": 1, "nodes": [{"id": [1]}]}, "'nodes' must be a list of objects with an id"),
        ({"step": 1, "nodes": [node(1, 0, "plan")]}, "node 1 comes before its parent 0"),
        ({"step": 1, "nodes": [ROOT | {"reward_parts": 3}]}, "'reward_parts' of node 0 must be an object"),
        ([1], "line 1 is not a JSON object"),
    ],
)
def test_a_malformed_tree_is_refused_with_its_line(tmp_path, row, message):
    with pytest.raises(UserError, match=f"step-000001.jsonl.gz line 1.*{message.removeprefix('line 1 ')}"):
        read_trees(write(tmp_path / "trees" / "step-000001.jsonl.gz", [row]), [])


def test_what_is_not_as_the_run_wrote_it_is_named(saved, capsys):
    from forethought.store import Store

    store = Store(saved)
    for step in (1, 2, 3):
        store.record(saved / "trees" / f"step-{step:06d}.jsonl.gz")
    assert ask(saved, capsys, "--json")[2] == ""
    (saved / "trees" / "step-000001.jsonl.gz").unlink()
    write(
        saved / "trees" / "step-000002.jsonl.gz",
        [one | {"prompt": "other"} for one in TREES if one["step"] == 2],
    )
    write(saved / "trees" / "step-000009.jsonl.gz", [])
    code, _, said = ask(saved, capsys, "--json")
    assert code == 0 and len(said.splitlines()) == 3
    for name, what in (
        ("step-000001", "is missing"),
        ("step-000002", "were written"),
        ("step-000009", "is not among what the run wrote"),
    ):
        assert any(name in line and what in line for line in said.splitlines()), (name, said)
    assert ask(saved, capsys, "--json", "--step", "3")[2] == ""


# the verb ---------------------------------------------------------------------------------------------------


def ask(saved, capsys, *words):
    code = main(["traces", str(saved), *words])
    return code, *capsys.readouterr()


def test_trees_in_the_terminal(saved, capsys):
    code, out, _ = ask(saved, capsys, "--stage", "2", "--refused")
    assert code == 0
    assert out.splitlines() == [
        "desk-2  step 1  stage 2  level 4",
        "  1 of 5 executions succeeded · 70 tokens sampled · executions of a plan differ · plan right, "
        "an act failed · refused",
        "  task    GOAL a",
        "  plan 1  [right, an execution failed]  1 of 5 succeeded  reward 1  (valid 1)  advantage +0.250  "
        "10 tokens  base@3",
        "    plan1",
        "    act 1  [right]  reward 1  (outcome 1)  advantage +0.250  10 tokens  base@3",
        "      act2",
        *(
            line
            for i in range(2, 6)
            for line in (
                f"    act {i}  [wrong: nothing is at x3 y4]  reward 0  (outcome 0)  advantage +0.250  10 "
                f"tokens  "
                f"base@3",
                f"      act{i + 1}",
            )
        ),
        "  plan 2  [refused: word 2: found 'x']  reward 0  (valid 0)  advantage +0.250  10 tokens  base@3",
        "    plan7",
        "",
        "1 of 4 trees: disagreement 1 · executions of a plan differ 1 · plan right, an act failed 1 · "
        "refused 1",
    ]


def test_the_last_line_counts_what_is_not_shown(saved, capsys):
    _, out, _ = ask(saved, capsys, "--n", "1", "--task", "desk")
    assert out.count("tokens sampled") == 1
    assert out.splitlines()[-1].startswith("3 of 4 trees: ") and out.endswith(
        "; the first 1 are shown, --n 0 shows all\n"
    )


def test_json_is_a_line_a_tree(saved, capsys):
    _, out, _ = ask(saved, capsys, "--json", "--n", "0", "--quality", "0-0.5")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["task"] for row in rows] == ["desk-1", "desk-2", "Desk-3"] and rows[0]["signs"][:2] == [
        "disagree",
        "valid_failed",
    ]
    assert rows[0]["nodes"][1]["quality"] == {"outcome": 0.0, "valid": 1.0}
    _, out, _ = ask(saved, capsys, "--json", "--n", "1", "--disagree")
    assert [json.loads(line)["task"] for line in out.splitlines()] == ["desk-1"]


def test_long_texts_are_cut_in_the_middle_and_cannot_reach_the_terminal(saved, capsys):
    evil = tree((1.0, [1]), step=5)
    evil["nodes"][2]["text"] = "<think>\x1b[31m\n" + "so " * 600 + "\n\\boxed{4}"
    write(saved / "trees" / "step-000005.jsonl.gz", [evil])
    _, out, _ = ask(saved, capsys, "--step", "5")
    assert (
        "\x1b" not in out
        and "<think>\\x1b[31m" in out
        and "… 1,123 more characters (--full shows them) …" in out
    )
    assert "      \\boxed{4}" in out.splitlines()
    _, out, _ = ask(saved, capsys, "--step", "5", "--full")
    assert "so " * 600 in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sign", "x"], "unknown sign 'x'"),
        (["--step", "9"], "the nearest step with trees is 3"),
        (["--quality", "0-3"], "found 0-3"),
    ],
)
def test_what_the_verb_refuses(saved, capsys, words, message):
    code, _, err = ask(saved, capsys, *words)
    assert code == 2 and message in err and "Traceback" not in err


@pytest.mark.parametrize(
    "words", [["--quality", "high"], ["--n", "-1"], ["--stage", "0"], ["--solved", "--failed"]]
)
def test_a_wrong_command_line(saved, words):
    with pytest.raises(SystemExit) as stopped:
        main(["traces", str(saved), *words])
    assert stopped.value.code == 2


def test_a_directory_without_trees(tmp_path, capsys):
    code, _, err = ask(tmp_path, capsys)
    assert code == 2 and "no run here" in err
    (tmp_path / "recipe.json").write_text("{}")
    code, _, err = ask(tmp_path, capsys)
    assert code == 2 and "has saved no trees" in err


# what a run saves -------------------------------------------------------------------------------------------

STAGE = {
    "kind": "reinforce",
    "roles": ["plan", "act"],
    "until": {"steps": 4},
    "batch": 3,
    "tree": {"plan": 2, "act": 2},
}
CLOCKS = ("seconds", "tokens_per_second", "memory/")


def trained(out, **save):
    """(steps with trees, trees of each, the metrics without clocks) of a short run."""
    run.train(desk_recipe(STAGE, save={"every": 2} | save), out, nothing, engine_of=fake_desk())
    lines = [
        {k: v for k, v in line.items() if not k.startswith(CLOCKS)}
        for line in lines_of(out / "metrics.jsonl")
    ]
    return {step: len(read_trees(path, [])) for step, path in saved_steps(out).items()}, lines


def test_every_tree_of_every_step_and_none_at_all_are_the_same_run(tmp_path):
    every, lines = trained(tmp_path / "every", trees=0, trees_every=1)
    some, same = trained(tmp_path / "some", trees=1, trees_every=3)
    none, again = trained(tmp_path / "none", trees_every=0)
    # the first and the last step always, if any
    assert (every, some, none) == ({1: 3, 2: 3, 3: 3, 4: 3}, {1: 1, 3: 1, 4: 1}, {})
    assert lines == same == again and len(lines) == 5
    judged = [one for one, _ in find(tmp_path / "every", Filter(), [])]
    assert [len(one["nodes"]) for one in judged] == [
        1 + 2 + 2 * sum(n["role"] == "plan" and n["status"] == "finished" for n in one["nodes"])
        for one in judged
    ]


def test_a_run_that_was_killed_has_the_trees_of_one_that_was_not(tmp_path):
    """Killed in step 4, while it wrote the trees of it: resumed from step 2, it writes those of steps 3 and 4
    again, byte for byte."""
    trained(tmp_path / "run", trees=0, trees_every=1)
    straight = {step: path.read_bytes() for step, path in saved_steps(tmp_path / "run").items()}
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000004")
    last = saved_steps(tmp_path / "run")[4]
    last.write_bytes(straight[4][:100])
    run.resume(tmp_path / "run", nothing, engine_of=fake_desk())
    assert {step: path.read_bytes() for step, path in saved_steps(tmp_path / "run").items()} == straight


def test_trees_saved_never_and_less_than_never():
    with pytest.raises(RecipeError, match="save.trees_every"):
        check(desk_recipe(STAGE, save={"trees_every": -1}))


def test_the_cost_of_keeping_trees_is_counted_over_all_their_texts(tmp_path):
    """One solution of two characters is the prompt; two plans of 10 and an execution of 50 under each."""
    (tmp_path / "s.jsonl").write_text(json.dumps({"answer": "ab"}))
    words = [str(tmp_path / "s.jsonl"), "--tasks", "3", "--plans", "2", "--acts", "1", "--characters", "50"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[0] == "3 trees of 2 x 1, 122 characters each"
    size = re.search(r"([\d,]+) bytes a tree, ([\d.]+) bytes a character", done.stdout)
    assert float(size[2]) == pytest.approx(int(size[1].replace(",", "")) / 122, abs=0.02)


# what no run writes -----------------------------------------------------------------------------------------

HUGE = "1" * 400


def written(tmp_path, *lines: str) -> Path:
    folder = tmp_path / "trees"
    folder.mkdir(exist_ok=True)
    path = folder / "step-000001.jsonl.gz"
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))
    return path


def a_node(id_, parent, **fields):
    return {
        "id": id_,
        "parent": parent,
        "role": "act",
        "status": "ok",
        "reward_parts": {"outcome": 1},
    } | fields


@pytest.mark.parametrize(
    ("nodes", "wrong"),
    [
        ([a_node(0, None), a_node(1, 0), a_node(0, 1)], "node 0 is there twice"),
        ([a_node(0, None), a_node(0, 0)], "node 0 is there twice"),
        ([a_node(0, 0)], "node 0 comes before its parent 0"),
        ([a_node(0, 1), a_node(1, 0)], "node 0 comes before its parent 1"),
        ([a_node(0, None), a_node(1, [])], r"node 1 comes before its parent \[\]"),
        ([a_node(0, None), a_node(1, {})], "node 1 comes before its parent {}"),
        ([a_node(0, None), a_node(1, False)], "node 1 comes before its parent False"),
        ([a_node(True, None)], "'nodes' must be a list of objects with an id"),
        ([a_node("0", None)], "'nodes' must be a list"),
        ([a_node(0, None, reward_parts=[])], "'reward_parts' of node 0 must be an object"),
        (
            [a_node(0, None, reward_parts={"valid": "x"})],
            "'reward_parts' of node 0: 'valid' must be a number, not 'x'",
        ),
        ([a_node(0, None, reward_parts={"valid": None})], "'valid' must be a number, not None"),
        ([a_node(0, None, reward_parts={"valid": True})], "'valid' must be a number, not True"),
        ([a_node(0, None, reward_parts={"valid": int(HUGE)})], "'valid' must be a number, not 1111"),
        ([a_node(0, None, text=None)], "node 0: 'text' must be text, not None"),
        ([a_node(0, None, text=5)], "node 0: 'text' must be text, not 5"),
        ([a_node(0, None, role=[])], "'role' must be text"),
        ([a_node(0, None, reason=5)], "'reason' must be text, not 5"),
        ([a_node(0, None, status={})], "'status' must be text"),
        ([a_node(0, None, tokens="3")], "'tokens' must be a whole number"),
        ([a_node(0, None, tokens=-1)], "'tokens' must be a whole number"),
        ([a_node(0, None, reward="x")], "'reward' must be a number, not 'x'"),
        ([a_node(0, None, advantage=[1])], "'advantage' must be a number"),
        (5, "'nodes' must be a list of objects with an id"),
        ([5], "'nodes' must be a list of objects with an id"),
    ],
)
def test_a_tree_that_no_run_writes_is_refused_by_name_and_left_out_of_the_page(tmp_path, nodes, wrong):
    from forethought.report.trees import load_trees

    path = written(tmp_path, json.dumps(tree((1.0, [1.0]))), json.dumps({"step": 1, "nodes": nodes}))
    with pytest.raises(UserError, match=f"{path} line 2: .*{wrong}"):
        list(find(tmp_path, Filter(), []))
    notes = []
    assert (
        load_trees(tmp_path, notes)["items"] == []
        and len(notes) == 1
        and "step-000001.jsonl.gz line 2" in notes[0]
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"step": True},
        {"step": -1},
        {"step": 10**30},
        {"task": 5},
        {"prompt": []},
        {"stage": "x"},
        {"level": {}},
        {"free_text": 1},
        {"context": 5},
        {"stage": None},
        {"task": None},
    ],
)
def test_a_line_that_is_no_trees_line_is_refused(tmp_path, fields):
    with pytest.raises(UserError, match=f"line 1: {next(iter(fields))!r} must be"):
        read_trees(written(tmp_path, json.dumps(tree((1.0, [1.0])) | fields)), [])


def test_deep_nesting_is_no_json(tmp_path):
    with pytest.raises(UserError, match="line 1 is not JSON"):
        read_trees(written(tmp_path, "[" * 200_000), [])


def test_rewards_that_are_not_finite_come_back_as_they_were(tmp_path, capsys):
    from conftest import tree_of

    from forethought.store import Store

    made = tree_of([[1.0]])
    parts = {"format": 1.0, "valid": float("inf"), "outcome": float("nan")}
    import dataclasses

    nodes = [
        dataclasses.replace(n, reward_parts=parts, reward=float("-inf")) if n.role == "plan" else n
        for n in made.nodes
    ]
    Store(tmp_path).save_trees(1, 0, [dataclasses.replace(made, nodes=tuple(nodes))], [{}], lambda task: "")
    [found] = read_trees(tmp_path / "trees" / "step-000001.jsonl.gz", [])
    plan = found["nodes"][1]
    assert (
        plan["reward"] == float("-inf")
        and plan["reward_parts"]["valid"] == float("inf")
        and plan["reward_parts"]["outcome"] != plan["reward_parts"]["outcome"]
    )
    (tmp_path / "recipe.json").write_text("{}")
    assert main(["traces", str(tmp_path)]) == 0 and "-inf" in capsys.readouterr().out
    assert (
        main(["traces", str(tmp_path), "--json"]) == 0
        and json.loads(capsys.readouterr().out)["nodes"][1]["reward"] == "-Infinity"
    )


@pytest.mark.parametrize("text", ["{}", '{"seed": 5}'])
def test_eval_refuses_a_run_whose_recipe_is_another(tmp_path, text):
    from forethought.look.source import find as source_of
    from forethought.store import Store

    (tmp_path / "recipe.json").write_text('{"name": "mine"}')
    Store(tmp_path).write_start()
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(UserError, match="recipe.json is not the recipe that the run was trained with"):
        source_of(tmp_path)


# other roles, other depths ----------------------------------------------------------------------------------


def test_three_roles_are_judged_by_their_place():
    """Blink 1 -> thinks 2 (links 3, 4) and 5 (refused); blink 6 -> think 7 (link 8)."""

    def said(id_, parent, role, status="finished", **parts):
        return node(id_, parent, role, status=status, **parts) | {"branch": id_}

    judged = judge(
        {
            "step": 1,
            "nodes": [
                ROOT,
                said(1, 0, "blink", valid=1.0, outcome=0.25),
                said(2, 1, "think", outcome=0.5),
                said(3, 2, "link", outcome=1.0),
                said(4, 2, "link", outcome=0.0),
                said(5, 1, "think", "refused", outcome=0.0),
                said(6, 0, "blink", valid=0.0, outcome=1.0),
                said(7, 6, "think", outcome=1.0),
                said(8, 7, "link", outcome=1.0),
            ],
        }
    )
    assert verdicts(judged) == ["", "execution_failed", "", "right", "wrong", "refused", "wrong", "", "right"]
    assert {n["id"]: n["executions"] for n in judged["nodes"] if "executions" in n} == {
        1: [1, 2],
        2: [1, 2],
        5: [0, 0],
        6: [1, 1],
        7: [1, 1],
    }
    assert [(n["depth"], n["number"]) for n in judged["nodes"]] == [
        (0, 1),
        (0, 1),
        (1, 1),
        (2, 1),
        (2, 2),
        (1, 2),
        (0, 2),
        (1, 1),
        (2, 1),
    ]
    assert {n["id"]: n["disagrees"] for n in judged["nodes"] if n.get("disagrees")} == {
        1: ["split"],
        2: ["split", "lone"],
        6: ["invalid_solved"],
    }
    assert judged["solved"] is True and "wrong" in judged["signs"]


def test_a_second_plan_on_an_executions_branch_is_judged_where_it_stands():
    on = {"branch": 2}
    judged = judge(
        {
            "step": 1,
            "nodes": [
                ROOT,
                node(1, 0, "plan", 1.0) | {"branch": 1},
                node(2, 1, "act") | on,
                node(3, 2, None, None, "given") | on,
                node(4, 3, "plan", 0.0) | on,
                node(5, 4, "act", 1.0) | on,
            ],
        }
    )
    assert verdicts(judged) == ["", "right", "", "", "wrong", "right"]
    assert [n["executions"] for n in judged["nodes"] if "executions" in n] == [[1, 1]]
    assert [n["depth"] for n in judged["nodes"]] == [0, 0, 1, 1, 1, 1] and "wrong" in judged["signs"]


def test_trajectories_without_anything_above_them_are_executions():
    judged = judge({"step": 1, "nodes": [ROOT, node(1, 0, "act", 1.0), node(2, 0, "act", 0.0)]})
    assert verdicts(judged) == ["", "right", "wrong"] and judged["solved"] is True
    assert not any("executions" in n for n in judged["nodes"])
