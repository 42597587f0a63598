"""The errors users meet, split into the peer's fault, the developer's fault, and plain endings.

Each is a subclass of FastAPI's or Starlette's exception in the same place, so their handlers and `except` clauses fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.exceptions import WebSocketException as StarletteWebSocketException
from starlette.websockets import WebSocketDisconnect as StarletteWebSocketDisconnect
from starlette.websockets import WebSocketDisconnected as StarletteWebSocketDisconnected

from .shown import shown

__all__ = [
    "DependencyCycleError",
    "DependencyScopeError",
    "GeneratorError",
    "HTTPException",
    "InvalidJSON",
    "InvalidMessage",
    "MissingIdentity",
    "MissingResourceError",
    "NotAccepted",
    "ParameterDeclarationError",
    "ParameterErrors",
    "PeerError",
    "RegistrationError",
    "RegistrationWarning",
    "RequestValidationError",
    "ResponseValidationError",
    "TooMuchJSON",
    "TryAgainLater",
    "UnencodableText",
    "UnexpectedMessageKind",
    "WebSocketDisconnect",
    "WebSocketDisconnected",
    "WebSocketException",
    "WebSocketRequestValidationError",
    "WrongEncoding",
]

_AROUND: Final = 20
"""Characters on each side of a fault that a log shows of a peer's message: enough for its kind, not for its content."""


class HTTPException(StarletteHTTPException):
    """Answer with this HTTP response (FastAPI's `HTTPException`).

        raise HTTPException(401, "log in again")

    Raised before `accept` it denies the handshake with its status, headers and `{"detail": ...}`. After `accept` it
    closes with 1008 (4xx) or 1011 (5xx) and the detail as reason. `status_code` is an HTTP status. `detail` is any
    value that has a JSON form. Without one it is the status's phrase. Raises TypeError for a status that is no int.
    """

    def __init__(self, status_code: int, detail: Any = None, headers: Mapping[str, str] | None = None) -> None:
        if not isinstance(status_code, int):
            raise TypeError(f"HTTPException(status_code, detail): expected an int as status_code, got {status_code!r}")
        super().__init__(status_code, detail, headers)


class WebSocketException(StarletteWebSocketException):
    """Close the connection with `code` and `reason` (FastAPI's `WebSocketException`).

        raise WebSocketException(4001, "one at a time")

    Before `accept` it denies the handshake with HTTP 403, which carries both as JSON. A code that may not go on the
    wire (RFC 6455 §7.4) closes with 1011 and is logged. Raises TypeError for a code that is no int.
    """

    def __init__(self, code: int, reason: str | None = None) -> None:
        if not isinstance(code, int):
            raise TypeError(f"WebSocketException(code, reason): expected an int as code, got {code!r}")
        super().__init__(code, reason)


class WebSocketDisconnect(StarletteWebSocketDisconnect):
    """The connection has ended. `code` and `reason` tell how.

        try:
            text = await websocket.receive_text()
        except WebSocketDisconnect as end:
            print(end.code, end.reason)

    1005: a Close frame without a code. 1006: no Close frame at all.
    """

    def __str__(self) -> str:
        return f"{self.code} {self.reason}".rstrip()


class WebSocketDisconnected(WebSocketDisconnect, StarletteWebSocketDisconnected):
    """The connection was used after its end.

    Both a `WebSocketDisconnect` (so `except WebSocketDisconnect` always ends a loop) and a `RuntimeError` (which
    Starlette raises here). `code` and `reason` are those of the real end. `message` names the call that was attempted.

        try:
            await websocket.send_text("hi")
        except WebSocketDisconnected as gone:
            print(gone.code, gone.reason)
    """

    def __init__(self, message: str, *, code: int, reason: str | None = None) -> None:
        super().__init__(code, reason)
        self.message = message

    def __str__(self) -> str:
        return self.message


class NotAccepted(RuntimeError):
    """`receive_*` or `send_*` was called before `accept()`: a programming error, not a disconnect.

    For example:

        try:
            await websocket.send_text("hi")
        except NotAccepted:
            await websocket.accept()
    """


class PeerError(Exception):
    """The peer sent a message that the endpoint did not ask for. Uncaught it closes with `close_code`, without a
    traceback. In an HTTP route it is a 400.

        @app.exception_handler(PeerError)
        async def refuse(websocket: WebSocket, error: PeerError) -> None:
            await websocket.close(error.close_code, "mind the protocol")
    """

    close_code: int
    close_reason: str

    @property
    def note(self) -> str:
        """The words of the log: the expected message, and the one that came."""
        return str(self)


class TryAgainLater(Exception):
    """Something the endpoint needs is away for now. Uncaught it closes with 1013, before accept and in HTTP routes with
    503.

    For example:

        from antiphon.exceptions import TryAgainLater

        async def database() -> None:
            raise TryAgainLater("the database is away")
    """


class WrongEncoding(PeerError, RuntimeError):
    """A message that is not of a `WebSocketEndpoint`'s `encoding` (Starlette: a RuntimeError). Closes with 1003."""

    close_code = 1003
    close_reason = ""


class UnexpectedMessageKind(PeerError, KeyError):
    """A binary frame came where text was awaited, or the other way round. Closes with 1003.

    `expected` and `received` are "text" or "bytes".
    """

    close_code = 1003

    def __init__(self, expected: str, received: str) -> None:
        super().__init__(expected)
        self.expected = expected
        self.received = received
        self.close_reason: str = f"expected a {expected} message"

    def __str__(self) -> str:
        return f"expected a {self.expected} message, but the peer sent {self.received}"


class InvalidJSON(PeerError, json.JSONDecodeError):
    """The peer sent a message that is not JSON. Closes with 1007.

    As `json.JSONDecodeError` it has `msg` (the fault), `doc` (the message) and `pos` (the character where).

        try:
            await websocket.receive_json()
        except InvalidJSON as error:
            await websocket.send_text(f"{error.msg} at {error.pos}")
    """

    close_code = 1007
    close_reason = "invalid JSON"

    @property
    def note(self) -> str:
        """Where the message stops being JSON, and a few characters around that place."""
        begin = max(0, self.pos - _AROUND)
        part = self.doc[begin : self.pos + _AROUND]
        text = f"expected JSON, got {len(self.doc)} characters: {self.msg} at {self.pos}"
        return f"{text}, in '{shown(part)}'" if part else text


class UnencodableText(PeerError, UnicodeEncodeError):
    """Text with a lone surrogate, which UTF-8 cannot hold, was to be sent. Nothing was. Closes with 1007.

    Python's strings get one from a peer's JSON (`"\\ud800"`) and from hardly anywhere else. An endpoint that passes on
    a peer's text has no bug, so the peer answers for it.
    """

    close_code = 1007
    close_reason = "text is not Unicode"

    @property
    def note(self) -> str:
        """Which character, and where."""
        return f"text that UTF-8 cannot hold was to be sent: lone surrogate {self.object[self.start]!a} at {self.start}"


class InvalidMessage(PeerError, ValueError):
    """The peer sent a message that is not JSON or does not fit the declared type. Closes with 1007.

    `errors()` lists its faults, as pydantic does, without the peer's input.

        try:
            await websocket.receive_as(Say)
        except InvalidMessage as error:
            await websocket.send_json(error.errors())
    """

    close_code = 1007
    close_reason = "invalid message"

    def __init__(self, errors: Sequence[dict[str, Any]]) -> None:
        super().__init__(errors)
        self._errors = list(errors)

    def errors(self) -> list[dict[str, Any]]:
        """Each failure: its `type` (pydantic's, as "missing"), `loc` (a path of names and numbers) and `msg`."""
        return self._errors

    def __str__(self) -> str:
        first = self._errors[0]
        where = ".".join(map(str, first["loc"]))
        more = f" (and {len(self._errors) - 1} more)" if len(self._errors) > 1 else ""
        return f"{where}: {first['msg']}{more}" if where else f"{first['msg']}{more}"


class UndeclaredMessage(TypeError):
    """A channel or a typed topic was to send a message that it does not declare. This is the server's fault, and
    nothing is sent.

    A value that is not of the type a handler's annotation promises, or an event of a class that no `Caller`, no typed
    topic and no `sends=` of the channel names.

        try:
            await rooms(room="7").publish(Say(text="hi"))  # declared are Said and Typing
        except UndeclaredMessage as error:
            print(error)
    """


class TooMuchJSON(InvalidJSON):
    """The peer sent JSON of more values than `ConnectionOptions.json_values`. Closes with 1009.

    `msg`, `doc` and `pos` as of `InvalidJSON`.
    """

    close_code = 1009
    close_reason = "too many JSON values"

    @property
    def note(self) -> str:
        """How many are taken, and which option says so."""
        return f"{self.msg}, the most that ConnectionOptions.json_values takes"


class _Failures(Exception):
    """A list of the faults that pydantic found."""

    def __init__(self, errors: Sequence[dict[str, Any]], *, body: Any = None, endpoint: str | None = None) -> None:
        super().__init__(errors)
        self._errors = list(errors)
        self.body = body
        self.endpoint = endpoint

    def errors(self) -> list[dict[str, Any]]:
        """Each failure as pydantic's `errors()` has it: `type`, `loc`, `msg`, `input`, `ctx`."""
        return self._errors


class ParameterErrors(_Failures):
    """The peer's parameters failed validation. `errors()` lists every failure, in FastAPI's shape.

    Base of `RequestValidationError` and `WebSocketRequestValidationError`, as routes raise it. Uncaught it is a 422
    for HTTP routes, a denial or Close 1008 for WebSockets. `body` is the body that failed, for HTTP routes. The `ctx`
    of an error may hold an exception: encode with a fallback. `endpoint` names the function they were for.

        from antiphon.exceptions import ParameterErrors

        @app.exception_handler(ParameterErrors)
        async def refuse(websocket: WebSocket, error: ParameterErrors) -> None:
            await websocket.close(1008, str(error.errors()[0]["msg"]))
    """

    wanted_by: tuple[str, ...] = ()
    """For each of `errors()` whose parameter it is: a dependency's, or a channel's handler's. Empty: the endpoint's."""

    def __str__(self) -> str:
        where = f" for {self.endpoint}" if self.endpoint else ""
        lines = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in self._errors]
        return "\n  ".join([f"{len(lines)} parameter error{'s' if len(lines) != 1 else ''}{where}", *lines])


class RequestValidationError(ParameterErrors):
    """The parameters of an HTTP request failed validation: 422 (FastAPI's name).

    `errors()`, `body` and `endpoint` as of `ParameterErrors`.
    """


class WebSocketRequestValidationError(ParameterErrors):
    """The parameters of a WebSocket handshake failed validation: 403 with code 1008 (FastAPI's name).

    `errors()` and `endpoint` as of `ParameterErrors`.
    """


class ResponseValidationError(_Failures):
    """An HTTP endpoint returned a value that its `response_model` does not allow. This is the server's fault, a 500
    (FastAPI's name).

    `errors()` lists every failure, `body` is the returned value, `endpoint` names the function.

        from antiphon.exceptions import ResponseValidationError

        @app.exception_handler(ResponseValidationError)
        async def report(request: Request, error: ResponseValidationError) -> Response:
            print(error.errors())
            return Response(status_code=500)
    """


class RegistrationError(RuntimeError):
    """An endpoint or a dependency has a signature that can never be served. Raised when it is registered.

    For example:

        try:
            app.websocket("/chat")(print)
        except RegistrationError as error:
            print(error)
    """


class ParameterDeclarationError(RegistrationError, AssertionError):
    """A parameter's annotation, marker and default contradict each other (an AssertionError in FastAPI)."""


class DependencyCycleError(RegistrationError):
    """Dependencies that need each other."""


class DependencyScopeError(RegistrationError):
    """A dependency depends on one that ends before it."""


class RegistrationWarning(UserWarning):
    """A declaration has an effect that its author hardly means. The warning comes where it is registered, else at its
    first use, once.

        import warnings

        warnings.simplefilter("error", RegistrationWarning)  # in a test: none may be overlooked
    """


class GeneratorError(RuntimeError):
    """A dependency with `yield` yielded twice, or not at all.

    For example:

        async def session() -> AsyncIterator[str]:
            yield "one"
            yield "two"  # GeneratorError: a dependency yields once
    """


class MissingIdentity(HTTPException):
    """A parameter is annotated `Identity`, and nobody has said who it is: 401, after accept Close 3000.

    `note` is for the log: whose parameter it is. `is_mistake`: the route has no dependency that could say it.

        from antiphon.exceptions import MissingIdentity

        @app.exception_handler(MissingIdentity)
        async def log_in_first(websocket: WebSocket, error: MissingIdentity) -> None:
            await websocket.close(3000, "log in")
    """

    def __init__(self, note: str, *, is_mistake: bool = False) -> None:
        super().__init__(401, "Not authenticated", {"WWW-Authenticate": "Bearer"})
        self.note: str = note
        self.is_mistake: bool = is_mistake


class MissingResourceError(RuntimeError):
    """An endpoint asks by annotation for an object that this application does not have.

    For example:

        app = App()  # without hub=

        @app.websocket("/live")
        async def live(websocket: WebSocket, hub: Hub) -> None: ...  # MissingResourceError when a client comes
    """
