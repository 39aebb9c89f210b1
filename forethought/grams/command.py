"""`forethought grams mine`: from solutions to a list of grams."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from forethought import __version__
from forethought.core.errors import UserError
from forethought.grams.listing import write
from forethought.grams.sources import solutions

if TYPE_CHECKING:
    from forethought.grams.mine import MineSpec

WORDS = "words"  # the embedder without a model


@dataclass(frozen=True, slots=True, kw_only=True)
class MineOptions:
    """`settings`: those of `mine.MineSpec` that differ from its defaults."""

    source: Path
    embed: str  # a model on disk or on the hub, or "words"
    out: Path
    settings: dict[str, float] = field(default_factory=dict)
    device: str = "auto"
    force: bool = False  # write over a file that is there


def mine(options: MineOptions, stream: IO[str]) -> int:
    """Writes the list and says what was counted. UserError for whatever the source, the settings or the
    embedder cannot do."""
    from forethought.grams import mine as miner  # numpy
    from forethought.grams.kmeans import check_extra

    check_extra()
    spec = miner.MineSpec(**options.settings)
    if options.out.exists() and not options.force:
        raise UserError(
            f"{options.out} is there, and may have been edited by hand; choose another --out, or "
            f"write over it with --force"
        )
    found = solutions(options.source)
    print(f"{len(found.texts)} different solutions from {found.summary()}", file=stream, flush=True)
    embed = _embedder(options)
    started = time.perf_counter()
    mined = miner.mine(found.texts, embed, spec)
    provenance = {
        "source": found.summary(),
        "solutions": f"{mined.documents} read" + _of(mined.documents, len(found.texts)),
        "embedder": "words (hashed words and letters, no model)" if options.embed == WORDS else options.embed,
        "settings": ", ".join(f"{key} {value}" for key, value in asdict(spec).items()),
        "n-grams": f"{mined.ngrams} different, {mined.considered} clustered",
        "clusters": f"{len(mined.clusters)} of {spec.clusters}, with at least one n-gram in "
        f"{mined.threshold:g} solutions or more",
        "date": f"{time.strftime('%Y-%m-%d')}, forethought {__version__}",
    }
    write(options.out, mined.clusters, mined.documents, provenance)
    grams = sum(len(cluster.grams) for cluster in mined.clusters)
    print(
        f"{mined.ngrams} different n-grams of {spec.shortest} to {spec.longest} words; {mined.considered} "
        f"clustered{_left_out(mined.ngrams, mined.considered, spec)}",
        file=stream,
    )
    print(
        f"{grams} grams in {len(mined.clusters)} of {spec.clusters} clusters, each in at least "
        f"{mined.threshold:g} of {mined.documents} solutions, in {time.perf_counter() - started:.0f} s",
        file=stream,
    )
    for cluster in mined.clusters[:5]:
        print(
            f"  {100 * cluster.documents / mined.documents:5.1f} %  "
            f"{' | '.join(text for text, _ in cluster.grams[:3])}",
            file=stream,
        )
    print(
        f"{options.out}: read it and cut what is no planning; what it finds: forethought grams show "
        f"{options.out} --on {options.source}",
        file=stream,
    )
    return 0


def _embedder(options: MineOptions):
    if options.embed == WORDS:
        from forethought.grams.vectors import word_vectors

        return word_vectors
    from forethought.engines.torch.models.embed import Embedder

    return Embedder(options.embed, options.device)


def _of(read: int, there: int) -> str:
    return f", drawn from {there}" if read < there else ""


def _left_out(ngrams: int, considered: int, spec: MineSpec) -> str:
    if considered == ngrams:
        return ""
    return (
        f" (left out: those in fewer than {spec.least} solutions, and beyond the {spec.most} most widespread)"
    )
