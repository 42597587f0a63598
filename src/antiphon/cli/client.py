"""A WebSocket client for the terminal: asyncio streams around the wire engine's client side.

Owns the address, the TCP and TLS connection and the handshake. Knows nothing of input and output.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, unquote, urlsplit

from antiphon.types import ClosedBy
from antiphon.wire import DeflateConfig, HandshakeError, Phase, Role, WireConfig, WireConnection
from antiphon.wire.deflate import accept, offer
from antiphon.wire.frames import Event
from antiphon.wire.handshake import Response, build_request, check_response, new_key, parse_response

OPEN_TIMEOUT: Final = 10.0
CLOSE_TIMEOUT: Final = 3.0
MAX_MESSAGE: Final = 64 << 20  # a person asked for this connection: show them every message
MAX_BODY: Final = 64 << 10
CHUNK: Final = 64 << 10


class BadAddress(ValueError):
    """The text is not the address of a WebSocket."""


class Unreachable(OSError):
    """No connection: the name, the network, the port or TLS. The text says which."""


class Refused(Exception):
    """The server answered the handshake with something else than a WebSocket."""

    def __init__(self, status: int, reason: str, headers: Sequence[tuple[str, str]], body: str) -> None:
        super().__init__(f"{status} {reason}".strip() if status else reason)
        self.status = status
        self.headers = headers
        self.body = body


@dataclass(frozen=True, slots=True)
class Address:
    """Where a WebSocket is."""

    secure: bool
    host: str
    port: int
    target: str
    """Path and query, quoted."""
    credentials: str | None = None
    """`user:password` of the address."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `ws://`, `wss://`, `http://`, `https://` or just `host:port/path`. Raises BadAddress."""
        try:
            parts = urlsplit(text if "://" in text else f"ws://{text}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise BadAddress(f"{text!r}: {error}") from None
        if parts.scheme not in ("ws", "wss", "http", "https"):
            raise BadAddress(f"{text!r} starts with {parts.scheme}://, not with ws:// or wss://")
        if not host:
            raise BadAddress(f"{text!r} names no host")
        if port == 0:
            raise BadAddress(f"{text!r}: nothing can listen on port 0")
        if parts.fragment:
            raise BadAddress(f"{text!r} has a fragment (#{parts.fragment}), which WebSocket addresses have not")
        secure = parts.scheme in ("wss", "https")
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?") if parts.query else ""
        user = unquote(parts.username or "")
        credentials = f"{user}:{unquote(parts.password or '')}" if user else None
        return cls(secure, _ascii(host), port or (443 if secure else 80), path + query, credentials)

    @property
    def authority(self) -> str:
        """The Host header's value."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{self.target}"


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        raise BadAddress(f"{host!r} is not a host name") from None


class TerminalClient:
    """An open connection. `open` makes one. `events` yields all events until the end, then `close_code` has its
    code."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: WireConnection,
        response: Response,
        subprotocol: str | None,
        early: bytes,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._connection = connection
        self._early = early
        self.response: Final = response
        self.subprotocol: Final = subprotocol

    @classmethod
    async def open(
        cls,
        address: Address,
        *,
        headers: Iterable[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        insecure: bool = False,
        compress: bool = True,
    ) -> Self:
        """Connect and shake hands within OPEN_TIMEOUT seconds. Raises Unreachable, Refused, or ValueError."""
        key = new_key()
        config = DeflateConfig() if compress else None
        request = build_request(
            address.authority,
            address.target,
            key,
            subprotocols=subprotocols,
            extensions=None if config is None else offer(config),
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        )
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                reader, writer = await _dial(address, insecure=insecure)
                writer.write(request)
                response, rest = await _read_response(reader)
                try:
                    subprotocol = check_response(response, key, subprotocols)
                    deflate = accept(response.values(b"sec-websocket-extensions"), config)
                except HandshakeError as error:
                    body = await _read_body(reader, response, rest)
                    writer.close()
                    names = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
                    raise Refused(error.status, error.reason, names, body) from None
        except TimeoutError:
            raise Unreachable(f"{address.authority} did not answer within {OPEN_TIMEOUT:g} s") from None
        wire = WireConnection(Role.CLIENT, WireConfig(max_message_size=MAX_MESSAGE), deflate=deflate)
        return cls(reader, writer, wire, response, subprotocol, rest)

    @property
    def is_open(self) -> bool:
        return self._connection.phase is Phase.OPEN

    @property
    def close_code(self) -> int:
        """How the connection ended: 1005 without a code, 1006 without a Close frame (so far)."""
        return self._connection.close_code or 1006

    @property
    def close_reason(self) -> str:
        return self._connection.close_reason

    @property
    def closed_by_us(self) -> bool:
        return self._connection.closed_by is ClosedBy.US and self._connection.error is None

    async def send(self, message: str | bytes) -> None:
        """Send a message. Waits while the server does not read. Does nothing on a connection that is not open."""
        if not self.is_open:
            return
        if isinstance(message, str):
            self._connection.send_text(message)
        else:
            self._connection.send_bytes(message)
        await self._flush()

    async def ping(self, payload: bytes = b"") -> None:
        if self.is_open:
            self._connection.send_ping(payload)
            await self._flush()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Start the closing handshake. `events` ends when the server answers. Raises ValueError for a bad code."""
        if self.is_open:
            self._connection.send_close(code, reason)
            await self._flush()

    async def events(self) -> AsyncGenerator[Event]:
        """Messages (`str`, `bytes`) and control frames as they come, until the connection is over."""
        data, self._early = self._early, b""
        try:
            while True:
                for event in self._connection.receive_data(data) if data else ():
                    yield event
                await self._flush()
                if self._connection.should_close_transport:
                    return
                waits = self._connection.wants_deadline
                async with asyncio.timeout(CLOSE_TIMEOUT if waits else None):
                    data = await self._reader.read(CHUNK)
                if not data:
                    self._connection.receive_eof()
                    return
        except (TimeoutError, OSError):
            self._connection.receive_eof()
        finally:
            self._writer.close()

    async def _flush(self) -> None:
        data = self._connection.data_to_send()
        if not data:
            return
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            pass  # reading finds out, and has the earlier messages


async def _dial(address: Address, *, insecure: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = None
    if address.secure:
        context = ssl.create_default_context()
        if insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    try:
        return await asyncio.open_connection(address.host, address.port, ssl=context)
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"{address.host} has no certificate to trust: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise Unreachable(f"{address.authority} does not speak TLS: {error.reason}") from None
    except OSError as error:
        raise Unreachable(_why(address, error)) from None


def _why(address: Address, error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError) or "Multiple exceptions" in str(error):
        return f"nothing listens on {address.host} port {address.port}"
    if type(error).__name__ == "gaierror":
        return f"the name {address.host} is not known"
    if isinstance(error, ConnectionResetError):
        return f"{address.authority} hung up{' during the TLS handshake' if address.secure else ''}"
    return f"{address.authority}: {error.strerror or error}"


async def _read_response(reader: asyncio.StreamReader) -> tuple[Response, bytes]:
    data = b""
    while True:
        try:
            response = parse_response(data)
        except HandshakeError as error:
            raise Refused(0, error.reason, (), data[:200].decode("latin-1")) from None
        if response is not None:
            return response, data[response.consumed :]
        try:
            chunk = await reader.read(CHUNK)
        except OSError:
            chunk = b""
        if not chunk:
            raise Refused(0, "the server hung up during the handshake", (), data[:200].decode("latin-1"))
        data += chunk


async def _read_body(reader: asyncio.StreamReader, response: Response, data: bytes) -> str:
    """As much of a refusal's body as comes quickly."""
    lengths = response.values(b"content-length")
    wanted = int(lengths[0]) if lengths and lengths[0].isdigit() else MAX_BODY
    chunked = b"chunked" in b",".join(response.values(b"transfer-encoding")).lower()
    try:
        async with asyncio.timeout(2.0):
            while len(data) < min(wanted, MAX_BODY) and not (chunked and data.endswith(b"0\r\n\r\n")):
                chunk = await reader.read(CHUNK)
                if not chunk:
                    break
                data += chunk
    except (TimeoutError, OSError):
        pass
    return (_unchunk(data) if chunked else data[:wanted]).decode(errors="replace")


def _unchunk(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            break
        if length == 0:
            break
        body += rest[:length]
        data = rest[length + 2 :]
    return body
