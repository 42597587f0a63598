"""`TestClient`: an application under test, without a server. Starlette's, with WebSocket sessions that cannot hang.

The sessions are written here: every wait has a timeout, and an application that has returned or raised is noticed.
HTTP requests, cookies, headers and the lifespan are Starlette's. Close codes, limits and backpressure of the wire are
the business of `antiphon.testing`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc
import anyio.from_thread
import anyio.lowlevel
import starlette.testclient
from starlette.testclient import ASGI2App, ASGI3App, ASGIInstance

from .clients.waiting import RemoteError
from .connection import codec
from .exceptions import UnexpectedMessageKind, WebSocketDisconnect
from .messages import Wire
from .testing.channel_session import ChannelSession
from .testing.correspondence import OUR_WIRE
from .testing.expectation import Expectation, ReceiveTimeout, Wanted, check_seconds, disturbed
from .testing.lifespan import empty_mounted_hubs
from .types import LEAVING_EXTENSION, RERAISE_EXTENSION, ASGIApp, Message, Scope

__all__ = [
    "ASGI2App",
    "ASGI3App",
    "ASGIInstance",
    "ChannelSession",
    "ReceiveTimeout",
    "RemoteError",
    "TestClient",
    "WebSocketDenialResponse",
    "WebSocketTestSession",
]

DEFAULT_TIMEOUT = 5.0
"""Seconds: far more than an application in the same process takes, and short enough to wait for a failing test."""

TURNS_TO_NOTICE = 10
"""Turns of the loop that an application which is receiving has to take the disconnect message."""


class WebSocketDenialResponse(  # type: ignore[misc]  # both bases can be pickled, each in its way
    starlette.testclient.WebSocketDenialResponse, WebSocketDisconnect
):
    """The handshake was refused with an HTTP response: `status_code`, `headers`, `content`, `json()` as of httpx.

    For example:

        def test_a_stranger_is_refused(client: TestClient) -> None:
            try:
                with client.websocket_connect("/live"):
                    pass
            except WebSocketDenialResponse as refused:
                assert refused.status_code == 401
    """

    code = 1006
    reason = ""

    def __str__(self) -> str:
        return f"the handshake was refused with HTTP {self.status_code}"


class WebSocketTestSession:
    """One connection to the application, as its client sees it. Enter it to connect.

    Leaving the block tells the application that the client is gone (1000). It waits for one that is on its way out (it
    has heard, has closed by itself, or its endpoint is over) and cancels any other. An exception that the application
    ended with, a `WebSocketDisconnect` included, is raised in the test: by the `receive_*` that waits for it, or at the
    end of the block.

        def test_echo(client: TestClient) -> None:
            with client.websocket_connect("/echo") as session:
                session.send_text("hi")
                assert session.receive_text() == "hi"
    """

    __test__ = False

    accepted_subprotocol: str | None = None
    """The subprotocol that the application chose in `accept`."""

    extra_headers: list[tuple[bytes, bytes]] | None = None
    """The headers that the application gave to `accept`."""

    def __init__(
        self,
        app: ASGI3App,
        scope: Scope,
        portal_factory: Callable[[], AbstractContextManager[anyio.from_thread.BlockingPortal]],
        *,
        timeout: float = DEFAULT_TIMEOUT,
        reraise: bool = True,
    ) -> None:
        self.app = app
        self.scope = scope
        self._portal_factory = portal_factory
        self._timeout = timeout
        self._reraise = reraise
        self._from_app: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._failure: Exception | None = None
        self._accepted = False
        self._end: tuple[int, str] | None = None
        self._told_to_leave = False
        self._is_leaving = False

    # The application's side, in its loop

    async def _run(self, *, task_status: anyio.abc.TaskStatus[anyio.CancelScope]) -> None:
        self._to_app, self._app_reads = anyio.create_memory_object_stream[Message](math.inf)
        try:
            with self._to_app, self._app_reads, anyio.CancelScope() as cancel_scope:
                task_status.started(cancel_scope)
                self.scope.setdefault("extensions", {})[LEAVING_EXTENSION] = self._note_leaving
                await self.app(self.scope, self._receive_for_app, self._send_of_app)
        except Exception as exc:
            self._failure = exc
        finally:
            self._from_app.put(None)

    async def _receive_for_app(self) -> Message:
        message = await self._app_reads.receive()
        if message["type"] == "websocket.disconnect":
            self._is_leaving = True
        return message

    async def _send_of_app(self, message: Message) -> None:
        # Let others run, as a server that is sometimes busy would: a loop that only sends can then be cancelled.
        await anyio.lowlevel.checkpoint()
        self._from_app.put(message)
        if message["type"] != "websocket.close":
            return
        self._is_leaving = True
        if not self._told_to_leave:
            self._told_to_leave = True
            code, reason = message.get("code", 1000), message.get("reason") or ""
            self._to_app.send_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _note_leaving(self) -> None:
        self._is_leaving = True

    # Connecting and leaving

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._portal = stack.enter_context(self._portal_factory())
            self._running, self._cancel_scope = self._portal.start_task(self._run)
            stack.callback(self._finish)
            self.send({"type": "websocket.connect"})
            try:
                message = self.receive()
                self._raise_if_closing(message)
            except WebSocketDisconnect as refused:
                self._finish()
                if not self._reraise or self._failure is None or isinstance(self._failure, WebSocketDisconnect):
                    raise
                raise self._take_failure() from refused
            self._accepted = True
            self.accepted_subprotocol = message.get("subprotocol")
            self.extra_headers = message.get("headers")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        self._stack.close()
        if self._failure is None or not self._reraise:
            return
        if isinstance(exc, ReceiveTimeout) and isinstance(self._failure, WebSocketDisconnect):
            return  # the disconnect is only the end of this block, the timeout is the failure
        if exc is None or isinstance(exc, WebSocketDisconnect | ReceiveTimeout):
            raise self._take_failure() from None

    def _finish(self) -> None:
        """Wait for an application that is on its way out; cancel one that neither ends nor listens."""
        if not self._running.done():
            self._portal.call(self._let_app_run)
        if self._is_leaving:
            concurrent.futures.wait([self._running], timeout=self._timeout)
        if not self._running.done():
            self._portal.call(self._cancel_scope.cancel)
        self._running.result()

    async def _let_app_run(self) -> None:
        for _ in range(TURNS_TO_NOTICE):
            await anyio.lowlevel.checkpoint()

    def _take_failure(self) -> Exception:
        """The application's exception, which is raised once."""
        failure, self._failure = self._failure, None
        assert failure is not None
        return failure

    # Sending

    def send(self, message: Message) -> None:
        """Hand the application a raw ASGI message. One that has ended does not hear it, as on the wire."""
        self._check_entered()
        try:
            self._portal.call(self._to_app.send_nowait, message)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass

    def send_text(self, data: str) -> None:
        """Send a text message. Raises TypeError for anything but str."""
        self.send({"type": "websocket.receive", "text": codec.check_text(data)})

    def send_bytes(self, data: bytes) -> None:
        """Send a binary message. Raises TypeError for anything but bytes-like data."""
        self.send({"type": "websocket.receive", "bytes": codec.check_bytes(data)})

    def send_json(self, data: Any, mode: str = "text") -> None:
        """Send JSON in a text or a binary message."""
        text = codec.encode_json(data)
        if mode == "text":
            self.send_text(text)
        elif mode == "binary":
            self.send_bytes(text.encode())
        else:
            raise ValueError(f'mode is "text" or "binary", not {mode!r}')

    def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close from the client's side. Nothing happens when the connection is closed already."""
        if not self._told_to_leave:
            self._told_to_leave = True
            self._end = self._end or (code, reason or "")
            self.send({"type": "websocket.disconnect", "code": code, "reason": reason})

    # Receiving

    def receive(self, timeout: float | None = None) -> Message:
        """The next raw ASGI message of the application.

        `timeout` in seconds, the client's `receive_timeout` by default. `math.inf` waits for ever. Raises
        `ReceiveTimeout`. When the application is over, its exception, or `WebSocketDisconnect` if it has returned.
        """
        self._check_entered()
        timeout = self._timeout if timeout is None else timeout
        try:
            message = self._from_app.get(timeout=None if timeout == math.inf else timeout)
        except queue.Empty:
            raise ReceiveTimeout(f"the application sent nothing within {timeout:g} s, and is still running") from None
        if message is None:
            self._from_app.put(None)
            raise self._ending()
        if message["type"] == "websocket.close":
            self._end = (message.get("code", 1000), message.get("reason") or "")
        return message

    def _check_entered(self) -> None:
        if not hasattr(self, "_portal"):
            raise RuntimeError("not connected yet: `with client.websocket_connect(...) as session`")

    def _ending(self) -> Exception:
        if self._failure is not None and self._reraise:
            return self._take_failure()
        if self._end is not None:
            return WebSocketDisconnect(*self._end)
        if self._failure is not None:
            return WebSocketDisconnect(1011, "the application raised")
        if not self._accepted:
            return WebSocketDisconnect(1006, "the application ended without accepting")
        return WebSocketDisconnect(1000, "the application returned")

    def _raise_if_closing(self, message: Message) -> None:
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(message.get("code", 1000), message.get("reason"))
        if message["type"] == "websocket.http.response.start":
            raise self._denial(message)

    def _denial(self, start: Message) -> WebSocketDenialResponse:
        body = bytearray()
        more = True
        while more:
            part = self.receive()
            body += part.get("body", b"")
            more = part.get("more_body", False)
        denial = WebSocketDenialResponse(
            status_code=start["status"], headers=list(start.get("headers", ())), content=bytes(body)
        )
        if denial.status_code == 403:
            denial.code, denial.reason = _stated_close(denial)
        elif denial.status_code == 404:
            denial.code = 1000  # a path without a route, in the words of FastAPI's tests
        return denial

    def receive_payload(self, timeout: float | None = None) -> str | bytes:
        """The next message, text or binary. Errors as `receive_text`, but for the kind."""
        message = self.receive(timeout)
        self._raise_if_closing(message)
        text: str | None = message.get("text")
        return text if text is not None else bytes(message["bytes"])

    def receive_text(self, timeout: float | None = None) -> str:
        """The next message, a text one.

        Raises `WebSocketDisconnect` when the application closes, `UnexpectedMessageKind` for a binary message, and the
        errors of `receive`.
        """
        data = self.receive_payload(timeout)
        if isinstance(data, str):
            return data
        raise UnexpectedMessageKind("text", "binary")

    def receive_bytes(self, timeout: float | None = None) -> bytes:
        """The next message, a binary one. Errors as `receive_text`."""
        data = self.receive_payload(timeout)
        if isinstance(data, bytes):
            return data
        raise UnexpectedMessageKind("binary", "text")

    def receive_json(self, mode: str = "text", timeout: float | None = None) -> Any:
        """The value of the next message, JSON in text or binary. Errors as `receive_text`, and `InvalidJSON`."""
        if mode == "text":
            return codec.decode_json(self.receive_text(timeout))
        if mode == "binary":
            return codec.decode_json(self.receive_bytes(timeout))
        raise ValueError(f'mode is "text" or "binary", not {mode!r}')

    def receive_until(self, wanted: Wanted, timeout: float | None = None) -> Any:
        """The first message that is wanted. Those before it are read and dropped.

        `wanted`: the `type` of a JSON object (`"presence_diff"`), a class (`dict`, `str`, `bytes`), or a function of
        the message that says whether it is the one. A text that is a JSON object or array is given, and returned, as
        its value. Any other message stays as it is. `timeout` in seconds bounds the whole wait. Raises
        `ReceiveTimeout` and `WebSocketDisconnect`, both of which show the messages that came instead, TypeError, and
        the application's own exception.
        """
        __tracebackhide__ = True
        expectation = Expectation(wanted)
        limit = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        while True:
            try:
                message = self.receive_payload(max(deadline - time.monotonic(), 0.0))
            except ReceiveTimeout:
                raise ReceiveTimeout(f"{expectation.not_within(limit)}; the application is still running") from None
            except Exception as end:
                end.add_note(expectation.not_before_the_end())
                raise
            if expectation.meets(message):
                return expectation.value

    def receive_nothing(self, for_seconds: float = 0.1) -> None:
        """Wait that long. Raises AssertionError when a message comes or the application closes, and the application's
        own exception."""
        __tracebackhide__ = True
        check_seconds("for_seconds", for_seconds)
        started = time.monotonic()
        try:
            message = self.receive_payload(for_seconds)
        except ReceiveTimeout:
            return
        except WebSocketDisconnect as end:
            if not self._running.done():
                self._portal.call(self._let_app_run)
            if self._failure is not None and self._reraise:
                raise self._take_failure() from None
            what = f"the connection ended: {end.code} {end.reason}".rstrip()
            raise AssertionError(disturbed(for_seconds, time.monotonic() - started, what)) from None
        raise AssertionError(disturbed(for_seconds, time.monotonic() - started, [message]))


def _stated_close(denial: WebSocketDenialResponse) -> tuple[int, str]:
    """The close code and reason that a denial carries as JSON (the close matrix), where it does."""
    try:
        stated = denial.json()
        return int(stated["code"]), str(stated["reason"])
    except (ValueError, TypeError, KeyError):
        return denial.code, denial.reason


class TestClient(starlette.testclient.TestClient):
    """Starlette's test client, whose WebSocket sessions have timeouts and notice an application that has ended.

        with TestClient(app) as client, client.websocket_connect("/echo") as session:
            session.send_text("hi")
            assert session.receive_text() == "hi"

    Inside `with client:` the lifespan runs and all sessions share one event loop. Outside, each session has a thread
    and a loop of its own. With `raise_server_exceptions=False` a session shows the close code that a peer would see,
    and not the application's exceptions.

    `app` is an ASGI application. The other arguments are Starlette's. `receive_timeout`: seconds that a session's
    `receive_*` waits by default.
    """

    __test__ = False

    def __init__(self, app: ASGIApp, *args: Any, receive_timeout: float = DEFAULT_TIMEOUT, **kwargs: Any) -> None:
        super().__init__(app, *args, **kwargs)
        self.receive_timeout = receive_timeout

    async def wait_shutdown(self) -> None:
        """Starlette's: the end of the lifespan. Apps that are mounted have none, so their hubs in memory end here."""
        await super().wait_shutdown()
        if self.async_backend["backend"] == "asyncio":
            await empty_mounted_hubs(self.app)

    def channel(
        self,
        url: str,
        *,
        wire: Wire = OUR_WIRE,
        subprotocols: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ChannelSession:
        """A typed client of the channel at `url`, which connects when it is entered. `wire` is the channel's."""
        session = self.websocket_connect(url, subprotocols, headers=headers)
        return ChannelSession(session, wire, self.receive_timeout)

    def websocket_connect(  # type: ignore[override]
        self,
        url: str,
        subprotocols: Sequence[str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> WebSocketTestSession:
        """A session that connects when it is entered. Keywords are those of an httpx request."""
        session = super().websocket_connect(url, subprotocols, headers=dict(headers or {}), **kwargs)
        reraise: bool = self._transport.raise_server_exceptions  # type: ignore[attr-defined]
        if reraise:
            session.scope["extensions"][RERAISE_EXTENSION] = {}
        return WebSocketTestSession(
            session.app, session.scope, session.portal_factory, timeout=self.receive_timeout, reraise=reraise
        )
