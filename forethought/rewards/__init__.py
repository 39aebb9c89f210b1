"""Reward functions that need more than a few lines: a judge through an endpoint.

# rewards.py
from forethought.rewards import Judge

polite = Judge("https://api.example.com/v1", "judge-model", "How polite is this answer?\\n{completion}")

reward = { act = { "rewards.py:polite" = 0.5 } }      # in the recipe

or without a file, in the recipe alone: judges = { polite = { endpoint = "...", model = "..." } }
"""

from __future__ import annotations

from forethought.rewards.judge import SETTINGS as SETTINGS
from forethought.rewards.judge import Judge as Judge
