"""Films: what a run keeps of them, what a resume cuts, what the page reads, and what it leaves out."""

from __future__ import annotations

import json

from forethought.core.films import Film, Frame, Mark
from forethought.envs.images import name_of
from forethought.report import page
from forethought.report.films import load_films, of_films
from forethought.store import Store

PNG = b"\x89PNG\r\n\x1a\n and what follows"
MARK = Mark(said='click button "</script>"', box=(1, 2, 3, 4))


def film(data=PNG, **changed):
    frame = Frame(image=name_of(data), width=160, height=210, planned=(MARK,), chosen=(MARK,))
    said = {"task": "t", "name": "click-test, seed 1", "asked": "Click.", "success": True, **changed}
    return Film(frames=(frame,), pictures={frame.image: data}, **said)


def made(tmp_path, *steps):
    store = Store.create(tmp_path / "run")
    for step in steps:
        store.save_films(step, 0, [film(PNG + bytes([step]))])
    return store


def test_films_are_kept_once_and_read_newest_first(tmp_path):
    store = made(tmp_path, 3, 20)
    notes: list[str] = []
    found = load_films(store.out, notes)
    assert notes == [] and [one["step"] for one in found["items"]] == [20, 3]
    assert set(found["images"]) == {one["frames"][0]["image"] for one in found["items"]}
    assert all(uri.startswith("data:image/png;base64,") for uri in found["images"].values())
    assert {name.split("/")[0] for name in store.recorded()} == {"films", "images"}
    # a page that has no room shows the newest alone
    assert [one["step"] for one in load_films(store.out, [], room=len(PNG) + 5)["items"]] == [20]


def test_what_is_not_as_the_run_wrote_it_is_left_out(tmp_path):
    store = made(tmp_path, 3, 20)
    path = store.out / "films" / "step-000020.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"step": 21}))
    notes: list[str] = []
    assert [one["step"] for one in load_films(store.out, notes)["items"]] == [3]
    assert notes and notes[0].startswith("films/step-000020.json ")
    for number, wrong in enumerate(([], {"step": 1, "films": [{}]}, {"step": 1, "films": "x"}), 30):
        store.out.joinpath("films", f"step-{number:06d}.json").write_text(json.dumps(wrong))
    frame = told["films"][0]["frames"][0]
    for number, change in enumerate(({"width": 0}, {"wrong": "?"}, {"planned": [{}]}, {"chosen": 1}), 40):
        one = told["films"][0] | {"frames": [frame | change]}
        text = json.dumps({"step": number, "films": [one]})
        store.out.joinpath("films", f"step-{number:06d}.json").write_text(text)
    notes = []
    assert [one["step"] for one in load_films(store.out, notes)["items"]] == [3] and len(notes) == 8


def test_a_page_of_films_needs_no_other_file_and_runs_no_text(tmp_path):
    text = page.watch([film(asked="</script><b>")], "played", tmp_path / "watch.html").read_text()
    assert text.count("data:image/png;base64,") == 1 and "</script><b>" not in text
    assert of_films([film()])["items"][0]["step"] is None


def test_a_resume_cuts_films_that_came_after_its_checkpoint(tmp_path):
    store = made(tmp_path, 3)
    state = {"step": 3, "logs": {name: log.mark() for name, log in store._logs.items()}}
    store.save_films(20, 0, [film(PNG + bytes([20]))])
    store.cut_back(state)
    assert [path.name for path in (store.out / "films").iterdir()] == ["step-000003.json"]
    assert len(list((store.out / "images").iterdir())) == 1
