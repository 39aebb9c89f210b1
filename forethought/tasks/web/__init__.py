"""`web`: tasks on pages in a browser."""
