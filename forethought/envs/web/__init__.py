"""Web pages in a real browser: a page as text, actions on it, and all that can go wrong."""
