"""What sampling and a training step have to do at least, counted by hand from a model's shape
(`roofline.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from bench_kit import Shape, Size

STATE = 4  # bytes of a weight, a gradient and a moment as they are kept


@dataclass(frozen=True, slots=True)
class Work:
    """`ops` and `bytes` of a part; `again` is what it reads over and over, which says whether that can come
    out of a cache."""

    ops: float = 0.0
    bytes: float = 0.0
    again: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.ops + other.ops, self.bytes + other.bytes, max(self.again, other.again))

    def times(self, n: float) -> Work:
        return Work(self.ops * n, self.bytes * n, self.again)


def product(rows: float, i: int, o: int, b: int) -> Work:
    """[rows, i] times [i, o]: everything is read once, the result written once."""
    return Work(2 * rows * i * o, b * (rows * i + i * o + rows * o))


def layers(size: Size, rows: float, b: int) -> Work:
    """The matrices inside all layers, for so many tokens."""
    return sum((product(rows, i, o, b) for i, o in size.linears), Work()).times(size.layers)


def attended(size: Size, pairs: float, rows: float, keys: float, b: int, products: int = 2) -> Work:
    """Attention in all layers: 2 d operations of each product for each head and (query, key) pair; queries
    and results of `rows` tokens, keys and values of `keys` tokens."""
    own, shared = size.heads * size.head, size.kv_heads * size.head
    return Work(products * 2 * own * pairs, 2 * b * (rows * own + keys * shared)).times(size.layers)


def causal(start: int, n: int) -> int:
    """(query, key) pairs of n tokens of which the first has `start` before it: each sees those and, up to
    itself, its own."""
    return n * start + n * (n + 1) // 2


def sampling_work(size: Size, shape: Shape, b: int) -> dict[str, Work]:
    """A flat group: prompts once, then a token a row and step; the prefill gives the logits of the first."""
    rows, steps = shape.leaves, shape.plan - 1
    weights = b * (size.inside + size.vocabulary * size.width)
    # keys of a step: prompts once, tails
    prefix, tail = shape.prompts * shape.prompt, [rows * (t + 1) for t in range(steps)]
    cache = 2 * b * size.layers * size.kv_heads * size.head * (prefix + rows * shape.plan)
    pairs = [rows * shape.prompt + t for t in tail]
    decode = sum((attended(size, p, rows, prefix + t, b) for p, t in zip(pairs, tail, strict=True)), Work())
    head = product(shape.prompts, size.width, size.vocabulary, b) + product(
        rows, size.width, size.vocabulary, b
    ).times(steps)
    again = weights + cache
    return {
        "prefill: layers": with_again(layers(size, prefix, b), weights),
        "prefill: attention": with_again(
            attended(size, shape.prompts * causal(0, shape.prompt), prefix, prefix, b), cache
        ),
        "decode: layers": with_again(layers(size, rows, b).times(steps), again),
        "decode: attention": with_again(decode, again),
        "head": with_again(head, again),
    }


def training_work(size: Size, shape: Shape, b: int) -> dict[str, Work]:
    """A flat group as one forest. Backward has two products for each of forward; of attention, whose scores
    nobody keeps, five for two."""
    tokens, trained = shape.tokens, shape.sampled
    pairs = shape.prompts * (causal(0, shape.prompt) + shape.plans * causal(shape.prompt, shape.plan))
    attention = attended(size, pairs, tokens, tokens, b)
    # reads those four and the gradient, writes three
    backward = Work(attention.ops * 5 / 2, attention.bytes * 2)
    inside, head = layers(size, tokens, b), product(trained, size.width, size.vocabulary, b)
    state = STATE * 4 * size.parameters  # weights, gradients, two moments
    parts = {
        "forward: layers": inside,
        "forward: attention": attention,
        "forward: head": head,
        "backward: layers": inside.times(2),
        "backward: attention": backward,
        "backward: head": head.times(2),
        # The norm reads the gradients; AdamW reads weights, gradients and both moments and writes all but the
        # gradients.
        "optimizer": Work(12 * size.parameters, STATE * 8 * size.parameters),
    }
    return {name: with_again(work, state) for name, work in parts.items()}


def with_again(work: Work, again: float) -> Work:
    return Work(work.ops, work.bytes, again)
