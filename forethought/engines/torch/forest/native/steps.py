"""Sampling by the kernels: contexts enter, each row goes on by a token a step, rows leave; all keys and
values stand in one tree."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, takewhile

import numpy as np
import torch

from forethought.engines.torch.forest.activations import Activations
from forethought.engines.torch.forest.activations import Block as Left
from forethought.engines.torch.forest.native.instructions import FLOATS
from forethought.engines.torch.forest.native.leaves import Leaves, pointer
from forethought.engines.torch.forest.native.library import address, floats
from forethought.engines.torch.forest.native.rows import Rows, read_by_kernels
from forethought.engines.torch.forest.native.tree import Path, Tree
from forethought.engines.torch.forest.native.weights import Weights
from forethought.engines.torch.forest.paths import Block, Kept, PolicyPaths

ITEM = ("segment", "keys", "from", "to", "causal")  # of attention: which tokens of a call see which keys
PREFILL_TOKENS = 4096  # of contexts computed in one call
# bytes of keys and values that rows read again and again; what is more comes from memory, half as fast
CACHE = 16 << 20
# bytes of weights that threads read together, each its columns, for all rows; smaller ones each reads whole,
# for rows of its own, and waits for nobody
TOGETHER = 32 << 20


class NativeSteps:
    """Rows in the order in which they entered; those below one segment stand together, so that its keys are
    read once for all. `left`: where every token leaves its activations."""

    advances = True

    def __init__(
        self,
        weights: Weights,
        threads: int = 1,
        kept: PolicyPaths | None = None,
        left: Activations | None = None,
    ):
        self.weights, self.kept = weights, kept
        self.leaves = None if left is None else Leaves(left, weights)
        together = weights.bytes >= TOGETHER or left is not None
        self.parts, self.threads = (1, threads) if together else (threads, 1)  # of the rows; of each part
        self.tree = Tree(
            weights.layers * weights.kv_heads, weights.d, weights.lib.ft_width(), half=weights.way != FLOATS
        )
        # the kernels do not hold Python's lock
        self.pool = ThreadPoolExecutor(self.parts) if self.parts > 1 else None
        self.paths: list[Path] = []  # of each row: its context, without a segment that is its own
        # of each row: what is kept of its context, where what it says stands in the same segment
        self.said: list[_Recalled | None] = []
        self.tail = np.zeros(0, dtype=np.int32)  # segment of each row's own tokens
        self.first = np.zeros(0, dtype=np.int32)  # where they begin in it
        self.at = np.zeros(0, dtype=np.int32)  # tokens in it
        self.position = np.zeros(0, dtype=np.int32)  # of the next token
        self._parts: list[tuple[slice, np.ndarray]] | None = None

    def enter(
        self, contexts: Sequence[tuple[int, ...]], n: Sequence[int], room: Sequence[int]
    ) -> torch.Tensor:
        """n[i] rows of at most room[i] tokens below each context, behind the rows there are: the logits
        [contexts, V] after each context. IndexError for a token or a position that the model does not
        have."""
        if (
            end := max(len(context) + most for context, most in zip(contexts, room, strict=True))
        ) > self.weights.positions:
            raise IndexError(
                f"{end} tokens of a context and what follows, where the model has "
                f"{self.weights.positions} positions"
            )
        # what a row alone says stands behind its context, in one segment: as it would be read
        more = [most if k == 1 else 0 for k, most in zip(n, room, strict=True)]
        # apart from the rows': it may stay when they have ended
        self.tree.reserve({c: (1, len(c) + own) for c, own in zip(contexts, more, strict=True)}.values())
        jobs, paths, alone = self._jobs(contexts, more)
        logits = floats(len(contexts), self.weights.vocabulary)
        recalled = self._recall(jobs) if self.kept else {}
        for part in _chunks(jobs, PREFILL_TOKENS):
            self._compute(part, logits)
        self._keep(recalled)
        self.tree.reserve((k, most) for i, (k, most) in enumerate(zip(n, room, strict=True)) if not alone[i])
        tails: list[tuple[int, int]] = []
        for i, (path, k, most) in enumerate(zip(paths, n, room, strict=True)):
            if alone[i]:
                *path, own = path
                tails.append(own)
                self.said.append(recalled.get(own[0]))
            else:
                first = self.tree.rows(k, most)
                tails += [(first + j, 0) for j in range(k)]
                self.said += [None] * k
            self.paths.extend([path] * k)
            for tail in tails[-k:]:
                self.tree.use([*path, tail])
        tail, first = np.array(tails, dtype=np.int32).reshape(-1, 2).T
        self.tail, self.first = np.concatenate([self.tail, tail]), np.concatenate([self.first, first])
        self.at = np.concatenate([self.at, first])
        entered = np.repeat(np.array([len(context) for context in contexts], dtype=np.int32), n)
        self.position = np.concatenate([self.position, entered])
        if self.leaves:
            self.leaves.enter(contexts, n)
        self._parts = None
        return logits

    def step(self, token_R: np.ndarray) -> torch.Tensor:
        """The next token of each row: the logits [R, V] after it."""
        self._check_room(self.at)
        logits = floats(len(token_R), self.weights.vocabulary)
        self._parts = self._parts or self._split()
        calls = []
        for rows, above in self._parts:
            own, at = self.tail[rows], self.at[rows]
            index = np.arange(len(own), dtype=np.int32)
            items = np.concatenate([above, np.stack([own, at + 1, index, index + 1, np.ones_like(own)], 1)])
            calls.append(
                (token_R[rows].astype(np.int32), self.position[rows], own, at, items, index, logits[rows])
            )
        block = self.leaves.block(len(token_R)) if self.leaves else None
        self._run(calls, block)
        if self.leaves:
            self.leaves.step(token_R.tolist(), block)
        self.at += 1
        self.position += 1
        return logits

    def advance(self, rows: Rows, live: np.ndarray, few: int) -> None:
        """Tokens for all rows, until no more than `few` of them go on: the whole loop in one call. `live`:
        each row's line in `rows`."""
        self._check_room(self.first + rows.most[live] - 1)
        bounds = np.linspace(0, len(live), min(self.parts, len(live)) + 1).astype(int)
        parts = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]

        def run(part: slice) -> None:
            for own in self._together(part):
                self._advance(rows, live[own], own, int(few * (own.stop - own.start) // len(live)))

        list(self.pool.map(run, parts) if self.pool else map(run, parts))
        drawn = (rows.length[live] - 1).astype(np.int32)
        self.at = self.first + drawn
        self.position = rows.context[live].astype(np.int32) + drawn

    def _together(self, part: slice) -> list[slice]:
        """Rows that go on together: as many as read keys and values that stay in the cache from one token to
        the next. What a model of larger weights reads does not stay there in any case."""
        bytes_, before, size = [], [], 4 * self.tree.width
        for path in self.paths[part]:
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(path, before)))  # noqa: B905
            bytes_.append(size * sum(k for _, k in path[shared:]))
            before = path
        bytes_ = np.array(bytes_) + size * self.first[part]
        groups = -(-int(bytes_.sum()) // CACHE) if self.weights.bytes <= CACHE // 2 else 1
        if groups < 2:
            return [part]
        group = np.minimum(bytes_.cumsum() * groups // (bytes_.sum() + 1), groups - 1)
        ends = part.start + np.append((np.diff(group) > 0).nonzero()[0] + 1, len(group))
        return [slice(a, b) for a, b in zip([part.start, *ends.tolist()], ends.tolist(), strict=False)]

    def _advance(self, rows: Rows, live: np.ndarray, part: slice, few: int) -> None:
        paths = self.paths[part]
        starts = np.cumsum([0, *map(len, paths)], dtype=np.int32)
        pairs = np.array([pair for path in paths for pair in path], dtype=np.int32)
        tail, first = np.ascontiguousarray(self.tail[part]), np.ascontiguousarray(self.first[part])
        lib, model = self.weights.lib, ctypes.byref(self.weights.model)
        left = np.zeros((len(live), rows.tokens.shape[1]) if self.leaves else 1, dtype=np.int32)
        own = read_by_kernels(rows, live, starts, pairs, tail, first, left)
        work = self.weights.work(len(live), self.threads)
        more = floats(lib.ft_run_work(model, ctypes.byref(own), self.threads))
        tree = address(self.tree.base), address(self.tree.room)
        given = model, ctypes.byref(own), *tree, few, -1, address(work), address(more), self.threads
        if self.leaves:
            run = lambda block: lib.ft_run(*given, pointer(block))  # noqa: E731
            self.leaves.run(rows, live, part.start, few, left, run)
        else:
            lib.ft_run(*given, None)

    def end(self, rows: Rows, live: np.ndarray) -> None:
        """Keep what rows that are done have said, where it stands behind their context: all but the last
        token, which nobody has read. `live`: each row's line in `rows`."""
        for i in rows.done[live].nonzero()[0] if self.kept else ():
            if said := self.said[i]:
                tokens = rows.tokens[live[i], : rows.length[live[i]] - 1].tolist()
                self.kept.lengthen(said.cuts, said.kept, tuple(tokens))

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows (a mask) alone."""
        for i in (~rows).nonzero()[0]:
            self.tree.leave([*self.paths[i], (self.tail[i], 0)])
        self.paths = [path for path, kept in zip(self.paths, rows, strict=True) if kept]
        self.said = [said for said, kept in zip(self.said, rows, strict=True) if kept]
        if self.leaves:
            self.leaves.keep(rows)
        self.tail, self.first, self.at = self.tail[rows], self.first[rows], self.at[rows]
        self.position = self.position[rows]
        self._parts = None

    def _check_room(self, at: np.ndarray) -> None:
        """The kernels write where they are told to."""
        if (at >= self.tree.room[self.tail]).any():
            raise IndexError(f"a row goes on to {at.max() + 1} tokens, for which no room was made")

    # ---- contexts

    def _jobs(
        self, contexts: Sequence[tuple[int, ...]], more: Sequence[int]
    ) -> tuple[list[_Job], list[Path], list[bool]]:
        """What of the contexts has to be computed, each one's path, and whether there is room for `more`
        tokens of a row behind it."""
        jobs, paths, alone = [], [], []
        new: dict[int, _Job] = {}
        for i, context in enumerate(contexts):
            path = self.tree.find(context)
            done = sum(k for _, k in path)
            alone.append(bool(more[i]) and done < len(context))
            if done < len(context):
                segment = self.tree.grow(path, context[done:], more[i])
                path.append((segment, len(context) - done))
                new[segment] = _Job(segment, 0, context[done:], done, path[:-1], context, more[i])
                jobs.append(new[segment])
            segment, k = path[-1]
            if segment not in new:  # it stands there from before: its last token again, for the logits
                jobs.append(_Job(segment, k - 1, context[-1:], len(context) - 1, path[:-1], context))
            (new.get(segment) or jobs[-1]).outs.setdefault(k - 1, []).append(i)
            paths.append(path)
        return jobs, paths, alone

    def _recall(self, jobs: Sequence[_Job]) -> dict[int, _Recalled]:
        """Take up what is kept of the jobs' segments under the same cuts, and leave the rest to be computed,
        up to the first token after which logits are asked for. What will be known then of each segment."""
        recalled, block = {}, Block(None, 0)
        for job in jobs:
            if job.at:
                continue
            start = job.position
            cuts = tuple(accumulate((k for _, k in job.above), initial=0))
            own = recalled[job.segment] = _Recalled(cuts, Kept(job.path, start, None, block))
            if found := self.kept.find(job.path, cuts):
                n = min(found.tokens - start, *job.outs)
                whole = found.tokens == len(found.kept.tokens)
                if whole and job.more and n == found.tokens - start:
                    self._go_on(job, found.kept, own)
                else:
                    self.tree.copy(found.kept.held, job.segment, n)
                    own.instead = found.kept if whole else None
                job.at, job.tokens, job.position = n, job.tokens[n:], start + n
            if own.kept.block is block:
                own.kept.held = self.tree.held(job.segment)
                block.bytes += own.kept.held.nbytes
        return recalled

    def _go_on(self, job: _Job, kept: Kept, own: _Recalled) -> None:
        """A path goes on where it stands: in the memory that holds it, as long as there is room; then in more
        than it needs, since it has gone on before."""
        needed = len(job.tokens) + job.more
        if kept.held.size >= self.tree.floats_of(needed):
            self.tree.move(job.segment, kept.held)
            own.kept, own.read = kept, job.path[len(kept.tokens) :]
            return
        self.tree.move(job.segment, np.empty(self.tree.floats_of(needed + needed // 2), dtype=np.float32))
        self.tree.copy(kept.held, job.segment, len(kept.tokens) - kept.start)
        own.instead = kept

    def _keep(self, recalled: Mapping[int, _Recalled]) -> None:
        """What has been computed is known from here on."""
        new = [one for one in recalled.values() if one.read is None]
        if new:
            again = [one.instead for one in new if one.instead]
            self.kept.put(new[0].kept.block, [(one.cuts, one.kept) for one in new], again)
        for one in recalled.values():
            if one.read:
                self.kept.lengthen(one.cuts, one.kept, one.read)

    def _compute(self, jobs: Sequence[_Job], logits: torch.Tensor) -> None:
        """In waves: threads do not see each other's keys before the wave has ended."""
        while jobs:
            segments = {job.segment for job in jobs} if self.parts > 1 else set()
            later = [job for job in jobs if any(s in segments for s, _ in job.above)]
            waiting = {id(job) for job in later}
            wave = [job for job in jobs if id(job) not in waiting]
            parts = (
                _chunks(wave, -(-sum(len(job.tokens) for job in wave) // self.parts))
                if self.parts > 1
                else [wave]
            )
            calls = [_call(part, self.weights.vocabulary) for part in parts]
            for ids, *_ in calls:
                if ids.min() < 0 or ids.max() >= self.weights.words:
                    raise IndexError(
                        f"token {ids.min() if ids.min() < 0 else ids.max()} is none of the "
                        f"model's {self.weights.words}"
                    )
            block = self.leaves.block(sum(len(job.tokens) for job in wave)) if self.leaves else None
            self._run(calls, block)
            if self.leaves:
                self.leaves.read(wave, block)
            for part, call in zip(parts, calls, strict=True):
                ends = [i for job in part for k in sorted(job.outs) for i in job.outs[k]]
                logits[ends] = call[-1].repeat_interleave(
                    torch.tensor([len(job.outs[k]) for job in part for k in sorted(job.outs)]), 0
                )
            jobs = later

    # ---- calls

    def _split(self) -> list[tuple[slice, np.ndarray]]:
        """(rows of each thread, the items of their contexts)."""
        bounds = np.linspace(0, len(self.tail), min(self.parts, len(self.tail)) + 1).astype(int)
        return [(slice(a, b), _shared(self.paths[a:b])) for a, b in zip(bounds, bounds[1:], strict=False)]

    def _run(self, calls: list[tuple], block: Left | None = None) -> None:
        if self.pool and len(calls) > 1:
            list(self.pool.map(lambda call: self._forward(*call), calls))
        else:  # who leaves activations has one call
            for call in calls:
                self._forward(*call, block)

    def _forward(
        self,
        ids: np.ndarray,
        positions: np.ndarray,
        segments: np.ndarray,
        at: np.ndarray,
        items: np.ndarray,
        outs: np.ndarray,
        logits: torch.Tensor,
        block: Left | None = None,
    ) -> None:
        tree, model = self.tree, ctypes.byref(self.weights.model)
        work = self.weights.work(len(ids), self.threads)
        items, segments, at = (
            np.ascontiguousarray(items),
            np.ascontiguousarray(segments),
            np.ascontiguousarray(at),
        )
        positions, outs = np.ascontiguousarray(positions), np.ascontiguousarray(outs)
        self.weights.lib.ft_forward(
            model,
            len(ids),
            *map(address, (ids, positions, segments, at, tree.base, tree.room)),
            len(items),
            address(items),
            len(outs),
            *map(address, (outs, logits, work)),
            self.threads,
            pointer(block),
        )


@dataclass(slots=True)
class _Job:
    """Tokens of one segment, from the place `at` on, below the path `above`; `outs`: token in the segment ->
    contexts that end there."""

    segment: int
    at: int
    tokens: Sequence[int]
    position: int
    above: Path
    path: tuple[int, ...]  # from the root to the segment's end
    more: int = 0  # tokens of a row that will stand behind it
    outs: dict[int, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Recalled:
    """What is kept of a segment. `read`: the tokens by which it became longer, where it went on in place;
    `instead`: what stands in it once more, and is found there from here on."""

    cuts: tuple[int, ...]
    kept: Kept
    read: tuple[int, ...] | None = None
    instead: Kept | None = None


def _call(jobs: Sequence[_Job], vocabulary: int) -> tuple:
    sizes = np.array([len(job.tokens) for job in jobs])
    starts = np.concatenate([[0], sizes.cumsum()[:-1]]).astype(np.int32)
    within = np.arange(sizes.sum(), dtype=np.int32) - starts.repeat(sizes)
    spread = lambda values: np.array(values, dtype=np.int32).repeat(sizes)  # noqa: E731
    ids = np.array([token for job in jobs for token in job.tokens], dtype=np.int32)
    at = within + spread([job.at for job in jobs])
    items = [
        (segment, k, start, start + size, 0)
        for job, start, size in zip(jobs, starts, sizes, strict=True)
        for segment, k in job.above
    ]
    items += [
        (job.segment, job.at + size, start, start + size, 1)
        for job, start, size in zip(jobs, starts, sizes, strict=True)
    ]
    outs = np.array(
        [start + k - job.at for job, start in zip(jobs, starts, strict=True) for k in sorted(job.outs)],
        dtype=np.int32,
    )
    return (
        ids,
        within + spread([job.position for job in jobs]),
        spread([job.segment for job in jobs]),
        at,
        np.array(items, dtype=np.int32),
        outs,
        floats(len(outs), vocabulary),
    )


def _chunks(jobs: Sequence[_Job], tokens: int) -> list[list[_Job]]:
    out, size = [], tokens
    for job in jobs:
        if size + len(job.tokens) > tokens and size:
            out.append([])
            size = 0
        out[-1].append(job)
        size += len(job.tokens)
    return out


def _shared(paths: Sequence[Path]) -> np.ndarray:
    """Items of rows in order: neighbours that see the same keys see them together."""
    items = []
    for level in range(max(map(len, paths))):
        start = 0
        for i in range(1, len(paths) + 1):
            here = paths[start][level] if level < len(paths[start]) else None
            if i == len(paths) or (paths[i][level] if level < len(paths[i]) else None) != here:
                if here is not None:
                    items.append((*here, start, i, 0))
                start = i
    return np.array(items, dtype=np.int32).reshape(-1, len(ITEM))
