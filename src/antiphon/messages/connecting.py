"""A channel's connection: the connection function around its conversation, and the one's end told to the other.

Knows nothing of messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocketDisconnect

from antiphon.connection import WebSocket
from antiphon.dependencies.inspection import CallKind
from antiphon.dependencies.layers import CONNECTION, KEPT
from antiphon.dependencies.lifetimes import ENDED, AsyncLife, raise_as_is
from antiphon.dependencies.solve import TEARDOWN_SECONDS

from .conversation import Conversation
from .program import Program


class Runnable(Program):
    """A program that is called as an endpoint, with the values that solving its plan gave."""

    def __call__(self, **values: Any) -> Coroutine[Any, Any, None]:
        """Serve one connection."""
        return converse(self, values)


async def converse(program: Program, values: dict[str, Any]) -> None:
    """Serve one connection with the values of the program's solved plan.

    Returns when the connection is over. Raises the exception that closes it: a `WebSocketException`, or one of the
    connection function. An exception of the loop is raised at the connection function's `yield`.
    """
    life, conversation = await _begun(program, values)
    del values  # an idle connection holds only the values it needs
    if conversation is None:
        return  # the connection function has refused, or ended the connection
    error: BaseException | None = None
    try:
        if await conversation.begin():
            try:
                await conversation.line()
            finally:
                await conversation.end()
    except BaseException as raised:
        error = raised
        if isinstance(raised, WebSocketDisconnect) and not conversation.websocket.is_connected:
            error = None
    try:
        if life is not None:
            await _leave(life, error)
        elif error is not None:
            raise_as_is(error)
    finally:
        del error


async def _begun(program: Program, values: dict[str, Any]) -> tuple[AsyncLife | None, Conversation | None]:
    """The connection function, run to its `yield`, and the conversation behind it. None: there is none."""
    name = program.connection_name
    websocket: WebSocket = values.pop(name) if name == CONNECTION or program.call is None else values[name]
    kept = (*values.pop(KEPT, ()), *[values[shared] for shared in program.shared])
    life, yielded = None, None
    if program.kind is CallKind.ASYNC_GENERATOR:
        life = AsyncLife(program.label, program.call, values)  # type: ignore[arg-type]  # there is one
        if (yielded := await life.begin()) is ENDED:
            return None, None
    elif program.kind is CallKind.ASYNC:
        await program.call(**values)  # type: ignore[misc]  # a kind means that there is one
    elif program.call is not None:
        await run_in_threadpool(program.call, **values)
    return life, Conversation(program, websocket, kept, yielded)


async def _leave(life: AsyncLife, error: BaseException | None) -> None:
    with anyio.CancelScope(shield=True) as scope:
        if isinstance(error, asyncio.CancelledError):
            scope.deadline = anyio.current_time() + TEARDOWN_SECONDS
        swallowed = await life.leave(error)
    if error is not None and not swallowed:
        raise_as_is(error)
