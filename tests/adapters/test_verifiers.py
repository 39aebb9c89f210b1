"""Tasksets of the real verifiers: their tasks, their rewards, and what only their own rollouts can do."""

from __future__ import annotations

import pytest
from adapters_kit import EXAMPLES, broken, made, played, refused

from forethought.tasks.base import Pool, face

pytest.importorskip("verifiers.v1", reason='needs the extra verifiers: pip install "forethought[verifiers]"')
SUMS = f"verifiers:{EXAMPLES / 'verifiers' / 'sums.py'}:Sums"

ODD = """
import verifiers.v1 as vf

class Config(vf.TasksetConfig):
    many: int = 3

class Told(vf.Task[vf.TaskData]):
    @vf.reward(weight=0.5)
    async def long(self, trace):
        return min(1.0, len(trace.last_reply) / 4)

    @vf.reward
    async def knows_the_task(self, task, trace):
        return float(task.idx is not None and trace.task.data.idx == task.idx)

    @vf.metric
    async def letters(self, trace):
        return len(trace.last_reply)

class Tolds(vf.Taskset[Told, Config]):
    def load(self):
        for i in range(self.config.many):
            yield Told(vf.TaskData(prompt=f"say {i}", system_prompt="Be short."))

class Talks(vf.Taskset[Told, vf.TasksetConfig]):
    def load(self):
        for i in range(4):
            prompt = [vf.UserMessage(content="hello"), vf.AssistantMessage(content="yes?"),
                      vf.UserMessage(content=f"number {i}")]
            yield Told(vf.TaskData(prompt=prompt))

class Endless(Tolds):
    INFINITE = True
    def load(self):
        while True:
            yield Told(vf.TaskData(prompt="again"))

class Nan(vf.Task[vf.TaskData]):
    @vf.reward
    async def broken(self, trace):
        return float("nan")

class Raises(vf.Task[vf.TaskData]):
    @vf.reward
    async def broken(self, trace):
        raise OSError("no judge")

class Box(vf.Task[vf.TaskData]):
    NEEDS_CONTAINER = True
    @vf.reward
    async def r(self, trace):
        return 1.0

class Setup(Box):
    NEEDS_CONTAINER = False
    async def setup(self, trace, runtime):
        pass

class Runs(vf.Task[vf.TaskData]):
    @vf.reward
    async def r(self, trace, runtime):
        return 1.0

class None_(vf.Task[vf.TaskData]):
    pass

def of(kind):
    class One(vf.Taskset[kind, vf.TasksetConfig]):
        def load(self):
            return [kind(vf.TaskData(prompt="x")) for _ in range(2)]
    return One

Nans, Raisess, Boxes, Setups, Runss, Nones = map(of, (Nan, Raises, Box, Setup, Runs, None_))

class Boom(Tolds):
    def load(self):
        raise FileNotFoundError("no data")

NUMBER = 3
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    (tmp_path / "env.py").write_text(ODD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def test_its_tasks_are_a_pool_and_its_rewards_the_return():
    taskset = made(SUMS)
    assert face(taskset, Pool) is taskset and taskset.turns == 1
    train, evaluated = taskset.pool(0, "train"), taskset.pool(0, "eval")
    assert (len(train), len(evaluated)) == (20, 5)
    assert not {t.id for t in train} & {t.id for t in evaluated}
    task = evaluated[3]
    assert task.prompt == "4 + 3 = ?\n\n" and taskset.messages(task) == [
        {"role": "user", "content": "4 + 3 = ?"}
    ]
    [right] = played(taskset, task, ["7"])
    assert right.success and right.score == pytest.approx(1.1)
    assert (right.parts["reward_right"], right.parts["reward_short"]) == (1.0, 1.0)
    [wrong] = played(taskset, task, ["seven"])
    assert not wrong.success and wrong.score == 0.0
    taskset.close()


def test_system_messages_metrics_weights_and_config(odd):
    taskset = made("verifiers:env.py:Tolds", config={"many": 6}, threshold=1.25)
    [task] = taskset.pool(0, "eval")
    assert taskset.messages(task) == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "say 5"},
    ]
    [answer] = played(taskset, task, ["ab"])
    assert answer.score == 1.25 and answer.success and answer.parts["metric_letters"] == 2.0
    assert made("verifiers:env.py:Tolds", system="Shout.").pool(0, "eval")[0].prompt.startswith("Shout.")
    taskset.close()


def test_a_prompt_of_several_messages(odd):
    taskset = made("verifiers:env.py:Talks")
    [task] = taskset.pool(0, "eval")
    assert task.prompt == "hello\n\nyes?\n\nnumber 3\n\n"
    assert played(taskset, task, ["yes."])[0].score == 1.5


def test_a_taskset_without_end_is_cut(odd):
    taskset = made("verifiers:env.py:Endless", most=10)
    assert len(taskset.pool(0, "train")) == 8


def test_a_reward_that_breaks_is_a_fault(odd):
    for name, fault in (("Nans", "gave the reward of a step a float, nan"), ("Raisess", "no judge")):
        taskset = made(f"verifiers:env.py:{name}")
        assert fault in broken(taskset, taskset.pool(0, "train")[0], ["x"])


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ("verifiers:no_such_taskset", {}, "no_such_taskset cannot be loaded: ModuleNotFoundError"),
        ("verifiers:env.py:NUMBER", {}, "env.py:NUMBER is no verifiers.v1 Taskset, but 3"),
        ("verifiers:env.py:Told", {}, "env.py:Told is no verifiers.v1 Taskset"),
        (
            "verifiers:env.py:Tolds",
            {"config": {"manny": 3}},
            "env.py:Tolds cannot be loaded: ValidationError",
        ),
        ("verifiers:env.py:Tolds", {"config": {"many": 1}}, "Tolds has 1 tasks; it takes one to train on"),
        ("verifiers:env.py:Boom", {}, "env.py:Boom gives no tasks: FileNotFoundError: no data"),
        ("verifiers:env.py:Boxes", {}, "Box needs a container, which only verifiers' own rollouts have"),
        ("verifiers:env.py:Setups", {}, "Setup needs a runtime in setup or finalize"),
        ("verifiers:env.py:Runss", {}, "Runs needs a runtime in its reward r"),
        ("verifiers:env.py:Nones", {}, "None_ has no reward, so nothing can be learned"),
    ],
)
def test_a_mistake_is_said_before_anything_runs(odd, reference, options, message):
    assert message in refused(reference, **options)
