"""A recipe becomes a run directory: building, stages in order, resuming, endings."""
