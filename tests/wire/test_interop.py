"""Against another implementation's sans-I/O core: handshake, messages, compression, closing, from both sides."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from antiphon.wire import Close, Phase, Role, WireConnection, deflate, handshake
from antiphon.wire.deflate import DeflateConfig

MESSAGES: list[str | bytes] = ["short", "Grüße, 😀! " * 500, "", b"", bytes(range(256)) * 300, "again and again " * 100]

CONFIGS = [
    None,
    DeflateConfig(threshold=0),
    DeflateConfig(threshold=0, server_no_context_takeover=False, client_no_context_takeover=False),
    DeflateConfig(threshold=0, server_max_window_bits=9, client_max_window_bits=10),
    DeflateConfig(
        threshold=0,
        server_no_context_takeover=False,
        client_no_context_takeover=False,
        server_max_window_bits=9,
        client_max_window_bits=9,
    ),
]
THEIRS: list[dict[str, Any]] = [
    {"server_no_context_takeover": forget, "client_no_context_takeover": forget, "server_max_window_bits": bits}
    for forget, bits in itertools.product([True, False], [None, 9, 15])
]


def exchange(ours: WireConnection, theirs: ClientProtocol | ServerProtocol) -> None:
    """Every message both ways, twice so that a window has something to refer to, then the closing handshake."""
    for message in MESSAGES * 2:
        if isinstance(message, str):
            ours.send_text(message)
            theirs.send_text(message.encode())
        else:
            ours.send_bytes(message)
            theirs.send_binary(message)
        assert ours.receive_data(b"".join(theirs.data_to_send())) == [message]
        theirs.receive_data(ours.data_to_send())
        (frame,) = theirs.events_received()
        assert isinstance(frame, Frame)
        assert bytes(frame.data) == (message.encode() if isinstance(message, str) else message)
        assert frame.opcode is (Opcode.TEXT if isinstance(message, str) else Opcode.BINARY)
    theirs.send_close(1001, "bye")
    assert ours.receive_data(b"".join(theirs.data_to_send())) == [Close(1001, "bye")]
    theirs.receive_data(ours.data_to_send())
    assert ours.phase is Phase.CLOSED
    assert ours.close_code == 1001
    assert theirs.close_rcvd is not None
    assert theirs.close_rcvd.code == 1001


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("options", THEIRS)
def test_our_server_and_another_client(config: DeflateConfig | None, options: dict[str, Any]) -> None:
    factory = ClientPerMessageDeflateFactory(**options, client_max_window_bits=True)
    client = ClientProtocol(parse_uri("ws://example.com/chat"), extensions=[factory])
    client.send_request(client.connect())
    request = handshake.parse_request(b"".join(client.data_to_send()))
    assert request is not None
    key = handshake.validate(request)
    agreed, value = deflate.negotiate(request.values(b"sec-websocket-extensions"), config)
    client.receive_data(handshake.accept_response(key, extensions=value))
    assert client.handshake_exc is None
    client.events_received()
    assert bool(client.extensions) is (config is not None)
    exchange(WireConnection(Role.SERVER, deflate=agreed), client)


@pytest.mark.parametrize("config", CONFIGS[1:])
@pytest.mark.parametrize("options", THEIRS)
def test_our_client_and_another_server(config: DeflateConfig, options: dict[str, Any]) -> None:
    factory = ServerPerMessageDeflateFactory(**options, client_max_window_bits=11)
    server = ServerProtocol(extensions=[factory])
    key = handshake.new_key()
    server.receive_data(handshake.build_request("example.com", "/chat", key, extensions=deflate.offer(config)))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    response = handshake.parse_response(b"".join(server.data_to_send()))
    assert response is not None
    assert handshake.check_response(response, key) is None
    agreed = deflate.accept(response.values(b"sec-websocket-extensions"), config)
    assert agreed is not None
    exchange(WireConnection(Role.CLIENT, deflate=agreed), server)
