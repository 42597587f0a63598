"""Building frames: RFC 6455 §5.2, §5.3, §5.5, §7.4."""

from __future__ import annotations

import os

import pytest

from antiphon.status import cut_reason
from antiphon.wire import frames
from antiphon.wire.errors import ProtocolError, Violation
from antiphon.wire.frames import Close, Ping, Pong, decode_close, encode_close
from tests.wire import raw
from tests.wire.twins import Twin

SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 124, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 65537]


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_has_the_shortest_length_form(twin: Twin, size: int) -> None:
    payload = os.urandom(size)
    assert twin.encode_frame(2, payload) == raw.frame(2, payload, masked=False)
    assert twin.encode_message(payload) == raw.frame(2, payload, masked=False)


@pytest.mark.parametrize("size", SIZES)
def test_masking_xors_with_the_repeated_key(twin: Twin, size: int) -> None:
    data = os.urandom(size)
    masked = twin.mask(data, raw.KEY)
    assert masked == bytes(byte ^ raw.KEY[i % 4] for i, byte in enumerate(data))
    assert twin.mask(masked, raw.KEY) == data
    assert twin.encode_frame(2, data, mask=raw.KEY) == raw.frame(2, data)


@pytest.mark.parametrize("offset", range(9))
def test_masking_reads_from_any_address(twin: Twin, offset: int) -> None:
    data = os.urandom(100)
    assert twin.mask(memoryview(data)[offset:], raw.KEY) == twin.mask(data[offset:], raw.KEY)


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde"])
def test_a_key_that_is_not_four_bytes_is_refused(twin: Twin, key: bytes) -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        twin.mask(b"data", key)
    with pytest.raises(ValueError, match="4 bytes"):
        twin.encode_frame(1, b"data", mask=key)


@pytest.mark.parametrize("text", ["", "a", "ascii", "Grüße", "é" * 100, "日本語", "😀", "a" * 70000, "€" * 30000])
def test_text_is_encoded_as_utf_8(twin: Twin, text: str) -> None:
    assert twin.encode_message(text) == raw.frame(1, text.encode(), masked=False)
    assert twin.encode_frame(1, text, mask=raw.KEY) == raw.frame(1, text.encode())


def test_a_lone_surrogate_is_not_text(twin: Twin) -> None:
    with pytest.raises(UnicodeEncodeError):
        twin.encode_message("\ud800")
    with pytest.raises(UnicodeEncodeError):
        twin.encode_frame(1, "\ud800")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_a_payload(twin: Twin, kind: type) -> None:
    assert twin.encode_frame(2, kind(b"abc")) == b"\x82\x03abc"
    assert twin.encode_message(kind(b"abc")) == b"\x82\x03abc"


def test_fin_and_rsv1_are_the_first_bits(twin: Twin) -> None:
    assert twin.encode_frame(1, b"", fin=False)[0] == 0x01
    assert twin.encode_frame(1, b"", rsv1=True)[0] == 0xC1
    assert twin.encode_frame(0, b"", fin=False, rsv1=False)[0] == 0x00


@pytest.mark.parametrize("opcode", [0x8, 0x9, 0xA])
def test_a_control_frame_that_breaks_the_rules_is_not_built(twin: Twin, opcode: int) -> None:
    assert twin.encode_frame(opcode, b"x" * 125, mask=raw.KEY)
    for payload, options in ((b"x" * 126, {}), (b"", {"fin": False}), (b"", {"rsv1": True})):
        with pytest.raises(ValueError, match="control frame"):
            twin.encode_frame(opcode, payload, **options)
    with pytest.raises(ValueError, match="control frame"):
        twin.encode_frame(opcode, b"x" * 126, mask=raw.KEY)


@pytest.mark.parametrize("opcode", [-1, 3, 4, 5, 6, 7, 0xB, 0xC, 0xF, 0x10, 0x81])
def test_a_reserved_opcode_is_not_built(twin: Twin, opcode: int) -> None:
    with pytest.raises(ValueError, match="reserved"):
        twin.encode_frame(opcode, b"")


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
def test_a_close_code_that_may_go_on_the_wire_does(code: int) -> None:
    assert encode_close(code, "why") == code.to_bytes(2, "big") + b"why"
    assert decode_close(encode_close(code, "why")) == Close(code, "why")


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535, 65536])
def test_a_close_code_that_may_not_go_on_the_wire_is_refused_both_ways(code: int) -> None:
    with pytest.raises(ValueError, match="may not go on the wire"):
        encode_close(code)
    if 0 <= code < 65536:
        with pytest.raises(ProtocolError) as caught:
            decode_close(code.to_bytes(2, "big"))
        assert caught.value.violation is Violation.CLOSE_CODE


def test_a_close_without_a_code_is_empty_and_has_no_reason() -> None:
    assert encode_close(None) == b""
    assert decode_close(b"") == Close(None, "")
    with pytest.raises(ValueError, match="needs a close code"):
        encode_close(None, "reason")


@pytest.mark.parametrize("character", ["a", "é", "€", "😀"])
def test_a_long_reason_is_cut_where_a_character_ends(character: str) -> None:
    cut = cut_reason("x" + character * 200)
    assert 123 - 3 <= len(cut.encode()) <= 123
    assert ("x" + character * 200).startswith(cut)
    assert len(encode_close(1000, character * 200)) <= frames.MAX_CONTROL_PAYLOAD


def test_a_reason_that_cannot_be_encoded_still_closes() -> None:
    assert encode_close(1000, "\ud800").startswith(b"\x03\xe8")


def test_events_compare_by_what_they_say() -> None:
    assert Ping(b"a") == Ping(b"a") != Pong(b"a")
    assert len({Ping(b"a"), Ping(b"a"), Pong(b"a"), Close(1000), Close(1000), Close()}) == 4
    assert repr(Ping(b"a")) == "Ping(b'a')"
    assert repr(Close(1000, "x")) == "Close(1000, 'x')"
