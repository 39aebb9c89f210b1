"""Packed segments become losses, gradients and metrics."""
