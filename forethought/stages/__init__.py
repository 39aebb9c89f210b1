"""What a stage does at every step."""
