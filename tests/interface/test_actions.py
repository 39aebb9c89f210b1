"""One action, its four dialects, and what is refused in each: nothing that a model writes is evaluated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forethought.interface import calls
from forethought.interface.actions import DIALECTS, Action
from forethought.interface.calls import Call
from forethought.interface.result import Parsed, Refusal

# (the line of the observation that holds the thing, the planner's words, its id, the op, the value)
# -> what each dialect writes, "" where the dialect has no such op
GOLDEN = [
    (
        '- button "Place order" [ref=e9]',
        Action(op="click", words="the Place order button", id="e9"),
        '{"op": "click", "words": "the Place order button", "id": "e9"}',
        '{"name": "browser_click", "arguments": {"target": "e9", "element": "the Place order button"}}',
        '{"name": "click", "arguments": {"id": "e9", "words": "the Place order button"}}',
        "click('e9')",
    ),
    (
        '- textbox "Your name" [ref=e4]',
        Action(op="fill", words="the name field", id="e4", value="Ann"),
        '{"op": "fill", "words": "the name field", "id": "e4", "value": "Ann"}',
        '{"name": "browser_type", "arguments": {"target": "e4", "element": "the name field", "text": "Ann"}}',
        '{"name": "fill", "arguments": {"id": "e4", "words": "the name field", "value": "Ann"}}',
        "fill('e4', 'Ann')",
    ),
    (  # quotes of both kinds
        '- textbox "Say \\"it\'s\\"" [ref=e5]',
        Action(op="fill", words='the "it\'s" field', id="e5", value='it\'s "so"'),
        '{"op": "fill", "words": "the \\"it\'s\\" field", "id": "e5", "value": "it\'s \\"so\\""}',
        '{"name": "browser_type", "arguments": {"target": "e5", "element": "the \\"it\'s\\" field", '
        '"text": "it\'s \\"so\\""}}',
        '{"name": "fill", "arguments": {"id": "e5", "words": "the \\"it\'s\\" field", '
        '"value": "it\'s \\"so\\""}}',
        "fill('e5', 'it\\'s \"so\"')",
    ),
    (  # a new line and a tab
        '- textbox "Address" [ref=e6]',
        Action(op="fill", words="the address box", id="e6", value="1 Main St\nTown\t5"),
        '{"op": "fill", "words": "the address box", "id": "e6", "value": "1 Main St\\nTown\\t5"}',
        '{"name": "browser_type", "arguments": {"target": "e6", "element": "the address box", '
        '"text": "1 Main St\\nTown\\t5"}}',
        '{"name": "fill", "arguments": {"id": "e6", "words": "the address box", '
        '"value": "1 Main St\\nTown\\t5"}}',
        "fill('e6', '1 Main St\\nTown\\t5')",
    ),
    (  # characters outside of ASCII, one of them outside of the first plane
        '- textbox "Größe" [ref=e7]',
        Action(op="fill", words="das Feld Größe", id="e7", value="naïve 日本 🙂"),
        '{"op": "fill", "words": "das Feld Größe", "id": "e7", "value": "naïve 日本 🙂"}',
        '{"name": "browser_type", "arguments": {"target": "e7", "element": "das Feld Größe", '
        '"text": "naïve 日本 🙂"}}',
        '{"name": "fill", "arguments": {"id": "e7", "words": "das Feld Größe", "value": "naïve 日本 🙂"}}',
        "fill('e7', 'naïve 日本 🙂')",
    ),
    (  # an empty value is a value
        '- textbox "Coupon" [ref=e8]',
        Action(op="fill", words="the coupon field", id="e8", value=""),
        '{"op": "fill", "words": "the coupon field", "id": "e8", "value": ""}',
        '{"name": "browser_type", "arguments": {"target": "e8", "element": "the coupon field", "text": ""}}',
        '{"name": "fill", "arguments": {"id": "e8", "words": "the coupon field", "value": ""}}',
        "fill('e8', '')",
    ),
    (  # an id inside a frame
        '- link "Terms" [ref=f1e2]',
        Action(op="click", words="the Terms link inside", id="f1e2"),
        '{"op": "click", "words": "the Terms link inside", "id": "f1e2"}',
        '{"name": "browser_click", "arguments": {"target": "f1e2", "element": "the Terms link inside"}}',
        '{"name": "click", "arguments": {"id": "f1e2", "words": "the Terms link inside"}}',
        "click('f1e2')",
    ),
    (  # several values
        '- listbox "Sizes" [ref=e12]',
        Action(op="select", words="the size list", id="e12", value=["Large", "Small, blue"]),
        '{"op": "select", "words": "the size list", "id": "e12", "value": ["Large", "Small, blue"]}',
        '{"name": "browser_select_option", "arguments": {"target": "e12", "element": "the size list", '
        '"values": ["Large", "Small, blue"]}}',
        '{"name": "select", "arguments": {"id": "e12", "words": "the size list", '
        '"value": ["Large", "Small, blue"]}}',
        "select_option('e12', ['Large', 'Small, blue'])",
    ),
    (  # no thing at all
        "Page URL: https://a.example/",
        Action(op="goto", value="https://b.example/?q=a&b='c'"),
        '{"op": "goto", "value": "https://b.example/?q=a&b=\'c\'"}',
        '{"name": "browser_navigate", "arguments": {"url": "https://b.example/?q=a&b=\'c\'"}}',
        '{"name": "goto", "arguments": {"value": "https://b.example/?q=a&b=\'c\'"}}',
        "goto(\"https://b.example/?q=a&b='c'\")",
    ),
    (
        "Page URL: https://b.example/",
        Action(op="back"),
        '{"op": "back"}',
        '{"name": "browser_navigate_back", "arguments": {}}',
        '{"name": "back", "arguments": {}}',
        "go_back()",
    ),
    (  # a number
        "Loading ...",
        Action(op="wait", value=1.5),
        '{"op": "wait", "value": 1.5}',
        '{"name": "browser_wait_for", "arguments": {"time": 1.5}}',
        '{"name": "wait", "arguments": {"value": 1.5}}',
        "noop(1.5)",
    ),
    (  # a thing that only looks like code, and stays text
        '- textbox "Command" [ref=e13]',
        Action(op="fill", words="the command box", id="e13", value="'); import os; os.system('rm -rf /') #"),
        '{"op": "fill", "words": "the command box", "id": "e13", '
        '"value": "\'); import os; os.system(\'rm -rf /\') #"}',
        '{"name": "browser_type", "arguments": {"target": "e13", "element": "the command box", '
        '"text": "\'); import os; os.system(\'rm -rf /\') #"}}',
        '{"name": "fill", "arguments": {"id": "e13", "words": "the command box", '
        '"value": "\'); import os; os.system(\'rm -rf /\') #"}}',
        "fill('e13', \"'); import os; os.system('rm -rf /') #\")",
    ),
]


@pytest.mark.parametrize(("seen", "action", "own", "playwright", "tool", "browsergym"), GOLDEN)
def test_each_dialect_writes_the_action_and_reads_it_back(seen, action, own, playwright, tool, browsergym):
    assert not action.id or f"ref={action.id}]" in seen
    said = {"own": own, "playwright": playwright, "tool": tool, "browsergym": browsergym}
    assert {name: dialect.render(action) for name, dialect in DIALECTS.items()} == said
    for name, dialect in DIALECTS.items():
        assert dialect.parse(said[name]) == Parsed(action if dialect.words else replace(action, words=""))


def test_there_are_twelve_rows():
    assert len(GOLDEN) == 12


@pytest.mark.parametrize(
    ("dialect", "text", "refusal"),
    [
        ("own", "click the button", "character 1: found 'c', expected a JSON value"),
        ("own", '{"op": "click", "x": 1}', "character 17: unknown key 'x' (known: id, op, value, words)"),
        ("own", '{"op": "click", "op": "fill"}', "character 17: the key 'op' stands here a second time"),
        ("own", '{"op": "click"} and then', "character 17: found 'a', expected the end of the text"),
        ("own", '{"id": "e1"}', "character 1: 'op' is missing"),
        ("own", '{"op": 3}', "character 8: 'op' is a text"),
        ("own", '{"op": "fill", "value": NaN}', "character 25: found 'N', expected a JSON value"),
        ("own", '{"op": "fill", "value": 1e999}', "character 25: '1e999' is larger than any number"),
        ("own", '{"op": "\\ud800"}', "holds an escape that means no character"),
        ("own", '{"op": "x", "value": ' + "[" * 13 + "]" * 13 + "}", "nested deeper than 12"),
        ("own", '["click"]', "character 1: an action is an object"),
        ("tool", '{"name": "click"}', "character 1: 'arguments' is missing"),
        ("tool", '{"name": "click", "arguments": []}', "character 32: 'arguments' is an object"),
        ("browsergym", "clic('e9')", "unknown action of BrowserGym 'clic'; did you mean 'click'?"),
        ("browsergym", "click('a') click('b')", "character 12: call 2 begins here, and a turn has at most 1"),
        ("browsergym", "click()", "click needs bid"),
        ("browsergym", "click('')", "bid of click is empty"),
        ("browsergym", "click(12)", "bid of click is no str"),
        ("browsergym", "fill('a')", "fill needs value"),
        ("browsergym", "scroll('a', 'b')", "delta_x of scroll is no int or float"),
        ("browsergym", "click('a', colour='red')", "unknown argument of click 'colour'"),
    ],
)
def test_what_does_not_fit_is_refused_at_its_character(dialect, text, refusal):
    read = DIALECTS[dialect].parse(text)
    assert isinstance(read, Refusal) and refusal in str(read)


def test_an_action_that_a_dialect_cannot_say_is_an_error():
    with pytest.raises(ValueError, match="unknown op of BrowserGym 'teleport'"):
        DIALECTS["browsergym"].render(Action(op="teleport"))
    with pytest.raises(ValueError, match="back takes no value"):
        DIALECTS["playwright"].render(Action(op="back", value="now"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        DIALECTS["own"].render(Action(op="wait", value=float("nan")))


HOSTILE = [
    "__import__('os').system('id')",
    "click(__import__('os').getcwd())",
    "click(open('/etc/passwd').read())",
    "click(f'{1+1}')",
    "click(b'a')",
    "click(r'a')",
    "click('a' 'b')",
    "click('a' + 'b')",
    "click(*['a'])",
    "click(**{'bid': 'a'})",
    "click('a') if True else click('b')",
    "click('a'); import os",
    "[click('a') for x in y]",
    "lambda: click('a')",
    "click('''a\nb''')",
    "click('a\nb')",
    "click('a\x00b')",
    "click('\\N{BULLET}')",
    "click('\\ud800')",
    "click('\ud800')",
    "click('a\\",
    "click((((((((((",
    "click([[['a']]])",
    "click(1_000)",
    "click(0x10)",
    "click(007)",
    "click(1e999)",
    "click(" + "9" * 5000 + ")",
    "click(a)",
    "click(a.b)",
    "click(True or False)",
    "click('a', bid='b', bid='c')",
    "click(bid='a', 'b')",
    "a.b('c')",
    "# click('a')",
    "click('a') # comment",
    "x" * 9000,
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_but_literals_is_read(text):
    assert isinstance(calls.parse(text), Refusal)


def test_calls_are_read_with_their_arguments():
    text = "fill('a12', 'it\\'s', enable=True)\nscroll(-1, 2.5e1) noop() select(\"b\", ['x', 'y\\u00e9'])"
    assert calls.parse(text) == Parsed(
        (
            Call("fill", ("a12", "it's"), {"enable": True}),
            Call("scroll", (-1, 25.0)),
            Call("noop"),
            Call("select", ("b", ["x", "yé"])),
        )
    )
    with pytest.raises(ValueError, match="cannot be written"):
        calls.render([Call("f", (object(),))])
