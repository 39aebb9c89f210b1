"""`FakeEngine`: scripted, deterministic, in milliseconds."""
