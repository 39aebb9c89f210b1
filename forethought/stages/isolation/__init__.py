"""Keeping planning and acting apart while they share weights: when to (adaptive), which weights to hold
(core)."""
