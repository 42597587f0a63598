"""Validate each JSON message with pydantic; a bad one gets an error reply, and the conversation goes on.

antiphon run examples/validated_json.py
echo '{"item": "tea", "amount": 2}' | antiphon connect ws://localhost:8000/orders
"""

from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from antiphon import App, WebSocket

app = App()


class Order(BaseModel):
    item: str
    amount: Annotated[int, Field(gt=0)]


@app.websocket("/orders")
async def orders(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        try:
            order = Order.model_validate_json(text)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
            await websocket.send_json({"ok": False, "errors": details})
        else:
            await websocket.send_json({"ok": True, "order": order.model_dump()})
