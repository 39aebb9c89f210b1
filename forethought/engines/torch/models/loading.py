"""From a recipe's `model` table to a model with its tokenizer: a small one from scratch, or any Hugging Face
causal LM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forethought.core.errors import UserError
from forethought.core.sight import Seen, Shown, Sight
from forethought.engines.torch.forest.absent import KEY
from forethought.engines.torch.forest.vocabulary import check_ids
from forethought.engines.torch.machine.memory import LESS, out_of_memory
from forethought.engines.torch.models import plausible
from forethought.engines.torch.models.begun import with_adapter
from forethought.engines.torch.models.checked import once
from forethought.engines.torch.models.exact import check_model
from forethought.engines.torch.models.exact_pictures import check_pictures
from forethought.engines.torch.models.fingerprint import Fingerprint, fingerprint
from forethought.engines.torch.models.four_bits import pack
from forethought.engines.torch.models.pictures import Pictures
from forethought.engines.torch.models.reading import find_gguf, read_folder, read_gguf
from forethought.engines.torch.models.sight import with_sight
from forethought.engines.torch.models.small import small_model, tokenizer_of
from forethought.engines.torch.models.small_text import tokenizer_of_texts
from forethought.engines.torch.models.tokenizer import encode
from forethought.engines.torch.models.vlm import PROCESSOR, with_views
from forethought.recipe.schema import ModelSpec

Weights = Literal["auto", "fp32", "bf16", "nf4"]
DTYPES: dict[Weights, torch.dtype | str] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Loaded:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str  # path or hub name; "" for a model from scratch
    fingerprint: Fingerprint | None = None  # which model this is; None for one from scratch
    notes: tuple[str, ...] = ()  # what a run says of it at its start
    moved: bool = False  # whether its weights are other than `source` holds
    pictures: Pictures | None = None  # those that its prompts name, of a model that sees


def load(
    spec: ModelSpec,
    words: Sequence[str],
    context: int,
    seed: int,
    weights: Weights = "auto",
    texts: Sequence[str] = (),
    sees: tuple[Sight, Callable[[str], Seen]] | None = None,
    drawn: Sequence[str] = (),
    shows: Callable[[str], Shown] | None = None,
) -> Loaded:
    """`words` and `context` (tokens) size a model from scratch; `seed` draws its weights. Where the task is
    free text its tokenizer is trained on `texts`, and `words` are the marks that are tokens of their own.
    `weights`: see `from_path`. `sees`, `shows`: the pictures that prompts name, of a model from scratch and
    of a vision-language model. `drawn`: words that it says only where they stand before
    (`forest/absent.py`), which its configuration keeps."""
    if not spec.path:
        tokenizer = tokenizer_of_texts(texts, spec.vocabulary, words) if texts else tokenizer_of(list(words))
        model = small_model(spec, len(tokenizer), context, seed)
        if drawn:
            setattr(model.config, KEY, sorted(tokenizer.convert_tokens_to_ids(list(drawn))))
        pictures = with_sight(model, *sees, seed, partial(encode, tokenizer)) if sees else None
        return Loaded(model, tokenizer, "", pictures=pictures)
    return from_path(spec.path, spec.trust_remote_code, weights, spec.adapter, shows)


def from_path(
    path: str,
    trust_remote_code: bool = False,
    weights: Weights = "auto",
    adapter: str = "",
    shows: Callable[[str], Shown] | None = None,
) -> Loaded:
    """`adapter`: a PEFT adapter that is added in (`begun.py`). `shows`: the pictures that prompts name.
    UserError where the path holds no causal LM with its tokenizer, or one that packed forests would compute
    wrongly.

    `weights`: fp32 or bf16, whatever the files hold; auto: as they say, but fp32 for fp16 and on a machine
    without a GPU; nf4: the linear layers in four bits (`four_bits.py`).
    """
    try:
        if (file := find_gguf(path)) is not None:
            if shows:
                raise UserError(
                    f"{path}: a GGUF file is read as a model of text, and the task shows pictures"
                )
            read = read_gguf(file, path, DTYPES.get(weights, "auto"))
        else:
            read = read_folder(path, trust_remote_code, DTYPES.get(weights, "auto"), bool(shows))
    except UserError:
        raise
    # what stands in a folder is a stranger's, and transformers raises whatever that leads to
    except Exception as e:
        raise _refusal(e, path) from e
    model = read.model
    _check_files(path, model, read.tokenizer, read.info)
    if weights == "nf4":
        if read.moved:
            raise UserError(f"{path}: engine.weights = nf4 packs a model of safetensors, not a GGUF file")
        check_finite(model, path)
        pack(model)
    # fp16 has no place in training; CPUs train in fp32 under autocast
    _own(
        model,
        widen=weights in ("auto", "nf4") and (model.dtype == torch.float16 or not torch.cuda.is_available()),
    )
    if adapter:
        model = with_adapter(model, adapter, path)
    check_finite(model, path)
    found, asked = fingerprint(model, read.digest), str(model.dtype)
    once(model, [asdict(found), asked], partial(check_model, model.eval(), path))
    pictures = with_views(model, read.name, path, shows) if shows else None
    if pictures:
        cut = pictures.processor.to_json_string()
        try:
            once(model, [asdict(found), asked, cut], partial(check_pictures, model, pictures, path))
        except UserError:
            raise
        except Exception as e:  # what its processor says fits neither it nor the model
            if out_of_memory(e):
                raise _refusal(e, path) from e
            raise UserError(f"{path}: no picture can be read by its {PROCESSOR}: {sentence(e)}") from e
    notes = (*read.notes, *_notes(path, read.info))
    if adapter:
        notes += (f"{path} begins with the adapter {adapter} added in",)
    moved = read.moved or bool(adapter)
    return Loaded(model, read.tokenizer, read.name, found, notes, moved, pictures)


@torch.no_grad()
def _own(model: PreTrainedModel, widen: bool) -> None:
    """Some versions of safetensors leave weights mapped to their file: who then writes another model to that
    path changes this one, or ends its process (SIGBUS). `widen`: floating numbers become float32; each is
    copied once."""
    for tensor in (*model.parameters(), *model.buffers()):
        if widen and tensor.is_floating_point() and tensor.dtype != torch.float32:
            tensor.data = tensor.data.float()
        elif tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def _refusal(e: Exception, path: str) -> UserError:
    if out_of_memory(e):
        return UserError(f"out of memory: the weights of {path} do not fit; {LESS}")
    return UserError(f"{path} cannot be loaded as a causal language model: {sentence(e)}")


def _check_files(path: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, found: dict) -> None:
    """Weights that are there, and a tokenizer that fits them."""
    if absent := sorted(found["missing_keys"]):
        raise UserError(
            f"{path} cannot be loaded as a causal language model: "
            f"{plausible.lacking(type(model).__name__, absent)}"
        )
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {path} has no end-of-text token (eos_token); set one and save it")
    if why := check_ids(tokenizer, model.get_input_embeddings().weight.shape[0]):
        raise UserError(
            f"the tokenizer of {path} {why}; they do not belong together "
            f"(resize_token_embeddings and save the model)"
        )
    if (drawn := getattr(model.config, KEY, None)) is not None and not _are_ids(drawn, len(tokenizer)):
        raise UserError(f"{path}: {KEY} of config.json is no list of token ids, each once and in order")


def _are_ids(said: object, size: int) -> bool:
    if not isinstance(said, list) or not all(type(i) is int and 0 <= i < size for i in said):
        return False
    return said == sorted(set(said))


@torch.no_grad()
def check_finite(model: PreTrainedModel, path: str) -> None:
    """UserError that names a weight which holds NaN or infinity: a few tokens need not meet it, and training
    would."""
    for name, p in model.named_parameters():
        # NaN comes through both; a quarter of the time of a norm
        if p.is_floating_point() and p.numel() and not all(x.isfinite() for x in torch.aminmax(p)):
            raise UserError(
                f"{path}: {name} holds numbers that are not finite (NaN or infinity); with them logits that "
                "are not finite come out. Its weights are broken: take an earlier copy"
            )


def _notes(path: str, found: dict) -> tuple[str, ...]:
    """Weights that the configuration has no place for: said, since a layer may be missing from it."""
    unused = sorted(found["unexpected_keys"])
    if not unused:
        return ()
    return (
        f"{path} holds {len(unused):,} weights that its config.json has no place for; they are not used: "
        f"{', '.join(unused[:3])}{', ...' if len(unused) > 3 else ''}",
    )


def sentence(e: Exception) -> str:
    """Why a model could not be loaded, for people."""
    if "trust_remote_code" in str(e):
        return "it comes with code of its own, which runs only with model.trust_remote_code = true"
    said = [" ".join(line.split()) for line in str(e).splitlines() if line.strip()] or [type(e).__name__]
    until = next((i for i, line in enumerate(said) if not line.endswith(":")), 0)  # a heading says nothing
    return " ".join(said[: until + 1])
