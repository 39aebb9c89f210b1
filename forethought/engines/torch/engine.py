"""The embedded engine: any Hugging Face causal LM with full attention, on the CPU or one GPU.

Its speed comes from the tree: contexts and training batches are packed forests in which every token is
computed once.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

from forethought.core.errors import UserError
from forethought.core.metrics import Last, Metric, merge
from forethought.core.sight import MARK
from forethought.core.types import Batch, Completion, Objective, Request, Segment, Side, TokenStats
from forethought.engines.base import BASE, Kind, Tell, UpdateRefused, overlong, room_of
from forethought.engines.saved import tokenizer_in
from forethought.engines.torch.forest.absent import drawn_of
from forethought.engines.torch.forest.activations import ByPolicy
from forethought.engines.torch.forest.forward import Row, hidden_of, packs, row_of, targets_of
from forethought.engines.torch.forest.heads import logits_of
from forethought.engines.torch.forest.native import library, weights
from forethought.engines.torch.forest.paths import Paths
from forethought.engines.torch.forest.positions import grid_of
from forethought.engines.torch.forest.prefixes import joined
from forethought.engines.torch.forest.vocabulary import mark
from forethought.engines.torch.loss import losses, objectives
from forethought.engines.torch.loss.token_stats import stats_of
from forethought.engines.torch.machine import device as machine
from forethought.engines.torch.machine import memory
from forethought.engines.torch.models.architecture import check_attention, context_of, describe_context
from forethought.engines.torch.models.chat import ends_of, text_of
from forethought.engines.torch.models.checked import once
from forethought.engines.torch.models.exact import check_adapter
from forethought.engines.torch.models.fingerprint import check_base
from forethought.engines.torch.models.loading import Loaded
from forethought.engines.torch.models.model_notes import notes_of
from forethought.engines.torch.models.render import Renderer
from forethought.engines.torch.models.tokenizer import begin_of, decode, encode
from forethought.engines.torch.policies.files import (
    check_tokenizer,
    read_policies,
    write_policies,
    write_tensors,
)
from forethought.engines.torch.policies.gradients import Gradients
from forethought.engines.torch.policies.optim import Optimizer, first_not_finite
from forethought.engines.torch.policies.regions import Regions
from forethought.engines.torch.policies.surgery import Surgery
from forethought.engines.torch.policies.table import Policies
from forethought.engines.torch.sampling import mixed
from forethought.engines.torch.sampling.sampler import KernelWeights, Sampler
from forethought.engines.torch.sampling.stops import Stops
from forethought.learn.losses.terms import reads_sequences
from forethought.recipe.schema import PACK_TOKENS, SAMPLE_ROWS, AdapterSpec, EngineSpec, OptimSpec

# of an engine's facts: what was chosen on this machine and changes bits
CHOSEN = ("device", "chip", "threads", "precision", "layers", "sampling", "products", "torch")

SHORT, MOST_ENCODED = 200, 20_000  # characters of a text whose token ids are remembered; texts


class TorchEngine(Surgery):
    """See `engines.base.Engine`. `loaded` is the model with its tokenizer (`loading.py` makes one). `on`:
    what several engines of one process share, already prepared."""

    def __init__(
        self, loaded: Loaded, spec: EngineSpec, adapter: AdapterSpec, on: machine.Machine | None = None
    ):
        self.spec = spec
        self.machine = on or machine.prepare(spec, loaded.model)
        self.tokenizer, self.source = loaded.tokenizer, loaded.source
        self.pictures = loaded.pictures
        check_attention(loaded.model)
        with memory.needed(f"the model, of {loaded.model.num_parameters():,} parameters,"):
            # eval: dropout would make sampler and trainer disagree
            model = loaded.model.to(self.machine.device).eval()
        mark(model, self.tokenizer)
        self.config = model.config.get_text_config()
        self.context = context_of(model.config)
        self.parameters = model.num_parameters()  # of the base, before anything lies on it
        self.weights = Policies(model, adapter, spec.gradient_checkpointing is True)
        self.weights.base_moved = loaded.moved
        self.optimizers: dict[str, Optimizer] = {}
        self.gradients = Gradients(self.weights, self.config.num_hidden_layers)
        self.regions = Regions(self.weights)
        self.versions = {BASE: 0}
        self.end: int | None
        self.end, self.ends = ends_of(self.tokenizer, model)
        self.begin = begin_of(self.tokenizer) if self.source else ()
        self.renderer = Renderer(self.tokenizer, self.end, self.ends, self.source, self.encode, self.pictures)
        self.fingerprint = loaded.fingerprint  # None: a small model's weights are all saved
        self.notes = [*loaded.notes, *notes_of(model, self.tokenizer, self.source, adapter)]
        self.packs = memory.Size("engine.pack_tokens", spec.pack_tokens, PACK_TOKENS)
        self.rows = memory.Size("engine.sample_rows", spec.sample_rows, SAMPLE_ROWS)
        self.share_from = spec.shared(self.parameters)
        self._stops: dict[tuple[str, ...], Stops] = {}
        self._encoded: dict[str, tuple[int, ...]] = {}
        self.paths = Paths(memory.prefix_bytes(spec.prefix_cache, self.machine.device))
        kept = memory.activation_bytes(self.machine.device) if spec.reuses(self.parameters) else 0
        self.kernel_weights = KernelWeights(self.paths, ByPolicy(kept, memory.left_bytes(self.config)))

    # ---- words

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text` without special tokens; short texts are remembered, since plans and actions
        recur."""
        if (ids := self._encoded.get(text)) is None:
            if self.pictures and MARK in text:
                return self.pictures.encode(text, self.encode)
            ids = encode(self.tokenizer, text)
            if len(text) <= SHORT:  # plans and actions come again and again, whole contexts do not
                if len(self._encoded) >= MOST_ENCODED:
                    self._encoded.clear()
                self._encoded[text] = ids
        return ids

    def decode(self, ids: Sequence[int], special: bool = True) -> str:
        """The text of `ids` exactly as the tokenizer joins them (no clean-up of spaces); `special`: with
        special tokens. Patches of pictures are left out."""
        if self.pictures:
            ids = [i for i in ids if i < self.pictures.first]
        return decode(self.tokenizer, ids, special)

    def plain(self, text: str, own: Collection[str] = (), turn: bool = False) -> tuple[int, ...]:
        """Token ids of `text`, in which only the names of `own` are special tokens (`models/render`)."""
        ids = self.renderer.plain(text, own, turn)
        return self.encode(text) if ids is None else ids

    def chat(
        self, messages: Sequence[Mapping[str, str]], own: Collection[str] = (), opens: str = ""
    ) -> tuple[int, ...] | None:
        """Token ids of a conversation up to the assistant's turn; None for a tokenizer without chat
        template."""
        if not self.tokenizer.chat_template:
            return None
        ids = self.renderer.chat(messages, own, opens)
        # the template writes the special tokens, as text
        return self.encode(text_of(self.tokenizer, messages, self.source, opens)) if ids is None else ids

    def observation(
        self, text: str | None, said: Sequence[int], side: Side = "user"
    ) -> tuple[int, ...] | None:
        """Token ids between the turn `said` and the next one (`models/chat`); None without chat template."""
        return self.renderer.observation(text, said, side) if self.tokenizer.chat_template else None

    def check_words(self, words: Sequence[str], stops: Sequence[str]) -> None:
        """UserError that lists the words and stops which do not survive encoding and decoding."""
        lost = [w for w in dict.fromkeys([*words, *stops]) if not self._writes(w)]
        if lost:
            what = "special tokens" if set(lost) & set(stops) else "words"
            raise UserError(
                f"the tokenizer of {self.source or 'the small model'} cannot write {len(lost)} {what} of the "
                f"task: {', '.join(lost[:12])}{', ...' if len(lost) > 12 else ''}; use a model whose "
                "tokenizer covers them, or leave out --model to train a small one; train a run anew whose "
                "task has other words by now"
            )

    def _writes(self, word: str) -> bool:
        """Whether the tokenizer gives the word back: alone, after a space, and after another word."""
        if self.pictures and word.startswith(MARK):
            return True
        unk, pieces = self.tokenizer.unk_token_id, [self.encode(word), self.encode(" " + word)]
        return all(
            ids and unk not in ids and self.decode(ids).strip() == word for ids in pieces
        ) and self.decode(pieces[0] + pieces[1]).split() == [word, word]

    # ---- policies

    def policies(self) -> dict[str, int]:
        """Name -> version; a copy, so a caller may keep it."""
        return dict(self.versions)

    def fork(self, src: str, dst: str, kind: Kind = "adapter") -> None:
        """See `Trainer.fork`. The first adapter on a foreign model is also checked: packed forests must
        compute with it what the model's own forward computes."""
        with memory.needed(f"policy {dst!r}"):
            self.weights.fork(src, dst, kind)
        if self.source and self.weights.adapters == [dst]:  # the first one on a model that is not ours
            self._check_adapter(dst)
        self.versions[dst] = 0
        # an adapter's fits no whole model
        if kind == "model" and src in self.optimizers and src not in self.weights.adapters:
            self.prepare(dst, self.optimizers[src].spec)
            self.optimizers[dst].load(self.optimizers[src].state())

    def _check_adapter(self, name: str) -> None:
        look = partial(check_adapter, self.weights, name, self.source)
        if self.weights.base_moved or not self.fingerprint:  # weights that no digest tells
            return look()
        asked = [asdict(self.fingerprint), str(self.weights.base.dtype), asdict(self.weights.spec)]
        return once(self.weights.base, asked, look)

    def assign(self, dst: str, src: str) -> None:
        """The weights of `dst` become those of `src`, bit for bit; what samples changes with the next
        `publish`."""
        self.weights.assign(dst, src)
        self.kernel_weights.left.clear()

    def factor(self, dst: str, start: str) -> float:
        """Move what the base has learned since `start` into the adapter `dst`; returns the share of the
        squared difference that it holds. The base is published anew, since its weights are `start` again."""
        share = self.weights.factor(dst, start)
        self.versions[dst] = 0
        self.publish(BASE)  # other weights sample under its name from here on
        return share

    def drop(self, name: str) -> None:
        """Forget a policy with its optimizer, gradients, packed weights and held region."""
        self.weights.drop(name)
        self.versions.pop(name)
        self.optimizers.pop(name, None)
        self.kernel_weights.drop(name)
        self.gradients.aside.pop(name, None)
        self.regions.drop(name)

    def prepare(self, policy: str, optim: OptimSpec) -> None:
        """A fresh optimizer for `policy`. ValueError for a frozen policy or one without weights of its
        own."""
        if policy in self.weights.frozen or not (own := self.weights.parameters(policy)):
            raise ValueError(f"policy {policy!r} is frozen or has no weights of its own; it cannot train")
        self.optimizers[policy] = Optimizer(own, optim, self.machine.dtype)
        self.weights.base_moved |= policy == BASE

    def release(self, policy: str) -> None:
        """Free the optimizer of a policy whose stage is over, and what was left for its updates."""
        self.optimizers.pop(policy, None)
        self.kernel_weights.left.drop(policy)

    def publish(self, policy: str) -> int:
        """Make the newest weights what `sample` reads, and return their new version."""
        self.weights.publish(policy)
        self.versions[policy] += 1
        return self.versions[policy]

    # ---- sampling

    def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """`n` completions for each request, in order. Policies that can run together are sampled in one loop;
        a request without room in the context comes back `overlong`."""
        room = [room_of(r, self.context) for r in requests]
        self.machine.settle()  # by what rows are sampled is looked at first
        results = [
            [] if most else [overlong(self.versions[r.policy])] * r.n
            for r, most in zip(requests, room, strict=True)
        ]
        policies = list(dict.fromkeys(r.policy for r, most in zip(requests, room, strict=True) if most))
        for run in mixed.runs_of(self.weights, policies):
            own = [i for i, r in enumerate(requests) if r.policy in run and room[i]]
            asked = [replace(requests[i], max_tokens=room[i]) for i in own]
            self.rows.estimate(
                self._free(), partial(memory.row_bytes, self.config, self.machine.number, asked)
            )
            self.rows.running = partial(memory.rows_piece, asked, self.rows)
            sampled = self.rows.within(partial(self._sample, run, asked), self.kernel_weights.forget)
            for i, out in zip(own, sampled, strict=True):
                results[i] = out
        return results

    @property
    def exact(self) -> bool:
        """The kernels are; PyTorch's products round as their shapes fall."""
        return self.machine.sampling and weights.describe_kernels(self.weights.base) == "c"

    def forget_paths(self) -> None:
        """Free the keys and values that were kept for the next turns of trajectories."""
        self.paths.clear()

    def _sample(self, policies: list[str], requests: list[Request]) -> list[list[Completion]]:
        for r in requests:
            if r.stops not in self._stops:
                self._stops[r.stops] = Stops(self.tokenizer, r.stops)
        stops = [self._stops[r.stops] for r in requests]
        longest = max(len(r.context) + r.max_tokens for r in requests)
        # a table of all positions of a long context may not fit in memory
        reach = min(self.context, 1 << longest.bit_length())
        updates = self.kernel_weights.left.updates(requests, self.versions, self.optimizers)
        with (
            self.machine.autocast(),
            mixed.sampling(
                self.weights, policies, self.kernel_weights, self.machine, reach, updates
            ) as steps,
        ):
            drawn = drawn_of(self.weights.base)
            return Sampler(steps, set(self.ends), self.rows.now, drawn).run(requests, stops, self.versions)

    # ---- training

    def logprobs(self, batch: Batch) -> list[tuple[float, ...]]:
        """For each segment with a stream, log p of its tokens; packs are halved where memory runs out."""
        return self.packs.within(partial(self._logprobs, batch))

    def _logprobs(self, batch: Batch) -> list[tuple[float, ...]]:
        out: list[tuple[float, ...]] = [() for _ in batch.segments]
        model = self.weights.model(batch.policy)
        for indices, row in self._rows(batch):
            targets = targets_of(row)
            with torch.no_grad(), self.machine.autocast():
                logp_N, _ = objectives.logprobs_of(
                    logits_of(model),
                    hidden_of(model, row, targets.before_N),
                    targets.ids_N,
                    self.config.vocab_size,
                    absent=objectives.absent_of(model, row, targets),
                )
            values = logp_N.tolist()
            for i, first, n in targets.spans:
                out[indices[i]] = tuple(values[first : first + n])
        return out

    def inspect(self, batch: Batch, against: Sequence[str] = ()) -> list[TokenStats | None]:
        """Entropy, log-probs and exact KL to the policies in `against`, for each segment with a stream."""
        return self.packs.within(partial(self._inspect, batch, against))

    def _inspect(self, batch: Batch, against: Sequence[str]) -> list[TokenStats | None]:
        out: list[TokenStats | None] = [None] * len(batch.segments)
        for indices, row in self._rows(batch):
            with self.machine.autocast():
                found = stats_of(self.weights, batch.policy, against, row)
            for i, stats in zip(indices, found, strict=True):
                # a segment stands in several packs where its tree was split, and is looked at in one
                out[i] = stats or out[i]
        return out

    def forward_backward(self, batch: Batch, objective: Objective) -> dict[str, Metric]:
        """Add the gradient of the objective. After a failed pack (no memory) the gradient restarts from what
        it was before this call, so nothing is counted twice."""
        with self.gradients.added(batch.policy) as restart:
            return merge(self.packs.within(partial(self._backward, batch, objective), restart))

    def _backward(self, batch: Batch, objective: Objective) -> list[dict[str, Metric]]:
        parts, slopes = [], None
        if reads_sequences(objective) and self._splits_sequences(batch):
            slopes, loss, metrics = losses.slopes_of(
                batch.segments, self._logprobs(batch), batch.policy, objective, self.machine.device
            )
            self._check_loss(batch.policy, loss)
            parts.append(metrics)
        for indices, row in self._rows(batch):
            again = memory.again(self.spec, self.config, row.segments, self._free())
            # Who computes again is short of memory: no second copy of all weights, at 2 bytes each, beside
            # their gradients.
            with self.machine.autocast(keep=not again), self.weights.recomputing(batch.policy, again):
                own = slopes and [slopes[i] for i in indices]
                left = self.kernel_weights.left_by(batch.policy)
                loss, metrics = losses.backward(self.weights, batch.policy, row, objective, own, left)
            self._check_loss(batch.policy, loss)
            parts.append(metrics)
        return parts

    def _check_loss(self, policy: str, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss):
            self.gradients.forget_all()
            raise UpdateRefused(f"the loss of policy {policy!r} is {loss.item()}")

    def _splits_sequences(self, batch: Batch) -> bool:
        """Whether the turns of a response train in more than one pack."""
        places: dict[int, int] = {}
        return any(
            places.setdefault(s.sequence, pack) != pack
            for pack, (_, segments) in enumerate(self._packs(batch))
            for s in segments
            if s.stream and s.sequence >= 0
        )

    def _rows(self, batch: Batch) -> Iterator[tuple[Sequence[int], Row]]:
        for indices, segments in self._packs(batch):
            self.packs.running = partial(memory.pack_piece, segments)
            yield indices, row_of(segments, self.machine.device, self.context, grid_of(self.weights.base))

    def _packs(self, batch: Batch) -> Iterator[tuple[Sequence[int], Sequence[Segment]]]:
        self.paths.clear()  # what is measured or trained needs the room, and moves no rollout on
        self.packs.estimate(
            self._free(),
            lambda: memory.token_bytes(
                self.config,
                self.machine.number,
                self.spec.gradient_checkpointing is True,
                memory.longest_path(batch.segments),
            ),
        )
        for indices, segments in packs(batch.segments, self.packs.now):
            yield joined(indices, segments, self.share_from)

    def _free(self) -> float | None:
        """Bytes of the device that nothing will claim before the next update; None where nobody can say."""
        if (bytes_ := memory.free(self.machine.device)) is None:
            return None
        return bytes_ - sum(map(memory.to_come, self.optimizers.values()))

    def check_gradients(self, policies: Sequence[str]) -> None:
        """UpdateRefused where the gradient norm of one of `policies` is not finite; none has moved then."""
        for policy in policies:
            with self.regions.held(policy):
                self._finite_norm(policy)

    def _finite_norm(self, policy: str) -> torch.Tensor:
        """Of the gathered gradient. UpdateRefused where it is not finite."""
        norm = self.optimizers[policy].gradient_norm()
        if not torch.isfinite(norm):
            self.gradients.forget_all()
            raise UpdateRefused(f"the gradient norm of policy {policy!r} is {norm.item()}")
        return norm

    def optim_step(self, policy: str, lr_scale: float = 1.0) -> dict[str, Metric]:
        """Clip, check, update and clear one policy; metrics `grad_norm/<policy>` and `lr`."""
        optimizer = self.optimizers[policy]
        with self.regions.held(policy):
            norm = self._finite_norm(policy)
            with memory.needed(f"the optimizer of policy {policy!r}"):
                optimizer.step(norm, lr_scale)
        self.kernel_weights.moved(policy)
        return {f"grad_norm/{policy}": Last(norm.item()), "lr": Last(optimizer.spec.lr * lr_scale)}

    # ---- files

    def finite(self) -> str:
        """ "" or the first weight or optimizer number that is not finite, in words."""
        for name in self.weights.names():
            if name in self.weights.frozen or (name == BASE and not self.weights.base_moved):
                continue
            if bad := first_not_finite(self.weights.parameters(name)):
                return f"{bad} of policy {name!r}"
        for name, optimizer in self.optimizers.items():
            if bad := first_not_finite(optimizer.numbers()):
                weight, _, key = bad.rpartition("|")
                return f"{key} of {weight} in the optimizer of policy {name!r}"
        return ""

    def save(self, directory: Path) -> None:
        """Write policies, optimizers, regions, versions and chosen sizes below `directory`."""
        write_policies(self.weights, directory, self.tokenizer, self.source)
        meta = {
            "versions": self.versions,
            "base_moved": self.weights.base_moved,
            "source": self.source,
            "frozen": sorted(self.weights.frozen),
            "optimizers": {k: asdict(o.spec) for k, o in self.optimizers.items()},
            "holds": self.regions.holds,
            "sizes": {size.name: size.now for size in (self.packs, self.rows) if size.shrunk},
            "estimates": {
                size.name: size.estimated() for size in (self.packs, self.rows) if size.estimated()
            },
        }
        if self.fingerprint:
            meta["base"] = asdict(self.fingerprint)
        (directory / "engine.json").write_text(json.dumps(meta, indent=1))
        for name, optimizer in self.optimizers.items():
            write_tensors(directory / f"optimizer-{name}.safetensors", optimizer.state())
        if self.regions.found:
            write_tensors(directory / "regions.safetensors", self.regions.tensors())

    def load(self, directory: Path) -> None:
        """Read what `save` wrote. CheckpointError where the base or the tokenizer is another one."""
        meta = json.loads((directory / "engine.json").read_text())
        if self.fingerprint and "base" in meta:
            check_base(self.fingerprint, meta, directory, self.source)
        check_tokenizer(self.tokenizer, tokenizer_in(directory), self.source)
        self.kernel_weights.left.clear()
        read_policies(self.weights, directory)
        self.weights.frozen |= set(meta.get("frozen", ()))
        self.versions = {
            k: v if self.versions.get(k, 0) <= v else self.versions[k] + 1
            for k, v in meta["versions"].items()
        }
        self.weights.base_moved = meta["base_moved"]
        self.optimizers = {}
        for name, spec in meta["optimizers"].items():
            spec["betas"] = tuple(spec["betas"])
            self.prepare(name, OptimSpec(**spec))
            self.optimizers[name].load(load_file(directory / f"optimizer-{name}.safetensors"))
        regions = directory / "regions.safetensors"
        self.regions.load(load_file(regions) if regions.exists() else {}, meta.get("holds", {}))
        self.gradients.forget_all()
        self.weights.base_moved = meta["base_moved"]
        for size in (self.packs, self.rows):  # what has run out of memory once does so again
            if size.asked == "auto" and size.name in meta.get("sizes", {}):
                size.limit(meta["sizes"][size.name])
            size.take_up(meta.get("estimates", {}).get(size.name, ()))

    def chosen(self) -> Mapping[str, object]:
        """What was chosen on this machine and changes bits: device, precision, code of the layers,
        kernels."""
        facts, by_c = self.facts(), self.machine.device.type == "cpu" and library.library()
        return {key: facts[key] for key in CHOSEN} | {
            # of a model that they do not compute whole (`facts`) they still compute parts
            "kernels": "c" if by_c else f"torch: {library.why_not() or 'the model is on a GPU'}",
            "kernels/build": library.build() if by_c else "",
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "transformers": transformers.__version__,
        }

    def listen(self, tell: Tell) -> None:
        """`tell` hears when packs or sampling batches are made smaller because memory ran out."""
        self.packs.tell = self.rows.tell = tell

    def peak(self, forget: bool) -> int:
        """Bytes of memory held at most since the peak was last forgotten (`core.parts`)."""
        return memory.peak(self.machine.device, forget)

    def facts(self) -> Mapping[str, object]:
        """Model, machine and sizes, as the run's summary prints them."""
        facts = self.machine.facts() | {
            "model": self.source or f"small {type(self.weights.base).__name__}",
            "context": describe_context(self.weights.base.config),
            "kernels": weights.describe_kernels(self.weights.base),
            "pack_tokens": self.packs.now,
            "sample_rows": self.rows.now,
            "parameters": self.parameters,
        }
        if facts["kernels"] != "c":
            del facts["threads/kernels"]  # PyTorch samples on the threads that it trains on
        return facts
