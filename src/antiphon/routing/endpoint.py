"""Runs a WebSocket endpoint, and turns its ending into a close for the peer and a line in the log.

This is the one place where an endpoint's ending becomes a close code, a denial response or a log line. It knows nothing
of paths or matching. README.md beside it holds the matrix as a table.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
from pydantic import BaseModel
from starlette.responses import Response

from antiphon.connection import WebSocket, WebSocketState
from antiphon.connection.denials import closes
from antiphon.dependencies import Solved, solve
from antiphon.exceptions import ParameterErrors, PeerError, TryAgainLater, WebSocketRequestValidationError
from antiphon.gate.limits import NO_LIMITS, Limits
from antiphon.shown import shown
from antiphon.status import (
    WS_1000_NORMAL_CLOSURE,
    WS_1011_INTERNAL_ERROR,
    WS_1012_SERVICE_RESTART,
    cut_reason,
)
from antiphon.types import ACCEPTED_KEY, CARRIER_EXTENSION, Message, Receive, Scope, Send

from . import handlers
from .context import (
    ANSWERED_KEY,
    APP_KEY,
    FAILED_KEY,
    OverridesProvider,
    endpoint_of,
    name_of,
    overrides_of,
    resources_of,
    tell_leaving,
    wants_exceptions,
)
from .endings import (
    DISCONNECTS,
    FOREIGN_ORIGIN,
    NOT_FOUND,
    UNHANDLED,
    Ending,
    ending_of,
    ending_of_disconnect,
    ending_of_response,
    refusal_of_response,
    said_by,
    unwrap,
)

if TYPE_CHECKING:
    from antiphon.dependencies import Plan

logger: Final = logging.getLogger("antiphon")

GONE = (*DISCONNECTS, RuntimeError, OSError)
"""Exceptions from sending a last message when the connection has ended meanwhile, on any server."""

ANSWERS = (str, bytes, dict, list, Response, BaseModel)
"""Return types of an endpoint that mistakes a WebSocket for a request. Others may come of `return await
something()`."""

MOST_TOLD = 1000
_told: set[str] = set()
"""The lines logged once, as they are the same for each connection."""

FAREWELL_TIMEOUT = 1.0
"""Seconds a cancelled endpoint may take to send its Close: a stopping server cannot wait for a stuck peer."""


def run(
    endpoint: Callable[..., Any],
    plan: Plan,
    scope: Scope,
    receive: Receive,
    send: Send,
    provider: OverridesProvider | None,
    limits: Limits = NO_LIMITS,
) -> Coroutine[Any, Any, None]:
    """Solve the plan, call the endpoint, end the connection, then run the background tasks.

    Teardown of the dependencies is over before any exception handler runs. Raises unhandled exceptions, for the app
    around (`answer_unhandled`) or, in an app of another framework, for its middleware and server.

    An endpoint that takes the connection alone has a coroutine of its own, which is smaller (benchmarks: idle).
    """
    if limits is NO_LIMITS:
        websocket: WebSocket = WebSocket(scope, receive, send)
    else:
        websocket = limits.websocket(scope, receive, send)
    if plan.connection_only is None or limits.connects:
        return _run_solved(endpoint, plan, websocket, provider, limits)
    return _run_alone(endpoint, plan.connection_only, websocket)


async def _run_alone(endpoint: Callable[..., Any], name: str, websocket: WebSocket) -> None:
    try:
        result = await _awaitable(endpoint(**{name: websocket}), endpoint)
    except Exception as error:
        await _failed(websocket, _named(error, websocket.scope), None)
    except BaseException:
        await _say_farewell(websocket)
        raise
    else:
        if isinstance(result, ANSWERS):
            _tell_of_answer(endpoint, result)
        await _returned(websocket, None)


async def _run_solved(
    endpoint: Callable[..., Any],
    plan: Plan,
    websocket: WebSocket,
    provider: OverridesProvider | None,
    limits: Limits,
) -> None:
    scope = websocket.scope
    if limits.connects and await _is_one_too_many(websocket, limits):
        return
    solving: Solved | None = None
    result: object = None  # also where a dependency swallows the endpoint's exception
    try:
        overrides, resources = overrides_of(scope, provider), resources_of(scope)
        async with (solving := solve(plan, websocket, overrides=overrides, resources=resources)):
            try:
                result = await _awaitable(endpoint(**solving.values), endpoint)
            finally:
                tell_leaving(scope)  # before the teardown
    except Exception as error:
        await _failed(websocket, _named(error, scope), solving)
    except BaseException:
        await _say_farewell(websocket)
        raise
    else:
        if isinstance(result, ANSWERS):
            _tell_of_answer(endpoint, result)
        await _returned(websocket, solving)


def _tell_of_answer(endpoint: Callable[..., Any], result: object) -> None:
    name = name_of(endpoint)
    kind = type(result).__name__
    if _is_first(f"{name} returned {kind}"):
        send = {"str": "send_text", "bytes": "send_bytes"}.get(kind, "send_json")
        logger.warning("%s returned a %s, which no client gets: await websocket.%s(...) sends it", name, kind, send)


def _is_first(mistake: str) -> bool:
    """Whether the log has not been told. Once for each endpoint, of which there are not many."""
    if mistake in _told or len(_told) >= MOST_TOLD:
        return False
    _told.add(mistake)
    return True


async def _is_one_too_many(websocket: WebSocket, limits: Limits) -> bool:
    """Whether the handshake exceeds a rate. If so, it has been refused."""
    error = limits.refusal(websocket.scope)
    if error is not None:
        ending = ending_of(error) or UNHANDLED
        await _deny(websocket, ending.response(), ending)
    return error is not None


async def run_session(
    endpoint: Callable[[Any], Any], limits: Limits, scope: Scope, receive: Receive, send: Send
) -> None:
    """The same for a plain `endpoint(websocket)`, without dependencies."""
    websocket: WebSocket = limits.websocket(scope, receive, send)
    if limits.connects and await _is_one_too_many(websocket, limits):
        return
    await _run_plain(websocket, lambda: _awaitable(endpoint(websocket), endpoint))


async def run_asgi(endpoint: Callable[..., Any], limits: Limits, scope: Scope, receive: Receive, send: Send) -> None:
    """The same for an ASGI endpoint (a `WebSocketEndpoint` class): our `WebSocket` follows its messages."""
    websocket: WebSocket = limits.websocket(scope, receive, send)
    if limits.connects and await _is_one_too_many(websocket, limits):
        return
    await _run_plain(websocket, lambda: endpoint(scope, websocket.receive, websocket.send))


async def _run_plain(websocket: WebSocket, call: Callable[[], Awaitable[Any]]) -> None:
    try:
        await call()
    except Exception as error:
        await _failed(websocket, error, None)
    except BaseException:
        await _say_farewell(websocket)
        raise
    else:
        await _returned(websocket, None)


async def _returned(websocket: WebSocket, solved: Solved | None) -> None:
    tell_leaving(websocket.scope)
    if websocket.application_state is WebSocketState.CONNECTING and not _lost(websocket):
        logger.warning(
            "%s returned without accepting the connection: answered with 403. Call `await websocket.accept()`, or "
            "`close()` it on purpose",
            describe(websocket.scope),
        )
    elif websocket.refused is not None:
        told = shown(f"{websocket.refused.code} {websocket.refused.reason}".rstrip())
        answered = "accepted" if closes(websocket.scope) else "403"
        logger.info("%s refused: %s, closed with %s before accept", describe(websocket.scope), answered, told)
    await _finish(websocket)
    await _run_background(websocket, solved)


async def _failed(websocket: WebSocket, error: Exception, solved: Solved | None) -> None:
    """Close as the matrix says. A disconnect is no failure, and the background tasks run."""
    tell_leaving(websocket.scope)
    try:
        if not await _conclude(websocket, error):
            return
        await _run_background(websocket, solved)
        if wants_exceptions(websocket.scope):
            raise error
    except Exception:
        await _hand_over(websocket)
        raise
    finally:
        del error  # a traceback that holds this frame would keep the connection until the next garbage collection


async def _run_background(websocket: WebSocket, solved: Solved | None) -> None:
    if solved is None or solved.background is None:
        return
    try:
        await solved.background()
    except (PeerError, TryAgainLater) as error:  # no bug, and nobody is there any more to be told
        if (ending := ending_of(error)) is not None:
            scope = websocket.scope
            logger.log(ending.level, "background task of %s: %s", describe(scope), shown(ending.note))
    except Exception:
        await _hand_over(websocket)
        raise


async def _conclude(websocket: WebSocket, error: Exception) -> bool:
    """End a connection whose endpoint raised. True when that was a disconnect, which is no failure."""
    scope = websocket.scope
    cause = error if handlers.find(scope, error) is not None else unwrap(error)
    try:
        ending = ending_of(cause)
        if (handler := handlers.find(scope, cause)) is not None:
            if websocket.application_state is WebSocketState.CONNECTING:
                logger.info("%s: %s is answered by its exception handler", describe(scope), _raised(cause))
            await _answer(websocket, await handlers.call(handler, websocket, cause), ending or UNHANDLED)
            return False
        if isinstance(cause, DISCONNECTS):
            await _end_disconnected(websocket, cause)
            return True
        if ending is None:
            raise error
        if ending.note:
            _note(scope, ending)
        elif (_is_asking(websocket, ending) or _is_connecting(websocket)) and not _lost(websocket):
            why = shown(ending.why)
            answer = _answer_of(websocket, ending)
            logger.info("%s refused: %s, %s (%s)", describe(scope), answer, why, _raised(cause))
        await _apply(websocket, ending)
        if isinstance(cause, PeerError) and wants_exceptions(scope):
            raise error
        return False
    finally:
        del error, cause  # as in `_failed`


async def _end_disconnected(websocket: WebSocket, error: Exception) -> None:
    """A disconnect left the endpoint: usually the peer has gone, and there is nothing to do.

    Where the peer is there, user code raised it by hand. It then counts as a WebSocketException of that code.
    """
    if not _lost(websocket) and websocket.application_state is WebSocketState.CONNECTING:
        logger.info("%s refused: 403, %s (%s)", describe(websocket.scope), shown(said_by(error)), _raised(error))
    ending = ending_of_disconnect(error)
    if ending is None:
        await _finish(websocket)
    else:
        await _apply(websocket, ending)


def _is_connecting(websocket: WebSocket) -> bool:
    return websocket.application_state is WebSocketState.CONNECTING


def _is_asking(websocket: WebSocket, ending: Ending) -> bool:
    """Whether a dependency accepted only to ask who comes: a status is still a refusal, for pages to read."""
    is_open = websocket.application_state is WebSocketState.CONNECTED
    return is_open and ACCEPTED_KEY in websocket.scope and ending.refusal is not None


def _answer_of(websocket: WebSocket, ending: Ending) -> str:
    """The answer to a refused handshake, for the log."""
    is_closed = closes(websocket.scope) or not _is_connecting(websocket)
    return f"Close {ending.refusal_close()[0]}" if is_closed else str(ending.status)


def _note(scope: Scope, ending: Ending) -> None:
    logger.log(ending.level, "%s: %s", describe(scope), shown(ending.note))


def _raised(error: Exception) -> str:
    """The class of an exception, and the function that raised it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return type(error).__name__
    frame = traceback.tb_frame
    return f"{type(error).__name__} in {frame.f_globals.get('__name__')}:{frame.f_code.co_qualname}"


async def answer_unhandled(
    error: Exception, scope: Scope, receive: Receive, send: Send, handler: handlers.ExceptionHandler | None
) -> None:
    """The outermost answer to an exception that left an endpoint or a middleware: 500 or 1011, and one traceback.

    `handler` is the app's own for `Exception` or 500. Under a test client that wants them, exceptions are raised again.
    """
    if scope.get(ANSWERED_KEY):
        raise error  # an app of ours mounted in this one has done all this
    scope[ANSWERED_KEY] = True
    websocket: WebSocket | None = scope.pop(FAILED_KEY, None)
    cause = unwrap(error)
    ending = ending_of(cause)
    if isinstance(cause, DISCONNECTS):
        ending = Ending(code=WS_1000_NORMAL_CLOSURE)
    elif ending is None:
        logger.error("unhandled exception in %s", describe(scope), exc_info=error)
        ending = UNHANDLED
        await _ask_last_handler(handler, websocket or WebSocket(scope, receive, send), error)
    elif ending.note and websocket is None:
        _note(scope, ending)
    if websocket is not None:
        await _apply(websocket, ending)
    elif not wants_exceptions(scope):
        await _apply_blindly(send, scope, ending)
    if wants_exceptions(scope):
        raise error


async def _ask_last_handler(handler: handlers.ExceptionHandler | None, websocket: WebSocket, error: Exception) -> None:
    if handler is None:
        return
    try:
        await _answer(websocket, await handlers.call(handler, websocket, error), UNHANDLED)
    except Exception as failure:
        logger.error("the handler for %s failed as well", type(error).__name__, exc_info=failure)


async def _apply_blindly(send: Send, scope: Scope, ending: Ending) -> None:
    """End a connection that middleware or a mounted app was in charge of: whether it was accepted, the server knows."""
    if "websocket.http.response" in (scope.get("extensions") or ()):

        async def unread() -> Message:
            return {"type": "websocket.disconnect", "code": WS_1011_INTERNAL_ERROR}

        if await _is_taken(ending.response()(scope, unread, send)):
            await settle(scope)
            return
    await _is_taken(send({"type": "websocket.close", "code": ending.code, "reason": cut_reason(ending.reason)}))


async def refuse_origin(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer to a page of a site that may not connect, as `Denials` says. The gate has logged it."""
    websocket: WebSocket = WebSocket(scope, receive, send)
    await _deny(websocket, FOREIGN_ORIGIN.response(), FOREIGN_ORIGIN)


async def refuse_unknown(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer to a handshake that nobody serves: 404, or 403 where the server knows no denial responses."""
    if "websocket.http.response" in (scope.get("extensions") or ()):
        await quietly(NOT_FOUND.response()(scope, receive, send))
        await settle(scope)
    else:
        await quietly(send({"type": "websocket.close", "code": NOT_FOUND.code, "reason": ""}))


async def _is_taken(sending: Awaitable[None]) -> bool:
    """Whether the server takes a message that may not be legal now. Servers refuse with exception types of their
    own."""
    try:
        await sending
    except Exception as refusal:
        logger.debug("the server did not take a last message: %r", refusal)
        return False
    return True


async def _hand_over(websocket: WebSocket) -> None:
    """Prepare an unhandled exception's way out: our app ends the connection itself, other apps cannot."""
    if APP_KEY in websocket.scope:
        websocket.scope[FAILED_KEY] = websocket
    elif websocket.application_state is WebSocketState.CONNECTED or closes(websocket.scope):
        await _close(websocket, UNHANDLED.code, UNHANDLED.reason)
    else:
        await websocket.flushed()


async def _finish(websocket: WebSocket) -> None:
    """End the connection in the ordinary way, unless it has ended."""
    if _lost(websocket):
        return
    match websocket.application_state:
        case WebSocketState.CONNECTING | WebSocketState.CONNECTED:
            await _close(websocket, WS_1000_NORMAL_CLOSURE, "")
        case WebSocketState.RESPONSE:
            await quietly(websocket.send({"type": "websocket.http.response.body", "body": b""}))
            await settle(websocket.scope)
        case WebSocketState.DISCONNECTED:
            await websocket.flushed()
            await settle(websocket.scope)


async def _answer(websocket: WebSocket, response: Any, ending: Ending) -> None:
    """The end that a handler left open: its `Response` before accept, otherwise the same end as without a handler."""
    if not isinstance(response, Response):
        await _apply(websocket, ending)
    elif websocket.application_state is WebSocketState.CONNECTING:
        await _deny(websocket, response, refusal_of_response(response, ending))
    else:
        await _apply(websocket, ending if ending is not UNHANDLED else ending_of_response(response))


async def _apply(websocket: WebSocket, ending: Ending) -> None:
    if _lost(websocket):
        return
    match websocket.application_state:
        case WebSocketState.CONNECTING:
            await _deny(websocket, ending.response(), ending)
        case WebSocketState.CONNECTED if _is_asking(websocket, ending):
            await _close(websocket, *ending.refusal_close())
        case WebSocketState.CONNECTED:
            await _close(websocket, ending.code, ending.reason)
        case WebSocketState.RESPONSE | WebSocketState.DISCONNECTED:
            await _finish(websocket)


async def _deny(websocket: WebSocket, response: Response, ending: Ending) -> None:
    if _lost(websocket):
        return
    if closes(websocket.scope):
        await _close(websocket, *ending.refusal_close())
        await websocket.flushed()
        return
    if "websocket.http.response" in (websocket.scope.get("extensions") or ()):
        await quietly(websocket.send_denial_response(response))
        await settle(websocket.scope)
    if websocket.application_state is WebSocketState.CONNECTING:
        # The server knows no denial responses (or took ours badly): a close before accept is a 403.
        await _close(websocket, ending.code, ending.reason)


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    try:
        await websocket.close(code, reason)
    except ValueError:
        logger.error(
            "%s asked for close code %s, which may not be sent: closed with 1011", describe(websocket.scope), code
        )
        await quietly(websocket.close(WS_1011_INTERNAL_ERROR))
    except GONE as exc:
        logger.debug("the connection had ended before its Close: %r", exc)


async def _say_farewell(websocket: WebSocket) -> None:
    """The endpoint was cancelled, usually because the server stops. The peer gets a Close if that is quick."""
    if _lost(websocket):
        return
    with anyio.move_on_after(FAREWELL_TIMEOUT, shield=True):
        if websocket.application_state is WebSocketState.CONNECTED:
            await _close(websocket, WS_1012_SERVICE_RESTART, "")
        await websocket.flushed()


async def quietly(sending: Awaitable[None]) -> None:
    """Send a last message to a peer that may be gone."""
    try:
        await sending
    except GONE as exc:
        logger.debug("the connection had ended before its last message: %r", exc)


async def settle(scope: Scope) -> None:
    """Give servers other than ours the turns in which they close their transport.

    uvicorn's websockets-sansio logs an error for an app that returns between a complete denial response and that.
    """
    if CARRIER_EXTENSION in (scope.get("extensions") or ()):
        return
    for _ in range(2):  # one for asyncio, another for uvloop, which writes at the end of a turn
        await anyio.lowlevel.checkpoint()


def _lost(websocket: WebSocket) -> bool:
    return websocket.client_state is WebSocketState.DISCONNECTED


def _named(error: Exception, scope: Scope) -> Exception:
    """Parameter errors under FastAPI's name for WebSockets, and saying whose parameters they are."""
    if type(error) is not ParameterErrors:
        return error
    named = WebSocketRequestValidationError(error.errors(), endpoint=endpoint_of(scope, "WS"))
    named.wanted_by = error.wanted_by
    return named


def _awaitable(result: Any, endpoint: Callable[..., Any]) -> Awaitable[Any]:
    if hasattr(result, "__await__"):
        awaitable: Awaitable[Any] = result
        return awaitable
    raise TypeError(
        f"a WebSocket endpoint must be an `async def`, but {name_of(endpoint)} returned {type(result).__name__}"
    )


def describe(scope: Scope) -> str:
    """The endpoint and path of a connection, for log lines: `module:qualname (/path)`."""
    endpoint = scope.get("endpoint")
    path = shown(scope.get("path"))
    return f"{name_of(endpoint)} ({path})" if endpoint is not None else path
