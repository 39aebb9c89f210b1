"""`text`: prompts of one's own from a file with any columns; and what `math` shares with it."""
