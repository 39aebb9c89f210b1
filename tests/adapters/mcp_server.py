"""A server of the Model Context Protocol for tests, in both major versions of its library. Its tools do what
servers do wrong, too."""

import base64
import os
import random
import struct
import sys
import time
import zlib

try:
    from mcp.server.mcpserver import Context, MCPServer
except ImportError:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer
try:
    from mcp.types import ImageContent, TextContent
except ImportError:
    from mcp_types import ImageContent, TextContent

server = MCPServer("tests")
state = {"key": "left", "score": 0.0}


@server.tool()
def reset(seed: int, level: int = 0) -> str:
    """Hide the key."""
    state.update(key=random.Random(seed).choice(["left", "right"]), score=0.0)
    return f"The key is in the {state['key']} drawer of {level}."


@server.tool()
def open_drawer(side: str, element: str = "", target: str = "") -> str:
    """Open a drawer."""
    state["score"] = float(side == state["key"])
    return "There is a key." if state["score"] else "It is empty."


@server.tool()
def fail(why: str) -> str:
    """Raise an error."""
    raise ValueError(why)


@server.tool()
def die() -> str:
    """End the process."""
    os._exit(3)


@server.tool()
def hang() -> str:
    """Answer never."""
    time.sleep(600)
    return "late"


@server.tool()
def picture(kind: str = "image/png") -> list:
    """Give an image."""
    data = base64.b64encode(png() if kind == "image/png" else b"RIFFwebp").decode()
    fields = {"type": "image", "data": data}
    try:
        image = ImageContent(**fields, mime_type=kind)
    except Exception:
        image = ImageContent(**fields, mimeType=kind)
    return [TextContent(type="text", text="a picture"), image]


@server.tool()
async def change_tools(tell: bool, ctx: Context) -> str:
    """Offer another tool from now on."""
    server.add_tool(lambda: "new", name="another", description="another tool")
    if tell:
        await ctx.session.send_tool_list_changed()
    return "changed"


@server.tool()
def score() -> str:
    """How well it went."""
    return str(state["score"])


@server.tool()
def bad_score() -> str:
    """How well it went, in words."""
    return "very well"


def png() -> bytes:
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0\0"))
        + chunk(b"IEND", b"")
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        try:
            server.run(transport="streamable-http", port=int(sys.argv[2]))
        except TypeError:
            server.settings.port = int(sys.argv[2])
            server.run(transport="streamable-http")
    else:
        server.run()
