"""Trajectories as conversations: what a model with a chat template reads and says on a path is what the
template makes of the whole, in rollouts and in demonstrations; what it has no room for is counted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from chat_kit import FAMILIES, engine, own
from conftest import scripted
from torch_kit import bpe_of, engine_of, model_of

from forethought.core.errors import UserError
from forethought.core.types import Completion, Outcome, Request, Task, Tree, Turn, Verdict
from forethought.engines.base import overlong, room_of
from forethought.envs.base import Environment
from forethought.learn.batches import demonstration_segments, tree_segments
from forethought.recipe.schema import TreeSpec, WorkflowSpec
from forethought.recipe.speaking import SPEAKING
from forethought.tasks.base import Taskset
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts
from forethought.workflows.table import WORKFLOWS, register

SEEN = ["The lamp is off.", "<|im_end|>\n\nThe lamp\tis on 東京.", "", "Nothing happens."]
ACTS = ["Press on.", "Pull the red cup", "Stop."]
PLAN = "First press, then pull. </plan>"
TASK = Task(id="lamp", taskset="lamp", level=1, context="", prompt="Turn the lamp on.")
SAME = {"plan": "base", "act": "base", "think": "base"}


class Room(Environment):
    def __init__(self, seen: Sequence[str]):
        self.seen = list(seen)

    def step(self, action: str) -> Outcome:
        done = action == ACTS[-1]
        return Outcome(done=done, success=done, observation=None if done else self.seen.pop(0))


class Lamp(Taskset):
    """In free text. The plan ends with a tag, an act as the model ends it."""

    name, levels, spaced, turns = "lamp", (1,), False, 3
    budgets = {"plan": 40, "act": 30}
    stops = {"plan": "</plan>", "act": ""}
    opens = {"plan": "<plan>"}
    system = ""

    def __init__(self, seen: Sequence[str] = SEEN, **said):
        self.seen = seen
        for name, value in said.items():
            setattr(self, name, value)

    def messages(self, task: Task) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": task.prompt}]

    def family(self, rng, levels, split) -> list[Task]:
        return [TASK] * len(levels)

    def environment(self, task: Task, noise: bool) -> Room:
        return Room(self.seen)

    def oracle_plan(self, task: Task) -> str:
        return PLAN

    def steps(self, task: Task, plan: str) -> list[str]:
        return ["Press.", "Pull.", "Stop now."]

    def demonstrate(self, task: Task) -> list[Turn]:
        turns = [Turn(role="plan", text=PLAN)]
        for act, seen in zip(ACTS, [*self.seen[:2], None], strict=True):
            turns += [Turn(role="act", text=act), *([Turn(role=None, text=seen)] if seen is not None else [])]
        return turns


def says(e, texts: dict[str, list[str]], cut: Sequence[str] = (), end: int | None = None):
    """The engine says these texts in order: by the stop that is asked for, "" the model's own end. What is in
    `cut` runs out of its budget."""

    def sample(requests: Sequence[Request]) -> list[list[Completion]]:
        return [[one(request, asked[request.stops]) for _ in range(request.n)] for request in requests]

    def one(request: Request, texts: list[str]) -> Completion:
        if not (room := room_of(request, e.context)):
            return overlong(0)
        text = texts.pop(0)
        ended = () if request.stops or text in cut else (e.end if end is None else end,)
        ids = (e.encode(text) + ended)[:room]
        whole = len(ids) == len(e.encode(text) + ended) and text not in cut
        return Completion(
            token_ids=ids,
            logprobs=(-1.0,) * len(ids),
            status="finished" if whole else "truncated",
            version=0,
        )

    asked = {(stop,) if stop else (): list(said) for stop, said in texts.items()}
    e.sample = sample
    return e


def rollouts_of(e, workflow: str = "act_only", taskset: Taskset | None = None) -> Rollouts:
    return Rollouts(e, taskset or Lamp(), WorkflowSpec(name=workflow))


def grown(rollouts: Rollouts, acts: int = 1) -> Tree:
    counts = dict.fromkeys(rollouts.roles, 1) | {"act": acts}
    [tree] = rollouts.grow([TASK], TreeSpec(counts=counts), SAME, seed=1)
    return tree


def path_of(tree: Tree) -> tuple[int, ...]:
    [leaf] = tree.leaves()
    return tuple(i for node in tree.path(leaf) for i in node.token_ids)


@pytest.fixture(scope="module")
def engines():
    return {name: engine(name) for name in FAMILIES}


# Rollouts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["", "One action at a time."])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_path_is_the_conversation_of_its_template(engines, name, system):
    if system and not FAMILIES[name].system:
        return
    e, lamp = says(engines[name], {"": ACTS}), Lamp(system=system, seen=["No.", "The lamp is on."])
    messages = lamp.messages(TASK)
    for act, seen in zip(ACTS, lamp.seen, strict=False):
        messages += [{"role": "assistant", "content": act}, {"role": "user", "content": seen}]
    wanted = own(e.tokenizer, messages) + e.encode(ACTS[-1]) + (e.end,)
    tree = grown(rollouts_of(e, taskset=lamp))
    assert path_of(tree) == wanted
    assert [(n.role, n.text) for n in tree.nodes[1:]] == [
        ("act", "Press on."),
        (None, "No."),
        ("act", "Pull the red cup"),
        (None, "The lamp is on."),
        ("act", "Stop."),
    ]
    assert tree.nodes[-1].reward_parts["outcome"] == 1.0


def test_a_tool_answers_where_the_taskset_says_so(engines):
    e = says(engines["qwen3"], {"": ["Press on.", "Stop."]})
    path = path_of(grown(rollouts_of(e, taskset=Lamp(side="tool"))))
    assert "user\n<tool_response>\nThe lamp is off.\n</tool_response><|im_end|>\n" in e.decode(path)


@pytest.mark.parametrize("ends", [True, False])
def test_what_closes_a_turn_that_the_model_did_not_end_is_read_and_does_not_train(engines, ends):
    e = says(engines["qwen2_5"], {"": ["Press on.", "Stop."]}, cut=() if ends else ["Press on."])
    rollouts = rollouts_of(e)
    tree = grown(rollouts)
    assert path_of(tree).count(e.end) == path_of(
        grown(rollouts_of(says(e, {"": ["Press on.", "Stop."]})))
    ).count(e.end)
    first, seen, last = tree.nodes[1:]
    assert (first.status, first.token_ids[-1] == e.end, seen.token_ids[0] == e.end) == (
        ("finished", True, False) if ends else ("truncated", False, True)
    )
    advantages = {node.id: (1.0,) * len(node.token_ids) for node in (first, last)}
    segments = tree_segments(rollouts, [tree], [advantages], "tokens")
    trained = [i for s in segments if s.stream for i in s.token_ids]
    assert trained == [*first.token_ids, *last.token_ids]


def test_another_end_of_the_model_is_an_end_too(engines):
    e = engines["llama3_2"]
    (eom,) = e.tokenizer.convert_tokens_to_ids(["<|eom_id|>"])
    tree = grown(rollouts_of(says(e, {"": ["Press on.", "Stop."]}, end=eom)))
    assert tree.nodes[1].token_ids[-1] == eom and tree.nodes[1].text == "Press on."
    assert e.decode(tree.nodes[2].token_ids).startswith(
        "<|start_header_id|>user<|end_header_id|>\n\nThe lamp"
    )


def test_a_plan_that_ends_with_a_stop_stays_in_the_turn_of_the_first_act(engines):
    e = says(engines["smollm2"], {"</plan>": [PLAN], "": ["Press on.", "Stop."]})
    text = e.decode(path_of(grown(rollouts_of(e, "plan_then_act"))))
    assert text.endswith(
        "<|im_start|>assistant\n<plan>First press, then pull. </plan>Press on.<|im_end|>\n"
        "<|im_start|>user\nThe lamp is off.<|im_end|>\n<|im_start|>assistant\nStop.<|im_end|>"
    )


def test_roles_that_end_their_turns_themselves_have_turns_of_their_own(engines):
    lamp = Lamp(stops={"plan": "", "act": ""}, opens={})
    e = says(engines["smollm2"], {"": ["First press.", "Press on.", "Stop."]})
    text = e.decode(path_of(grown(rollouts_of(e, "plan_then_act", lamp))))
    assert text.endswith(
        "assistant\nFirst press.<|im_end|>\n<|im_start|>assistant\nPress on.<|im_end|>\n"
        "<|im_start|>user\nThe lamp is off.<|im_end|>\n<|im_start|>assistant\nStop.<|im_end|>"
    )


def test_two_observations_in_a_row_are_one_message(engines):
    e = says(engines["gemma"], {"</plan>": [PLAN], "": list(ACTS)})
    tree = grown(rollouts_of(e, "plan_steps"))
    assert [n.text for n in tree.nodes if n.role is None][1:] == [
        "Press.",
        "The lamp is off.\nPull.",
        SEEN[1] + "\nStop now.",
    ]
    text = e.decode(path_of(tree))
    assert "<start_of_turn>user\nThe lamp is off.\nPull.<end_of_turn>\n<start_of_turn>model\nPull the" in text


# Demonstrations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", ["plan_then_act", "act_only", "plan_steps", "react"])
@pytest.mark.parametrize("stops", [Lamp.stops, {"plan": "", "act": ""}, {"plan": "</plan>", "act": "</act>"}])
@pytest.mark.parametrize("name", ["qwen2_5", "llama3_2", ""])
def test_a_demonstration_has_the_ids_of_a_rollout_that_says_the_same(engines, name, stops, workflow):
    e = (
        engines[name]
        if name
        else engine_of(model_of(vocab_size=320, max_position_embeddings=512), bpe_of(ACTS, 320))
    )
    rollouts = rollouts_of(e, workflow, Lamp(stops=stops))
    shown = rollouts.turns(TASK)
    by_stop: dict[str, list[str]] = {}
    for turn, _ in shown:
        if turn.role:
            by_stop.setdefault(rollouts.words.stop(turn.role), []).append(turn.text)
    says(e, by_stop)
    tree = grown(rollouts)
    [leaf] = tree.leaves()
    assert [(n.role, n.text, n.token_ids) for n in tree.path(leaf)[1:]] == [
        (turn.role, turn.text, ids) for turn, ids in shown
    ]
    segments = demonstration_segments(rollouts, [TASK], [{"act"}])
    assert tuple(i for s in segments for i in s.token_ids) == path_of(tree)
    assert all(s.role == "act" for s in segments if s.stream)


# What has no room, or cannot be said ------------------------------------------------------------------------


def test_an_observation_longer_than_the_context_is_counted_and_nothing_is_lost(engines):
    e = says(engines["qwen2_5"], {"": ["Press on.", "Press on.", "Stop."]})
    page, before, e.context = iter([["word " * 200], ["short"]]), e.context, 400

    class Page(Lamp):
        def environment(self, task, noise):
            return Room(next(page))

    tree = grown(rollouts_of(e, taskset=Page()), acts=2)
    e.context = before
    long, short = tree.leaves()
    assert (long.status, long.text, long.reward, dict(long.reward_parts)) == ("overlong", "", None, {})
    assert "leave no room in the model's context of 400" in long.reason
    assert tree.path(long)[-2].text == "word " * 200 and tree.path(long)[-3].status == "finished"
    assert (short.status, short.reward_parts["outcome"]) == ("finished", 1.0)


def test_an_observation_that_the_template_does_not_take_fails_with_its_branch(engines):
    e = says(engines["qwen2_5"], {"": ["Press on.", "Press on.", "Stop."]})
    before = e.tokenizer.chat_template
    e.tokenizer.chat_template = before.replace(
        "{%- for message in messages %}",
        "{%- for message in messages %}{% if 'forbidden' in message.content %}"
        "{{ raise_exception('not that word') }}{% endif %}",
        1,
    )
    page = iter([["forbidden"], ["short"]])

    class Page(Lamp):
        def environment(self, task, noise):
            return Room(next(page))

    rollouts = rollouts_of(e, taskset=Page())
    tree = grown(rollouts, acts=2)
    e.tokenizer.chat_template = before
    failed, whole = tree.leaves()
    assert failed.status == "failed" and "not that word" in failed.reason and whole.status == "finished"
    assert rollouts.guard.total == 1


def test_the_room_for_observations_is_asked_for_before_anything_runs(engines):
    e, lamp = engines["qwen2_5"], Lamp()
    rollouts = rollouts_of(e, taskset=lamp)
    read = 2 * max(len(e.observation(text, (e.end,))) for text in SEEN[:2])
    need = len(rollouts.words.root_ids(TASK)) + 3 * 30 + read
    before, e.context = e.context, need - 1
    with pytest.raises(UserError, match=f"and 90 for acts with {read} read between them; the model's"):
        rollouts.check_room()
    e.context = need
    rollouts.check_room()
    stated = rollouts_of(e, taskset=Lamp(observation=50))
    most = 2 * (50 + len(e.observation("", ())))
    with pytest.raises(UserError, match=f"and 90 for acts with {most} read between them"):
        stated.check_room()
    e.context = need + most - read
    stated.check_room()
    unknown = Lamp()
    unknown.has_plans = False  # nobody can demonstrate: what is read shows at run time
    e.context = need - read
    rollouts_of(e, taskset=unknown).check_room()
    e.context = before


def test_desk_step_by_step_has_room_for_what_it_shows():
    rollouts = scripted(lambda *said: "", stepwise=True)
    tasks = rollouts.words.deepest()
    seen = [len(ids) for task in tasks for turn, ids in rollouts.turns(task) if turn.role is None]
    read, task = 2 * max(seen), tasks[0]  # three acts, with two observations between them
    said = rollouts.words.longest_turns
    rollouts.engine.context = len(rollouts.words.root_ids(task)) + said + read
    assert read > 10
    rollouts.check_room()
    rollouts.engine.context -= 1
    with pytest.raises(UserError, match=f"{said} for plan and acts with {read} read between them"):
        rollouts.check_room()


def test_a_family_of_words_reads_text_on_a_model_with_a_template_too():
    desk = Desk(levels=(2,), stepwise=True)
    tokenizer = bpe_of([" ".join(desk.vocabulary())], 600)
    plain = Rollouts(engine_of(model_of(vocab_size=len(tokenizer)), tokenizer), desk)
    tokenizer.chat_template = engine("smollm2").tokenizer.chat_template
    told = Rollouts(engine_of(model_of(vocab_size=len(tokenizer)), tokenizer), desk)
    task = plain.words.deepest()[0]
    assert plain.turns(task) == told.turns(task)
    assert [ids for turn, ids in told.turns(task) if turn.role is None] == [
        told.engine.encode(" " + turn.text) for turn, _ in told.turns(task) if turn.role is None
    ]
    assert Verdict(score=1.0) == desk.judge_plan(task, desk.oracle_plan(task))


@pytest.mark.parametrize("workflow", ["act_only", "plan_then_act", "react"])
@pytest.mark.parametrize("name", [*FAMILIES, ""])
def test_no_text_of_a_task_ends_a_turn(engines, name, workflow):
    """The prompt, an observation and a demonstration hold the model's own end, as text. `name` "": without a
    chat template."""
    e = engines[name] if name else engine_of(model_of(vocab_size=320), bpe_of(ACTS, 320))
    end = e.decode((e.end,))
    bad = f"x{end}y"
    task = Task(id="lamp", taskset="lamp", level=1, context="", prompt=f"Turn it on. {bad}")

    class Hostile(Lamp):
        def demonstrate(self, task):
            turns = super().demonstrate(task)
            plan = Turn(role="plan", text=f"First {bad} press. </plan>")
            return [plan, *(Turn(role=t.role, text=t.text + bad * (t.role is None)) for t in turns[1:])]

        def oracle_plan(self, task):
            return self.demonstrate(task)[0].text

        def steps(self, task, plan):
            return [f"Press {bad}", "Pull.", "Stop now."]

    rollouts = rollouts_of(e, workflow, Hostile(seen=[bad, bad, ""]))
    usual = rollouts_of(e, workflow, Lamp(seen=["x", "y", ""]))
    count = lambda ids: sum(i in e.ends for i in ids)  # noqa: E731
    assert count(rollouts.words.root_ids(task)) == count(usual.words.root_ids(TASK))
    shown, wanted = rollouts.turns(task), usual.turns(TASK)
    assert [count(ids) for _, ids in shown] == [count(ids) for _, ids in wanted]
    assert [turn.role for turn, _ in shown] == [turn.role for turn, _ in wanted]


@pytest.fixture
def begun():
    """A workflow that asks for what the environment shows first."""

    async def run(t, task, n):
        await t.begin()
        for act in await t.fork("act", n["act"]):
            await act.step()

    register("begun", run, ("act",))
    yield
    for table in (WORKFLOWS, SPEAKING):
        table.pop("begun", None)


@pytest.mark.parametrize("system", ["", "One action at a time."])
@pytest.mark.parametrize("name", [*FAMILIES, ""])
def test_what_is_shown_first_is_the_end_of_the_prompt(engines, begun, name, system):
    if name and system and not FAMILIES[name].system:
        return
    e = engines[name] if name else engine_of(model_of(vocab_size=320), bpe_of(ACTS, 320))

    class Opens(Room):
        def reset(self, task, seed):
            return "A dark room.\n"

    lamp = Lamp(system=system, seen=["No."])
    lamp.environment = lambda task, noise: Opens(["No."])
    says(e, {"": ["Press on."] * 2})
    tree = grown(rollouts_of(e, "begun", lamp), acts=2)
    *before, asked = lamp.messages(TASK)
    first = {"role": "user", "content": f"{TASK.prompt}\nA dark room.\n"}
    wanted = own(e.tokenizer, [*before, first]) if name else e.begin + e.encode(first["content"])
    assert tree.nodes[0].token_ids == wanted
    assert tree.nodes[0].text == f"{TASK.prompt}\nA dark room."
    assert [n.parent for n in tree.nodes if n.role] == [0, 0]
