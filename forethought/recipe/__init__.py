"""Recipes: `schema` is what one can say, `load` reads and overrides it, `check` refuses what cannot work
together."""
