"""A small MCP server: two drawers, one of which holds the key. Run by recipe.toml."""

import random

from mcp.server import MCPServer

server = MCPServer("drawers")
state = {"key": "left", "score": 0.0}


@server.tool()
def reset(seed: int) -> str:
    """Hide the key."""
    state.update(key=random.Random(seed).choice(["left", "right"]), score=0.0)
    return f"The note says: the key is in the {state['key']} drawer. Open it."


@server.tool()
def open_drawer(side: str) -> str:
    """Open a drawer."""
    state["score"] = float(side == state["key"])
    return "There is a key." if state["score"] else "It is empty."


@server.tool()
def score() -> str:
    """How well it went."""
    return str(state["score"])


if __name__ == "__main__":
    server.run()
