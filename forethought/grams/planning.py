"""Which tokens of rollouts are planning, by a list of grams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from forethought.core.metrics import Last, Metric, entropy
from forethought.core.types import Tree
from forethought.grams.match import Matcher, merged_spans
from forethought.grams.tokens import Decode, Spans, TokenSpans
from forethought.learn.credit.hicra import Mask


@dataclass(frozen=True, slots=True)
class PlanningTokens:
    masks: list[Mask]  # one per tree
    counts: Counter[int]  # gram -> how often it occurs, overlapping occurrences too

    def metrics(self) -> dict[str, Metric]:
        """`hicra/semantic_entropy`: Shannon entropy (nats) of how often each gram occurs (arXiv 2509.03646);
        `hicra/grams`: how many do."""
        counts = self.counts.values()
        seen: dict[str, Metric] = {"hicra/grams": Last(len(counts))}
        return seen | {"hicra/semantic_entropy": Last(entropy(counts))} if counts else seen


class Planning:
    """A token is planning if it wrote, or had a part in, at least one character of a gram that is no space.

    Turns are read one by one: no gram reaches from a plan into an execution. Tokens that no policy wrote are
    never planning.
    """

    def __init__(self, grams: Sequence[str], decode: Decode):
        self.matcher, self.spans = Matcher(grams), TokenSpans(decode)

    def look(self, trees: Sequence[Tree]) -> PlanningTokens:
        """For each tree, which tokens belong to a listed gram, with counts by gram."""
        counts: Counter[int] = Counter()
        return PlanningTokens([self._mask(tree, counts) for tree in trees], counts)

    def _mask(self, tree: Tree, counts: Counter[int]) -> Mask:
        mask: dict[int, tuple[bool, ...]] = {}
        for n in tree.nodes:
            mask[n.id] = (False,) * len(n.token_ids)
            if n.policy is not None:
                text, spans = self.spans(n.token_ids)
                matches = self.matcher.find(text)
                counts.update(m.gram for m in matches)
                mask[n.id] = marked(text, spans, merged_spans(matches))
        return mask


def marked(text: str, spans: Spans, stretches: Sequence[tuple[int, int]]) -> tuple[bool, ...]:
    """One bool per token: whether its span meets a stretch in a character that is no space."""
    planning = bytearray(len(text))
    for start, end in stretches:
        planning[start:end] = bytes(not c.isspace() for c in text[start:end])
    return tuple(planning.find(1, start, end) >= 0 for start, end in spans)
