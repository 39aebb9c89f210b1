"""`desk`: widgets under widgets, opened one after the other."""
