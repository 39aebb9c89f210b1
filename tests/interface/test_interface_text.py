"""Tagged text and GUI steps: what is accepted, and where and why each fault is refused."""

from __future__ import annotations

import json
import random

import pytest

from forethought.core.errors import UserError
from forethought.interface.gui import PLACES, Calls, GuiGrammar, Op, Step
from forethought.interface.result import Parsed, Refusal
from forethought.interface.tags import Section, Tags
from forethought.tasks.sections import tags_of

# tags -------------------------------------------------------------------------------------------------------


def sections(tags: Tags, text: str) -> dict[str, tuple[str, int]] | str:
    answer = tags.parse(text)
    return (
        str(answer)
        if isinstance(answer, Refusal)
        else {name: (s.text, s.start) for name, s in answer.value.items()}
    )


@pytest.mark.parametrize(
    ("tags", "text", "found"),
    [
        (tags_of(), "<plan>go</plan>", {"plan": ("go", 7)}),
        (tags_of(), " \n<plan>\n go on </plan>\n<act>x</act>\t", {"plan": ("go on", 11), "act": ("x", 30)}),
        # no tags of these
        (
            tags_of(),
            "<plan>a < b, <b>, </ plan>, <PLAN></plan>",
            {"plan": ("a < b, <b>, </ plan>, <PLAN>", 7)},
        ),
        (
            tags_of(order=("think", "plan", "act")),
            "<think>hm</think><plan>p</plan>",
            {"think": ("hm", 8), "plan": ("p", 24)},
        ),
        (
            tags_of(plan="blink", act="link"),
            "<blink>b</blink><think>t</think><link>l</link>",
            {"blink": ("b", 8), "think": ("t", 24), "link": ("l", 39)},
        ),
        (tags_of(strict=False), "Sure! <plan>go</plan> Done.", {"plan": ("go", 13)}),
        (tags_of(required=()), "", {}),
    ],
)
def test_sections_and_where_they_begin(tags, text, found):
    names = {tags.name(s): s for s in ("plan", "think", "act")}
    assert sections(tags, text) == {names.get(name, name): value for name, value in found.items()}
    for body, start in found.values():
        assert text[start - 1 :].startswith(body)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "character 1: found the end of the text, expected <plan>"),
        ("<act>x</act>", "character 13: found the end of the text, expected <plan>"),
        ("<plan>go", "character 1: '<plan>' is never closed"),
        ("<plan></plan>", "character 7: '<plan>' is empty"),
        ("<plan> \n</plan>", "character 9: '<plan>' is empty"),
        ("<plan>a</plan></plan>", "character 15: '</plan>' a second time"),
        ("<plan>a</plan><plan>b</plan>", "character 15: '<plan>' a second time"),
        ("</plan>a<plan>", "character 1: '</plan>' closes nothing"),
        ("<plan>a</act>", "character 8: '</act>' inside '<plan>'"),
        ("<plan>a<plan>b</plan></plan>", "character 8: '<plan>' inside '<plan>'"),
        ("<plan>a<think>b</think></plan>", "character 8: '<think>' inside '<plan>'"),
        (
            "<act>x</act><plan>a</plan>",
            "character 13: '<plan>' after '<act>'; the order is <plan>, <think>, <act>",
        ),
        ("Sure: <plan>a</plan>", "character 1: nothing may stand outside of the tags, found 'Sure:'"),
        ("<plan>a</plan> so <act>x</act>", "character 16: nothing may stand outside of the tags, found 'so'"),
        ("<plan>a</plan>\n .", "character 17: nothing may stand outside of the tags, found '.'"),
        ("<PLAN>a</PLAN>", "character 1: nothing may stand outside of the tags, found '<PLAN>a</PLAN>'"),
    ],
)
def test_a_broken_text_is_refused_at_its_character(text, reason):
    assert sections(tags_of(), text) == reason


@pytest.mark.parametrize(
    "text",
    ["<plan>a</plan> <plan>b</plan>", "</plan> <plan>a</plan>", "x <act>b</act> <plan>a</plan>", "no tag"],
)
def test_text_around_is_no_licence_for_stray_tags(text):
    assert isinstance(tags_of(strict=False).parse(text), Refusal)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" c s </plan>", Parsed(Section("c s", 2))),
        ("c</plan>\n", Parsed(Section("c", 1))),
        ("c s", "character 4: found the end of the text, expected '</plan>'"),
        ("", "character 1: found the end of the text, expected '</plan>'"),
        ("</plan>", "character 1: '<plan>' is empty"),
        ("<plan>c</plan>", "character 1: '<plan>' inside '<plan>'"),
        ("c</act>", "character 2: '</act>' inside '<plan>'"),
        ("c</plan></plan>", "character 9: nothing may follow '</plan>', found '</plan>'"),
        ("c</plan> go", "character 10: nothing may follow '</plan>', found 'go'"),
    ],
)
def test_a_turn_begins_after_its_tag(text, answer):
    found = tags_of().turn("plan", text)
    assert (found if isinstance(answer, Parsed) else str(found)) == answer


def test_tags_render_what_they_read():
    text = tags_of().render({"act": "click", "plan": "c s e"})
    assert text == "<plan>c s e</plan>\n<act>click</act>"
    assert sections(tags_of(), text) == {"plan": ("c s e", 7), "act": ("click", 25)}
    for wrong in (
        {"act": "x"},
        {"plan": ""},
        {"plan": " a"},
        {"plan": "a</plan>"},
        {"plan": "a", "note": "b"},
    ):
        with pytest.raises(ValueError, match="no text has the sections"):
            tags_of().render(wrong)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"plan": ""}, "the tag of plan is a name of letters, digits, _ and -, such as 'plan'; found ''"),
        ({"act": "a b"}, "found 'a b'"),
        ({"act": "</x>"}, "found '</x>'"),
        ({"think": 3}, "found 3"),
        ({"plan": "9"}, "found '9'"),
        ({"plan": "act"}, "two sections share a tag: act, think, act; give each its own"),
        ({"required": ("note",)}, "required names some of plan, think, act, found"),
    ],
)
def test_bad_tags_are_named(fields, message):
    with pytest.raises(UserError) as caught:
        tags_of(**fields)
    assert message in str(caught.value)


# gui --------------------------------------------------------------------------------------------------------

OPS = (
    Op(name="tap"),
    Op(name="type", value="required"),
    Op(name="back", target="forbidden"),
    Op(name="wait", target="forbidden", value="optional"),
    Op(name="scroll", target="optional", value="required"),
)
GUI = GuiGrammar(ops=OPS, most=3)
TAP = Step(op="tap", target="the Save button on the bottom right")
STEPS = (TAP, Step(op="type", target="the name field", value='Ada "x"\n</plan> ü'), Step(op="back"))


def test_json_by_hand():
    text = (
        ' [ {"op": "tap", "target": "the  Save\\tbutton on the bottom right"} ,'
        ' {"value": "Ada", "op":"type","target":"the name field"}]\n'
    )
    assert GUI.parse(text) == Parsed((TAP, Step(op="type", target="the name field", value="Ada")))
    assert GUI.parse('[{"op": "wait"}, {"op": "wait", "value": ""}, {"\\u006fp": "back"}]') == Parsed(
        (Step(op="wait"), Step(op="wait", value=""), Step(op="back"))
    )
    assert GUI.render(STEPS[:1]) == '[{"op": "tap", "target": "the Save button on the bottom right"}]'


def test_calls_by_hand():
    text = (
        'do(action="tap", element_description="the Save button on the bottom right")\n do ( action = "back" )'
    )
    assert GUI.parse_calls(text) == Parsed((TAP, Step(op="back")))
    assert GUI.render_calls(STEPS[:2]) == (
        'do(action="tap", element_description="the Save button on the bottom right")\n'
        r'do(action="type", element_description="the name field", argument="Ada \"x\"\n</plan> ü")'
    )
    own = Calls(function="act", op="kind", target="on", value="with")
    assert GUI.parse_calls(GUI.render_calls(STEPS, own), form=own) == Parsed(STEPS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "character 1: found the end of the text, expected '['"),
        ("{}", "character 1: found '{', expected '['"),
        ("[", "character 2: found the end of the text, expected '{'"),
        ("[]", "character 1: 0 steps, at least 1 are needed"),
        ("[[]]", "character 2: found '[', expected '{'"),
        ("[" * 100_000, "character 8193: the plan is longer than 8192 characters"),
        ("[{}]", "character 2: step 1 has no 'op'"),
        ('[{"op": "back"}', "character 16: found the end of the text, expected ',' or ']'"),
        ('[{"op": "back"},]', "character 17: found ']', expected '{'"),
        ('[{"op": "back",}]', "character 16: found '}', expected a text in double quotes"),
        ('[{"op": "back"}] ok', "character 18: found 'o', expected the end of the text"),
        ('[{"op": "back"}][]', "character 17: found '[', expected the end of the text"),
        ('[{"op" "back"}]', "character 8: found '\"', expected ':'"),
        ("[{'op': 'back'}]", 'character 3: found "\'", expected a text in double quotes'),
        ('[{op: "back"}]', "character 3: found 'o', expected a text in double quotes"),
        ('[{"op": NaN}]', "character 9: found 'N', expected a text in double quotes"),
        ('[{"op": "wait", "value": 3}]', "character 26: found '3', expected a text in double quotes"),
        ('[{"op": "wait", "value": null}]', "character 26: found 'n', expected a text in double quotes"),
        (
            '[{"op": "wait", "value": {"a": "b"}}]',
            "character 26: found '{', expected a text in double quotes",
        ),
        ('[{"op": "back", "op": "back"}]', "character 17: the key 'op' stands here a second time"),
        ('[{"op": "back", "\\u006fp": "back"}]', "character 17: the key 'op' stands here a second time"),
        ('[{"op": "back}]', "character 9: the text that begins here is not closed on its line"),
        ('[{"op": "ba\nck"}]', "character 9: the text that begins here is not closed on its line"),
        ('[{"op": "ba\\qck"}]', "character 9: '\"ba\\\\qck\"' holds an escape that means no character"),
        ('[{"op": "\\ud800"}]', "character 9: '\"\\\\ud800\"' holds an escape that means no character"),
        (
            '[{"op": "back"}, {"op": "bak"}]',
            "character 25: step 2: unknown op 'bak'; did you mean 'back'? (known: back, scroll, tap, type, "
            "wait)",
        ),
        (
            '[{"op": "back", "why": "x"}]',
            "character 17: step 1: unknown key 'why' (known: op, target, value)",
        ),
        ('[{"op": "tap"}]', "character 2: step 1: 'tap' needs a 'target'"),
        ('[{"op": "type", "target": "a field"}]', "character 2: step 1: 'type' needs a 'value'"),
        (
            '[{"op": "tap", "target": "a field", "value": "x"}]',
            "character 37: step 1: 'tap' takes no 'value'",
        ),
        ('[{"op": "back", "target": "a field"}]', "character 17: step 1: 'back' takes no 'target'"),
        (
            '[{"op": "tap", "target": " \\n"}]',
            "character 26: step 1: the target '' describes nothing; it needs words",
        ),
        (
            '[{"op": "tap", "target": "25"}]',
            "character 26: step 1: the target '25' describes nothing; it needs words",
        ),
        (
            '[{"op": "tap", "target": "a\\u0007b"}]',
            r"character 26: step 1: the target 'a\x07b' holds characters "
            r"that cannot be read",
        ),
        (
            '[{"op": "back"}, {"op": "back"}, {"op": "back"}, {"op": "back"}]',
            "character 50: step 4 begins here, and a plan has at most 3",
        ),
        (
            json.dumps([{"op": "tap", "target": "a" * 201}]),
            "character 26: step 1: the target is longer than 200 characters",
        ),
    ],
)
def test_json_is_refused_at_its_character(text, reason):
    assert str(GUI.parse(text)) == reason
    if not reason.startswith("character 8193"):
        at = int(reason.split()[1].rstrip(":"))
        assert str(GUI.parse(text, start=101)) == reason.replace(f"character {at}:", f"character {at + 100}:")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "character 1: 0 steps, at least 1 are needed"),
        ('tap("x")', "character 1: found 'tap', expected 'do'"),
        ('__import__("os").system("true")', "character 1: found '__import__', expected 'do'"),
        ("do()", "character 1: step 1 has no 'action'"),
        ('do("tap")', "character 4: found '\"', expected a name"),
        ('do(action="back"', "character 17: found the end of the text, expected ',' or ')'"),
        ('do(action="back").x', "character 18: found '.', expected a name"),
        ('do(action="back"); do(action="back")', "character 18: found ';', expected a name"),
        ('do(action=do(action="back"))', "character 11: found 'd', expected a text in double quotes"),
        ('do(action="ba" + "ck")', "character 16: found '+', expected ',' or ')'"),
        ('do(action="tap", element=[823,684])', "character 26: found '[', expected a text in double quotes"),
        (
            'do(action="tap", element="the button")',
            "character 18: step 1: unknown key 'element'; did you mean "
            "'element_description'? "
            "(known: action, argument, element_description)",
        ),
        ('do(action="back", action="back")', "character 19: the key 'action' stands here a second time"),
        (
            'do(action="tap", element_description=None)',
            "character 38: found 'N', expected a text in double quotes",
        ),
        ("(" * 5000, "character 1: found '(', expected a name"),
    ],
)
def test_calls_are_refused_at_their_character_and_never_run(text, reason):
    assert str(GUI.parse_calls(text)) == reason


def accepts(grammar: GuiGrammar, target: str) -> bool:
    return isinstance(grammar.parse(json.dumps([{"op": "tap", "target": target}])), Parsed)


@pytest.mark.parametrize(
    "target",
    [
        "[823,684]",
        "the button at (12, 30)",
        "0.12, 0.5",
        "823 684",
        "x=10 y=20",
        "x: 10, y: 20",
        "x3 y4",
        "100x200",
        "at 12;30",
        "10,-5",
    ],
)
def test_coordinates_are_no_description(target):
    assert not accepts(GUI, target)
    assert accepts(GuiGrammar(ops=GUI.ops, coordinates=True), target)


@pytest.mark.parametrize(
    "target",
    [
        "the 2nd button",
        "row 2 of column 3",
        "the 10:30 entry",
        "item 7",
        "version 1.5 of the file",
        "le bouton à gauche",
    ],
)
def test_numbers_in_words_are_a_description(target):
    assert accepts(GUI, target)


def test_a_place_can_be_asked_for():
    placed = GuiGrammar(ops=GUI.ops, places=PLACES)
    assert (
        accepts(placed, "the Save button, BOTTOM right")
        and not accepts(placed, "the Save button")
        and not accepts(placed, "the Inbox")
    )
    assert "step 1: the target 'the Inbox' does not say where; it needs one of above, at, below" in str(
        placed.parse('[{"op": "tap", "target": "the Inbox"}]')
    )


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (Step(op="tap"),),
        (Step(op="fly", target="it"),),
        (Step(op="tap", target="a  b"),),
        (Step(op="tap", target="1, 2"),),
        (Step(op="wait", value="\ud800"),),
        (Step(op="wait", value=3),),
        STEPS + STEPS,
    ],
)
def test_what_would_not_be_read_back_is_not_rendered(steps):
    for render in (GUI.render, GUI.render_calls):
        with pytest.raises(ValueError, match="these steps"):
            render(steps)


@pytest.mark.parametrize(
    "fields", [{"ops": ()}, {"ops": (Op(name="a"), Op(name="a"))}, {"ops": GUI.ops, "least": 4, "most": 3}]
)
def test_a_grammar_that_cannot_be_is_not_made(fields):
    with pytest.raises(ValueError, match="needed|once"):
        GuiGrammar(**fields)


# at random --------------------------------------------------------------------------------------------------

PIECES = [
    '"',
    "\\",
    "\\u",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "(",
    ")",
    "=",
    "do",
    '"op"',
    '"target"',
    '"tap"',
    "NaN",
    "1e999",
    "null",
    "\n",
    "\x00",
    "\ud800",
    "\u2028",
    "ü",
    "<plan>",
    "</plan>",
    "<act>",
    "</act>",
    "<think>",
    " ",
    "x",
]


def noisy(rng: random.Random, text: str) -> str:
    """The text after up to three cuts and insertions."""
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(["", *PIECES]) + text[at + rng.randrange(3) :]
    return text


def test_what_is_rendered_is_read_back():
    rng, letters = random.Random("gui"), 'aé"\\ \n\t</plan>漢'
    for _ in range(500):
        value = "".join(rng.choices(letters, k=rng.randrange(12)))
        target = " ".join(
            rng.choices(["the", "field", 'named "x"', "\\o/", "in", "row", "über"], k=rng.randrange(1, 5))
        )
        steps = tuple(
            rng.choices(
                [
                    Step(op="type", target=target, value=value),
                    Step(op="tap", target=target),
                    Step(op="back"),
                    Step(op="wait", value=value),
                ],
                k=rng.randrange(1, 4),
            )
        )
        if not any(c.isalpha() for c in target):
            continue
        assert GUI.parse(GUI.render(steps)) == GUI.parse_calls(GUI.render_calls(steps)) == Parsed(steps)


def test_what_the_strict_reader_accepts_json_reads_alike():
    """Random text: never an exception, both answers occur, and an accepted text is JSON that means these
    steps."""
    rng, counts = random.Random("json"), {Parsed: 0, Refusal: 0}
    for _ in range(6000):
        text = noisy(rng, GUI.render(rng.sample(STEPS, rng.randrange(1, 4))))
        answer = GUI.parse(text)
        counts[type(answer)] += 1
        if isinstance(answer, Parsed):
            steps = [
                Step(
                    op=d["op"],
                    target=" ".join(d["target"].split()) if "target" in d else None,
                    value=d.get("value"),
                )
                for d in json.loads(text)
            ]
            assert answer.value == tuple(steps)
        else:
            assert 1 <= answer.position <= len(text) + 1 and answer.unit == "character"
    assert min(counts.values()) > 1000


def test_random_text_never_breaks_calls_and_tags():
    rng, counts = (
        random.Random("calls"),
        {name: {Parsed: 0, Refusal: 0} for name in ("calls", "tags", "turn")},
    )
    tagged = "<plan>c s e</plan>\n<think>so</think> <act>x</act>"
    for _ in range(4000):
        called, text, turn = (
            noisy(rng, GUI.render_calls(STEPS)),
            noisy(rng, tagged),
            noisy(rng, "c s e </plan>"),
        )
        for name, answer, given in (
            ("calls", GUI.parse_calls(called), called),
            ("tags", tags_of().parse(text), text),
            ("turn", tags_of().turn("plan", turn), turn),
        ):
            counts[name][type(answer)] += 1
            if isinstance(answer, Refusal):
                assert 1 <= answer.position <= len(given) + 1
            elif name == "tags":
                assert all(given[s.start - 1 :].startswith(s.text) for s in answer.value.values())
                assert [given.count(f"<{key}>") for key in answer.value] == [1] * len(answer.value)
    assert all(count > 500 for name in counts for count in counts[name].values()), counts


def test_a_long_unclosed_text_is_refused_in_one_pass():
    long = GuiGrammar(ops=GUI.ops, characters=10**7)
    assert (
        str(long.parse('[{"op": "' + "\\\\" * 10**6))
        == "character 9: the text that begins here is not closed on its line"
    )
    assert str(tags_of().parse("<plan>" + "</pla" * 10**5)) == "character 1: '<plan>' is never closed"
