"""On how many threads a model computes: by hand where clocks are made up, and the same number for as long as
a run lasts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch  # noqa: E402
import torch_kit  # noqa: E402
from conftest import nothing  # noqa: E402

from forethought.core import cores
from forethought.core.errors import RecipeError  # noqa: E402
from forethought.engines.torch.forest.native import weights  # noqa: E402
from forethought.engines.torch.forest.native.library import library, why_not  # noqa: E402
from forethought.engines.torch.machine import device as machine  # noqa: E402
from forethought.engines.torch.machine import threads
from forethought.recipe.check import check  # noqa: E402
from forethought.recipe.convert import from_dict  # noqa: E402
from forethought.recipe.schema import EngineSpec  # noqa: E402
from forethought.runs import run  # noqa: E402

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LARGE, MEASURED = threads.MEASURED_FROM, threads.measured
SLOW = "fewer threads would be faster, and change the last bits of sums"


@pytest.fixture(autouse=True)
def one_thread():
    MEASURED.cache_clear()
    yield
    torch.set_num_threads(1)


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(cores, "usable", lambda: 4)
    monkeypatch.setattr(cores, "most_threads", lambda: 4)


def saw(monkeypatch, took: dict[int, float]) -> list[tuple]:
    """What is measured, made up; returns with what it was asked."""
    asked = []
    monkeypatch.setattr(threads, "measured", lambda *args: asked.append(args) or took)
    return asked


# choosing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "tried"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))],
)
def test_numbers_double_up_to_the_cores(most, tried):
    assert threads.numbers(most) == tried


@pytest.mark.parametrize(
    ("took", "number"),
    [
        ({1: 1.0}, 1),
        ({1: 1.0, 2: 0.86}, 1),  # 14 % are not enough
        ({1: 1.0, 2: 0.84}, 2),
        ({1: 1.0, 2: 3.0}, 1),
        ({1: 1.0, 2: 0.9, 4: 0.8}, 4),  # against what was taken so far, not against its neighbour
        ({1: 1.0, 2: 0.6, 4: 0.55}, 2),
        ({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.9}, 4),
    ],
)
def test_more_threads_must_save_their_share(took, number):
    assert threads.best(took) == number


def test_sides_alternate_and_the_upper_quartile_counts():
    """Two threads lose their core in three of eight rounds: in the median they would be the faster ones."""
    now, using, order = [0.0], [0], []
    hiccups = itertools.cycle([0, 0, 1, 0, 0, 1, 0, 1])

    def take(n: int) -> None:
        using[0] = n
        order.append(n)

    def do() -> None:
        now[0] += 0.010 if using[0] == 1 else 0.120 if len(order) > 2 and next(hiccups) else 0.006

    took = threads.compare(do, (1, 2), take, lambda: now[0])
    assert order[:6] == [1, 2, 1, 2, 1, 2] and len(order) % 2 == 0
    assert took == pytest.approx({1: 0.010, 2: 0.120}) and threads.best(took) == 1


def test_slow_work_is_still_done_some_times():
    now, done = [0.0], []

    def do() -> None:
        now[0] += 10.0
        done.append(1)

    assert threads.compare(do, (1, 2), lambda n: None, lambda: now[0]) == {1: 10.0, 2: 10.0}
    assert len(done) == 2 * (1 + threads.ROUNDS)


def test_measuring_draws_no_random_numbers_and_leaves_the_threads_as_they_were():
    state = torch.random.get_rng_state()
    took = threads.measured(threads.Shape(64, 128, 2), torch.float32, (1, 2))
    assert set(took) == {1, 2} and min(took.values()) > 0 and torch.get_num_threads() == 1
    assert torch.equal(torch.random.get_rng_state(), state)
    # one answer for as long as the process lives
    assert threads.measured(threads.Shape(64, 128, 2), torch.float32, (1, 2)) is took


def test_the_work_is_the_models_and_no_larger_than_allowed(monkeypatch):
    """Width 4, middle 6, 3 blocks: 48 weights a block. Rows 32 and 128, two products of 2 x 4 x 6 operations
    for each."""
    counted = lambda shape: operations(threads.work(shape, torch.float32))  # noqa: E731
    shape = threads.Shape(4, 6, 3)
    assert counted(shape) == 3 * (32 + 128) * 2 * 2 * 4 * 6
    monkeypatch.setattr(threads, "MOST_WEIGHTS", 100)
    assert counted(shape) == 2 * (32 + 128) * 2 * 2 * 4 * 6  # two blocks
    monkeypatch.setattr(threads, "MOST_WEIGHTS", 40)
    assert counted(shape) == 1 * (32 + 128) * 2 * 2 * 4 * 5  # one, with 5 of its 6 columns


def operations(do) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        assert torch.isfinite(do()).all()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "phi", "mixtral", "gpt_neox"])
def test_the_shape_of_any_family(kind):
    shape = threads.Shape.of(torch_kit.config_of(kind))
    # gpt2 has no number of its own: four times its width
    assert (shape.width, shape.layers) == (32, 2) and shape.mlp in (48, 128)


def test_a_family_with_a_size_a_layer_has_its_largest():
    class Config:
        hidden_size, num_hidden_layers, intermediate_size = 8, 2, [16, 24]

    assert threads.Shape.of(Config()) == threads.Shape(8, 24, 2)


# saying it --------------------------------------------------------------------------------------------------


def test_what_was_measured_is_said(monkeypatch, four_cores):
    asked = saw(monkeypatch, {1: 0.041, 2: 0.038, 4: 0.030})
    choice = threads.choose(0, CPU, LARGE, torch_kit.config_of("llama"), torch.bfloat16)
    assert choice == threads.Choice(
        4, "measured: 1 -> 41.0 ms, 2 -> 38.0 ms, 4 -> 30.0 ms; more must save 15%"
    )
    assert asked == [(threads.Shape(32, 48, 2), torch.bfloat16, (1, 2, 4))]


def test_a_bound_of_the_users_is_kept_and_said(monkeypatch, four_cores):
    monkeypatch.setattr(cores, "most_threads", lambda: 2)
    asked = saw(monkeypatch, {1: 0.040, 2: 0.020})
    choice = threads.choose(0, CPU, LARGE, torch_kit.config_of("llama"))
    assert (
        choice.number == 2
        and choice.why.endswith("more must save 15%; OMP_NUM_THREADS allows 2")
        and asked[0][2] == (1, 2)
    )


@pytest.mark.parametrize(
    ("given", "here", "choice"),
    [
        ((0, CPU, LARGE - 1), (4, 4), (1, "not measured: always one below 4M parameters")),
        ((0, CPU, LARGE), (1, 1), (1, "one core here")),
        ((0, CPU, LARGE), (4, 1), (1, "OMP_NUM_THREADS is 1")),
        ((0, GPU, LARGE), (4, 4), (4, "not measured: the GPU computes")),
        ((0, GPU, LARGE), (64, 64), (8, "not measured: the GPU computes")),
        # a number that is given is taken
        ((3, CPU, LARGE), (4, 1), (3, "given by the recipe, or by the run that goes on")),
        (
            (8, CPU, 1),
            (4, 4),
            (8, f"given by the recipe, or by the run that goes on; here are 4 cores: {SLOW}"),
        ),
        (
            (2, CPU, 1),
            (1, 1),
            (2, f"given by the recipe, or by the run that goes on; here is 1 core: {SLOW}"),
        ),
    ],
)
def test_where_nothing_is_measured_it_says_why(monkeypatch, given, here, choice):
    monkeypatch.setattr(threads, "measured", lambda *args: pytest.fail("measured"))
    monkeypatch.setattr(cores, "usable", lambda: here[0])
    monkeypatch.setattr(cores, "most_threads", lambda: here[1])
    assert threads.choose(*given, torch_kit.config_of("llama")) == threads.Choice(*choice)


def test_a_machine_computes_on_what_was_chosen(monkeypatch, four_cores):
    saw(monkeypatch, {1: 0.02, 2: 0.01, 4: 0.01})
    monkeypatch.setattr(threads, "MEASURED_FROM", 1)
    found = machine.prepare(EngineSpec(device="cpu", precision="fp32"), torch_kit.model_of("llama"))
    assert torch.get_num_threads() == found.threads == 2
    facts = found.facts()
    assert (facts["threads"], facts["cores"]) == (2, 4) and facts["threads/why"].startswith(
        "measured: 1 -> 20.0 ms, "
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, "engine.threads: must be between 0 and 1024, found -1"),
        ("all", "engine.threads: expected a whole number or 'auto', found the text 'all'"),
        (1.5, "engine.threads: expected a whole number or 'auto', found the number 1.5"),
    ],
)
def test_a_wrong_number_is_refused(value, message):
    with pytest.raises(RecipeError) as refused:
        check(from_dict({"engine": {"threads": value}, "stage": [{"kind": "imitate"}]}))
    assert str(refused.value).startswith(message)


def test_auto_and_zero_ask_for_a_measurement():
    assert [EngineSpec(threads=n).asked for n in ("auto", 0, 3)] == [0, 0, 3]


def test_rows_are_sampled_on_threads_of_their_own_where_the_kernels_do(monkeypatch, four_cores):
    engine = torch_kit.engine_of(torch_kit.model_of("llama", head_dim=16))
    facts = dict(engine.facts())
    assert (facts["kernels"], facts.get("threads/kernels")) == (
        ("c", 4) if library() else (f"torch: {why_not()}", None)
    )
    monkeypatch.setattr(weights, "describe_kernels", lambda model: "torch: here no longer")
    assert "threads/kernels" not in engine.facts() and engine.facts()["threads"] == facts["threads"]


# a fact of the run ------------------------------------------------------------------------------------------


def tables(**more) -> dict:
    return {
        "name": "threads",
        "layout": "shared",
        "task": {"name": "desk", "levels": [1], "widgets": 4},
        "model": {"layers": 2, "width": 32, "heads": 4, "mlp": 16},
        "engine": {"device": "cpu", "precision": "fp32"},
        "eval": {"tasks": 1, "every": 0},
        "save": {"every": 1},
        "probes": {"every": 0, "conflict_every": 0},
        "stage": [{"kind": "imitate", "until": {"steps": 3}, "batch": 2}],
    } | more


def of_summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())["machine"]


class Stopped(Exception):
    pass


def test_a_resumed_run_keeps_the_number_that_it_began_with(tmp_path, monkeypatch, four_cores):
    monkeypatch.setattr(threads, "MEASURED_FROM", 1)
    saw(monkeypatch, {1: 0.04, 2: 0.02, 4: 0.03})
    told = []

    def watch(event):
        told.append((event.kind, event.text))
        if event.kind == "step":
            raise Stopped

    with pytest.raises(Stopped):
        run.train(from_dict(tables()), tmp_path / "run", watch)
    why = "measured: 1 -> 40.0 ms, 2 -> 20.0 ms, 4 -> 30.0 ms; more must save 15%"
    assert told[0] == ("start", str(tmp_path / "run"))
    assert (
        told[1][0] == "note" and told[1][1].startswith(f"threads: 2 ({why})") and "; kernels: " in told[1][1]
    )
    assert (of_summary(tmp_path / "run")["threads"], of_summary(tmp_path / "run")["threads/why"]) == (2, why)
    saw(monkeypatch, {1: 0.01, 2: 0.02, 4: 0.03})  # it would take one today
    monkeypatch.setattr(cores, "usable", lambda: 1)
    torch.set_num_threads(1)
    told.clear()
    run.resume(tmp_path / "run", lambda event: told.append((event.kind, event.text)))
    assert torch.get_num_threads() == of_summary(tmp_path / "run")["threads"] == 2
    assert told[1][0] == "note" and told[1][1].startswith(
        "threads: 2 (given by the recipe, or by the run that goes on; here is 1 core: "
    )
    # the recipe is as it was
    assert json.loads((tmp_path / "run/recipe.json").read_text())["engine"]["threads"] == "auto"


def test_two_models_in_one_process_have_one_number(tmp_path, monkeypatch, four_cores):
    """The larger one's, whoever is loaded last."""
    monkeypatch.setattr(threads, "MEASURED_FROM", 1)
    asked = saw(monkeypatch, {1: 0.04, 2: 0.02, 4: 0.03})
    planner = {"init": "small", "layers": 3, "width": 32, "heads": 4, "mlp": 48}
    recipe = from_dict(tables(layout="models", planner=planner))
    engine, _ = run.build(recipe)
    assert [shape for shape, *_ in asked] == [threads.Shape(32, 48, 3)]
    assert [one.machine.threads for one in engine.engines.values()] == [2, 2] and engine.facts()[
        "threads"
    ] == torch.get_num_threads() == 2


def test_another_model_beside_a_run_computes_on_as_many_threads(monkeypatch, four_cores):
    recipe = from_dict(tables(engine={"device": "cpu", "precision": "fp32", "threads": 3}))
    engine, rollouts = run.build(recipe)
    auto = from_dict(tables())
    run._beside(
        auto,
        rollouts,
        lambda made, taskset: pytest.fail(made.engine.threads) if made.engine.threads != 3 else engine,
    )(auto.model)


def test_a_tiny_model_is_not_measured(tmp_path, monkeypatch):
    """So that the same seed is the same run."""
    monkeypatch.setattr(threads, "measured", lambda *args: pytest.fail("measured"))
    run.train(from_dict(tables()), tmp_path / "run", nothing)
    assert of_summary(tmp_path / "run")["threads"] == 1
    assert of_summary(tmp_path / "run")["threads/why"] == "not measured: always one below 4M parameters"
