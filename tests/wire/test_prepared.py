"""A message is encoded once, and compressed once, for all its receivers."""

from __future__ import annotations

import zlib

import pytest

from antiphon.types import PreparedMessage
from antiphon.wire import prepare
from antiphon.wire.deflate import Agreement, Deflate, DeflateConfig
from antiphon.wire.frames import Role
from tests.wire import raw

FORGET = Agreement(server_no_context_takeover=True, client_no_context_takeover=True)
LONG = "some text that shrinks " * 20


@pytest.mark.parametrize("payload", [LONG, LONG.encode(), "", b"", "é" * 200])
def test_all_receivers_share_one_frame(payload: str | bytes) -> None:
    message = PreparedMessage(payload)
    frame = prepare(message, None)
    data = payload.encode() if isinstance(payload, str) else payload
    assert frame == raw.frame(1 if isinstance(payload, str) else 2, data, masked=False)
    assert prepare(message, None) is frame is message.frame


@pytest.mark.parametrize("payload", [LONG, LONG.encode()])
def test_all_compressing_receivers_share_one_compressed_frame(payload: str | bytes) -> None:
    message = PreparedMessage(payload)
    first = prepare(message, Deflate(FORGET, Role.SERVER, DeflateConfig()))
    assert prepare(message, Deflate(FORGET, Role.SERVER, DeflateConfig())) is first is message.deflated
    assert first[0] == (0xC1 if isinstance(payload, str) else 0xC2)
    assert zlib.decompressobj(-15).decompress(first[2:] + b"\x00\x00\xff\xff") == LONG.encode()


@pytest.mark.parametrize(
    "agreement",
    [
        Agreement(server_no_context_takeover=False, client_no_context_takeover=True),
        Agreement(server_no_context_takeover=True, client_no_context_takeover=True, server_max_window_bits=9),
    ],
)
def test_a_receiver_with_a_window_of_its_own_gets_a_frame_of_its_own(agreement: Agreement) -> None:
    message = PreparedMessage(LONG)
    shared = prepare(message, Deflate(FORGET, Role.SERVER, DeflateConfig()))
    own = Deflate(agreement, Role.SERVER, DeflateConfig())
    peer = Deflate(agreement, Role.CLIENT, DeflateConfig())
    for _ in range(2):
        frame = prepare(message, own)
        assert frame is not shared
        assert peer.inflate(frame[2:], True, 10_000) == LONG.encode()
    assert message.deflated is shared


@pytest.mark.parametrize("payload", ["short", b"short", "é" * 40])
def test_a_short_message_goes_uncompressed_to_all(payload: str | bytes) -> None:
    message = PreparedMessage(payload)
    compressing = Deflate(FORGET, Role.SERVER, DeflateConfig())
    assert prepare(message, compressing) is prepare(message, None)
