"""A look at a model is remembered where it was passed, under all that it depends on, and nowhere else."""

from __future__ import annotations

import pytest
from torch_kit import model_of, on_disk

from forethought.core.errors import UserError
from forethought.engines.torch import engine as engines
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.machine import measured
from forethought.engines.torch.models import checked, loading
from forethought.engines.torch.models.loading import from_path
from forethought.recipe.schema import AdapterSpec, EngineSpec


@pytest.fixture
def looks(tmp_path, monkeypatch):
    """Every model counts as a large one; how often one was looked at, and what the look says."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checked, "FROM", 0)
    seen: list[str] = []
    monkeypatch.setattr(loading, "check_model", lambda model, path: seen.append(path))
    monkeypatch.setattr(engines, "check_adapter", lambda weights, name, path: seen.append(f"{name} {path}"))
    return seen


def test_a_model_that_passed_is_not_looked_at_again_until_a_number_of_it_changes(tmp_path, looks):
    model = model_of()
    first, second = (on_disk(tmp_path / name, model) for name in ("first", "second"))
    for path in (first, first, second):  # the same numbers in another folder are the same model
        from_path(path)
    assert looks == [first]
    model.lm_head.weight.data[3, 5] += 1
    from_path(on_disk(tmp_path / "second", model))
    assert looks == [first, second]


def test_other_versions_and_another_machine_look_for_themselves(tmp_path, looks, monkeypatch):
    path = on_disk(tmp_path / "model", model_of())
    here = measured.fingerprint()
    from_path(path)
    for name in ("processor", "torch", "kernels"):
        monkeypatch.setattr(measured, "fingerprint", lambda name=name: here | {name: "another"})
        from_path(path)
    monkeypatch.setattr(checked, "_code", lambda: "another")
    from_path(path)
    assert len(looks) == 5


def test_what_was_refused_is_refused_again(tmp_path, looks, monkeypatch):
    path = on_disk(tmp_path / "model", model_of())

    def refuse(model, where):
        looks.append(where)
        raise UserError("no")

    monkeypatch.setattr(loading, "check_model", refuse)
    for _ in range(2):
        with pytest.raises(UserError, match="no"):
            from_path(path)
    assert looks == [path, path]


def test_small_models_and_those_with_code_of_their_own_are_looked_at_every_time(tmp_path, looks, monkeypatch):
    path = on_disk(tmp_path / "model", model_of())
    monkeypatch.setattr(checked, "OURS", "somebody.elses.")
    for _ in range(2):
        from_path(path)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "check_model", lambda model, path: looks.append(path))
    for _ in range(2):
        from_path(path)
    assert len(looks) == 4


def test_an_adapter_is_looked_at_once_for_each_of_its_settings_and_for_a_base_that_has_moved(tmp_path, looks):
    path, spec = on_disk(tmp_path / "model", model_of()), EngineSpec(device="cpu", threads=1)

    def fork(rank: int, moved: bool = False) -> None:
        engine = TorchEngine(from_path(path), spec, AdapterSpec(rank=rank))
        engine.weights.base_moved = moved
        engine.fork("base", "plan")

    for rank in (2, 2, 4):
        fork(rank)
    assert looks == [path, f"plan {path}", f"plan {path}"]
    fork(2, moved=True)
    fork(2, moved=True)
    assert len(looks) == 5


def test_a_folder_that_cannot_be_written_costs_another_look(tmp_path, looks, monkeypatch):
    path = on_disk(tmp_path / "model", model_of())

    def nowhere(name):
        raise OSError("read-only")

    monkeypatch.setattr(checked.cache, "folder_of", nowhere)
    from_path(path)
    from_path(path)
    assert looks == [path, path]
