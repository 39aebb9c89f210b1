"""The faces of an engine: who has which, and what a recipe is told that needs another."""

from __future__ import annotations

import inspect

import pytest
from conftest import desk_choices, desk_recipe, nothing
from torch_kit import engine_of, model_of

from forethought.core.errors import RecipeError
from forethought.core.types import Request
from forethought.engines.base import Engine, Sampler, Surgery, Trainer, Words, lacks
from forethought.engines.fake.engine import FakeEngine
from forethought.engines.fake.policies import Policies
from forethought.engines.joined import Joined
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.forest.native.library import library
from forethought.runs import run

FACES = (Words, Sampler, Trainer, Surgery)
STAGE = {"kind": "imitate", "batch": 2, "levels": [1], "optim": {"lr": 0.1}, "until": {"steps": 2}}
PCGRAD = STAGE | {"isolation": {"surgery": "pcgrad"}}
CORE = STAGE | {"roles": ["plan"], "isolation": {"core": "core"}}


def joined() -> Joined:
    words = ["a", "b", "c", "</plan>"]
    main, other = (FakeEngine(words, {"plan": "</plan>"}) for _ in range(2))
    return Joined(main, {"plan": other}, words)


class Plain(FakeEngine):
    """A fake that knows nothing of surgery."""

    def __getattribute__(self, name: str):
        if name in vars(Surgery) and not name.startswith("_"):
            raise AttributeError(name)
        return super().__getattribute__(name)


def plain_of(recipe, taskset) -> Plain:
    return Plain(taskset.vocabulary(), taskset.stops, choices=desk_choices)


@pytest.mark.parametrize("kind", [FakeEngine, Joined, TorchEngine])
def test_a_method_takes_what_its_face_says(kind):
    for face in (*FACES, Engine):
        for name, asked in vars(face).items():
            if inspect.isfunction(asked) and not name.startswith("_"):
                if hasattr(kind, name):  # the words of several engines are those of one
                    assert list(inspect.signature(getattr(kind, name)).parameters) == list(
                        inspect.signature(asked).parameters
                    ), (kind, name)


@pytest.mark.parametrize(
    "engine", [FakeEngine(["a"], {}), joined(), engine_of()], ids=lambda e: type(e).__name__
)
def test_the_shipped_engines_have_every_face(engine):
    assert [lacks(engine, face) for face in (*FACES, Engine)] == [[]] * 5


def test_every_method_of_a_face_says_what_it_does():
    silent = [
        f"{face.__name__}.{name}"
        for face in (*FACES, Engine)
        for name, method in vars(face).items()
        if inspect.isfunction(method) and not name.startswith("_") and not method.__doc__
    ]
    assert silent == []


def test_what_a_face_asks_for_is_named_where_it_is_missing():
    assert {"begin", "context", "decode", "encode"} <= set(lacks(Policies(), Words))
    assert "slerp" in lacks(Plain(["a"], {}), Surgery) and lacks(Plain(["a"], {}), Trainer) == []


@pytest.mark.parametrize(
    ("stage", "probes", "key"),
    [
        (PCGRAD, 0, "stage.0.isolation.surgery"),
        (CORE, 0, "stage.0.isolation.core"),
        (STAGE, 5, "probes.conflict_every"),
    ],
)
def test_a_recipe_that_needs_surgery_is_refused_where_the_engine_has_none(stage, probes, key):
    recipe = desk_recipe(stage, layout="shared", probes={"conflict_every": probes})
    with pytest.raises(RecipeError, match=f"^{key}: needs an engine with Surgery, and Plain has no .*slerp"):
        run.build(recipe, plain_of)
    run.build(recipe, lambda recipe, taskset: FakeEngine(taskset.vocabulary(), taskset.stops))


def test_an_engine_without_surgery_trains_what_needs_none(tmp_path):
    recipe = desk_recipe(STAGE, layout="shared", probes={"conflict_every": 0})
    assert run.train(recipe, tmp_path / "run", nothing, plain_of).status == "done"


EXACT = [engine_of(model_of("qwen3")), FakeEngine(["a", "b", "c", "</plan>"], {"plan": "</plan>"})]


@pytest.mark.parametrize("engine", EXACT, ids=lambda e: type(e).__name__)
def test_a_row_of_an_exact_engine_depends_on_nothing_beside_it(engine):
    if isinstance(engine, TorchEngine) and library() is None:
        pytest.skip("no kernels here: PyTorch computes the rows")
    stops = ("</plan>",) if isinstance(engine, FakeEngine) else ()
    asks = [
        Request(policy="base", context=(i,) * 2, n=2, stops=stops, max_tokens=5, seed=i) for i in range(3)
    ]
    assert engine.exact
    assert engine.sample(asks) == [engine.sample([one])[0] for one in asks]


def test_an_engine_that_samples_by_pytorch_does_not_say_that_it_is_exact():
    assert not engine_of(model_of("llama", head_dim=6)).exact
