"""The model card of an exported folder: what was measured, what it was trained on, lines that run it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought import __version__
from forethought.core.sight import SEEING
from forethought.exports.numbers import Origin, data_of
from forethought.recipe.speaking import roles_of

HIDDEN = (
    "",
    "It was trained and measured with `model.masks_absent`: a slot or an id that stands nowhere before has "
    "probability 0. The lines below do not know that, and may sample one.",
)
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as max_lora_rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    path: Path
    roles: tuple[str, ...]
    kind: str  # model | adapter
    base: str  # of an adapter: a folder or a hub name
    began: str  # the model that the run began from, "" where it was made from scratch
    gguf: str  # name of the file, or ""
    stops: tuple[str, ...]
    model: str  # the class that opens it, or its base
    tokenizer: str
    rank: int  # of an adapter
    most: int  # tokens of a turn
    hides: bool = False  # words that do not stand before


def class_of(*folders: Path) -> str:
    """What opens the model of the first folder that has a config.json."""
    seeing = _config(folders).get("model_type") in SEEING
    return "AutoModelForImageTextToText" if seeing else "AutoModelForCausalLM"


def hides_words(*folders: Path) -> bool:
    """Whether that model never said words that did not stand before (`model.masks_absent`)."""
    return bool(_config(folders).get("forethought_drawn"))


def _config(folders: Sequence[Path]) -> dict[str, Any]:
    for config in (folder / "config.json" for folder in folders):
        if config.is_file():
            found: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
            return found
    return {}


def card(origin: Origin, folder: Folder, prompts: Mapping[str, str]) -> str:
    """README.md, in Markdown with the hub's header."""
    speaks = " and ".join(folder.roles)
    recipe = origin.recipe
    lines = [
        *_header(folder),
        f"# {recipe.name}: {speaks}, step {origin.step}",
        "",
        f"The weights that speak {speaks} in a run of `forethought` {__version__}: recipe `{recipe.name}`, "
        f"seed {recipe.seed}, workflow `{recipe.workflow.name}`, layout `{recipe.layout}`.",
        "",
        *_measured(origin),
        *_run(folder, prompts),
        *_trained(origin),
        *_data(origin),
        "## Licence",
        "",
        "Yours to say. "
        + (
            f"The licence of the base model `{folder.began}` holds for what is derived from it."
            if folder.began
            else "The model was made from scratch; no other model's licence holds."
        ),
        "",
    ]
    return "\n".join(lines)


def _header(folder: Folder) -> list[str]:
    base = [f"base_model: {folder.began}"] if folder.began and not Path(folder.began).exists() else []
    library = "peft" if folder.kind == "adapter" else "transformers"
    return [
        "---",
        f"library_name: {library}",
        *base,
        "pipeline_tag: text-generation",
        f"tags: [forethought, {', '.join(folder.roles)}]",
        "---",
        "",
    ]


def _sides(roles: tuple[str, ...]) -> dict[str, str]:
    """Measure -> what it is of."""
    under = {role: f"its turns, under the oracle's {' and '.join(roles[:i])}" for i, role in enumerate(roles)}
    return {**under, roles[0]: "its turns, as its verifier judges them", "e2e": "all turns of an episode"}


def _measured(origin: Origin) -> list[str]:
    found = origin.measured
    if found is None:
        return ["## Measured", "", "The run has measured nothing up to this step.", ""]
    task = origin.recipe.task
    of = _sides(roles_of(origin.recipe))
    rows = [
        f"| {name} | {value:.3f} | {low:.3f} to {high:.3f} | {n} | {of.get(name, 'this role alone')} |"
        for name, (value, low, high, n) in found.values.items()
    ]
    return [
        "## Measured",
        "",
        f"Share of held-out tasks of `{task.name}` solved, greedy, at step {found.step}; all roles of the "
        "run, not this folder alone.",
        "",
        "| measure | value | 95 % interval | tasks | of |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def _run(folder: Folder, prompts: Mapping[str, str]) -> list[str]:
    role = next((one for one in folder.roles if prompts.get(one)), folder.roles[0])
    prompt = prompts.get(role) or "..."
    ends = ", ".join(f"`{stop}`" for stop in folder.stops) or "the model's own end"
    lines = [
        "## Run it",
        "",
        f"A turn ends with {ends}; `generation_config.json` says so. Where the same weights speak several "
        "roles, each role's end is there.",
        *(HIDDEN if folder.hides else ()),
        "",
        *_transformers(folder, prompt),
        *_vllm(folder, prompt),
    ]
    return lines + (_llama_cpp(folder, prompt) if folder.gguf else [])


def _transformers(folder: Folder, prompt: str) -> list[str]:
    if folder.kind == "adapter":
        names = ", ".join(sorted((folder.model, "GenerationConfig", folder.tokenizer)))
        load = [
            "from peft import PeftModel",
            f"from transformers import {names}",
            "",
            f"base = {folder.model}.from_pretrained({folder.base!r})",
            f"model = PeftModel.from_pretrained(base, {str(folder.path)!r})",
            f"model.generation_config = GenerationConfig.from_pretrained({str(folder.path)!r})",
        ]
    else:
        load = [
            f"from transformers import {folder.model}, {folder.tokenizer}",
            "",
            f"model = {folder.model}.from_pretrained({str(folder.path)!r})",
        ]
    return [
        "```python",
        *load,
        f"tokenizer = {folder.tokenizer}.from_pretrained({str(folder.path)!r})",
        f"prompt = {prompt!r}",
        'ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids',
        f"out = model.generate(ids, do_sample=False, max_new_tokens={folder.most}, tokenizer=tokenizer)",
        "print(tokenizer.decode(out[0, ids.shape[1] :]))",
        "```",
        "",
    ]


def _vllm(folder: Folder, prompt: str) -> list[str]:
    stop = f"stop={list(folder.stops)!r}, include_stop_str_in_output=True, " if folder.stops else ""
    how = f"temperature=0, max_tokens={folder.most}, {stop}skip_special_tokens=False"
    say = [
        f"sampling = SamplingParams({how})",
        f"prompt = {prompt!r}",
    ]
    if folder.kind == "adapter":
        name = "-".join(folder.roles)
        rank = next((n for n in RANKS if n >= folder.rank), folder.rank)
        load = [
            "from vllm import LLM, SamplingParams",
            "from vllm.lora.request import LoRARequest",
            "",
            f"llm = LLM({folder.base!r}, enable_lora=True, max_lora_rank={rank})",
            *say,
            f"adapter = LoRARequest({name!r}, 1, {str(folder.path)!r})",
            "print(llm.generate(prompt, sampling, lora_request=adapter)[0].outputs[0].text)",
        ]
    else:
        load = [
            "from vllm import LLM, SamplingParams",
            "",
            f"llm = LLM({str(folder.path)!r})",
            *say,
            "print(llm.generate(prompt, sampling)[0].outputs[0].text)",
        ]
    return ["With vLLM:", "", "```python", *load, "```", ""]


def _llama_cpp(folder: Folder, prompt: str) -> list[str]:
    ends = "".join(f" -r '{stop}'" for stop in folder.stops)
    said = prompt.replace("'", "'\\''")
    return [
        "With llama.cpp:",
        "",
        "```",
        f"llama-cli -m {folder.path / folder.gguf} --temp 0 -no-cnv --special{ends} -p '{said}'",
        "```",
        "",
    ]


def _trained(origin: Origin) -> list[str]:
    recipe = origin.recipe
    stages = [f"{i}. {stage.outline(recipe)}" for i, stage in enumerate(recipe.stage, 1)]
    return [
        "## Trained",
        "",
        *stages,
        "",
        f"The run is `{origin.run.name}`; `forethought train RUN --out NEW` trains its recipe again.",
        "",
    ]


def _data(origin: Origin) -> list[str]:
    found = data_of(origin.run)
    if not found:
        return ["## Data", "", f"Drawn by the taskset `{origin.recipe.task.name}`; no file was read.", ""]
    name = lambda said: Path(str(said.get("file", ""))).name  # noqa: E731
    rows = [
        f"| `{where}` | {name(said)} | {said.get('bytes', 0):,} | `{said['sha256']}` |"
        for where, said in found.items()
    ]
    return ["## Data", "", "| key | file | bytes | SHA-256 |", "|---|---|---|---|", *rows, ""]
