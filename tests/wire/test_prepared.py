"""A message becomes one frame, compressed where that was agreed and worth it."""

from __future__ import annotations

import zlib

import pytest

from antiphon.wire import encode_message
from antiphon.wire.deflate import Agreement, Deflate, DeflateConfig
from antiphon.wire.frames import Role
from antiphon.wire.prepared import encode_compressed

FORGET = Agreement(server_no_context_takeover=True, client_no_context_takeover=True)
LONG = "some text that shrinks " * 20


@pytest.mark.parametrize("payload", [LONG, LONG.encode()])
def test_a_long_message_is_one_compressed_frame_of_its_kind(payload: str | bytes) -> None:
    frame = encode_compressed(payload, Deflate(FORGET, Role.SERVER, DeflateConfig()))
    assert frame[0] == (0xC1 if isinstance(payload, str) else 0xC2)
    assert zlib.decompressobj(-15).decompress(frame[2:] + b"\x00\x00\xff\xff") == LONG.encode()


@pytest.mark.parametrize(
    "agreement",
    [
        Agreement(server_no_context_takeover=False, client_no_context_takeover=True),
        Agreement(server_no_context_takeover=True, client_no_context_takeover=True, server_max_window_bits=9),
    ],
)
def test_a_peer_with_a_window_of_its_own_can_read_every_frame(agreement: Agreement) -> None:
    own = Deflate(agreement, Role.SERVER, DeflateConfig())
    peer = Deflate(agreement, Role.CLIENT, DeflateConfig())
    for _ in range(2):
        assert peer.inflate(encode_compressed(LONG, own)[2:], True, 10_000) == LONG.encode()


@pytest.mark.parametrize("payload", ["short", b"short", "é" * 40])
def test_a_short_message_goes_uncompressed(payload: str | bytes) -> None:
    assert encode_compressed(payload, Deflate(FORGET, Role.SERVER, DeflateConfig())) == encode_message(payload)
