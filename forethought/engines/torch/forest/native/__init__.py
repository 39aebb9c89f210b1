"""Kernels for the CPU, in C, compiled on the machine that runs them. Everything here has a PyTorch twin that
runs where there is no compiler, and tests that hold both to the same numbers."""
