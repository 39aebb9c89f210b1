"""What a run says of a foreign model at its start: what is done otherwise than its files, or the recipe, let
one expect."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forethought.engines.torch.forest.vocabulary import empty_of
from forethought.engines.torch.models.chat import opens_thinking, told_ends
from forethought.recipe.schema import AdapterSpec


def notes_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str, adapter: AdapterSpec
) -> Iterator[str]:
    """In sentences; none of a small model from scratch."""
    if not source:
        return
    if (empty := empty_of(model)) is not None:
        yield (
            f"{len(empty):,} of the {model.config.get_text_config().vocab_size:,} ids of {source} have no "
            "token; they are neither sampled nor given a probability"
        )
    if lacking := told_ends(model)[1]:
        yield (
            f"generation_config.json of {source} names the end token {repr(lacking[0])[:40]}, which is no "
            f"id of the {model.get_input_embeddings().weight.shape[0]:,} that it embeds; it is left aside"
        )
    if mark := opens_thinking(tokenizer):
        yield (
            f"the chat template of {source} begins the assistant's turn with {mark}; the thinking is ended "
            "again before a turn that opens another tag, and stays open for one that opens this one "
            "(task.tags)"
        )
    if named := tied_targets(model, adapter):
        yield (
            f"adapter.targets names {named}, which is tied to other weights of {source}: its adapter works "
            "as an adapter, and cannot be merged (what it adds to one would be added to both)"
        )


def tied_targets(model: PreTrainedModel, adapter: AdapterSpec) -> str:
    """A target whose weight is another module's too; "" where there is none."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or inputs.weight is not head.weight:
        return ""
    ends = [name for name, module in model.named_modules() if module is inputs or module is head]
    return next(
        (
            target
            for target in adapter.targets
            if any(name == target or name.endswith(f".{target}") for name in ends)
        ),
        "",
    )
