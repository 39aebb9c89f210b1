"""JSON Schemas as grammars of arguments: what fits, what is refused and where, what is not covered."""

from __future__ import annotations

import pytest

from forethought.core.errors import UserError
from forethought.interface.jsons import read_value
from forethought.interface.result import Refused
from forethought.interface.schema import check, cover, fields, written

PRESS = {
    "type": "object",
    "properties": {
        "button": {"enum": ["red", "blue"]},
        "times": {"type": "integer", "minimum": 1, "maximum": 3},
        "note": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]},
        "places": {"type": "array", "items": {"$ref": "#/$defs/Place"}, "maxItems": 2},
        "sure": {"const": True},
    },
    "required": ["button"],
    "$defs": {
        "Place": {
            "type": "object",
            "properties": {"x": {"type": "number", "exclusiveMinimum": 0}},
            "required": ["x"],
        }
    },
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"button": "red"}', {"button": "red"}),
        # in the order of the schema, whatever the order of the text
        ('{"times": 3, "button": "blue"}', {"button": "blue", "times": 3}),
        ('{"button": "red", "times": 2.0}', {"button": "red", "times": 2.0}),
        ('{"button": "red", "note": null}', {"button": "red", "note": None}),
        (
            '{"button": "red", "places": [{"x": 0.5}, {"x": 1}]}',
            {"button": "red", "places": [{"x": 0.5}, {"x": 1}]},
        ),
        ('{"button": "red", "sure": true}', {"button": "red", "sure": True}),
    ],
)
def test_what_fits_is_read(text, value):
    cover(PRESS, "press")
    found = check(PRESS, read_value(text))
    assert found == value and list(found) == list(value)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("[]", "character 1: found [], expected object"),
        ("{}", "character 1: 'button' is missing"),
        ('{"buton": "red"}', "character 2: unknown key 'buton'; did you mean 'button'?"),
        ('{"button": "green"}', "character 12: button: found 'green', expected 'red' or 'blue'"),
        ('{"button": "red", "times": 4}', "character 28: times: 4 must be at most 3"),
        ('{"button": "red", "times": 1.5}', "character 28: times: found 1.5, expected integer"),
        ('{"button": "red", "times": true}', "character 28: times: found True, expected integer"),
        (
            '{"button": "red", "note": "longer"}',
            "character 27: note: found 'longer', expected string or null",
        ),
        ('{"button": "red", "places": [{"x": 0}]}', "character 36: places[0].x: 0 must be more than 0"),
        ('{"button": "red", "places": [{"y": 1}]}', "character 31: places[0]: unknown key 'y' (known: x)"),
        ('{"button": "red", "places": [{"x": 1},{"x": 1},{"x": 1}]}', "places: 3 items, expected 0 to 2"),
        ('{"button": "red", "sure": 1}', "character 27: sure: found 1, expected True"),
    ],
)
def test_what_does_not_fit_is_refused_at_its_character(text, refusal):
    with pytest.raises(Refused) as refused:
        check(PRESS, read_value(text))
    assert refusal in str(refused.value.refusal)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"properties": {"a": {"oneOf": []}}}, "tool.a: 'oneOf' is not covered; hide the tool"),
        ({"properties": {"a": {"items": {"not": {}}}}}, "tool.a.items: 'not' is not covered"),
        ({"patternProperties": {}}, "tool: 'patternProperties' is not covered"),
        ({"$defs": {"A": {"items": {"$ref": "#/$defs/A"}}}, "$ref": "#/$defs/A"}, "comes back to itself"),
        ({"$ref": "https://a.example/schema"}, "names nothing in its schema"),
        ({"$ref": "#/$defs/B"}, "the reference '#/$defs/B' names nothing in its schema"),
        ({"properties": {"a": {"type": "text"}}}, "tool.a.type: unknown type 'text'"),
        ({"allOf": [{}, {}]}, "'allOf' of several is not covered"),
        ({"properties": {"a": "string"}}, "tool.a: \"'string'\" is not a schema"),
    ],
)
def test_what_is_not_covered_is_named(schema, message):
    with pytest.raises(UserError, match="tool") as error:
        cover(schema, "tool")
    assert message in str(error.value)


def test_a_schema_is_told_in_few_words():
    assert fields(PRESS) == (
        'button: "red" | "blue", times?: integer, note?: string | null, places?: list of {x: number}, '
        "sure?: True"
    )
    assert written({}) == "any" and written({"type": ["string", "null"]}) == "string | null"
