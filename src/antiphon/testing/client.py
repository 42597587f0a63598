"""`Server` and `Peer`: any ASGI app and any number of clients in one event loop, with the real engine between them.

Close codes, limits, keepalive and backpressure are those of the wire, because it is the wire: antiphon's server and the
client side of its protocol engine, joined by a transport in memory. No sockets, threads or free ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from antiphon.messages import Wire
from antiphon.server import Engine, ServerConfig, Session
from antiphon.types import ASGIApp, ClosedBy
from antiphon.wire import Close, DeflateConfig, HandshakeError, Phase, Ping, Pong, Role, WireConfig, WireConnection
from antiphon.wire.deflate import accept, offer
from antiphon.wire.handshake import Response, build_request, check_response, new_key, parse_response

from .channel import ChannelPeer
from .correspondence import OUR_WIRE
from .expectation import Expectation, ReceiveTimeout, Wanted, check_seconds, disturbed
from .lifespan import Lifespan, empty_mounted_hubs
from .transport import DEFAULT_WINDOW, MemoryTransport, pair

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds: far more than an app in the same loop takes, short enough to wait for a failing test."""

SERVER_ADDRESS: Final = ("testserver", 80)
NOT_CONNECTED: Final = "the client is not connected: use it as `async with server.connect(...) as peer`"


class HandshakeRefused(Exception):
    """The app or the server answered the handshake with an HTTP response instead of a WebSocket.

    For example:

        async def test_a_stranger_is_refused(server: Server) -> None:
            try:
                async with server.connect("/live"):
                    pass
            except HandshakeRefused as refused:
                assert refused.status == 401
    """

    def __init__(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        super().__init__(f"the handshake was refused with HTTP {status}: {body.decode(errors='replace')[:200]}")
        self.status = status
        self.headers: dict[str, str] = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        self.body = body

    def json(self) -> Any:
        """The body's value. Raises JSONDecodeError when it is not JSON."""
        return json.loads(self.body)


class ConnectionEnded(Exception):
    """The connection has ended, as the client sees it: 1005 is a Close without code, 1006 no Close at all.

    For example:

        async def test_the_end(server: Server) -> None:
            async with server.connect("/echo") as peer:
                await server.stop()
                try:
                    await peer.receive()
                except ConnectionEnded as ended:
                    assert ended.code == 1012
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class Server:
    """Serve `app` in memory: `async with Server(app) as server: async with server.connect("/ws") as peer: ...`.

        async with Server(app) as server, server.connect("/echo") as peer:
            await peer.send("hi")
            assert await peer.receive() == "hi"

    Runs the app's lifespan, if it has one. `config` are the server's limits, `root_path` is the prefix that a proxy has
    cut off, `window` the bytes that the network holds in each direction. Leaving the block stops the server as a real
    one stops (Close 1012 to the clients still there) and ends when the last endpoint has.
    """

    def __init__(
        self, app: ASGIApp, *, config: ServerConfig | None = None, root_path: str = "", window: int = DEFAULT_WINDOW
    ) -> None:
        self._app = app
        self._config = config
        self._root_path = root_path
        self._window = window
        self._ports = itertools.count(50000)
        self._engine: Engine | None = None
        self._lifespan: Lifespan | None = None
        self._transports: set[MemoryTransport] = set()

    @property
    def engine(self) -> Engine:
        """The server's shared half: its connections, tasks and counts. Raises RuntimeError outside the block."""
        if self._engine is None:
            raise RuntimeError("the server does not run: use it as `async with Server(app) as server`")
        return self._engine

    async def __aenter__(self) -> Self:
        self._lifespan = Lifespan(self._app)
        await self._lifespan.startup()
        self._engine = Engine(
            self._app,
            self._config,
            app_state=self._lifespan.state,
            root_path=self._root_path,
            work_clock=asyncio.get_running_loop().time,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        engine = self.engine
        while tasks := list(engine.tasks):
            await asyncio.wait(tasks)
        if self._transports:
            await asyncio.wait([transport.closed for transport in self._transports])
        engine.deadlines.stop()
        assert self._lifespan is not None
        await self._lifespan.shutdown()
        await empty_mounted_hubs(self._app)

    async def stop(self) -> None:
        """Begin the graceful stop: nobody new, Close 1012 for the others, spread over `stop_window`."""
        self.engine.begin_stop()

    def channel(
        self,
        path: str,
        *,
        wire: Wire = OUR_WIRE,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        timeout: float = DEFAULT_TIMEOUT,
    ) -> ChannelPeer:
        """A typed client of the channel at `path`, to be entered. `wire` is the channel's. The rest as `connect`."""
        peer = self.connect(path, headers=headers, subprotocols=subprotocols, timeout=timeout)
        return ChannelPeer(peer, wire, timeout)

    def connect(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        deflate: DeflateConfig | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_message_size: int = 64 << 20,
    ) -> Peer:
        """A client of `path` (with its query, quoted), to be entered. `timeout` bounds the handshake and each wait."""
        return Peer(
            self,
            path,
            headers=list(headers.items() if isinstance(headers, Mapping) else headers),
            subprotocols=subprotocols,
            deflate=deflate,
            timeout=timeout,
            max_message_size=max_message_size,
        )

    def _join(self, protocol: asyncio.Protocol) -> MemoryTransport:
        client, server = pair(
            asyncio.get_running_loop(),
            protocol,
            Session(self.engine),
            first_address=("testclient", next(self._ports)),
            second_address=SERVER_ADDRESS,
            window=self._window,
        )
        self._transports.add(server)
        server.closed.add_done_callback(lambda _: self._transports.discard(server))
        return client


class Peer(asyncio.Protocol):
    """One client. Entering connects (`HandshakeRefused` when the server will not), leaving closes with 1000.

    For example:

        async def test_echo(server: Server) -> None:
            async with server.connect("/echo") as peer:
                await peer.send("hi")
                assert await peer.receive() == "hi"
    """

    subprotocol: str | None = None
    """The subprotocol that the server chose."""
    response: Response
    """The server's answer to the handshake."""

    def __init__(
        self,
        server: Server,
        path: str,
        *,
        headers: Sequence[tuple[str, str]],
        subprotocols: Sequence[str],
        deflate: DeflateConfig | None,
        timeout: float,
        max_message_size: int,
    ) -> None:
        self._server = server
        self._path = path
        self._headers = headers
        self._subprotocols = subprotocols
        self._deflate = deflate
        self._timeout = timeout
        self._max_message_size = max_message_size
        self._transport: MemoryTransport | None = None
        self._connection: WireConnection | None = None
        self._head = bytearray()
        self._messages: deque[str | bytes] = deque()
        self._changed = asyncio.Event()
        self._lost = False
        self.pongs: list[bytes] = []
        """Payloads of the pongs that came."""

    # ------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        key = new_key()
        request = build_request(
            SERVER_ADDRESS[0],
            self._path,
            key,
            subprotocols=self._subprotocols,
            extensions=None if self._deflate is None else offer(self._deflate),
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._headers],
        )
        self._transport = self._server._join(self)
        self._transport.write(request)
        try:
            self.response = await self._read_head()
            self.subprotocol = check_response(self.response, key, self._subprotocols)
        except HandshakeError as error:
            raise HandshakeRefused(error.status, error.headers, await self._read_body()) from None
        except BaseException:
            self._transport.abort()
            raise
        agreed = accept(self.response.values(b"sec-websocket-extensions"), self._deflate)
        config = WireConfig(max_message_size=self._max_message_size)
        self._connection = WireConnection(Role.CLIENT, config, deflate=agreed)
        rest = bytes(self._head)
        self._head.clear()
        if rest:
            self._take(rest)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.drop()
            return
        with contextlib.suppress(ConnectionEnded):
            await self.close()

    async def _read_head(self) -> Response:
        wait = self._wait(None)
        while True:
            response = parse_response(self._head)
            if response is not None:
                del self._head[: response.consumed]
                return response
            if self._lost:
                raise ConnectionEnded(1006, "the connection was lost during the handshake")
            await self._change("the handshake was not answered", wait)

    async def _read_body(self) -> bytes:
        """A refusal ends the connection, and its body with it."""
        wait = self._wait(None)
        while not self._lost:
            await self._change("the refusal did not end", wait)
        return bytes(self._head)

    # ------------------------------------------------------------ messages

    async def send(self, message: str | bytes) -> None:
        """Send a text (str) or binary (bytes) message. Raises `ConnectionEnded`."""
        connection = self._open()
        if not isinstance(message, str | bytes | bytearray | memoryview):
            raise TypeError(f"a message is a str or bytes, not {type(message).__name__}: send_json() sends values")
        if isinstance(message, str):
            connection.send_text(message)
        else:
            connection.send_bytes(message)
        self._write()

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON text. Raises `ConnectionEnded`."""
        await self.send(json.dumps(value, separators=(",", ":"), ensure_ascii=False))

    async def send_fragments(self, *fragments: str) -> None:
        """Send one text message in these fragments. Raises `ConnectionEnded`."""
        self._open().send_fragments(fragments)
        self._write()

    async def ping(self, payload: bytes = b"") -> None:
        """Send a ping. Its pong will stand in `pongs`. Raises `ConnectionEnded`."""
        self._open().send_ping(payload)
        self._write()

    async def receive(self, timeout: float | None = None) -> str | bytes:
        """The next message. Raises `ConnectionEnded` behind the last one, `ReceiveTimeout` when none comes in time."""
        wait = self._wait(timeout)
        self._wire()
        while not self._messages:
            if self.close_code is not None:
                raise ConnectionEnded(self.close_code, self.close_reason)
            await self._change("no message came", wait, ReceiveTimeout)
        return self._messages.popleft()

    async def receive_json(self, timeout: float | None = None) -> Any:
        """The value of the next message. Errors as `receive`."""
        return json.loads(await self.receive(timeout))

    async def receive_until(self, wanted: Wanted, timeout: float | None = None) -> Any:
        """The first message that is wanted. Those before it are read and dropped.

        `wanted`: the `type` of a JSON object (`"presence_diff"`), a class (`dict`, `str`, `bytes`), or a function of
        the message that says whether it is the one. A text that is a JSON object or array is given, and returned, as
        its value. Any other message stays as it is. `timeout` in seconds bounds the whole wait. Raises
        `ReceiveTimeout` and `ConnectionEnded`, both of which show the messages that came instead, and TypeError.
        """
        __tracebackhide__ = True
        expectation, loop = Expectation(wanted), asyncio.get_running_loop()
        limit = self._timeout if timeout is None else timeout
        deadline = loop.time() + limit
        while True:
            try:
                message = await self.receive(max(deadline - loop.time(), 0.0))
            except TimeoutError:
                raise ReceiveTimeout(expectation.not_within(limit)) from None
            except ConnectionEnded as end:
                end.add_note(expectation.not_before_the_end())
                raise
            if expectation.meets(message):
                return expectation.value

    async def receive_nothing(self, for_seconds: float = 0.1) -> None:
        """Wait that long (in the loop's time). Raises AssertionError when a message comes, or the connection ends."""
        __tracebackhide__ = True
        check_seconds("for_seconds", for_seconds)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            message = await self.receive(for_seconds)
        except TimeoutError:
            return
        except ConnectionEnded as end:
            raise AssertionError(
                disturbed(for_seconds, loop.time() - started, f"the connection ended: {end}")
            ) from None
        came = [message, *self.received()]
        raise AssertionError(disturbed(for_seconds, loop.time() - started, came))

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        with contextlib.suppress(ConnectionEnded):
            while True:
                yield await self.receive()

    def received(self) -> list[str | bytes]:
        """The messages that are here now."""
        messages = list(self._messages)
        self._messages.clear()
        return messages

    # ------------------------------------------------------------ bad manners

    def pause_reading(self) -> None:
        """Read nothing more: become the slow client."""
        self._wire().pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._wire().resume_reading()

    def write_raw(self, data: bytes) -> None:
        """Put any bytes on the wire, valid or not."""
        self._wire().write(data)

    def half_close(self) -> None:
        """End our side of the TCP connection (FIN) without a Close frame."""
        self._wire().write_eof()

    def drop(self) -> None:
        """Vanish: reset the TCP connection."""
        self._wire().abort()

    # ------------------------------------------------------------ the end

    @property
    def close_code(self) -> int | None:
        """None while the connection is open."""
        return None if self._connection is None else self._connection.close_code

    @property
    def close_reason(self) -> str:
        """The reason of the side that closed."""
        return "" if self._connection is None else self._connection.close_reason

    @property
    def closed_by(self) -> ClosedBy | None:
        """US is the client here, PEER the server."""
        return None if self._connection is None else self._connection.closed_by

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say Close and wait for the end of the connection. Nothing happens when it is over."""
        connection = self._connection
        if connection is None:
            return
        if connection.phase is Phase.OPEN:
            connection.send_close(code, reason)
            self._write()
        self.resume_reading()
        await self.wait_closed()

    async def wait_closed(self, timeout: float | None = None) -> int:
        """Wait until the TCP connection is over. Return the close code. Raises TimeoutError."""
        wait = self._wait(timeout)
        while not self._lost:
            await self._change("the connection did not end", wait)
        return self.close_code or 1006

    # ------------------------------------------------------------ transport

    def data_received(self, data: bytes) -> None:
        """asyncio's callback."""
        if self._connection is None:
            self._head += data
        else:
            self._take(data)
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's callback."""
        self._lost = True
        if self._connection is not None:
            self._connection.receive_eof()
        self._changed.set()

    def _take(self, data: bytes) -> None:
        connection = self._connection
        assert connection is not None
        for event in connection.events(data):
            if isinstance(event, str | bytes):
                self._messages.append(event)
            elif type(event) is Pong:
                self.pongs.append(event.payload)
            else:
                assert isinstance(event, Ping | Close)  # the connection answers both
        self._write()
        if connection.should_close_transport:
            self._wire().close()

    def _write(self) -> None:
        connection = self._connection
        assert connection is not None
        if data := connection.data_to_send():
            self._wire().write(data)

    def _open(self) -> WireConnection:
        connection = self._connection
        if connection is None:
            raise RuntimeError(NOT_CONNECTED)
        if connection.phase is not Phase.OPEN:
            raise ConnectionEnded(connection.close_code or 1006, connection.close_reason)
        return connection

    def _wire(self) -> MemoryTransport:
        if self._transport is None:
            raise RuntimeError(NOT_CONNECTED)
        return self._transport

    def _wait(self, timeout: float | None) -> _Wait:
        return _Wait(asyncio.get_running_loop(), self._timeout if timeout is None else timeout)

    async def _change(self, what: str, wait: _Wait, error: type[TimeoutError] = TimeoutError) -> None:
        """Wait until anything came, even if it is not the awaited event: a ping counts, too."""
        self._changed.clear()
        try:
            async with asyncio.timeout_at(wait.deadline):
                await self._changed.wait()
        except TimeoutError:
            raise error(f"{what} within {wait.seconds:g} s") from None


class _Wait:
    """The bound on one wait, however many things come meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = loop.time() + seconds
