"""A reward function of one's own: a part that a recipe names and weighs beside the others.

    [[stage]]
    kind = "reinforce"
    parts = { brevity = "reward_function.py:brevity", steady = "reward_function.py:steady" }
    reward = { act = { outcome = 1.0, brevity = 0.2, steady = 0.1 } }

A function sees the task and the path: the nodes from the prompt to the end of the branch that it rewards.
What it raises, and what is no finite number, makes that branch `failed`: counted, never rewarded with 0.
"""

LONG = 12  # tokens of a branch from which nothing is left of the reward


def brevity(task, path):
    """One number for the branch: 1 for no token, 0 from LONG on."""
    branch = [node for node in path if node.role == "act"]
    return max(0.0, 1 - sum(len(node.token_ids) for node in branch) / LONG)


def steady(task, path):
    """A list, one number for each of the role's turns on the branch: 1 where it ended by itself."""
    return [float(node.status == "finished") for node in path if node.role == "act"]
