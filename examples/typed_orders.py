"""The orders of validated_json.py as a channel: the annotation validates, answers and documents.

antiphon run examples/typed_orders.py    and open http://localhost:8000/asyncapi to try it
echo '{"type": "order", "ref": 1, "item": "tea", "amount": 2}' | antiphon connect ws://localhost:8000/orders
"""

from typing import Annotated

from pydantic import BaseModel, Field

from antiphon import App

app = App()
orders = app.add_channel("/orders")


class Order(BaseModel):
    """Buy something."""

    item: str
    amount: Annotated[int, Field(gt=0)]


@orders.on
async def order(message: Order) -> Order:
    """The order as it was understood."""
    return message
