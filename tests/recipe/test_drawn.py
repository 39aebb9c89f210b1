"""Settings of sampling that come from Python, without a parser before them."""

from __future__ import annotations

from math import inf, nan

import pytest

from forethought.core.errors import UserError
from forethought.recipe.sampling import drawn_with, measured_with

SOUND = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", x) for x in (-1, nan, inf, "hot", None)),
        *(("top_p", x) for x in (0, 1.1, nan)),
        *(("top_k", x) for x in (-1, 2.5, True, "5", None)),
        *(("min_p", x) for x in (-0.1, 1.1, nan)),
    ],
)
def test_a_value_that_cannot_be_is_named(name, value):
    with pytest.raises(UserError, match=f"{name} must be .*, found {value!r}"):
        drawn_with(**SOUND | {name: value})


def test_bounds_are_values_too():
    found = drawn_with(temperature=0, top_p=1, top_k=10**30, min_p=1)
    assert (found.temperature, found.top_p, found.top_k, found.min_p) == (0, 1, 10**30, 1)


def test_what_narrows_nothing_needs_no_temperature():
    assert measured_with(top_k=0, min_p=0.0).temperature == 0
