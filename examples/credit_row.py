"""A credit row of one's own: how much each turn's tokens are reinforced.

    [[stage]]
    kind = "reinforce"
    credit = { name = "credit_row.py:better_than_before" }

A row sees the rewarded trees of a step and a state of its own, which is saved with the checkpoint and goes on
when the run is resumed. It gives for each tree a table: node id -> one number for all tokens of the node, or
one for each. Nodes that it leaves out have advantage 0.
"""


def better_than_before(trees, spec, state):
    """The rewards along a path, less the best mean of any earlier step: only what beats it is reinforced."""
    best = state.get("best", 0.0)
    tables, rewards = [], []
    for tree in trees:
        table = {}
        for leaf in tree.leaves():
            if leaf.status in ("failed", "overlong"):
                continue  # no evidence is not a 0
            path = tree.path(leaf)
            rewards.append(sum(node.reward or 0.0 for node in path))
            for node in path:
                if node.policy is not None:
                    table[node.id] = rewards[-1] - best
        tables.append(table)
    state["best"] = max(best, sum(rewards) / max(len(rewards), 1))
    return tables
