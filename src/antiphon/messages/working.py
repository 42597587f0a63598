"""One request at work: its dependencies, its function, the end of the dependencies, then the answer.

The order is the promise: the code behind a dependency's `yield` (a commit) is over before the answer goes out, and an
error in it is the answer. Runs in the connection's own task or in one of its own; README.md has the table.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Protocol

from starlette.background import BackgroundTasks
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocketDisconnect

from antiphon.connection import WebSocket
from antiphon.dependencies.calls import Bound, Calling
from antiphon.exceptions import TryAgainLater, UndeclaredMessage
from antiphon.shown import shown

from . import errors
from .errors import CODES, Fault
from .frames import Ref
from .program import Action, Program
from .requests import Running, Stage

logger: Final = logging.getLogger("antiphon")

ITEM_ROOM: Final = 128 << 10
"""Bytes in the outbox from which on a stream waits before its next item: half of the limit for `send`, so that the
hub's next event, and everybody else's, finds room."""


class Asker(Protocol):
    """The conversation, as a request sees it."""

    @property
    def program(self) -> Program:
        """The channel at this path."""

    @property
    def websocket(self) -> WebSocket:
        """The connection."""

    def bound(self, action: Action) -> Bound:
        """The connection's values for an action's calls."""

    async def say(self, text: str) -> None:
        """Send a frame."""

    async def failed(self, action: Action, error: BaseException, ref: Ref | None) -> None:
        """Answer for an exception."""


class Working:
    """One request, from its first dependency to its answer."""

    __slots__ = ("_action", "_asker", "_calling", "_message", "_ref", "_request")

    def __init__(self, asker: Asker, action: Action, message: Any, ref: Ref | None, request: Running | None) -> None:
        self._asker = asker
        self._action = action
        self._message = message
        self._ref = ref
        self._request = request
        """The request that may be interrupted. None for one in line without a timeout."""
        self._calling = Calling(asker.bound(action))

    @property
    def label(self) -> str:
        """Its name in errors."""
        return self._action.shape.label

    async def run(self) -> None:
        """Work on it and answer. Raises exceptions that close the connection, and a cancellation that is not ours."""
        action, calling, request = self._action, self._calling, self._request
        error: BaseException | None = None
        result: Any = None
        try:
            if request is None or request.stage is Stage.RUNNING:
                values = await calling.enter(self._message)
                if action.is_stream:
                    await self._stream(values)
                elif action.is_sync:
                    result = await run_in_threadpool(action.call, **values)
                else:
                    result = await action.call(**values)
        except BaseException as raised:
            error = raised
        try:
            interrupted = request is not None and request.function_over()
            if calling.lives is not None:
                error = await calling.leave(error)
            if interrupted:
                await self._tell_interrupted(error)
            elif error is not None:
                await self._failed(error)
            elif self._ref is not None or action.is_event:
                await self._answer(result)
            if error is None and calling.background is not None:
                await self._run_background(calling.background)
        finally:
            del error  # a traceback that holds this frame would live until the next garbage collection

    async def _failed(self, error: BaseException) -> None:
        if not isinstance(error, Exception | asyncio.CancelledError):
            raise error
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            raise error
        await self._asker.failed(self._action, error, self._ref)

    async def _stream(self, values: dict[str, Any]) -> None:
        action, ref, asker = self._action, self._ref, self._asker
        assert ref is not None
        assert action.reply is not None
        items = await run_in_threadpool(action.call, **values) if action.is_sync else action.call(**values)
        if hasattr(items, "__await__"):
            items = await items
        frames, encode = asker.program.frames, action.reply.encode
        try:
            async for item in items:
                text = frames.item(ref, encode(item))
                await self._room()
                await asker.say(text)
        finally:
            if (close := getattr(items, "aclose", None)) is not None:
                await close()

    async def _room(self) -> None:
        """Wait until the client has taken the earlier items, but for half of an outbox."""
        sink = self._asker.websocket.sink
        most = min(ITEM_ROOM, self._asker.websocket.options.outbox_bytes // 2)
        while sink.buffered > most and sink.alive:
            writable = sink.loop.create_future()

            def wake(waiter: asyncio.Future[None] = writable) -> None:
                if not waiter.done():
                    waiter.set_result(None)

            sink.on_writable(wake)
            await writable

    async def _answer(self, result: Any) -> None:
        action, ref, asker = self._action, self._ref, self._asker
        frames = asker.program.frames
        try:
            if action.is_stream:
                assert ref is not None
                text = frames.end(ref)
            elif ref is not None:
                text = self._reply(result, ref)
            elif action.is_event and result is not None:
                text = asker.program.events.frame(result)
            else:
                return
        except Exception as error:
            await asker.failed(action, error, ref)
            return
        await asker.say(text)

    def _reply(self, result: Any, ref: Ref) -> str:
        action, frames = self._action, self._asker.program.frames
        if action.reply is not None:
            return frames.reply(ref, action.reply.encode(result))
        if result is None:
            return frames.ack(ref)
        raise UndeclaredMessage(
            f"{self.label} declares no answer and returned a {type(result).__name__}: annotate its return type"
        )

    async def _tell_interrupted(self, error: BaseException | None) -> None:
        """The answer to an interrupted request. An exception of its teardown is only for the log."""
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            raise error
        if isinstance(error, Exception) and not isinstance(error, WebSocketDisconnect):
            logger.error("unhandled exception in %s, which was cancelled", self.label, exc_info=error)
        assert self._request is not None
        frames, stage = self._asker.program.frames, self._request.stage
        if stage is Stage.EXPIRED:
            await self._asker.say(frames.error(Fault(errors.TIMEOUT, CODES[errors.TIMEOUT]), self._ref))
        elif stage is Stage.CANCELLED and self._ref is not None:
            cancelled = frames.error(Fault(errors.CANCELLED, CODES[errors.CANCELLED]), self._ref)
            await self._asker.say(frames.end(self._ref) if self._action.is_stream else cancelled)

    async def _run_background(self, tasks: BackgroundTasks) -> None:
        try:
            await tasks()
        except TryAgainLater as error:
            logger.warning("background task of %s: %s", self.label, shown(str(error)))
        except Exception as error:
            logger.error("unhandled exception in a background task of %s", self.label, exc_info=error)


def _is_cancelled() -> bool:
    """Whether somebody wants the task to end."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
