"""Agent S's interface: which rows a screen has, and what becomes of what a model writes."""

from __future__ import annotations

import pytest

from forethought.envs.screen.aci import forget, read, rows, table
from forethought.envs.screen.parsed import Found
from forethought.interface.elements import Line

LINES = [
    Line(ref="e7", role="textbox", name="Username", state=("= bo",), box=(0, 0, 100, 20)),
    Line(ref="e1", role="panel", name="left", box=(0, 0, 400, 300)),
    Line(ref="e2", role="button", name="Login", box=(0, 40, 60, 20)),
    Line(ref="e3", role="button", name="outside", box=(-5, 40, 60, 20)),
    Line(ref="", role="option", name="red"),
]
TEXTS = [
    Found(kind="text", box=(2, 42, 50, 16), label="Login"),  # lies in the button
    Found(kind="text", box=(0, 200, 60, 12), label="Forgot \n it?"),
]


def test_the_rows_are_the_tree_and_what_only_the_picture_shows():
    found = rows(LINES, TEXTS)
    shown = "1\ttextbox\tUsername\t= bo\n2\tbutton\tLogin\n3\toption\tred\n4\tbutton\tForgot it?"
    assert table(found) == shown and found[3].box == (0, 200, 60, 12)
    assert forget(shown).splitlines() == [
        "textbox\tUsername\t= bo",
        "button\tLogin",
        "option\tred",
        "button\tForgot it?",
    ]


@pytest.mark.parametrize(
    "text, name, arguments",
    [
        ('agent.click(2, 1, "left")', "click", {"element_id": 2, "num_clicks": 1, "button_type": "left"}),
        ('(Grounded Action)\n```python\nagent.type(1, "a\\"é\\n", enter=True)\n```', "type",
         {"element_id": 1, "text": 'a"é\n', "enter": True}),
        ("```python\nagent.done()\n```\nand\n```python\nagent.fail()\n```", "fail", {}),
        ("agent.type(text='x')", "type", {"text": "x"}),
        ("agent.drag_and_drop(1, 4)", "drag_and_drop", {"drag_from_id": 1, "drop_on_id": 4}),
        ("agent.hotkey(['ctrl', 'c'])", "hotkey", {"keys": ["ctrl", "c"]}),
        ("wait(2.5)", "wait", {"time": 2.5}),
    ],
)  # fmt: skip
def test_one_primitive_is_read(text, name, arguments):
    found = read(text, 4)
    assert (found.name, found.arguments, found.feedback) == (name, arguments, "")


@pytest.mark.parametrize(
    "text, why",
    [
        ("agent.click(5)", "there is no row 5; the screen has 4"),
        ("agent.click(0)", "there is no row 0"),
        ("agent.drag_and_drop(1, 9)", "there is no row 9"),
        ("agent.click()", "click needs element_id"),
        ("agent.click(True)", "element_id of click is no int"),
        ("agent.click('2')", "element_id of click is no int"),
        ("agent.clack(1)", "unknown primitive 'clack'"),
        ("agent.wait(1, 2)", "wait takes at most 1 arguments"),
        ("agent.click(1, element_id=2)", "element_id twice"),
        ("agent.click(1, x=2)", "unknown argument of click 'x'"),
        ("agent.click(1)\nagent.click(2)", "call 2 begins here"),
        ("import os", "character"),
        ("agent.click(__import__('os').getpid())", "character"),
        ("", "character"),
    ],
)
def test_what_does_not_fit_is_a_wait_with_its_reason(text, why):
    found = read(text, 4)
    assert (found.name, found.arguments) == ("wait", {"time": 1.0}) and why in found.feedback
