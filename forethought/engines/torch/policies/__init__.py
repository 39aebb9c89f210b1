"""Named weights: adapters, copies, their optimizers, gradients and files."""
