"""Which policies are sampled in one run, and by what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from forethought.engines.base import BASE
from forethought.engines.torch.forest.decoder import decoder_of
from forethought.engines.torch.forest.native.weights import runs as by_kernels
from forethought.engines.torch.machine.device import Machine
from forethought.engines.torch.policies.table import Policies
from forethought.engines.torch.sampling.decoding import mixes
from forethought.engines.torch.sampling.routes import Route, Routes
from forethought.engines.torch.sampling.sampler import KernelWeights
from forethought.engines.torch.sampling.slots import by_torch


def runs_of(weights: Policies, policies: Sequence[str]) -> list[list[str]]:
    """The policies of each run. One run for all, but where several go through a model's own modules, which
    PEFT has to switch."""
    speakers = {policy: weights.speaker(policy) for policy in policies}
    switched = [s for s in dict.fromkeys(speakers.values()) if weights.on_base(s)][1:]
    switched = switched if switched and not _separable(weights) else []
    runs = [[p for p in policies if speakers[p] == s] for s in switched]
    rest = [p for p in policies if speakers[p] not in switched]
    return [run for run in (rest, *runs) if run]


@contextmanager
def sampling(
    weights: Policies,
    policies: Sequence[str],
    kernel_weights: KernelWeights,
    machine: Machine,
    context: int,
    updates: Mapping[str, int],
) -> Iterator[Routes]:
    """What samples from these policies, one of `runs_of`, inside. To be entered under the machine's
    autocast. `updates`: the number of the update that will learn from what a policy says."""
    speakers = {policy: weights.speaker(policy) for policy in policies}
    asked = list(dict.fromkeys(speakers.values()))
    with ExitStack() as stack:
        routes = _adapters(weights, [p for p in asked if weights.on_base(p)], kernel_weights)
        for policy in asked:
            if policy not in routes:
                model = stack.enter_context(weights.sampling(policy))
                steps = kernel_weights.steps(
                    policy, model, machine.bf16, machine.kernels, context, updates.get(policy)
                )
                routes[policy] = Route(steps, steps.enter)
        kernel_weights.named |= set(policies)
        if BASE not in kernel_weights.named and BASE not in map(weights.speaker, weights.adapters):
            kernel_weights.drop(BASE)  # nobody speaks with it any more
        yield Routes({policy: routes[speaker] for policy, speaker in speakers.items()})


def _adapters(weights: Policies, policies: Sequence[str], kernel_weights: KernelWeights) -> dict[str, Route]:
    """The base and adapters on it, computed together by PyTorch; none where kernels have a copy of each, or
    modules must be called."""
    decoder = decoder_of(weights.base)
    if not policies or by_kernels(decoder, weights.base) or not mixes(decoder):
        return {}
    names = {p: "" if p == BASE else p for p in policies}
    kept = {name: kernel_weights.kept(p, weights.base) for p, name in names.items()}
    steps = by_torch(weights.base, decoder, [p for p in policies if p != BASE], kept=kept)
    return {p: Route(steps, partial(steps.enter, adapter=name)) for p, name in names.items()}


def _separable(weights: Policies) -> bool:
    """Whether the base and adapters on it can be computed without switching modules while rows are in the
    making."""
    decoder = decoder_of(weights.base)
    return by_kernels(decoder, weights.base) or mixes(decoder)
