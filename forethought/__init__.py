"""Staged post-training of models that plan before they act."""

__version__ = "0.1.0"
