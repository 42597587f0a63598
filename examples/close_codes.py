"""Close codes of our own (4000 to 4999), by `close`, by exception, and by a handler for an exception of ours.

antiphon run examples/close_codes.py
antiphon connect ws://localhost:8000/game
"""

from antiphon import App, WebSocket, WebSocketException

app = App()
GAME_OVER, NOT_YOUR_TURN, CHEATED = 4000, 4001, 4002


class Cheating(Exception):
    pass


@app.exception_handler(Cheating)
async def expel(websocket: WebSocket, exc: Cheating) -> None:
    await websocket.close(CHEATED, f"no {exc}")


@app.websocket("/game")
async def game(websocket: WebSocket) -> None:
    await websocket.accept()
    async for move in websocket.iter_text():
        if move == "resign":
            await websocket.close(GAME_OVER, "well played")
            return
        if move == "twice":
            raise WebSocketException(NOT_YOUR_TURN, "one at a time")
        if move.startswith("peek"):
            raise Cheating(move)
        await websocket.send_text("your turn")
