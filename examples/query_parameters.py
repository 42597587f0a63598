"""Parts of the query string: required, with defaults, bounded, repeated.

antiphon run examples/query_parameters.py
antiphon connect "ws://localhost:8000/search?q=tea&tag=green&tag=hot&limit=5"
"""

from typing import Annotated

from antiphon import App, Query, WebSocket

app = App()


@app.websocket("/search")
async def search(
    websocket: WebSocket,
    q: Annotated[str, Query(min_length=2)],
    tags: Annotated[list[str], Query(alias="tag")] = [],  # noqa: B006  # each connection gets its own copy
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> None:
    await websocket.accept()
    await websocket.send_json({"q": q, "tags": tags, "limit": limit})
