"""The tokenizer of a small model that reads free text: byte-level BPE trained on the spot, on the texts of
the task.

    tokenizer_of_texts(texts, 2048, ["<plan>", "</plan>", ...])

Three choices, each for what a small model on little data can learn:
- digits are tokens of their own, so that a number is copied and computed digit by digit, and not one of a
  thousand rare tokens;
- the task's marks (its tags, the opening of the box) are tokens of their own. Text falls apart at them
  wherever it stands, so a turn has one spelling: demonstrations, which are encoded turn by turn, and what the
  model samples are made of the same tokens, and a stop is one token;
- the chat template is two tokens a message, with no words in it.

The same texts, in the same order, give the same tokenizer to the last merge; a checkpoint keeps it, and is
refused by an engine that would read other tokens (`files.check_tokenizer`).
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from forethought.core.datafiles import half
from forethought.core.errors import RecipeError, UserError

PAD, EOS = "<pad>", "<eos>"  # numbers 0 and 1, as in `small.py`
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<eos>' "
    "}}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def tokenizer_of_texts(texts: Sequence[str], size: int, marks: Sequence[str]) -> PreTrainedTokenizerFast:
    """At most `size` tokens: the special ones, `marks`, the 256 bytes (so every text can be written), then
    the merges that BPE finds in `texts`, fewer where those hold no more. RecipeError where `size` leaves no
    room for merges; UserError for a text that holds half of a character, which has no bytes."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # a mark of one byte has a token, and could not be told from the same letter in other text if it had two
    special = list(dict.fromkeys([PAD, EOS, *ROLES, *(mark for mark in marks if mark not in alphabet)]))
    if size <= len(special) + len(alphabet):
        raise RecipeError(
            "model.vocabulary",
            f"{size} is too few: the bytes and the task's tags take {len(special) + len(alphabet)}, and "
            "words need more; 2048 is a good start",
        )
    for number, text in enumerate(texts, 1):
        if (found := half(text)) is not None:
            raise UserError(f"text {number} of the task, {text[:40]!r}: {found}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        chat_template=CHAT,
        clean_up_tokenization_spaces=False,
    )
