"""Records that are made quickly are the dataclasses that they were."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from forethought.core.records import quick


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Quick:
    a: int
    b: str = "x"
    c: dict = field(default_factory=dict)


def test_fields_defaults_and_copies_are_those_of_the_dataclass():
    made, own = Quick(a=1), Quick(a=2, b="y", c={"k": 1})
    assert (made.a, made.b, made.c) == (1, "x", {}) and made.c is not Quick(a=1).c
    assert replace(own, a=3) == Quick(a=3, b="y", c={"k": 1}) != own
    assert pickle.loads(pickle.dumps(own)) == copy.deepcopy(own) == own
    with pytest.raises(FrozenInstanceError):
        own.a = 5


@pytest.mark.parametrize("fields", [{}, {"a": 1, "d": 2}])
def test_a_field_that_is_missing_or_unknown_is_an_error_that_names_it(fields):
    with pytest.raises(TypeError, match=r"Quick\.__init__\(\).*'[ad]'"):
        Quick(**fields)
    with pytest.raises(TypeError, match="positional"):
        Quick(1)


def test_another_kind_of_class_is_refused():
    @dataclass
    class Loose:
        a: int

    with pytest.raises(TypeError, match="Loose is no dataclass with slots"):
        quick(Loose)
