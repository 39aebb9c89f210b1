"""Web pages in a real browser: what stands on a page as text, actions on it, and everything that can go wrong."""
