"""The embedded engine: any Hugging Face causal LM with full attention, on the CPU or one GPU.

Its speed comes from the tree: contexts and training batches are packed forests in which every token is computed once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file

from forethought.engines.base import BASE, UpdateRefused
from forethought.engines.torch import machine, objectives
from forethought.engines.torch.attention import Forest, using
from forethought.engines.torch.heads import logits_of
from forethought.engines.torch.loading import Loaded
from forethought.engines.torch.optim import Optimizer
from forethought.engines.torch.packing import pack
from forethought.engines.torch.files import write_tensors
from forethought.engines.torch.policies import Policies
from forethought.engines.torch.recompute import recompute
from forethought.engines.torch.sampling import Sampler
from forethought.engines.torch.stops import Stops
from forethought.errors import UserError
from forethought.metrics import Last, Max, Mean, Metric, Sum, merge
from forethought.recipe.schema import AdapterSpec, EngineSpec, OptimSpec
from forethought.types import Batch, Completion, Objective, Request, Segment


class TorchEngine:
    """See `engines.base.Engine`. `loaded` is the model with its tokenizer (`loading.py` makes one)."""

    def __init__(self, loaded: Loaded, spec: EngineSpec, adapter: AdapterSpec):
        self.spec = spec
        self.machine = machine.prepare(spec, loaded.model.num_parameters())
        self.tokenizer, self.source = loaded.tokenizer, loaded.source
        model = loaded.model.to(self.machine.device).eval()  # eval: dropout would make sampler and trainer disagree
        if spec.gradient_checkpointing:
            recompute(model)
        self.config = model.config.get_text_config()
        self.context = self.config.max_position_embeddings
        self.weights = Policies(model, adapter)
        self.optimizers: dict[str, Optimizer] = {}
        self.versions = {BASE: 0}
        eos = model.generation_config.eos_token_id if model.generation_config else None
        self.eos = {self.tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}
        self._stops: dict[tuple[str, ...], Stops] = {}

    # ---- words

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def check_words(self, words: Sequence[str], stops: Sequence[str]) -> None:
        lost = [w for w in dict.fromkeys([*words, *stops]) if not self._writes(w)]
        if lost:
            what = "special tokens" if set(lost) & set(stops) else "words"
            raise UserError(f"the tokenizer of {self.source or 'the small model'} cannot write {len(lost)} {what} of the task: "
                            f"{', '.join(lost[:12])}{', ...' if len(lost) > 12 else ''}; "
                            "use a model whose tokenizer covers them, or leave out --model to train a small one")

    def _writes(self, word: str) -> bool:
        """Whether the tokenizer gives the word back: alone, after a space, and after another word."""
        unk, pieces = self.tokenizer.unk_token_id, [self.encode(word), self.encode(" " + word)]
        return (all(ids and unk not in ids and self.decode(ids).strip() == word for ids in pieces)
                and self.decode(pieces[0] + pieces[1]).split() == [word, word])

    # ---- policies

    def policies(self) -> dict[str, int]:
        return dict(self.versions)

    def fork(self, src: str, dst: str, *, frozen: bool = False) -> None:
        self.weights.fork(src, dst, frozen)
        self.versions[dst] = 0

    def drop(self, name: str) -> None:
        self.weights.drop(name)
        self.versions.pop(name)
        self.optimizers.pop(name, None)

    def prepare(self, policy: str, optim: OptimSpec) -> None:
        if not (own := self.weights.parameters(policy)):
            raise ValueError(f"policy {policy!r} is frozen or has no weights of its own; it cannot train")
        self.optimizers[policy] = Optimizer(own, optim)
        self.weights.base_moved |= policy == BASE

    def release(self, policy: str) -> None:
        self.optimizers.pop(policy, None)

    def publish(self, policy: str) -> int:
        self.weights.publish(policy)
        self.versions[policy] += 1
        return self.versions[policy]

    # ---- sampling

    def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        for r in requests:
            if not r.context or len(r.context) + r.max_tokens > self.context:
                raise UserError(f"a prompt of {len(r.context)} tokens and {r.max_tokens} new ones do not fit the model's context "
                                f"of {self.context}; shorten the task or the budgets, or use a model with a longer context")
        results: list[list[Completion]] = [[] for _ in requests]
        waves: dict[tuple, list[int]] = {}
        for i, r in enumerate(requests):
            waves.setdefault((r.policy, r.n), []).append(i)
        for (policy, n), members in waves.items():
            members.sort(key=lambda i: len(requests[i].context))  # equal lengths together: little padding
            size = max(1, self.spec.sample_rows // n)
            for start in range(0, len(members), size):
                part = members[start : start + size]
                for i, out in zip(part, self._wave(policy, [requests[i] for i in part]), strict=True):
                    results[i] = out
        return results

    def _wave(self, policy: str, requests: list[Request]) -> list[list[Completion]]:
        for r in requests:
            if r.stops not in self._stops:
                self._stops[r.stops] = Stops(self.tokenizer, r.stops)
        stops = [self._stops[r.stops] for r in requests]
        with self.weights.sampling(policy) as model, self.machine.autocast():
            sampler = Sampler(model.base_model, logits_of(model), self.machine.device, self.config.num_hidden_layers, self.eos)
            return sampler.wave(requests, stops, self.versions[policy])

    # ---- training

    def logprobs(self, batch: Batch) -> list[tuple[float, ...]]:
        out: list[tuple[float, ...]] = [() for _ in batch.segments]
        model = self.weights.model(batch.policy)
        for indices, segments in _packs(batch.segments, self.spec.pack_tokens):
            with torch.no_grad(), self.machine.autocast():
                logp_N, _, spans = self._forward(model, segments)
            values = logp_N.tolist()
            for i, start, n in spans:
                out[indices[i]] = tuple(values[start : start + n])
        return out

    def forward_backward(self, batch: Batch, objective: Objective) -> dict[str, Metric]:
        parts = []
        for _, segments in _packs(batch.segments, self.spec.pack_tokens):
            with self.weights.training(batch.policy) as model, self.machine.autocast():
                loss, metrics = self._loss(model, segments, objective)
            if not torch.isfinite(loss):
                self._forget()
                raise UpdateRefused(f"the loss of policy {batch.policy!r} is {loss.item()}")
            parts.append(metrics)
        return merge(parts)

    def _forward(self, model, segments: list[Segment]):
        """(log-probs, entropies, spans): all trained tokens in order; a span is (segment, first, count)."""
        packed = pack(segments, self.machine.device)
        if packed.longest > self.context:
            raise UserError(f"a demonstration or rollout of {packed.longest} tokens does not fit the model's context of {self.context}; "
                            "take lower levels or a shorter task, or use a model with a longer context")
        spans, tokens, offset = [], [], 0
        for i, s in enumerate(segments):
            if s.stream is not None:
                if s.parent < 0:
                    raise ValueError(f"segment {i} trains its tokens, but nothing stands before the first of them")
                n = len(s.token_ids)
                spans.append((i, offset, n))
                tokens.extend(range(packed.starts[i], packed.starts[i] + n))
                offset += n
        tokens = torch.tensor(tokens, device=self.machine.device)
        with using(Forest(packed.layout)):
            hidden = model.base_model(input_ids=packed.ids_N[None], position_ids=packed.positions_N[None],
                                      use_cache=False).last_hidden_state[0]
        logp_N, entropy_N = objectives.logprobs_of(logits_of(model), hidden[packed.before_N[tokens]], packed.ids_N[tokens],
                                                   self.config.vocab_size)
        return logp_N, entropy_N, spans

    def _loss(self, model, segments: list[Segment], objective: Objective) -> tuple[torch.Tensor, dict[str, Metric]]:
        logp_N, entropy_N, spans = self._forward(model, segments)
        field = lambda name: [x for i, _, n in spans for x in (getattr(segments[i], name) or (0.0,) * n)]  # noqa: E731
        tensor = lambda values: torch.tensor(values, dtype=torch.float32, device=logp_N.device)  # noqa: E731
        weight_N, old_N = tensor(field("weight")), tensor(field("old_logprobs"))
        sizes = torch.tensor([n for _, _, n in spans], device=logp_N.device)
        ones = lambda test: tensor([float(bool(test(segments[i]))) for i, _, _ in spans]).repeat_interleave(sizes)  # noqa: E731
        trained_N = (weight_N != 0).float()
        metrics: dict[str, Metric] = {"tokens/trained": Sum(int(trained_N.sum())), "tokens/forward": Sum(sum(len(s.token_ids) for s in segments))}
        loss = logp_N.new_zeros(())
        sft_N, pg_N = weight_N * ones(lambda s: s.stream == "sft"), weight_N * ones(lambda s: s.stream == "pg")
        if "sft" in objective.denominators:
            total = objectives.sft(logp_N, sft_N)
            loss = loss + objective.weights.get("sft", 1.0) * total / objective.denominators["sft"]
            metrics["loss/sft"] = Mean(total.item(), float(sft_N.sum()))
        if "pg" in objective.denominators:
            old_N = torch.where(ones(lambda s: s.old_logprobs) > 0, old_N, logp_N.detach())
            total, held = objectives.clipped_pg(logp_N, old_N, tensor(field("advantage")), pg_N, objective.clip_low, objective.clip_high)
            loss = loss + objective.weights.get("pg", 1.0) * total / objective.denominators["pg"]
            tokens = float(pg_N.sum())
            gap_N = (logp_N.detach() - old_N).abs() * pg_N
            metrics |= {"loss/pg": Mean(total.item(), tokens), "clip/share": Mean(held.item(), tokens),
                        "gap/sampler": Mean(gap_N.sum().item(), tokens), "gap/sampler_max": Max(gap_N.max().item())}
        if objective.ref_kl:
            kl_N = pg_N * ones(lambda s: s.ref_logprobs)
            total = objectives.k3(logp_N, tensor(field("ref_logprobs")), kl_N)
            loss = loss + objective.ref_kl * total / objective.denominators["pg"]
            metrics["kl/ref"] = Mean(total.item(), float(kl_N.sum()))
        for role in sorted({segments[i].role for i, _, _ in spans if segments[i].role}):
            role_N = trained_N * ones(lambda s, role=role: s.role == role)
            metrics[f"entropy/{role}"] = Mean((entropy_N * role_N).sum().item(), float(role_N.sum()))
            if "sft" in objective.denominators:
                metrics[f"loss/sft_{role}"] = Mean(-(logp_N.detach() * role_N * sft_N).sum().item(), float((role_N * sft_N).sum()))
        if torch.isfinite(loss) and loss.requires_grad:
            loss.backward()
        return loss.detach(), metrics

    def optim_step(self, policy: str, lr_scale: float = 1.0) -> dict[str, Metric]:
        optimizer = self.optimizers[policy]
        norm = optimizer.gradient_norm()
        if not torch.isfinite(norm):
            self._forget()
            raise UpdateRefused(f"the gradient norm of policy {policy!r} is {norm.item()}")
        optimizer.step(norm, lr_scale)
        return {f"grad_norm/{policy}": Last(norm.item()), "lr": Last(optimizer.spec.lr * lr_scale)}

    def _forget(self) -> None:
        """What other policies gathered for a refused update must not be left over for the next one."""
        for optimizer in self.optimizers.values():
            optimizer.clear()

    # ---- files

    def save(self, directory: Path) -> None:
        self.weights.save(directory, self.tokenizer, self.source)
        meta = {"versions": self.versions, "base_moved": self.weights.base_moved, "source": self.source,
                "optimizers": {k: asdict(o.spec) for k, o in self.optimizers.items()}}
        (directory / "engine.json").write_text(json.dumps(meta, indent=1))
        for name, optimizer in self.optimizers.items():
            write_tensors(directory / f"optimizer-{name}.safetensors", optimizer.state())

    def load(self, directory: Path) -> None:
        meta = json.loads((directory / "engine.json").read_text())
        self.weights.load(directory)
        self.versions = {k: v if self.versions.get(k, 0) <= v else self.versions[k] + 1 for k, v in meta["versions"].items()}
        self.weights.base_moved = meta["base_moved"]
        self.optimizers = {}
        for name, spec in meta["optimizers"].items():
            spec["betas"] = tuple(spec["betas"])
            self.prepare(name, OptimSpec(**spec))
            self.optimizers[name].load(load_file(directory / f"optimizer-{name}.safetensors"))
        self.weights.base_moved = meta["base_moved"]

    def facts(self) -> Mapping[str, object]:
        return self.machine.facts() | {"model": self.source or f"small {type(self.weights.base).__name__}",
                                       "parameters": sum(p.numel() for p in self.weights.parameters(BASE).values())}


def _packs(segments: Sequence[Segment], budget: int):
    """Split a forest between its roots into (original indices, segments) of at most `budget` tokens; one tree is never split.

    Segments that no trained segment descends from are left out: they would be computed for nothing.
    """
    used = [s.stream is not None for s in segments]
    for i in range(len(segments) - 1, -1, -1):
        if used[i] and segments[i].parent >= 0:
            used[segments[i].parent] = True
    trees: dict[int, list[int]] = {}
    root_of: list[int] = []
    for i, s in enumerate(segments):
        root_of.append(i if s.parent < 0 else root_of[s.parent])
        if used[i]:
            trees.setdefault(root_of[i], []).append(i)
    pack_, size = [], 0
    for tree in trees.values():
        tokens = sum(len(segments[i].token_ids) for i in tree)
        if pack_ and size + tokens > budget:
            yield _renumber(pack_, segments)
            pack_, size = [], 0
        pack_.extend(tree)
        size += tokens
    if pack_:
        yield _renumber(pack_, segments)


def _renumber(indices: list[int], segments: Sequence[Segment]) -> tuple[list[int], list[Segment]]:
    from dataclasses import replace

    new = {old: i for i, old in enumerate(indices)}
    return indices, [replace(segments[i], parent=new.get(segments[i].parent, -1)) for i in indices]
