"""The frames between a worker and the relay, and how a byte stream is cut into them."""

from __future__ import annotations

import marshal
import struct

import pytest

from antiphon.hub.backends.relay.wire import (
    FORMAT,
    DamagedStream,
    Splitter,
    Words,
    frame,
    native_address,
    pack_page,
    unpack_page,
)
from antiphon.hub.records import Entry, Page, Position

FRAMES: list[Words] = [(1, 2, "chat", b"\x00" * 300), (32, 7, None), (34, "ä", {"a": (1, 2.5)})]
STREAM = b"".join(frame(*words) for words in FRAMES)


def test_frames_are_the_same_however_the_bytes_come() -> None:
    for size in range(1, len(STREAM) + 1):
        splitter, found = Splitter(), list[Words]()
        for start in range(0, len(STREAM), size):
            found += splitter.feed(STREAM[start : start + size])
        assert found == FRAMES, f"{size} bytes at a time"


def test_a_frame_is_there_with_its_last_byte_and_not_before() -> None:
    splitter = Splitter()
    first = frame(*FRAMES[0])
    assert splitter.feed(first[:-1]) == []
    assert splitter.feed(b"") == []
    assert splitter.feed(first[-1:] + frame(*FRAMES[1])[:4]) == [FRAMES[0]]
    assert splitter.feed(frame(*FRAMES[1])[4:]) == [FRAMES[1]]


def test_a_frame_longer_than_the_limit_is_refused_by_its_head_alone() -> None:
    with pytest.raises(DamagedStream, match="a frame of 101 bytes; at most 100"):
        Splitter(100).feed(struct.pack(">I", 101))


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"\xff\xff", "not marshalled"),
        (b"", "not marshalled"),
        (marshal.dumps([1], FORMAT), "got list"),
        (marshal.dumps((), FORMAT), "got tuple"),
    ],
)
def test_a_frame_that_none_of_ours_can_have_sent_is_damage(body: bytes, fault: str) -> None:
    with pytest.raises(DamagedStream, match=fault):
        Splitter().feed(struct.pack(">I", len(body)) + body)


def test_a_page_comes_back_as_it_went() -> None:
    page = Page((Entry(b"a", Position(4, "e")), Entry(b"b", None)), Position(5, "e"), True, 3)
    assert unpack_page(pack_page(page)) == page


def test_an_address_with_an_at_sign_is_an_abstract_socket() -> None:
    assert native_address("@name") == "\0name"
    assert native_address("/run/relay") == "/run/relay"
