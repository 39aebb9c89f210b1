"""Hostile model folders: refused by name within a time, or computed right; no code of theirs runs, nothing
outside of the folder is read.

Each begins as a good folder and is changed in one way. The folders of tests/hostile_models.py, whose words
are of no task, are loaded and sampled from; those of our own begin as the model of a small run, and are
looked at as a user would: `forethought eval FOLDER --task desk`.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import re
import resource
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from attacks_kit import children, damage, runs
from attacks_kit.limits import _size
from attacks_kit.records import Outcome, Try, failed, held, memory, rng_of

LIMIT = 60.0  # seconds, by which even a large number in a configuration has been refused
MEMORY = 6 << 30  # bytes more than at the start
Make = Callable[[Path, Path], object]  # (folder, marker): what makes the marker has run code


def _config(**fields: object) -> Make:
    def make(folder: Path, marker: Path) -> None:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(said | fields), encoding="utf-8")

    return make


def _text(name: str, text: str) -> Make:
    return lambda folder, marker: (folder / name).write_text(text, encoding="utf-8")


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Make:
    return lambda folder, marker: (folder / name).write_bytes(change((folder / name).read_bytes()))


def _tensor(name: str, value: float, at: int = -1) -> Make:
    def make(folder: Path, marker: Path) -> None:
        from safetensors.numpy import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        key = next(k for k in tensors if name in k)
        tensors[key] = tensors[key].copy()
        tensors[key].reshape(-1)[at] = value
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return make


class _Runs:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def _pickle(good: bool, legacy: bool = False) -> Make:
    def make(folder: Path, marker: Path) -> None:
        if good:
            import torch
            from safetensors.torch import load_file

            torch.save(
                load_file(folder / "model.safetensors"),
                folder / "pytorch_model.bin",
                _use_new_zipfile_serialization=not legacy,
            )
        else:
            (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": _Runs(marker)}, protocol=2))
        (folder / "model.safetensors").unlink()

    return make


def _remote(folder: Path, marker: Path) -> None:
    _config(auto_map={"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}, model_type="own")(
        folder, marker
    )
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n", encoding="utf-8")


def _shards(name: str) -> Make:
    def make(folder: Path, marker: Path) -> None:
        from safetensors.numpy import load_file

        keys = list(load_file(folder / "model.safetensors"))
        shutil.move(folder / "model.safetensors", folder.parent / "outside.safetensors")
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": dict.fromkeys(keys, name)}), encoding="utf-8"
        )

    return make


def _ids(folder: Path, marker: Path) -> None:
    said = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = said["model"]["vocab"]
    vocabulary[next(iter(vocabulary))] = -1
    (folder / "tokenizer.json").write_text(json.dumps(said), encoding="utf-8")


def _loop(folder: Path, marker: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json")


def _header(length: int) -> Make:
    return _bytes("model.safetensors", lambda data: struct.pack("<Q", length) + data[8:])


OWN: dict[str, Make] = {
    "pickles alone": _pickle(True),
    "pickles in the old form": _pickle(True, legacy=True),
    "a pickle that runs": _pickle(False),
    "code of its own": _remote,
    "a shard outside": _shards("../outside.safetensors"),
    "a shard that is not there": _shards("a.safetensors"),
    "a shard by its whole path": _shards("/etc/passwd"),
    "a context of 10^12": _config(max_position_embeddings=10**12),
    "10^7 layers": _config(num_hidden_layers=10**7),
    "a vocabulary of 10^10": _config(vocab_size=10**10),
    "heads of 10^6": _config(head_dim=10**6),
    "no heads": _config(num_attention_heads=0),
    "no heads for keys": _config(num_key_value_heads=0),
    "a width in words": _config(hidden_size="x"),
    "a width below 0": _config(hidden_size=-32),
    "three heads": _config(num_attention_heads=3),
    "no layers": _config(num_hidden_layers=0),
    "tied in words": _config(tie_word_embeddings="x"),
    "a type that nobody has": _config(dtype="float8"),
    "another kind": _config(model_type="x"),
    "no kind": _config(model_type=None),
    "a kind that is a list": _config(model_type=["qwen2"]),
    "rope in words": _config(rope_theta="x"),
    "a norm that is nothing": _config(rms_norm_eps=None),
    "an activation in words": _config(hidden_act="os.system"),
    "infinity in an embedding": _tensor("embed", float("inf")),
    "no number in an embedding": _tensor("embed", float("nan"), 40),
    "infinity in a layer": _tensor("q_proj", float("inf"), 0),
    "cut weights": _bytes("model.safetensors", lambda data: data[: len(data) // 2]),
    "empty weights": _bytes("model.safetensors", lambda data: b""),
    "a header of 2^60": _header(2**60),
    "a header of 2^27": _header(2**27),
    "a config that is a list": _text("config.json", "[]"),
    "a config that is nothing": _text("config.json", "null"),
    "a deep config": _text("config.json", '{"a":' * 50_000),
    "a huge number": _text("config.json", '{"model_type": ' + "9" * 5000 + "}"),
    "an empty config": _text("config.json", ""),
    "a config that links to itself": _loop,
    "no tokenizer": lambda folder, marker: [p.unlink() for p in folder.glob("tokenizer*")],
    "an empty tokenizer": _text("tokenizer.json", "{}"),
    "a deep tokenizer": _text("tokenizer.json", "[" * 100_000),
    "an id below 0": _ids,
    "a tokenizer's class that nobody has": _text("tokenizer_config.json", '{"tokenizer_class": "os"}'),
    "code in the tokenizer": _text("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["x.Y", null]}}'),
    "no config": lambda folder, marker: (folder / "config.json").unlink(),
    "an adapter's config": _text(
        "adapter_config.json", '{"base_model_name_or_path": "/etc", "peft_type": "LORA"}'
    ),
}
MAY_LOAD = {
    "an activation in words",
    "tied in words",
    "an adapter's config",
    "code in the tokenizer",
    "rope in words",
    "a context of 10^12",
}
"""Where what is loaded is as good: nobody reads the value, or it is only a bound."""


@functools.cache
def listed() -> dict[str, tuple[Callable[[Path], object], str]]:
    """Those of the tests: name -> (what it does to a sound folder, what is said of it: "" where it does no
    harm)."""
    tests = Path(__file__).parents[2] / "tests"
    if not (tests / "hostile_models.py").is_file():
        return {}
    if str(tests) not in sys.path:
        sys.path.append(str(tests))
    import hostile_models

    return hostile_models.FOLDERS


def tries(scale: float, seed: int) -> list[Try]:
    found = [Try(f"models/{name}", functools.partial(looked_at, name)) for name in OWN]
    found += [Try(f"models/tests/{name}", functools.partial(loaded, name)) for name in listed()]
    return [Try("models/a good one", functools.partial(looked_at, ""))] + (
        found if scale >= 1 else rng_of("models", seed).sample(found, max(4, round(scale * len(found))))
    )


@functools.cache
def sound() -> Path:
    """What the folders of the tests begin as, made once in a process; torch computes in no process that
    forks."""
    folder = Path(tempfile.mkdtemp(prefix="sound-", dir=memory()))

    def work() -> int:
        from torch_kit import model_of, on_disk

        on_disk(folder / "model", model_of())
        return 0

    made = children.Child(work, folder / "log").end()
    if made.code:
        raise RuntimeError(f"the sound folder could not be made: {made.last}")
    return folder / "model"


def loaded(name: str, folder: Path) -> Outcome:
    """A folder of the tests: made and loaded in a child; where it loads, one token at a time is drawn from
    it."""
    model, (act, said) = folder / "model-here", listed()[name]
    shutil.copytree(sound(), model)
    made = children.Child(lambda: act(model) and 0 or 0, folder / "make.log").end()
    if made.code:
        raise RuntimeError(f"the folder could not be made: {made.last}")

    def work() -> int:
        from forethought.cli.faults import explain
        from forethought.core.types import Request
        from forethought.engines.torch.engine import TorchEngine
        from forethought.engines.torch.models.loading import from_path
        from forethought.recipe.schema import AdapterSpec, EngineSpec

        try:
            engine = TorchEngine(
                from_path(str(model)),
                EngineSpec(device="cpu", precision="fp32", threads=1),
                AdapterSpec(rank=2),
            )
            (out,) = engine.sample([Request(policy="base", context=(3, 4), n=1, stops=(), max_tokens=3)])[0]
        except Exception as error:
            return explain(error, None)
        return 0 if len(out.token_ids) else 1

    ended = children.Child(work, folder / "load.log", _limited).end(LIMIT)
    return judge_listed(said, ended, (folder / "code-ran").exists(), model.name)


def judge_listed(said: str, ended: children.Ended, ran: bool, folder: str) -> Outcome:
    """`said`: what the tests say of it. "" loads, "*" may load or be refused, anything else is a pattern of
    the refusal."""
    if ran:
        return failed("its code ran")
    if why := children.untyped(ended):
        return failed(why)
    if ended.code == 0:
        return held(reason="loaded") if said in ("", "*") else failed("it was loaded")
    if not said:
        return failed(f"what does no harm is refused: {ended.last}")
    if folder not in ended.text or said != "*" and not re.search(said, ended.last):
        return failed(f"refused, but not by name: {ended.last}")
    return held(reason=ended.last)


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_size() + MEMORY,) * 2)


def looked_at(name: str, folder: Path) -> Outcome:
    model, marker = folder / "model-here", folder / "code-ran"
    run = damage.base_of("adapters").folder / "finished" / "run"
    shutil.copytree(run / "checkpoints" / f"step-{runs.steps(run)[-1]:06d}" / "engine" / "base", model)
    if name:
        made = children.Child(lambda: OWN[name](model, marker) and 0 or 0, folder / "make.log").end()
        if made.code:
            raise RuntimeError(f"the folder could not be made: {made.last}")

    ended = children.run(
        [
            "eval",
            model,
            "--task",
            "desk",
            "--set",
            "eval.tasks=2",
            "--set",
            "task.levels=[1]",
            "--set",
            "task.widgets=4",
        ],
        folder / "logs",
        LIMIT,
        _limited,
    )
    return judge(name, ended, marker.exists(), model.name)


def judge(name: str, ended: children.Ended, ran: bool, folder: str) -> Outcome:
    """A good folder (name "") loads; a hostile one is refused by its name, unless what was loaded is as
    good."""
    if ran:
        return failed("its code ran")
    if why := children.untyped(ended):
        return failed(why)
    if ended.code == 0:
        return held(reason="loaded") if not name or name in MAY_LOAD else failed("it was loaded")
    if not name:
        return failed(f"a good folder is refused: {ended.last}")
    return (
        held(reason=ended.last) if folder in ended.text else failed(f"refused, but not by name: {ended.last}")
    )
