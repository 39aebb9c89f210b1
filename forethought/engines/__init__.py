"""Engines: what samples and trains. Algorithms know the protocol in `base.py` and nothing below it."""
