"""What an engine chose by itself is kept with a checkpoint, taken up by whoever goes on, and said where a
machine cannot honour it."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import desk_recipe, fake_desk, lines_of, nothing

from forethought.engines import chosen as choices
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.load import write_resolved
from forethought.recipe.schema import EngineSpec
from forethought.runs import run
from forethought.store import Store

HERE = {
    "device": "cpu",
    "chip": "A",
    "instructions": "AVX2",
    "precision": "bf16",
    "threads": 2,
    "kernels": "c",
    "kernels/build": "1f",
    "torch": "2.9",
    "transformers": "5.0",
}


def test_what_a_recipe_leaves_open_becomes_what_it_was():
    assert choices.pinned(EngineSpec(), HERE) == EngineSpec(precision="bf16", threads=2)
    assert choices.pinned(EngineSpec(threads=0), HERE) == EngineSpec(precision="bf16", threads=2)  # 0 is auto
    named = EngineSpec(precision="fp32", threads=1)
    assert choices.pinned(named, HERE) == named
    assert choices.pinned(EngineSpec(), {}) == EngineSpec()


def test_the_threads_beside_a_gpu_say_nothing_of_a_cpu_and_the_device_is_the_users():
    gpu = HERE | {"device": "cuda", "threads": 8}
    assert choices.pinned(EngineSpec(), gpu) == EngineSpec(precision="bf16")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"kernels": "torch: switched off by FORETHOUGHT_KERNELS=0"},
            "kernels: c before, torch: switched off by FORETHOUGHT_KERNELS=0 now",
        ),
        ({"chip": "B"}, "processor: A before, B now"),
        ({"threads": 1}, "threads: 2 before, 1 now"),
        ({"precision": "fp32"}, "precision: bf16 before, fp32 now"),
        ({"torch": "2.10"}, "torch: 2.9 before, 2.10 now"),
        ({"instructions": "AVX512"}, "instructions: AVX2 before, AVX512 now"),
        ({"sampling": "torch"}, "rows sampled by: none before, torch now"),
        ({"products": "avx2"}, "instructions of the products: none before, avx2 now"),
        ({"kernels/build": "2e"}, "build of the kernels: 1f before, 2e now"),
    ],
)
def test_what_changes_bits_is_named(change, said):
    assert choices.differences(HERE, HERE) == []
    assert choices.differences(HERE, HERE | change) == [said]


def test_a_reason_in_other_words_is_no_difference_and_a_missing_record_is_one():
    assert choices.differences({"kernels": "torch: no C compiler"}, {"kernels": "torch: switched off"}) == []
    assert choices.differences(None, HERE) == ["the checkpoint does not say on what it was computed"]
    assert choices.differences({k: v for k, v in HERE.items() if k != "torch"}, HERE) == [
        "torch: none before, 2.9 now"
    ]


# In a run ---------------------------------------------------------------------------------------------------

IMITATE = {"kind": "imitate", "until": {"steps": 4}, "batch": 2, "optim": {"lr": 0.5}}


class Choosing(FakeEngine):
    """On a machine that the test makes up; "auto" is what `machine` says."""

    machine: dict = {}
    asked: list = []

    def chosen(self):
        return dict(self.machine)


def engine_of(machine: dict, asked: list):
    def made(recipe, taskset):
        engine = fake_desk()(recipe, taskset)
        engine.__class__ = Choosing
        asked.append(recipe.engine)
        own = {
            k: machine[k] if getattr(recipe.engine, k) == "auto" else getattr(recipe.engine, k)
            for k in ("threads", "precision")
        }
        engine.machine = machine | own
        return engine

    return made


def stopped(out, machine: dict, asked: list) -> None:
    def stop(event):
        if event.kind == "step" and event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(desk_recipe(IMITATE), out, stop, engine_of(machine, asked))


def test_a_resumed_run_takes_up_what_was_chosen_and_says_nothing_where_all_is_as_it_was(tmp_path):
    asked, out, notes = [], tmp_path / "run", []
    stopped(out, HERE, asked)
    assert Store.open(out).latest()[1]["chosen"] == HERE
    busy = HERE | {"threads": 1, "precision": "fp32"}  # what a measurement would choose there now
    run.resume(
        out, lambda event: notes.append(event.text) if event.kind == "note" else None, engine_of(busy, asked)
    )
    assert [(spec.threads, spec.precision) for spec in asked] == [("auto", "auto"), (2, "bf16")]
    assert Store.open(out).latest()[1]["chosen"] == HERE and notes == []
    assert [d["outcome"] for d in lines_of(out / "decisions.jsonl") if d["kind"] == "run"] == [
        "start",
        "resume",
        "end",
    ]


def test_another_machine_is_said_and_is_a_decision_each_time_it_changes(tmp_path):
    asked, out, notes = [], tmp_path / "run", []
    stopped(out, HERE, asked)
    run.resume(
        out,
        lambda event: notes.append(event.text) if event.kind == "note" else None,
        engine_of(HERE | {"chip": "B"}, asked),
    )
    said = (
        "from step 2 on this run is not, bit for bit, the one that was never stopped: processor: A "
        "before, B now"
    )
    assert notes == [said]
    assert [
        (d["step"], d["reason"]) for d in lines_of(out / "decisions.jsonl") if d["outcome"] == "elsewhere"
    ] == [(2, said)]
    assert Store.open(out).latest()[1]["chosen"]["chip"] == "B"


def test_a_checkpoint_without_a_record_goes_on_and_says_so(tmp_path):
    asked, out = [], tmp_path / "run"
    stopped(out, HERE, asked)
    folder = Store.open(out).latest()[0]
    state = json.loads((folder / "state.json").read_text())
    del state["chosen"]
    shape = Store.open(out)
    shape.save(
        state.pop("step"),
        {k: v for k, v in state.items() if k != "logs"},
        lambda beside: shutil.copytree(folder / "engine", beside / "engine"),
    )
    run.resume(out, nothing, engine_of(HERE, asked))
    assert [
        d["reason"].split(": ")[1] for d in lines_of(out / "decisions.jsonl") if d["outcome"] == "elsewhere"
    ] == ["the checkpoint does not say on what it was computed"]


def test_a_run_that_is_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    out = tmp_path / "run"
    Store.create(out)
    write_resolved(desk_recipe(IMITATE), out / "recipe.json")
    asked = []
    run.resume(out, nothing, engine_of(HERE, asked))
    assert asked[0].threads == "auto" and not [
        d for d in lines_of(out / "decisions.jsonl") if d["outcome"] == "elsewhere"
    ]
