"""One connection of a channel: reads its messages, one after the other, and sees to it that each is answered.

Owns the connection's line, and the answers to messages that cannot be handled and to unexpected exceptions.
`requests.py` owns those beside the line. The loop is written out for the quick way (benchmarks/channel_micro.py):
a handler that needs nothing but itself costs no coroutine of ours. Knows nothing of paths or close codes of endpoints.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from pydantic import ValidationError
from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocketDisconnect

from antiphon.connection import OnInvalid, WebSocket, WebSocketState, codec, expiry_of
from antiphon.connection.paced import pause
from antiphon.connection.typed import InvalidLimit, failures
from antiphon.connection.websocket import came, coming
from antiphon.dependencies.calls import Bound
from antiphon.exceptions import InvalidMessage, PeerError, RegistrationError, TooMuchJSON, UndeclaredMessage
from antiphon.gate.admission import Verify
from antiphon.gate.rates import OverRate, Rate, TooFast
from antiphon.shown import shown
from antiphon.status import WS_1008_POLICY_VIOLATION, WS_1011_INTERNAL_ERROR, WS_1012_SERVICE_RESTART
from antiphon.tags import AUTH, RESERVED
from antiphon.types import ACCEPTED_KEY, STOPPING

from . import errors
from .errors import CODES, FAULTS, Fault, MessageError, cause_of, failure, fault_of, misfit
from .frames import Ref, Unreadable
from .options import OnError
from .program import NOT_DECODED, Action, Program
from .renewal import UNBLAMED
from .requests import Requests
from .working import Working

logger: Final = logging.getLogger("antiphon")

CANCEL: Final = "cancel"


class Conversation:
    """The state of one connection of a channel."""

    __slots__ = (
        "_bound", "_invalid", "_kept", "_program", "_reading", "_requests", "_stopping", "_websocket", "_yielded"
    )  # fmt: skip

    def __init__(self, program: Program, websocket: WebSocket, kept: tuple[Any, ...], yielded: Any) -> None:
        self._program = program
        self._websocket = websocket
        self._kept = kept
        self._yielded = yielded
        self._bound: dict[Action, Bound] | None = None
        """The part that all messages of an action share. Made with the first."""
        self._requests: Requests | None = None
        self._invalid: InvalidLimit | None = None
        self._reading = False
        """Nothing is in line."""
        self._stopping = False

    async def begin(self) -> bool:
        """Accept the connection, if that is left to us, and hear of events beside the line: the server's stop, the
        end of the client's time. The heart beats. False: there is no connection to serve."""
        websocket, renewal = self._websocket, self._program.renewal
        if websocket.application_state is WebSocketState.CONNECTING and websocket.refused is None:
            await websocket.accept(self._program.blueprint.subprotocol)
        if websocket.application_state is not WebSocketState.CONNECTED:
            return False
        websocket.scope.pop(ACCEPTED_KEY, None)
        websocket.listen_for_stop(self)
        if (beats := self._program.beats) is not None:
            beats.begin(websocket)
        if (expiry := expiry_of(websocket.scope)) is not None and renewal.verifier(websocket) is not None:
            ahead = self._program.options.auth_expiring
            expiry.tell_ahead(ahead, lambda left: renewal.tell(websocket, left))
        return True

    async def end(self) -> None:
        """The line is over: end the requests beside it."""
        self._websocket.listen_for_stop(None)
        if self._requests is not None:
            await self._requests.end()

    async def line(self) -> None:
        """Handle messages until the connection is over. Raises `WebSocketDisconnect` when it ends.

        An idle connection waits in this frame: it keeps nothing that can be looked up, nor the last message
        (benchmarks/channel_micro.py).
        """
        program, websocket = self._program, self._websocket
        data: Any
        found: Any
        value: Any
        text: Any
        while not self._stopping:
            self._reading = True
            data = found = value = text = None
            data = came(websocket, await coming(websocket))
            self._reading = False
            if (type(data) is not str or len(data) > program.looked_at) and not await self._may_be_read(data):
                continue
            try:
                found = program.read(data)
            except ValidationError as error:
                await self._look_closer(data, error)
                continue
            ref = found.get(program.ref_key)
            if program.replies_to_haste and await self._is_too_fast(data, ref):
                continue
            action = program.table.get(found[program.tag_key])
            if action is None or not action.is_plain or (self._requests is not None and ref is not None):
                await self._handle(action, data, ref, found, NOT_DECODED)
                continue
            try:
                value = action.validate(data)  # type: ignore[misc]  # a plain action has a codec
            except ValidationError as error:
                await self._refuse(misfit(InvalidMessage(failures(error))), ref)
                continue
            if not action.is_simple:
                await Working(self, action, value, ref, None).run()
                continue
            try:
                if action.is_alone:
                    value = await action.call(value)
                else:
                    value = await action.call(**self._arguments(action, value))
                text = self._answer(action, value, ref) if ref is not None or action.is_event else None
            except Exception as error:
                await self.failed(action, error, ref)
                continue
            except asyncio.CancelledError as error:
                self.blame(error)
                await self.failed(action, error, ref)
                continue
            if text is not None:
                await websocket.send_text(text)
        if self._requests is not None:
            await self._requests.at_rest()
        await self._close(WS_1012_SERVICE_RESTART, STOPPING)

    def defers_stop(self) -> bool:
        """`types.StopListener`: requests in line and beside it are answered before the Close."""
        requests = self._requests
        if self._reading and (requests is None or not requests.owes_answers()):
            return False
        self._stopping = True
        if requests is not None:
            requests.stop(self._disconnect if self._reading else None)
        return True

    def _disconnect(self) -> None:
        """The line is idle, and the last request beside it was answered."""
        self._websocket.sink.disconnect(WS_1012_SERVICE_RESTART, STOPPING)

    # Incoming messages

    async def _may_be_read(self, data: str | bytes) -> bool:
        """Whether a message is text of an allowed size. Others are answered here."""
        program = self._program
        most = program.options.max_message_size
        if most is not None and len(data) > most // 4:
            size = len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode(errors="replace"))
            if size > most:
                await self._refuse(Fault(errors.TOO_BIG, f"the message has more than {most} bytes"), None)
                return False
        if isinstance(data, bytes):
            if program.bytes_action is None:
                await self._refuse_as(errors.UNEXPECTED_BINARY, None)
            elif not (program.replies_to_haste and await self._is_too_fast(data, None)):
                await self._work(program.bytes_action, data, None)
            return False
        try:
            codec.check_values(data, self._websocket.options.json_values)
        except TooMuchJSON as exc:
            await self._refuse(Fault(errors.TOO_BIG, exc.msg), None)
            return False
        return True

    async def _look_closer(self, data: str, error: ValidationError) -> None:
        """Messages that the quick parser refused: those with lone surrogates, and invalid ones."""
        try:
            tag, ref, value = self._program.frames.look_closer(data, error)
        except Unreadable as exc:
            await self._refuse(exc.fault, exc.ref)
            return
        if self._program.replies_to_haste and await self._is_too_fast(data, ref):
            return
        found = {self._program.options.wire.tag: tag}
        await self._handle(self._program.table.get(tag), data, ref, found, value)

    async def _handle(
        self, action: Action | None, data: str, ref: Ref | None, found: dict[str, Any], value: Any
    ) -> None:
        """Any message that has a tag. `value` is the decoded whole where the quick parser did not take it."""
        program = self._program
        if action is None:
            tag = found[program.options.wire.tag]
            if tag == CANCEL:
                await self._cancel(ref)
                return
            if tag == AUTH and (verify := program.renewal.verifier(self._websocket)) is not None:
                await self._renew(verify, data, ref, found, value)
                return
            if (action := program.fallback) is None or tag in RESERVED:
                await self._refuse_as(errors.UNKNOWN_TYPE, ref)
                return
        if action.rate is not None and not await self._is_in_time(action.rate, data, ref):
            return
        if ref is not None and self._requests is not None and self._requests.has(ref):
            await self._refuse_as(errors.DUPLICATE_REF, None)
        elif action.is_stream and ref is None:
            await self._refuse_as(errors.REF_REQUIRED, None)
        elif action.is_stream and self.requests.streams() >= program.options.streams:
            await self.say(program.frames.error(Fault(errors.BUSY, CODES[errors.BUSY]), ref))
        else:
            try:
                message = program.validated(action.incoming, data, found, value)
            except InvalidMessage as exc:
                await self._refuse(misfit(exc), ref)
            else:
                await self._work(action, message, ref)

    async def _renew(self, verify: Verify, data: str, ref: Ref | None, found: dict[str, Any], value: Any) -> None:
        """In line: messages behind the new token belong to the new identity."""
        renewal, frames = self._program.renewal, self._program.frames
        if ref is not None and self._requests is not None and self._requests.has(ref):
            await self._refuse_as(errors.DUPLICATE_REF, None)
            return
        try:
            auth = self._program.validated(renewal.shape.incoming, data, found, value)
        except InvalidMessage as exc:
            await self._refuse(misfit(exc), ref)
            return
        renewed = await renewal.renew(self._websocket, verify, auth.token)
        if isinstance(renewed, Fault):
            if renewed.code in UNBLAMED or not await self._is_too_much():
                await self.say(frames.error(renewed, ref))
        elif ref is not None:
            await self.say(frames.reply(ref, renewal.shape.reply.encode(renewed)))

    async def _cancel(self, ref: Ref | None) -> None:
        if ref is None:
            wire = self._program.options.wire
            await self._refuse(misfit(failure((wire.ref,), "missing", "Field required")), None)
        elif self._requests is not None:
            self._requests.cancel(ref)

    # Handling a message

    async def _work(self, action: Action, message: Any, ref: Ref | None) -> None:
        """In line, or beside it when there is room: nothing more is read until then."""
        shape = action.shape
        if not action.is_stream and shape.concurrent == 1:
            request = self.requests.in_line(shape, ref) if shape.timeout is not None else None
            try:
                await Working(self, action, message, ref, request).run()
            finally:
                if request is not None:
                    self.requests.left(request)
            return
        if action.is_stream or await self.requests.room(shape):
            self.requests.start(shape, ref, lambda request: self._aside(Working(self, action, message, ref, request)))

    async def _aside(self, working: Working) -> None:
        """A request in a task of its own: an exception that would end the line ends the connection instead."""
        try:
            await working.run()
        except WebSocketDisconnect:
            pass
        except WebSocketException as exc:
            await self._close(exc.code, exc.reason or "")
        except PeerError as exc:
            await self._close(exc.close_code, exc.close_reason)
        except Exception as exc:
            logger.error("unhandled exception in %s", working.label, exc_info=exc)
            await self._close(WS_1011_INTERNAL_ERROR, "Internal Server Error")

    async def _close(self, code: int, reason: str) -> None:
        try:
            await self._websocket.close(code, reason)
        except ValueError:
            logger.error("%s asked for close code %s, which may not be sent: closed with 1011", self.label, code)
            await self._websocket.close(WS_1011_INTERNAL_ERROR)
        except WebSocketDisconnect:
            pass

    @property
    def requests(self) -> Requests:
        """The requests in progress beside the quick ones in line. Made at the first need."""
        if self._requests is None:
            self._requests = Requests(self._websocket)
        return self._requests

    @property
    def program(self) -> Program:
        """The channel at this path."""
        return self._program

    @property
    def websocket(self) -> WebSocket:
        """The connection."""
        return self._websocket

    @property
    def label(self) -> str:
        """The connection's name in the log."""
        return f"{self._program.label} ({shown(self._websocket.scope.get('path', ''))})"

    def bound(self, action: Action) -> Bound:
        """The connection's values for an action's calls."""
        return (self._bound and self._bound.get(action)) or self._bind(action)

    def _arguments(self, action: Action, message: Any) -> dict[str, Any]:
        values = self.bound(action).target.copy()
        values[action.parameter] = message
        return values

    def _bind(self, action: Action) -> Bound:
        if self._bound is None:
            self._bound = {}
        bound = self._bound[action] = Bound(action.shape.plan, self._kept, self._websocket, self._yielded)
        return bound

    def _answer(self, action: Action, result: Any, ref: Ref | None) -> str | None:
        """A function's result as it goes on the wire. None: nothing."""
        if ref is None:
            return self._program.events.frame(result) if action.is_event and result is not None else None
        if action.reply is not None:
            return self._program.frames.reply(ref, action.reply.encode(result))
        return self._program.frames.ack(ref) if result is None else _undeclared(action, result)

    # Errors

    async def say(self, text: str) -> None:
        """Send a frame of ours."""
        await self._websocket.send_text(text)

    async def _refuse_as(self, code: str, ref: Ref | None) -> None:
        await self._refuse(Fault(code, CODES[code]), ref)

    async def _refuse(self, fault: Fault, ref: Ref | None) -> None:
        """The client's mistake: count it, and answer as the options say."""
        options = self._program.options
        if options.on_invalid is OnInvalid.CLOSE:
            await self._close(FAULTS[fault.code], fault.message if fault.code != errors.INVALID else "invalid message")
            return
        if not await self._is_too_much() and options.on_invalid is OnInvalid.REPLY:
            await self.say(self._program.frames.error(fault, ref))

    async def _is_in_time(self, rate: Rate, data: str | bytes, ref: Ref | None) -> bool:
        """Whether a handler's rate lets a message through. One that it does not is answered here."""
        websocket, limits = self._websocket, self._program.limits
        excess = limits.excess(websocket.scope, rate, data)
        if excess is None:
            return True
        if excess.code is not None:
            await self._close(excess.code, excess.reason)
            return False
        if rate.over is OverRate.REPLY:
            await self._refuse_as_fast(excess.wait, ref)
            return False
        self._reading = True  # a stop need not wait for it
        goes_on = await pause(websocket, excess.wait)
        self._reading = False
        return goes_on

    async def _is_too_fast(self, data: str | bytes, ref: Ref | None) -> bool:
        """Whether the client exceeds the rates that the channel itself answers. It gets an error."""
        lack = self._program.limits.lack(self._websocket.scope, data)
        if lack > 0:
            await self._refuse_as_fast(lack, ref)
        return lack > 0

    async def _refuse_as_fast(self, lack: float, ref: Ref | None) -> None:
        """The client is too fast: answered regardless of `on_invalid`, and counted like its other mistakes."""
        if not await self._is_too_much():
            fault = Fault(errors.RATE_LIMITED, CODES[errors.RATE_LIMITED], {"retry_after": round(lack, 3)})
            await self.say(self._program.frames.error(fault, ref))

    async def _is_too_much(self) -> bool:
        """Count one more mistake of the client's. Whether it was one too many, and the connection is closed."""
        limit = self._program.options.invalid_limit
        if limit is None:
            return False
        self._invalid = self._invalid or InvalidLimit(limit)
        if not self._invalid.passed(asyncio.get_running_loop().time()):
            return False
        await self._close(WS_1008_POLICY_VIOLATION, "too many invalid messages")
        return True

    @staticmethod
    def blame(error: asyncio.CancelledError) -> None:
        """Raise a cancellation that is meant for the connection. One that a handler made itself is its fault."""
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise error

    async def failed(self, action: Action, error: BaseException, ref: Ref | None) -> None:
        """Answer for an exception of a handler or of its dependencies. Raises one that is to close the connection."""
        cause = cause_of(error)
        try:
            if isinstance(cause, TooFast):
                await self._refuse_as_fast(cause.retry_after, ref)
                return
            if isinstance(cause, WebSocketException | PeerError) or (
                isinstance(cause, WebSocketDisconnect) and not self._websocket.is_connected
            ):
                raise cause
            if (text := self._told(action, cause, ref)) is None:
                if self._program.options.on_error is OnError.CLOSE:
                    raise error
                logger.error(
                    "unhandled exception in %s, answered as an internal error", action.shape.label, exc_info=error
                )
                text = self._program.frames.error(Fault(errors.INTERNAL, CODES[errors.INTERNAL]), ref)
            await self.say(text)
        finally:
            del error, cause  # a traceback that holds this frame would live until the next garbage collection

    def _told(self, action: Action, cause: BaseException, ref: Ref | None) -> str | None:
        """The frame for an exception that says something to the client. None for any other."""
        if isinstance(cause, MessageError):
            if not isinstance(cause, action.shape.errors):
                _tell_of_undeclared(action, type(cause))
            try:
                return self._program.frames.declared_error(cause, ref)
            except (UndeclaredMessage, RegistrationError) as exc:
                cause.add_note(f"it cannot be sent: {exc}")
                return None
        fault = fault_of(cause)
        return None if fault is None else self._program.frames.error(fault, ref)


def _undeclared(action: Action, result: Any) -> str:
    raise UndeclaredMessage(
        f"{action.shape.label} declares no answer and returned a {type(result).__name__}: annotate its return type"
    )


_told_of: set[tuple[Callable[..., Any], type]] = set()


def _tell_of_undeclared(action: Action, error: type[MessageError]) -> None:
    """Once for each handler and class, of which there are not many."""
    if (action.call, error) not in _told_of:
        _told_of.add((action.call, error))
        logger.warning(
            "%s raised %s, which its documents do not name: @chat.on(errors=[%s])",
            action.shape.label, error.__name__, error.__name__,
        )  # fmt: skip
