"""Every folder that pretends to be a model is refused by name, or does no harm; none of them runs code or
takes memory."""

from __future__ import annotations

import re
import resource
import shutil
from pathlib import Path

import pytest
from hostile_models import FOLDERS, MARK
from torch_kit import model_of, on_disk

from forethought.core.errors import UserError
from forethought.core.types import Request
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.models.loading import from_path
from forethought.recipe.schema import AdapterSpec, EngineSpec

MEMORY = 256 << 10  # kB that a refusal may take at its peak; a model of these folders has some


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "model"
    on_disk(folder, model_of())
    from_path(str(folder))  # what loading takes at all is in memory then
    return folder


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_refused_by_name_or_does_no_harm(name, sound, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(sound, folder)
    act, said = FOLDERS[name]
    act(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        loaded = from_path(str(folder))
    except UserError as error:
        assert said and re.search(said, str(error)), error
        assert str(folder) in str(error) and "\n" not in str(error)
        assert not str(error).endswith(":"), "it says that something is wrong, and not what"
    else:
        assert said in ("", "*"), f"{name} was loaded"
        engine = TorchEngine(
            loaded, EngineSpec(device="cpu", precision="fp32", threads=1), AdapterSpec(rank=2)
        )
        (out,) = engine.sample([Request(policy="base", context=(3, 4), n=1, stops=(), max_tokens=3)])[0]
        assert len(out.token_ids) > 0
    assert not (tmp_path / MARK).exists(), f"{name} ran code"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def test_there_are_enough_of_them():
    assert len(FOLDERS) >= 100 and sum(said == "" for _, said in FOLDERS.values()) >= 10


def test_what_is_not_used_is_said(sound, tmp_path):
    for name, words in (
        ("layers 1", "holds 9 weights that its config.json has no place for"),
        ("a tensor too much", "model.layers.7.spare"),
    ):
        folder = tmp_path / name
        shutil.copytree(sound, folder)
        FOLDERS[name][0](folder)
        (note,) = from_path(str(folder)).notes
        assert words in note and str(folder) in note
    assert from_path(str(sound)).notes == ()
