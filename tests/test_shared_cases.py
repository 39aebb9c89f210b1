"""Cases of public bug reports with their right values, as each says that it is run. Those of whole runs are
tests of their own (`ELSEWHERE`)."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from hostile_server import http, ok, serving
from test_torch_chat import CHATML, MESSAGES, opening, rollouts_of, tokenizer_of, with_begin
from test_torch_tokenizer import TEXT, folder_of, written  # noqa: F401  (a fixture)
from torch_kit import engine_of, model_of, on_disk

from forethought.core.errors import UserError
from forethought.core.types import Request
from forethought.engines.torch.models.chat import ends_of, text_of
from forethought.engines.torch.models.loading import from_path
from forethought.engines.torch.models.tokenizer import read_tokenizer
from forethought.interface.result import Refusal
from forethought.learn.batches import demonstration_segments
from forethought.tasks.blocksworld import files as blocksworld_files
from forethought.tasks.blocksworld import pddl
from forethought.tasks.math import files as math_files
from forethought.tasks.math.grading import GRADERS, installed
from forethought.tasks.text import answers as math_answers

FILE = Path(__file__).parents[2] / "shared" / "cases" / "reports.jsonl"
if not FILE.exists():
    pytest.skip(f"the cases are not at {FILE}", allow_module_level=True)
CASES = {case["id"]: case for case in map(json.loads, FILE.read_text("utf-8").splitlines())}
TESTS = Path(__file__).parent

# Grading ----------------------------------------------------------------------------------------------------

PAIRS = [
    id
    for id, case in CASES.items()
    if isinstance(case["input"], dict) and set(case["input"]) == {"gold", "answer"}
]


@pytest.mark.parametrize("id", PAIRS)
def test_a_pair_is_graded_right_in_both_orders(id):
    """Where both readings exist, they are the same in both orders."""
    case = CASES[id]
    gold, answer = case["input"]["gold"], case["input"]["answer"]
    for name in ("exact", "auto") if installed() else ("exact",):
        grade = GRADERS[name]()
        said = grade(gold, answer).score
        if isinstance(case["expected"], dict) and name in case["expected"]:
            assert said == float(case["expected"][name] == "equal"), name
        assert said == grade(answer, gold).score, f"{name} is not symmetric"


def box(text: str) -> str:
    found = math_answers.boxed(text)
    return "refused" if isinstance(found, Refusal) else found.value


@pytest.mark.parametrize("id", [id for id, case in CASES.items() if case["kind"] == "extraction"])
def test_the_answer_in_a_box(id):
    wanted = CASES[id]["expected"].partition(" (")[0]
    assert box(CASES[id]["input"]) == wanted


def test_an_answer_that_cannot_be_computed_ends_and_the_next_is_graded():
    grade = GRADERS["auto" if installed() else "exact"]()
    assert grade("5", "9^{9^{9^{9}}}").score == 0.0 and grade("5", "5").score == 1.0


def test_an_answer_with_a_space_of_another_kind_is_read_from_a_file(tmp_path):
    row = {"question": "q", "answer": "-\u00a04"}
    (record,) = math_files.read(lines(tmp_path / "a.jsonl", row))
    assert GRADERS["exact"]()(record.answer, "-4").score == 1.0


@pytest.mark.parametrize("id", ["box-in-plan-1", "box-in-plan-2"])
def test_a_box_in_a_plan(id):
    from forethought.tasks.sections import tags_of
    from forethought.tasks.text.turns import Turns

    assert isinstance(Turns(tags_of(), 50).plan(CASES[id]["input"]), Refusal)


# Models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [id for id, case in CASES.items() if case["kind"] == "tokenizer-rebuilt"])
def test_the_tokenizer_of_the_files_runs(id, written, tmp_path):  # noqa: F811
    said = CASES[id]["input"]
    kind = said.partition('model_type "')[2].partition('"')[0]
    named = said.partition('tokenizer_class "')[2].partition('"')[0]
    path = folder_of(written, tmp_path, kind, **({"tokenizer_class": named} if named else {}))
    assert read_tokenizer(path, False).encode(TEXT, add_special_tokens=False) == written.encode(TEXT).ids


def said_by(template: object, messages: list = MESSAGES) -> str:
    return text_of(tokenizer_of(template), messages, "here")


def begun(tmp_path) -> bool:
    rollouts = rollouts_of(with_begin(tokenizer_of(None)), tmp_path)
    return rollouts.words.root_ids(rollouts.taskset.pool(0, "train")[0])[0] == 2


def refused(act, *words: str) -> bool:
    with pytest.raises(UserError) as error:
        act()
    return all(word in str(error.value) for word in words)


def eos() -> bool:
    tokenizer = tokenizer_of(None)
    model = model_of(vocab_size=len(tokenizer))
    model.generation_config.eos_token_id = [2, 0]
    return ends_of(tokenizer, model)[1] >= {0, 2}


UPPER = CHATML.replace("m.content", "m.content|upper")
NO_SYSTEM = CHATML.replace("for m in messages", "for m in messages if m.role != 'system'")
MODELS = {
    "bos-missing-1": begun,
    "template-opens-think-1": lambda _: said_by(opening("<think>\n")).endswith("</think>\n\n"),
    "template-loses-text-1": lambda _: refused(lambda: said_by(NO_SYSTEM), "loses"),
    "template-loses-text-3": lambda _: (
        tokenizer_of(UPPER).convert_ids_to_tokens(
            ends_of(tokenizer_of(UPPER), model_of(vocab_size=len(tokenizer_of(UPPER))))[0]
        )
        == "<|im_end|>"
    ),
    "template-crash-1": lambda _: refused(lambda: said_by("{{ tools|length }}"), "here"),
    "template-right-1": lambda _: refused(
        lambda: said_by("{{ raise_exception('System role not supported') }}"), "task.system"
    ),
    "template-right-2": lambda _: said_by(opening("<think>\n\n</think>\n\n")).endswith(
        "<think>\n\n</think>\n\n"
    ),
    "template-right-3": lambda _: said_by({"default": CHATML, "tool_use": "{{ 1 }}"}).startswith(
        "<|im_start|>"
    ),
    "eos-list-1": lambda _: eos(),
}


@pytest.mark.parametrize("id", MODELS)
def test_what_a_model_is_told(id, tmp_path):
    assert MODELS[id](tmp_path)


# Endpoints --------------------------------------------------------------------------------------------------

PLAN = "<plan>1. Find the parts.\n2. Add them.</plan>"
PLAY = {  # what the server answers in turn
    "reasoning-inline-1": [ok(f"<think>\nTwo parts.\n</think>\n\n{PLAN}")],
    "reasoning-inline-3": [ok(f"<think>\n\n</think>\n\n{PLAN}")],
    "content-parts-1": [ok([{"type": "text", "text": PLAN}])],
    "endpoint-right-1": [http("no", "429 Too Many", "Retry-After: 1"), ok(PLAN)],
    "endpoint-right-2": [http("no", "429 Too Many", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"), ok(PLAN)],
    "endpoint-right-4": [http("<html>bad</html>", "502 Bad"), ok(PLAN)],
    "endpoint-right-5": [
        http(
            json.dumps({"choices": [{"message": {"content": PLAN}, "finish_reason": "stop"}], "usage": None})
        )
    ],
    "endpoint-right-7": [],
    "endpoint-right-9": [ok("<plan>1. Zähle die Äpfel 漢.</plan>")],
    "endpoint-right-10": [ok(PLAN)],
}


def plans_of(plays, path: str = "", n: int = 1, **fields):
    from forethought.stages.distill.endpoint import Endpoint
    from forethought.stages.distill.endpoint_spec import EndpointSpec
    from forethought.stages.distill.filter import Drops, FilterSpec, admit
    from forethought.stages.distill.records import Item

    items = [
        Item(
            id=str(i),
            question="Of two parts one has 3 and one 4. How many are there?",
            chain="3 + 4 = 7",
            answer="7",
        )
        for i in range(n)
    ]
    requests, drops = [], Drops(40)
    with serving(plays, requests) as base_url:
        spec = EndpointSpec(
            base_url=base_url + path,
            model="m",
            key_env="",
            retries=2,
            first_pause=0.0,
            concurrency=1,
            **fields,
        )
        slept = []
        results = Endpoint(spec, sleep=slept.append).summarise(items)
    return admit(items, results, FilterSpec(), drops), drops, requests, slept


@pytest.mark.parametrize("id", PLAY)
def test_a_reply_is_a_plan(id):
    pytest.importorskip("httpx")
    plays = PLAY[id]
    if id == "endpoint-right-7":
        import gzip

        from hostile_server import chat

        plays = [http(gzip.compress(chat(PLAN).encode()), "200 OK", "Content-Encoding: gzip")]
    rows, drops, requests, slept = plans_of(plays, "/" if id == "endpoint-right-10" else "")
    assert len(rows) == 1, drops.examples
    if id == "endpoint-right-1":
        assert max(slept) >= 1.0
    if id == "endpoint-right-10":
        assert requests[0].startswith(b"POST /v1/chat/completions ")


def test_replies_of_no_use_end_at_give_up():
    pytest.importorskip("httpx")
    with pytest.raises(UserError, match="in a row"):
        plans_of([ok("I cannot do that.")], n=30, give_up=5)


def test_a_plan_in_the_reasoning_is_said():
    pytest.importorskip("httpx")
    rows, drops, _, _ = plans_of([ok(None, reasoning_content=PLAN)])
    assert not rows and "reasoning" in drops.examples[0].detail


def test_an_address_with_its_ending():
    pytest.importorskip("httpx")
    try:
        rows, _, requests, _ = plans_of([ok(PLAN)], "/chat/completions")
    except UserError as error:
        assert "chat/completions" in str(error)
    else:
        assert len(rows) == 1 and requests[0].startswith(b"POST /v1/chat/completions ")


# Files ------------------------------------------------------------------------------------------------------


def lines(path: Path, *rows: object) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def gold_of(tmp_path, *rows: object) -> str:
    return math_files.read(lines(tmp_path / "a.jsonl", *rows))[0].answer


def bytes_of(tmp_path, data: bytes):
    (tmp_path / "a.jsonl").write_bytes(data)
    return math_files.read(tmp_path / "a.jsonl")


DOMAIN = next(
    node.value.value
    for node in ast.parse(next(TESTS.rglob("test_strips.py")).read_text("utf-8")).body
    if isinstance(node, ast.Assign) and node.targets[0].id == "DOMAIN"
)
BLOCKS = """(define (problem p) (:domain blocksworld-4ops) (:objects a b)
(:init (ontable a) (ontable b) (clear a) (clear b) (handempty)) (:goal (and (on a b))))"""


def blocks(tmp_path, text: str = BLOCKS, id: object = "1", head: bytes = b""):
    (tmp_path / "b.jsonl").write_bytes(head + (json.dumps({"id": id, "pddl": text}) + "\n").encode())
    return list(blocksworld_files.records(tmp_path / "b.jsonl"))


Q = {"question": "How many?"}
LARGE = '{"question": "q", "answer": ' + "9" * 5000 + "}"


def nested(tmp_path) -> bool:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    row = {"prompt": [{"role": "user", "content": "q"}], "reward_model": {"ground_truth": "4"}}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (record,) = math_files.read(
        tmp_path / "a.parquet", {"problem": "prompt", "answer": "reward_model.ground_truth"}
    )
    return (record.problem, record.answer) == ("q", "4")


def columns(tmp_path) -> bool:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {"question": pa.array(["q"], pa.large_string()), "answer": pa.array(["4"]).dictionary_encode()}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    return math_files.read(tmp_path / "a.parquet")[0].answer == "4"


def typed(text: str) -> bool:
    return refused(lambda: pddl.parse_domain(text), ":")


FILES = {
    "float-gold-1": lambda p: (
        GRADERS["exact"]()(gold_of(p, '{"question": "q", "answer": 1e-7}'), "0.0000001").score == 1.0
    ),
    "lone-surrogate-1": lambda p: refused(
        lambda: gold_of(p, '{"question": "Tom \\ud83d", "answer": "7"}'), "a.jsonl:1"
    ),
    "lone-surrogate-3": lambda p: refused(
        lambda: gold_of(p, '{"question": "Tom \\ud83d", "answer": "7"}'), "a.jsonl:1"
    ),
    "bom-1": lambda p: len(blocks(p, head=b"\xef\xbb\xbf")) == 1,
    "bom-3": lambda p: len(bytes_of(p, b'\xef\xbb\xbf{"question": "q", "answer": "7"}\r\n')) == 1,
    "blank-line-1": lambda p: gold_of(p, Q | {"answer": "4"}, "") == "4",
    "int-id-1": lambda p: blocks(p, id=1)[0].id == "1",
    "gold-is-a-text-1": lambda p: refused(
        lambda: gold_of(p, Q | {"answer": "First add 2 and 3. The answer is 5."}), "a.jsonl:1"
    ),
    "empty-first-name-1": lambda p: (
        math_files.read(lines(p / "a.jsonl", '{"problem":"","question":"q","answer":"4"}'))[0].problem == "q"
    ),
    "nested-parquet-1": nested,
    "files-right-11": columns,
    "files-right-1": lambda p: (
        GRADERS["exact"]()(gold_of(p, Q | {"answer": "so\n#### 1,234"}), "1234").score == 1.0
    ),
    "files-right-3": lambda p: gold_of(p, Q | {"answer": "#### Step one\n...\n#### 18"}) == "18",
    "files-right-4": lambda p: len(bytes_of(p, b'{"question": "q", "answer": "7"}\r\n')) == 1,
    "files-right-6": lambda p: refused(lambda: gold_of(p, *[Q | {"answer": "4", "id": "x"}] * 2), ":1", ":2"),
    "files-right-7": lambda p: gold_of(p, Q | {"answer": 27.0}) == "27",
    "files-right-9": lambda p: refused(
        lambda: bytes_of(p, '{"question": "q", "answer": "7"}\n'.encode("utf-16")), "UTF-8"
    ),
    "files-right-13": lambda p: refused(lambda: gold_of(p, LARGE), "a.jsonl:1"),
    "pddl-right-1": lambda p: pddl.parse_domain(DOMAIN.upper()).name == "robot",
    "pddl-right-3": lambda p: len(blocks(p, ";; (((\n" + BLOCKS)) == 1,
    "pddl-right-4": lambda p: len(blocks(p, BLOCKS.replace("\n", "\r\n\t"))) == 1,
    "pddl-right-6": lambda p: refused(
        lambda: pddl.read_problem(BLOCKS.replace("a b)", "a b - block)", 1)), "types"
    ),
    "pddl-right-7": lambda p: (
        all(
            typed(DOMAIN.replace("(:predicates", f"({what}) (:predicates"))
            for what in (":constants a", ":functions (total-cost)")
        )
        and refused(lambda: pddl.read_problem(BLOCKS[:-1] + "(:metric minimize (total-cost)))"), ":")
    ),
    "pddl-right-9": lambda p: typed("(" * 100_000),
    "pddl-right-10": lambda p: len(blocks(p, BLOCKS.replace("(and (on a b))", "(on a b)"))) == 1,
    "pddl-right-12": lambda p: len(blocks(p, "\n\n" + BLOCKS)) == 1,
}


@pytest.mark.parametrize("id", FILES)
def test_a_file_is_read_or_refused(id, tmp_path):
    assert FILES[id](tmp_path)


# Whole runs, and what is left to other tests ----------------------------------------------------------------

ENDINGS = "test_endings.py::test_what_a_library_says_of_the_machine_is_no_bug_and_hints_can_be_pasted"
OPENS = "test_torch_files.py::test_a_checkpoint_opens_in_a_process_that_never_heard_of_this_library"
FINITE = "test_endings.py::test_weights_that_are_not_finite_are_never_saved_over_those_that_are"
ELSEWHERE = {  # case -> the tests that do what it says
    "ascii-terminal-1": "test_printable.py::test_a_terminal_that_knows_few_signs_is_no_reason_to_fail",
    "ascii-terminal-3": "test_printable.py::test_a_terminal_that_knows_few_signs_is_no_reason_to_fail",
    "hint-unquoted-1": ENDINGS,
    "other-base-1": "test_torch_base.py::test_another_base_is_refused_with_both_named",
    "tied-head-adapter-1": "test_torch_base.py::test_an_adapter_on_a_tied_head_is_said",
    "resume-right-1": "test_torch_resume.py::test_sigterm_at_a_step_and_resume",
    "resume-other-data-1": "test_recipe_paths.py::test_a_changed_file_is_named_with_its_key",
    "resume-other-folder-1": "test_recipe_paths.py::test_paths_in_a_recipe_are_relative_to_it",
    "robust-right-7": OPENS,
    "robust-right-8": OPENS,
    "robust-right-11": "test_store.py::test_a_damaged_file_is_refused_by_name_and_the_one_before_is_offered",
    "robust-right-13": FINITE,
    "robust-right-14": "test_credit.py::test_equal_rewards_have_advantage_zero_exactly",
}


@pytest.mark.parametrize("place", sorted(set(ELSEWHERE.values())))
def test_the_tests_that_are_named_are_there(place):
    file, _, name = place.partition("::")
    assert name in {
        node.name
        for node in ast.parse(next(TESTS.rglob(file)).read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }


# case -> (folders of hostile_models.py, what is said of each; "" where it loads, with a note where one is
# named)
HOSTILE = {
    "robust-right-1": (("NaN in a query", "NaN in a norm"), "not finite"),
    "robust-right-2": (("weights torn",), "cannot be loaded"),
    "robust-right-4": (("a tensor missing", "a head missing"), "lacks weights"),
    "robust-right-5": (("vocab_size 5",), "do not belong together"),
    "robust-right-10": (("index inside", "weights behind a link"), ""),
    "unused-weights-1": (("a tensor too much",), "note"),
}


@pytest.mark.parametrize("id", HOSTILE)
def test_a_model_folder(id, tmp_path):
    """`pytorch_model.bin`, which the case of robust-right-10 loads, is refused: what unpickles runs code."""
    from hostile_models import FOLDERS

    names, said = HOSTILE[id]
    for name in names:
        folder = tmp_path / f"größe {name}" / "model"
        on_disk(folder, model_of())
        FOLDERS[name][0](folder)
        if said in ("", "note"):
            notes = from_path(str(folder)).notes
            assert bool(notes) == (said == "note")
        else:
            assert refused(lambda: from_path(str(folder)), said, str(folder))  # noqa: B023
    if id == "robust-right-10":
        link, folder = tmp_path / "a link", tmp_path / "pickled"
        link.symlink_to(tmp_path / "größe index inside" / "model")
        assert from_path(str(link)).model is not None
        on_disk(folder, model_of())
        FOLDERS["pickle, honest"][0](folder)
        assert refused(lambda: from_path(str(folder)), "pickles only")


def test_ids_without_a_token_are_not_drawn():
    engine = engine_of(model_of(vocab_size=1024, initializer_range=0.3), tokenizer_of(None))
    known = set(engine.tokenizer.get_vocab().values())
    outs = engine.sample([Request(policy="base", context=(3, 4), n=64, stops=(), max_tokens=5)])[0]
    assert {i for out in outs for i in out.token_ids} <= known


def test_an_end_that_is_the_padding_too_is_trained(tmp_path):
    tokenizer = tokenizer_of(None)
    tokenizer.pad_token = tokenizer.eos_token
    rollouts = rollouts_of(tokenizer, tmp_path)
    assert rollouts.words.turn("act", "7")[-1] == rollouts.engine.end == tokenizer.eos_token_id
    segments = demonstration_segments(rollouts, rollouts.taskset.pool(0, "train"), [{"plan", "act"}])
    assert {s.role for s in segments if s.weight} == {"plan"} and all(
        set(s.weight) == {1.0} for s in segments if s.role
    )


def test_an_end_in_the_configuration_alone(tmp_path):
    tokenizer = tokenizer_of(None)
    path = Path(on_disk(tmp_path, model_of(vocab_size=len(tokenizer)), tokenizer))
    (path / "generation_config.json").unlink(missing_ok=True)
    said = json.loads((path / "config.json").read_text()) | {"eos_token_id": [2, 0]}
    (path / "config.json").write_text(json.dumps(said))
    loaded = from_path(str(path))
    assert ends_of(loaded.tokenizer, loaded.model)[1] >= {0, 2}


def test_texts_of_a_run_do_not_end_the_pages_script():
    from forethought.report.page import island

    assert "<" not in island({"text": "<!--<script> </script>"})


def test_a_tree_of_one_plan_and_one_act_is_refused():
    from forethought.core.errors import RecipeError
    from forethought.recipe.check import check
    from forethought.recipe.convert import from_dict

    with pytest.raises(RecipeError):
        check(
            from_dict(
                {"stage": [{"kind": "reinforce", "tree": {"plan": 1, "act": 1}, "until": {"steps": 1}}]}
            )
        )


def test_every_case_is_run_somewhere():
    here = {
        *PAIRS,
        *MODELS,
        *PLAY,
        *FILES,
        *ELSEWHERE,
        *HOSTILE,
        "sign-space-crash-6",
        "robust-right-18",
        "box-in-plan-1",
        "box-in-plan-2",
        "unusable-to-the-end-1",
        "reasoning-content-1",
        "base-url-1",
        "padded-vocabulary-1",
        "eos-trained-1",
        "eos-list-3",
        "robust-right-16",
        "robust-right-14",
    }
    here |= {id for id, case in CASES.items() if case["kind"] in ("extraction", "tokenizer-rebuilt")}
    assert sorted(set(CASES) - here) == []
