"""Commands that wait for one batch fail together, and each for itself."""

from __future__ import annotations

import asyncio
import socket

from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError

from antiphon.hub.backends.redis.pipeline import Pipeline


async def test_each_command_of_a_batch_that_failed_has_an_error_of_its_own() -> None:
    """One error would collect the traces of all who raise it."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        connection = Connection(host="127.0.0.1", port=nobody.getsockname()[1])
        pipeline = Pipeline(connection, 5.0, repeatable=False)
        errors = await asyncio.gather(*(pipeline.call(("PING",)) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, ConnectionError) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert len({str(error) for error in errors}) == 1
