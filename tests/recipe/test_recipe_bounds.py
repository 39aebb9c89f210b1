"""Recipes that are too large, too deep, or anything at all: a recipe or a RecipeError with its address, and
soon."""

from __future__ import annotations

import json
import random

import pytest

from forethought import cli
from forethought.core.errors import RecipeError
from forethought.recipe.bounds import MOST_DEPTH
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict, to_dict, to_toml
from forethought.recipe.load import load, override

STAGE = '[[stage]]\nkind = "imitate"\n'


@pytest.fixture
def put(tmp_path):
    def put(text: str | bytes, name: str = "r.toml"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return put


def refusal(*args) -> str:
    with pytest.raises(RecipeError) as error:
        check(load(*args))
    assert len(str(error.value)) < 1000 and str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "seed = " + "9" * 5000,
            "r.toml:2: a whole number of thousands of digits; give one of at most 64 bits",
        ),
        ("seed = 0x" + "f" * 5000, "seed: a whole number of 20000 bits is too large; give one below 2**63"),
        ("seed = 10000000000000000000", "seed: a whole number of 64 bits is too large; give one below 2**63"),
        ("seed = 9223372036854775808", "seed: a whole number of 64 bits is too large"),
        (
            "task = { name = 'math', x = [[1, 0x" + "f" * 17 + "]] }",
            "task.x.0.1: a whole number of 68 bits is too large",
        ),
        (
            "engine = { threads = 1" + "0" * 400 + " }",
            "engine.threads: a whole number of 1329 bits is too large",
        ),
        ("engine = { threads = 9999 }\n" + STAGE, "engine.threads: must be between 0 and 1024, found 9999"),
        (
            "engine = { kernel_threads = 0 }\n" + STAGE,
            "engine.kernel_threads: must be between 1 and 1024, found 0",
        ),
        (
            "task = { x = " + "[" * 5000 + "]" * 5000 + " }",
            f"tables and lists are nested more than {MOST_DEPTH} deep",
        ),
        (
            "task = { x = " + "[" * 100 + "]" * 100 + " }",
            f"task.x.0: tables and lists are nested more than {MOST_DEPTH} deep",
        ),
        (
            "task.a" + ".a" * 3000 + " = 1",
            f"task.a.a: tables and lists are nested more than {MOST_DEPTH} deep",
        ),
        (STAGE * 20_000, "stage: 20000 stages; a recipe has at most 1000"),
        ("a" * 3_000_000 + " = 1", "unknown key 'aaa"),
        ("probes = { formats = { a = '" + "(" * 5000 + "' } }\n" + STAGE, "probes.formats.a: '((("),
        ("probes = { formats = { a = 'b{99999999999999999999}' } }\n" + STAGE, "probes.formats.a: 'b{9"),
    ],
)
def test_a_recipe_without_bounds_is_refused(put, text, says):
    assert says in refusal(put("name = 'x'\n" + text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"seed": ' + "9" * 5000 + "}", "recipe.json:1: a whole number of thousands of digits"),
        ("[" * 100_000, "nested more than"),
        ('{"name": "\\ud800", "stage": [{}]}', "name: '\\ud800' holds half of a character"),
        ('{"about": "\\ud800", "stage": [{}]}', "about: '\\ud800' holds half of a character"),
        ('{"task": {"\\ud800": 1}, "stage": [{}]}', "holds half of a character"),
    ],
)
def test_so_is_the_recipe_of_a_run(put, text, says):
    assert says in refusal(put(text, "recipe.json"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("seed=" + "9" * 5000, "seed: a whole number of thousands of digits"),
        ("seed=0x" + "f" * 5000, "seed: a whole number of 20000 bits is too large"),
        ("stage.0.optim.lr=1" + "0" * 400, "stage.0.optim.lr: a whole number of 1329 bits is too large"),
        (
            "task.x=" + "[" * 5000,
            "task.x: a whole number of thousands of digits, or a value nested without end",
        ),
        ("task" + ".x" * 2000 + "=1", f"task.x.x: tables and lists are nested more than {MOST_DEPTH} deep"),
        # a byte on the command line that is not UTF-8
        ("about=\udcff", "about: '\\udcff' holds half of a character"),
    ],
)
def test_so_is_a_change_on_the_command_line(put, change, says):
    assert says in refusal(put(STAGE), [change])


def test_a_text_of_digits_is_a_text(put):
    assert load(put(STAGE), ["about=" + "9" * 5000]).about == "9" * 5000


def test_a_thousand_stages_are_a_recipe(put):
    assert len(load(put(STAGE * 1000)).stage) == 1000


@pytest.mark.parametrize(
    ("setting", "where"),
    [
        ("base_url = 5", ".base_url: expected text, found the whole number 5"),
        ("base_url = 'http://['", ": "),
        ("key_env = 5", ".key_env: expected text"),
        ("retries = 1.5", ".retries: expected a whole number, found the number 1.5"),
        ("temperature = 'hot'", ".temperature: expected a number"),
        ("time_limit = true", ".time_limit: expected a number"),
        ("url = 'x'", ".url: unknown setting"),
    ],
)
def test_an_endpoint_is_checked_with_its_recipe(put, capsys, setting, where):
    """A dry run asks nobody, and still says it."""
    given = ", ".join(
        [*(["base_url = 'http://x/v1'"] if "base_url" not in setting else []), "model = 'm'", setting]
    )
    path = put(
        f"[[stage]]\nkind = 'distill'\ndistill = {{ summariser = 'endpoint', endpoint = {{ {given} }} }}\n"
    )
    assert cli.main(["train", str(path), "--dry-run"]) == 2
    assert capsys.readouterr().err.startswith(f"forethought: stage.0.distill.endpoint{where}")


def test_odd_places_for_a_recipe(tmp_path):
    with pytest.raises(RecipeError, match="neither a file nor a shipped recipe"):
        load("\0.toml")
    assert "neither a file nor a shipped recipe" in refusal("x" * 5000)
    assert "not a run" in refusal(tmp_path)


@pytest.mark.parametrize("sign", ["\x1b", "\x07", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\xa0"])
def test_a_recipe_that_is_printed_as_toml_holds_no_control_and_reads_back(put, sign):
    recipe = from_dict(
        {"about": f"a{sign}b", "task": {"name": "desk", f"k{sign}": f"v{sign}"}, "stage": [{}]}
    )
    text = to_toml(recipe)
    assert text.replace("\n", "").isprintable()
    assert load(put(text)) == recipe


# Anything at all --------------------------------------------------------------------------------------------

ODD = [
    0,
    -1,
    1.5,
    10**400,
    1 << 64,
    float("inf"),
    float("nan"),
    True,
    None,
    "",
    "x",
    "\ud800",
    "\x1b[2J",
    [],
    {},
    [[]],
    {"a": 1},
    [1, "a"],
    "9" * 50,
    "auto",
    "endpoint",
    "imitate",
    1e-320,
    -0.0,
    "hub:a",
    "~nobody/x",
    "a\0b",
]


def shaken(rng: random.Random, value, depth: int = 0):
    """`value` with something in it replaced, taken out or put in."""
    if rng.random() < 0.04 or depth > 6:
        return rng.choice(ODD)
    if isinstance(value, dict):
        kept = {key: shaken(rng, inside, depth + 1) for key, inside in value.items() if rng.random() > 0.02}
        return kept | (
            {rng.choice(["x", "a.b", "\x1b", "stage", "name"]): rng.choice(ODD)}
            if rng.random() < 0.03
            else {}
        )
    if isinstance(value, list):
        return [shaken(rng, inside, depth + 1) for inside in value] * rng.choice([1, 1, 1, 2])
    return value


def ends_well(make) -> bool:
    try:
        recipe = make()
        check(recipe)
    except RecipeError as error:
        assert str(error)
        return False
    assert from_dict(json.loads(json.dumps(to_dict(recipe)))) == recipe
    return True


def test_any_tables_are_a_recipe_or_an_error_with_an_address():
    rng = random.Random(0)
    whole = [to_dict(load(name)) for name in ("desk", "blocksworld", "gsm8k")]
    slim = {
        "name": "x",
        "seed": 3,
        "task": {"name": "math", "train": "t.jsonl", "eval": ["e.jsonl"], "demos": {"source": "d"}},
        "stage": [
            {
                "kind": "distill",
                "distill": {"summariser": "endpoint", "endpoint": {"base_url": "http://x", "model": "m"}},
            },
            {
                "kind": "reinforce",
                "credit": {"name": "grpo", "grams": "g.txt", "alpha": 0.2, "mask": "grams"},
            },
        ],
    }
    good = sum(
        ends_well(lambda: from_dict(shaken(rng, rng.choice([slim, slim, slim, *whole])))) for _ in range(2000)
    )
    assert 20 < good < 1900


def test_any_text_is_a_recipe_or_an_error_with_an_address(put):
    rng, good = random.Random(0), 0
    seed = (
        STAGE + 'levels = [1, 2]\noptim = { lr = 1e-3 }\n[task]\nname = "desk"\nlevels = [1, '
        "2]\n[eval]\ntasks = 5 # few\n"
    ).encode()
    odd = [
        b"=",
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"'''",
        b"\0",
        b"\r",
        b"\xff",
        b"9" * 5000,
        b"[" * 3000,
        b"inf",
        b"nan",
        b".",
        b"0x",
        b"1e999",
        b"1979-05-27",
        b"\\ud800",
        b"\x1f\x8b",
        "\u2028".encode(),
        b"\xef\xbb\xbf",
        b"#",
    ]
    for _ in range(2000):
        at, upto = sorted(rng.randrange(len(seed) + 1) for _ in range(2))
        path = put(
            rng.choice(
                [seed[:at] + rng.choice(odd) + seed[at:], seed[:at] + seed[upto:], seed[:upto] + seed[at:]]
            )
        )
        good += ends_well(lambda: load(path))
    assert 20 < good < 1900


def test_any_change_is_taken_or_refused_with_an_address():
    rng, base, good = random.Random(0), from_dict({"stage": [{}, {"kind": "reinforce"}]}), 0
    keys = [
        "seed",
        "name",
        "task.levels",
        "task.x",
        "stage.0.until.steps",
        "stage.9.batch",
        "stage.0.gates",
        "stage.1.reward.plan.outcome",
        "layout",
        "model.path",
        "stage.0.optim.betas.1",
        "stage",
        "stage.0",
        "",
        ".",
        "stage.0.0",
        "task",
        "probes.formats.a",
        "a" * 300,
    ]
    values = [
        "1",
        "-1",
        "0x" + "f" * 400,
        "9" * 5000,
        "[1, 2",
        "[" * 2000,
        "{a = 1}",
        '"',
        "'x'",
        "true",
        "inf",
        "1e999",
        "",
        "x\ny = 2",
        "\x1b",
        "\udc80",
        "1979-05-27",
        "[[stage]]",
        "\0",
        "~nobody/x",
        "./x",
        "a#b",
    ]
    for _ in range(1000):
        text = f"{rng.choice(keys)}{rng.choice(['=', '=', '=', '', '=='])}{rng.choice(values)}"
        good += ends_well(lambda: override(base, [text]))
    assert 20 < good < 1900
