"""Real servers of OpenEnv on this machine: its packaged example, ours, and one that does things wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from adapters_kit import EXAMPLES, broken, first, made, played, refused, served

from forethought.recipe.schema import LimitSpec

# installed beside another version of mcp, it is there and cannot be imported
WHY = 'needs the extra openenv: pip install "forethought[openenv]"'
openenv = pytest.importorskip("openenv.core", reason=WHY, exc_type=ImportError)
ODD = str(Path(__file__).parent / "openenv_odd.py")


@pytest.fixture(scope="module")
def odd():
    with served(ODD, "PORT", "64") as address:
        taskset = made(address, level="level", levels=(0, 3), turns=4, template="{text} ({level})")
        yield taskset
        taskset.close()


def test_the_schema_of_the_server_is_the_grammar_of_acts(odd):
    assert "{what: string, times?: integer}" in odd.system
    task = first(odd, level=3)
    assert task.prompt.endswith(f"\n\nseed {task.state.seed} (3)\n\n")
    texts = ['{"what": "win"', '{"wat": "win"}', '{"what": "win", "times": "2"}', "win"]
    reasons = [o.reason for o in played(odd, task, texts)]
    assert "expected ',' or '}'" in reasons[0] and "unknown key 'wat'; did you mean 'what'?" in reasons[1]
    assert "times: found '2', expected integer" in reasons[2] and "expected a JSON value" in reasons[3]


def test_rewards_add_up_and_the_end_is_the_servers(odd):
    task = first(odd)
    half, win = played(odd, task, ['{"what": "half", "times": 2}', '{"what": "win"}'])
    assert half.observation == "halfhalf (0)" and half.parts["reward"] == 0.5 and not half.done
    assert win.done and win.score == 1.5 and win.success and win.parts["terminated"] == 1.0
    lost = played(odd, task, ['{"what": "lose"}'])[-1]
    assert lost.done and lost.score == 0.0 and not lost.success


def test_an_error_of_the_server_fails_the_episode(odd):
    assert "no hands" in broken(odd, first(odd), ['{"what": "fail"}'])
    assert played(odd, first(odd), ['{"what": "win"}'])[-1].success


def test_a_server_that_hangs_fails_the_episode_in_time(odd):
    limits = LimitSpec(step_seconds=0.5)
    assert "Timeout" in broken(odd, first(odd), ['{"what": "hang"}'], limits)
    assert played(odd, first(odd), ['{"what": "win"}'])[-1].success


def test_sessions_are_apart(odd):
    tasks = odd.family(random.Random(3), [0] * 20, "train")
    assert len({task.prompt for task in tasks}) == 20
    assert all(f"seed {task.state.seed} " in task.prompt for task in tasks)


def test_a_server_that_dies_fails_the_episode_and_the_next_tasks():
    with served(ODD, "PORT", "8") as address:
        taskset = made(address)
        try:
            task = first(taskset)
            assert broken(taskset, task, ['{"what": "die"}']).startswith("environment: ")
            with pytest.raises((ConnectionError, OSError)):
                first(taskset)
        finally:
            taskset.close()


def test_more_sessions_than_the_server_allows_are_failures():
    with served(ODD, "PORT", "1") as address:
        taskset = made(address)
        try:
            with pytest.raises(Exception, match="CAPACITY_REACHED"):
                taskset.family(random.Random(0), [0] * 4, "train")
        finally:
            taskset.close()


def test_one_field_may_be_the_whole_turn(odd):
    taskset = made(f"openenv:{odd.adapter.url}", field="what")
    try:
        assert played(taskset, first(taskset), ["win"])[-1].success
    finally:
        taskset.close()
    message = "task.field: 'wat' is no field of an action, which has what, times"
    assert message in refused(f"openenv:{odd.adapter.url}", field="wat")


def test_its_packaged_example_plays(tmp_path):
    """The environment that `openenv init` writes, as it is."""
    folder = Path(openenv.__file__).parents[1] / "cli" / "templates" / "openenv_env"
    own = {"__ENV_NAME__": "echo", "__ENV_CLASS_NAME__": "Echo", "__ENV_TITLE_NAME__": "Echo"}
    for source in folder.rglob("*.py"):
        text, name = source.read_text(encoding="utf-8"), str(source.relative_to(folder))
        for mark, word in own.items():
            text, name = text.replace(mark, word), name.replace(mark, word)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    with served("-m", "uvicorn", "server.app:app", "--port", "PORT", cwd=tmp_path) as address:
        taskset = made(address, turns=2)
        try:
            task = first(taskset)
            assert "{message: string}" in taskset.system and "Echo environment ready!" in task.prompt
            hello, last = played(taskset, task, ['{"message": "hello"}', '{"message": "a long message"}'])
            assert "echoed_message: hello" in hello.observation and hello.parts["reward"] == 0.5
            assert last.score == 1.5 and last.success and last.parts["truncated"] == 1.0
        finally:
            taskset.close()


def test_our_example_plays():
    with served(str(EXAMPLES / "openenv" / "server.py"), "PORT") as address:
        taskset = made(address, turns=4)
        try:
            task = first(taskset)
            assert "{number: integer}" in taskset.system and "Guess a number from 1 to 8." in task.prompt
            secret = random.Random(task.state.seed).randint(1, 8)
            assert played(taskset, task, [f'{{"number": {secret}}}'])[-1].success
            low = played(taskset, task, ['{"number": 0}'])[0]
            assert low.observation == "larger" and not low.done
        finally:
            taskset.close()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("openenv:http://127.0.0.1:9", "no OpenEnv server answers at http://127.0.0.1:9/schema (URLError"),
        ("openenv:localhost", "'localhost' is no address of a server, such as http://127.0.0.1:8000"),
    ],
)
def test_a_mistake_is_said_before_anything_runs(reference, message):
    assert message in refused(reference)
