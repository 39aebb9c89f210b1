"""Guidance distillation: demonstrations with chains of thought become (question, plan, chain, answer),
filtered and on disk."""
