"""The smallest server there can be on the sans-I/O engine: an echo."""

from __future__ import annotations

import asyncio

from antiphon.wire import DeflateConfig, HandshakeError, Role, WireConfig, WireConnection, handshake, negotiate


class Echo(asyncio.Protocol):
    """One connection: handshake, then every message back."""

    def __init__(self, deflate: DeflateConfig | None, max_message_size: int) -> None:
        self.deflate = deflate
        self.config = WireConfig(max_message_size=max_message_size)
        self.head = bytearray()
        self.connection: WireConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.connection is None:
            self.head += data
            try:
                data = self.shake_hands()
            except HandshakeError as error:
                self.transport.write(handshake.refuse_response(error.status, error.headers, error.body))
                self.transport.close()
        if self.connection is not None:
            self.echo(self.connection, data)

    def shake_hands(self) -> bytes:
        request = handshake.parse_request(self.head)
        if request is None:
            return b""
        key = handshake.validate(request)
        deflate, extensions = negotiate(request.values(b"sec-websocket-extensions"), self.deflate)
        self.transport.write(handshake.accept_response(key, extensions=extensions))
        self.connection = WireConnection(Role.SERVER, self.config, deflate=deflate)
        return bytes(self.head[request.consumed :])

    def echo(self, connection: WireConnection, data: bytes) -> None:
        for event in connection.events(data):
            if isinstance(event, str):
                connection.send_text(event)
            elif isinstance(event, bytes):
                connection.send_bytes(event)
        self.transport.write(connection.data_to_send())
        if connection.should_close_transport:
            self.transport.close()
