"""The small runs that are attacked: every layout in both precisions, every kind of stage, and what gates and
controllers do.

Each is a `desk` with four widgets and a model of a few thousand parameters, two to three stages of a handful
of steps, in which gradients flow: rewards are for the form of what is said, which a model that has hardly
learned gets right now and then.
"""

from __future__ import annotations

from collections.abc import Mapping

LAYOUTS = ("shared", "adapters", "mixed", "models", "planner")
PRECISIONS = ("fp32", "bf16")

IMITATE = {
    "kind": "imitate",
    "until": {"steps": 6},
    "batch": 8,
    "share": 2,
    "optim": {"lr": 1e-2, "warmup": 2},
}
PLAN = {
    "kind": "reinforce",
    "roles": ["plan"],
    "until": {"steps": 5},
    "batch": 6,
    "tree": {"plan": 4, "act": 1},
    "updates": 2,
    "ref_kl": 0.05,
    "reward": {"plan": {"format": 1, "valid": 1}},
    "optim": {"lr": 0.02},
}
ACT = {
    "kind": "reinforce",
    "roles": ["act"],
    "until": {"steps": 3},
    "batch": 3,
    "tree": {"oracle": ["plan"], "act": 4},
    "reward": {"act": {"format": 1, "follows": 1}},
    "optim": {"lr": 0.02},
}
ROLL_BACK = {"metric": "eval/act", "at_least": 1.0, "on_fail": "roll_back"}  # which nothing here ever reaches
GUIDE = {"kind": "distill", "distill": {"summariser": "rules", "problems": 24, "solver": "exact"}}
# two gradients are never quite parallel, so it switches at the first look
APART = {"min_cosine": 1.0, "window": 1, "rejoin": 1}


def subject(*stages: Mapping, layout: str = "shared", precision: str = "fp32", **fields) -> dict:
    """The tables of a recipe. `layout` "planner": models, with a planner of another width."""
    tables = {
        "name": "attacked",
        "layout": "models" if layout == "planner" else layout,
        "seed": 3,
        "task": {"name": "desk", "levels": [1, 2], "widgets": 4, "slip": 0.1},
        "model": {"layers": 2, "width": 32, "mlp": 32},
        "adapter": {"rank": 2},
        "engine": {"device": "cpu", "precision": precision, "threads": 1, "kernel_threads": 1},
        "eval": {"tasks": 2, "every": 3},
        "save": {"every": 2, "trees_every": 2, "trees": 2},
        "probes": {"every": 3, "tasks": 2},
        "stage": [dict(stage) for stage in stages],
    }
    if layout == "planner":
        tables["planner"] = {"init": "small", "layers": 2, "width": 48, "mlp": 32}
    return tables | fields


def plain(layout: str, precision: str) -> dict:
    """Both roles imitate, one learns to plan, the other to act (in layout "mixed" the base acts, and does not
    move any more)."""
    return subject(IMITATE, PLAN, *([ACT] if layout != "mixed" else []), layout=layout, precision=precision)


def all_subjects() -> dict[str, dict]:
    """Name -> tables of a recipe, for every layout x precision and for everything that moves weights between
    steps."""
    found = {
        f"{layout}-{precision}": plain(layout, precision) for layout in LAYOUTS for precision in PRECISIONS
    }
    # sampled by the kernels, trained without them
    for layout, precision in (("adapters", "bf16"), ("models", "bf16"), ("mixed", "fp32")):
        tables = plain(layout, precision)
        found[f"{layout}-{precision}-layers-torch"] = tables | {
            "engine": tables["engine"] | {"layers": "torch"}
        }
    for then in ({"then": "skip"}, {"then": "lower_rate", "rate": 0.5, "retries": 1}):
        for layout, precision in (("adapters", "bf16"), ("models", "fp32")):
            found[f"gate-{then['then']}-{layout}-{precision}"] = subject(
                IMITATE, PLAN | {"gates": [ROLL_BACK | then]}, ACT, layout=layout, precision=precision
            )
    for to in ("adapter", "model", "replay", "keep_kl"):
        gate = ROLL_BACK | {"then": "isolate", "isolate": to}
        found[f"gate-isolate-{to}"] = subject(IMITATE, PLAN | {"gates": [gate]}, precision="bf16")
        rates = {"lr": 0.01} if to == "adapter" else {"weight": 0.1} if to in ("replay", "keep_kl") else {}
        switch = PLAN | {"until": {"steps": 7}, "adaptive": {"to": to, **APART, **rates}}
        found[f"adaptive-{to}"] = subject(
            IMITATE, switch, probes={"every": 2, "tasks": 2, "conflict_every": 1}
        )
    for core in ("core", "random"):
        isolation = {"core": core, "core_steps": 4, "core_share": 0.05}
        isolation |= {"transplant": True, "slerp": 0.2} if core == "core" else {}
        found[f"isolation-{core}"] = subject(IMITATE, PLAN | {"isolation": isolation}, precision="bf16")
    found["isolation-surgery"] = subject(IMITATE, PLAN | {"isolation": {"replay": 0.1, "surgery": "pcgrad"}})
    found["distill-rules-fp32"] = subject(GUIDE, IMITATE, PLAN, layout="adapters")
    found["distill-rules"] = subject(GUIDE, IMITATE, PLAN, layout="adapters", precision="bf16")
    found["distill-twice"] = subject(GUIDE, IMITATE, GUIDE, PLAN)
    found["muon"] = subject(
        IMITATE | {"optim": {"name": "muon", "lr": 5e-3, "decay": 0.5}}, PLAN, layout="mixed"
    )
    return found
