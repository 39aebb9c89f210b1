"""Real servers of the Model Context Protocol: tools as the act grammar, and all that a server does wrong."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from adapters_kit import EXAMPLES, broken, first, made, played, refused

from forethought.recipe.schema import LimitSpec

pytest.importorskip("mcp", reason='needs the extra mcp: pip install "forethought[mcp]"')

SERVER = f"mcp:python {Path(__file__).parent / 'mcp_server.py'}"
PARTS = {"reset": "reset", "score": "score"}
LEFT = '{"name": "open_drawer", "arguments": {"side": "left"}}'
RIGHT = '{"name": "open_drawer", "arguments": {"side": "right"}}'
END = '{"name": "finish", "arguments": {"answer": "done"}}'


def call(name: str, **arguments: str) -> str:
    return json.dumps({"name": name, "arguments": arguments})


@pytest.fixture(scope="module")
def server():
    taskset = made(SERVER, **PARTS, turns=4, levels=(0, 7))
    yield taskset
    taskset.close()


def test_tools_are_the_act_grammar_and_those_with_a_part_are_hidden(server):
    assert '{"name": ..., "arguments": {...}}' in server.system
    assert "- open_drawer(side: string, element?: string, target?: string): Open a drawer." in server.system
    assert "- finish(answer?: string): End the episode." in server.system
    assert "- reset(" not in server.system and "- score(" not in server.system
    assert '{"name": "open_drawer", "arguments": {' in server.marks()


def test_an_episode_from_reset_to_score(server):
    task = first(server, level=7)
    assert task.prompt.endswith(" drawer of 7.\n\n")
    right, wrong = (LEFT, RIGHT) if "the left drawer" in task.prompt else (RIGHT, LEFT)
    seen, end = played(server, task, [right, END])
    assert seen.observation == "There is a key." and not seen.done
    assert end.success and end.score == 1.0 and end.parts["terminated"] == 1.0 and end.parts["reward"] == 1.0
    _, end = played(server, task, [wrong, END])
    assert not end.success and end.score == 0.0
    late = played(server, task, [right] * 4)[-1]
    assert late.done and late.success and late.parts["truncated"] == 1.0  # scored all the same


def test_a_server_is_used_again_where_it_can_be_reset(server):
    played(server, first(server), [END])
    idle = list(server.adapter._idle)
    assert idle
    played(server, first(server), [END])
    assert server.adapter._idle[-1] in idle


def test_what_is_no_call_reaches_nobody(server):
    texts = [
        "open the left drawer",
        '{"name": "opn_drawer", "arguments": {}}',
        '{"name": "reset", "arguments": {"seed": 1}}',
        '{"name": "open_drawer", "arguments": {"sid": "left"}}',
    ]
    reasons = [o.reason for o in played(server, first(server), texts)]
    assert "expected a JSON value" in reasons[0]
    assert "name: found 'opn_drawer', expected 'open_drawer'" in reasons[1]
    assert "name: found 'reset'" in reasons[2]
    assert "unknown key 'sid'; did you mean 'side'?" in reasons[3]


def test_a_tool_that_fails_is_shown_and_counted(server):
    told, after = played(server, first(server), [call("fail", why="no hands"), LEFT])
    # mcp 1 also says what was raised
    assert told.observation.startswith("Error executing tool fail") and not told.done
    assert told.reason == told.observation
    assert told.parts["tool_error"] == 1.0 and after.parts["tool_error"] == 0.0


def test_images_go_to_the_trace_and_other_content_is_named(server):
    seen, other = played(server, first(server), [call("picture"), call("picture", kind="image/webp")])
    assert seen.observation == "a picture" and seen.parts["images"] == 1.0
    assert len(seen.images) == 1 and seen.images[0].startswith(b"\x89PNG")
    assert other.observation == "a picture\n[image]" and other.images == () and other.parts["unread"] == 1.0


def test_a_server_that_dies_fails_its_episode_and_no_other(server):
    found = broken(server, first(server), [call("die")])
    assert found.startswith("environment: ")
    assert played(server, first(server), [END])[-1].done


def test_a_server_that_hangs_fails_its_episode_in_time(server):
    started = time.monotonic()
    found = broken(server, first(server), [call("hang")], LimitSpec(step_seconds=0.5))
    assert "environment: Timeout" in found and time.monotonic() - started < 30
    assert played(server, first(server), [END])[-1].done


CHANGED = "environment: ToolsChanged: the server has other tools than when the run began"


def test_a_server_that_says_that_its_tools_change_fails_its_episode(server):
    change = '{"name": "change_tools", "arguments": {"tell": true}}'
    assert CHANGED in broken(server, first(server), [change, LEFT])
    assert played(server, first(server), [END])[-1].done  # on a fresh one


def test_a_server_that_changes_its_tools_silently_fails_the_next_episode():
    taskset = made(SERVER, **PARTS)
    try:
        task = first(taskset)
        change = '{"name": "change_tools", "arguments": {"tell": false}}'
        assert [o.observation for o in played(taskset, task, [change, END])] == ["changed", "done"]
        assert CHANGED in broken(taskset, task, [END])
        assert played(taskset, task, [END])[-1].done
    finally:
        taskset.close()


def test_no_score_means_that_nobody_judges():
    taskset = made(SERVER, reset="reset")
    try:
        end = played(taskset, first(taskset), [END])[-1]
        assert end.success is None and end.score is None and not taskset.judges
    finally:
        taskset.close()
    taskset = made(SERVER, reset="reset", score="bad_score")
    try:
        assert "bad_score gave 'very well', not a number" in broken(taskset, first(taskset), [END])
    finally:
        taskset.close()


def test_without_a_reset_each_episode_has_a_server_of_its_own():
    taskset = made(SERVER, score="score", prompt="Find the key.", tools=["open_drawer"])
    try:
        assert first(taskset).prompt.endswith("Find the key.\n\n")
        assert [o.score for o in played(taskset, first(taskset), [LEFT, END])] == [None, 1.0]
        assert taskset.adapter._idle == []
        assert "- fail(" not in taskset.system
    finally:
        taskset.close()


def test_the_seam_gives_words_to_the_planner_and_ids_to_the_actor():
    taskset = made(SERVER, **PARTS, hide=["picture"])
    try:
        plans = taskset.adapter.grammar.plan_grammar()
        read = plans.parse('[{"op": "open_drawer", "target": "the drawer on the left", "value": "left"}]')
        assert read.value[0].target == "the drawer on the left"
        assert "takes no 'target'" in str(
            plans.parse('[{"op": "fail", "target": "the drawer", "value": "x"}]')
        )
        action = taskset.adapter.grammar.call.action("open_drawer", {"target": "e4", "element": "the drawer"})
        assert (action.id, action.words) == ("e4", "the drawer")
    finally:
        taskset.close()


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ("mcp:", {}, "'mcp:' names nothing; write mcp:COMMAND, or mcp:URL"),
        ("mcp:no-such-command-here", {}, "no-such-command-here: no MCP server answers"),
        ("mcp:python -c 'pass'", {}, "no MCP server answers"),
        ("mcp:http://127.0.0.1:9/mcp", {}, "http://127.0.0.1:9/mcp: no MCP server answers"),
        ("mcp:'unclosed", {}, "is no command: No closing quotation"),
        (SERVER, {"reset": "rest"}, "task.reset: unknown tool of this server 'rest'; did you mean 'reset'?"),
        (SERVER, {"hide": ["x"]}, "task.hide: unknown tool 'x'"),
        (SERVER, {"calls": "xml"}, "task.calls: unknown value 'xml' (known: json, tags)"),
        (SERVER, {"seam": {"id": ["x"]}}, "task.seam.id: unknown option of this environment 'id'"),
    ],
)
def test_a_mistake_is_said_before_anything_runs(reference, options, message):
    assert message in refused(reference, **options)


@contextmanager
def over_http(port: int):
    from subprocess import DEVNULL, Popen

    path = str(Path(__file__).parent / "mcp_server.py")
    process = Popen([sys.executable, path, "http", str(port)], stdout=DEVNULL, stderr=DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_server_at_an_address():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with over_http(port) as process:
        for _ in range(200):
            assert process.poll() is None
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
                break
            time.sleep(0.1)
        taskset = made(f"mcp:http://127.0.0.1:{port}/mcp", **PARTS)
        try:
            task = first(taskset)
            acts = [LEFT if "the left" in task.prompt else RIGHT, END]
            assert [o.score for o in played(taskset, task, acts)] == [None, 1.0]
        finally:
            taskset.close()


def test_the_processes_of_a_closed_taskset_have_ended(server):
    taskset = made(SERVER, **PARTS)
    played(taskset, first(taskset), [END])
    children = set(_children())
    taskset.close()
    for _ in range(50):
        if set(_children()) < children:
            break
        time.sleep(0.1)
    assert set(_children()) < children


def _children() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if entry.name.isdigit() and int(fields[1]) == os.getpid():
                found.append(int(entry.name))
    return found


def test_the_example_plays():
    text = (EXAMPLES / "mcp" / "server.py").read_text(encoding="utf-8")
    if "MCPServer" in text:
        pytest.importorskip("mcp.server.mcpserver", reason="the example is written for mcp 2")
    taskset = made(f"mcp:python {EXAMPLES / 'mcp' / 'server.py'}", **PARTS, turns=3)
    try:
        task = first(taskset)
        acts = [LEFT if "the left" in task.prompt else RIGHT, END]
        assert played(taskset, task, acts)[-1].success
    finally:
        taskset.close()
