"""Nonsense of every type in every place of a recipe: taken with a meaning, or refused with its address."""

from __future__ import annotations

import random

import pytest

from forethought import cli
from forethought.core.errors import RecipeError
from forethought.recipe.check import check
from forethought.recipe.convert import to_dict
from forethought.recipe.load import load, override

VALUES = (
    *(
        "nan",
        "inf",
        "-inf",
        "-1",
        "0",
        "1.5",
        "1e9",
        "1e400",
        "9999",
        "9" * 26,
        "-0",
        "true",
        "x",
        "''",
        '"x"',
    ),
    *("[]", "[nan]", "[-1]", "[1,'a']", "{}", "{a=1}", "[{}]", "[[[[", "{a=", "1979-05-27", "\x1b[31m"),
)
ENDPOINT = {  # setting -> what it cannot be
    "base_url": (
        "5",
        "true",
        "[]",
        "''",
        "'http://['",
        "'ftp://x'",
        "'http://h:99999/v1'",
        "'http://u:p@h/v1'",
    ),
    "model": ("5", "''", "[]"),
    "key_env": ("5", "'a b'", "'1x'", "true"),
    "temperature": ("'hot'", "-1", "nan", "true", "1000", "1e400"),
    "max_tokens": ("0", "-1", "1.5", "'x'", "true"),
    "tokens_field": ("5", "''", "'model'"),
    "time_limit": ("0", "-1", "nan", "inf", "'x'", "true"),
    "retries": ("-1", "1.5", "'x'"),
    "first_pause": ("-1", "nan", "'x'"),
    "most_pause": ("-1", "inf", "[]"),
    "per_minute": ("-1", "nan", "'x'"),
    "concurrency": ("0", "1.5", "100000"),
    "price_in": ("-1", "nan", "'x'"),
    "price_out": ("-1", "inf", "'x'"),
    "most_cost": ("-1", "nan", "'x'"),
    "give_up": ("0", "1.5", "true"),
    "nonsense": ("1",),
}


def addresses(tables, where: str = "") -> list[str]:
    found = []
    for key, value in tables.items() if isinstance(tables, dict) else enumerate(tables):
        at = f"{where}.{key}" if where else str(key)
        found += [at, *(addresses(value, at) if isinstance(value, (dict, list)) else ())]
    return found


def test_nonsense_is_refused_with_its_address_or_means_something():
    desk = load("desk")
    tables = to_dict(desk)
    pairs = [(at, value) for at in addresses(tables) for value in VALUES]
    refused = 0
    for at, value in random.Random(0).sample(pairs, 400):
        try:
            check(override(desk, [f"{at}={value}"]))
        except RecipeError as error:
            refused += 1
            # what does not fit may be named at the other end: a stage asks for a level that the task has not
            assert error.where.split(".")[0] in tables, (at, value, str(error))
    assert refused > 300


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in ENDPOINT.items() for v in values])
def test_a_dry_run_sees_what_an_endpoint_cannot_be_set_to(tmp_path, capsys, key, value):
    settings = {"base_url": "'http://h/v1'", "model": "'m'", key: value}
    said = ", ".join(f"{k} = {v}" for k, v in settings.items())
    (tmp_path / "r.toml").write_text(
        "name = 'x'\n[[stage]]\nkind = 'distill'\n"
        f"distill = {{ summariser = 'endpoint', problems = 4, endpoint = {{ {said} }} }}\n"
        "[[stage]]\nkind = 'imitate'\n"
    )
    assert cli.main(["train", str(tmp_path / "r.toml"), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "stage.0.distill.endpoint" in error and key in error
