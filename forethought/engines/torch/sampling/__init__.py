"""Contexts become completions."""
