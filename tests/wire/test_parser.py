"""Reading frames: RFC 6455 §5 and §8.1, in both twins."""

from __future__ import annotations

import gc
import tracemalloc
import zlib

import pytest

from antiphon.wire.deflate import Agreement, Deflate, DeflateConfig
from antiphon.wire.errors import Violation
from antiphon.wire.frames import Close, Event, Ping, Pong, Role
from tests.wire import raw
from tests.wire.twins import Twin, drip, violation


def test_whole_messages_come_out_as_they_went_in(twin: Twin) -> None:
    parser = twin.server()
    data = raw.text("hello") + raw.frame(2, b"\x00\xff") + raw.text("") + raw.frame(2) + raw.text("Grüße 😀")
    assert parser.feed(data) == ["hello", b"\x00\xff", "", b"", "Grüße 😀"]
    assert parser.frames == 5
    assert parser.buffered == 0


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 9, 125, 126, 127, 65535, 65536, 100_000])
@pytest.mark.parametrize("character", ["a", "é", "😀"])
def test_text_of_any_length_is_read(twin: Twin, size: int, character: str) -> None:
    text = character * size
    parser = twin.server()
    assert parser.feed(raw.text(text)) == [text]
    client = twin.client()
    assert client.feed(raw.text(text, masked=False)) == [text]
    half = len(raw.text(text)) // 2
    assert parser.feed(raw.text(text)[:half]) + parser.feed(raw.text(text)[half:]) == [text]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 8, 64, 1000])
def test_the_pieces_that_bytes_come_in_make_no_difference(twin: Twin, step: int) -> None:
    data = (
        raw.text("one")
        + raw.frame(1, "gé".encode()[:2], fin=False)
        + raw.frame(9, b"ping")
        + raw.frame(0, "gé".encode()[2:], fin=False)
        + raw.frame(10, b"pong")
        + raw.frame(0, "😀".encode() * 50)
        + raw.frame(2, bytes(range(256)) * 300)
        + raw.frame(8, b"\x03\xe8bye")
    )
    expected = ["one", Ping(b"ping"), Pong(b"pong"), "gé" + "😀" * 50, bytes(range(256)) * 300, Close(1000, "bye")]
    parser = twin.server()
    assert drip(parser, data, step) == expected
    assert parser.frames == 8
    assert parser.closed
    assert parser.error is None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_fed(twin: Twin, kind: type) -> None:
    assert twin.server().feed(kind(raw.text("hello"))) == ["hello"]
    parser = twin.server()
    data = raw.text("hello")
    assert parser.feed(kind(data[:4])) + parser.feed(kind(data[4:])) == ["hello"]


def test_what_was_fed_may_be_overwritten_afterwards(twin: Twin) -> None:
    parser = twin.server()
    buffer = bytearray(raw.text("hello" * 40) + raw.text("world")[:9])
    events = parser.feed(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    buffer.clear()  # raises BufferError if the parser still held it
    assert events == ["hello" * 40]
    assert parser.feed(raw.text("world")[9:]) == ["world"]


def test_a_fragmented_message_is_one_message(twin: Twin) -> None:
    parser = twin.server()
    assert parser.feed(raw.frame(2, b"a", fin=False) + raw.frame(0, b"b", fin=False) + raw.frame(0, b"c")) == [b"abc"]
    assert parser.feed(raw.frame(1, b"", fin=False) + raw.frame(0, b"", fin=False) + raw.frame(0, b"")) == [""]
    assert parser.feed(raw.frame(2, b"", fin=False) + raw.frame(0)) == [b""]
    assert parser.feed(raw.frame(1, b"", fin=False) + raw.frame(0, b"end")) == ["end"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(raw.frame(1, rsv=4), Violation.RESERVED_BITS, id="RSV1 without an extension §5.2"),
        pytest.param(raw.frame(2, rsv=2), Violation.RESERVED_BITS, id="RSV2 §5.2"),
        pytest.param(raw.frame(2, rsv=1), Violation.RESERVED_BITS, id="RSV3 §5.2"),
        pytest.param(raw.frame(9, rsv=4), Violation.RESERVED_BITS, id="RSV1 on a ping §5.2"),
        pytest.param(raw.frame(3), Violation.RESERVED_OPCODE, id="data opcode 3 §5.2"),
        pytest.param(raw.frame(7), Violation.RESERVED_OPCODE, id="data opcode 7 §5.2"),
        pytest.param(raw.frame(0xB), Violation.RESERVED_OPCODE, id="control opcode B §5.2"),
        pytest.param(raw.frame(0xF), Violation.RESERVED_OPCODE, id="control opcode F §5.2"),
        pytest.param(raw.frame(9, fin=False), Violation.FRAGMENTED_CONTROL, id="fragmented ping §5.5"),
        pytest.param(raw.frame(8, fin=False), Violation.FRAGMENTED_CONTROL, id="fragmented close §5.5"),
        pytest.param(raw.frame(9, b"x" * 126), Violation.LONG_CONTROL, id="ping of 126 bytes §5.5"),
        pytest.param(raw.frame(10, b"x", length_bytes=2), Violation.LONG_CONTROL, id="pong with a long length §5.5"),
        pytest.param(raw.frame(9, b"x", length_bytes=8), Violation.LONG_CONTROL, id="ping with 8 length bytes §5.5"),
        pytest.param(raw.frame(1, b"x", masked=False), Violation.NOT_MASKED, id="not masked §5.1"),
        pytest.param(raw.frame(9, b"x", masked=False), Violation.NOT_MASKED, id="ping not masked §5.1"),
        pytest.param(raw.frame(0, b"x"), Violation.STRAY_CONTINUATION, id="continuation of nothing §5.4"),
        pytest.param(raw.frame(0, b"x", fin=False), Violation.STRAY_CONTINUATION, id="fragment of nothing §5.4"),
        pytest.param(
            raw.frame(1, b"a", fin=False) + raw.frame(1, b"b"), Violation.INTERRUPTED_MESSAGE, id="text in text §5.4"
        ),
        pytest.param(
            raw.frame(2, b"a", fin=False) + raw.frame(1, b"b"), Violation.INTERRUPTED_MESSAGE, id="text in binary §5.4"
        ),
        pytest.param(raw.frame(1, b"x" * 125, length_bytes=2), Violation.LENGTH_NOT_MINIMAL, id="125 in 2 bytes §5.2"),
        pytest.param(raw.frame(1, b"", length_bytes=2), Violation.LENGTH_NOT_MINIMAL, id="0 in 2 bytes §5.2"),
        pytest.param(raw.frame(2, b"x", length_bytes=8), Violation.LENGTH_NOT_MINIMAL, id="1 in 8 bytes §5.2"),
        pytest.param(
            raw.frame(2, b"x" * 65535, length_bytes=8), Violation.LENGTH_NOT_MINIMAL, id="65535 in 8 bytes §5.2"
        ),
        pytest.param(raw.frame(2, declared=1 << 63), Violation.LENGTH_TOO_LARGE, id="highest bit of the length §5.2"),
        pytest.param(raw.frame(2, declared=(1 << 64) - 1), Violation.LENGTH_TOO_LARGE, id="all bits of the length"),
        pytest.param(raw.frame(2, declared=(1 << 63) - 1), Violation.TOO_BIG, id="as much as can be said §10.4"),
        pytest.param(raw.frame(8, b"\x03"), Violation.CLOSE_OF_ONE_BYTE, id="close of one byte §5.5.1"),
        pytest.param(raw.frame(8, b"\x03\xed"), Violation.CLOSE_CODE, id="close 1005 §7.4.1"),
        pytest.param(raw.frame(8, b"\x03\xe7"), Violation.CLOSE_CODE, id="close 999 §7.4.2"),
        pytest.param(raw.frame(8, b"\x03\xe8\xff"), Violation.CLOSE_REASON, id="close reason §5.5.1"),
        pytest.param(raw.frame(8, b"\x03\xe8\xe2\x82"), Violation.CLOSE_REASON, id="close reason cut short"),
        pytest.param(raw.frame(1, b"\xff"), Violation.TEXT, id="text §8.1"),
        pytest.param(raw.frame(1, b"ok" * 100 + b"\xc3"), Violation.TEXT, id="text cut short §8.1"),
        pytest.param(
            raw.frame(1, b"\xc3", fin=False) + raw.frame(0, b""), Violation.TEXT, id="text cut short in a fragment"
        ),
    ],
)
def test_a_broken_rule_ends_parsing_with_its_code(twin: Twin, data: bytes, expected: Violation) -> None:
    before = raw.text("before") + raw.frame(9, b"too")
    for step in (len(before + data), 1, 3):
        parser = twin.server()
        assert drip(parser, before + data + raw.text("after"), step) == ["before", Ping(b"too")]
        assert violation(parser) is expected
        assert parser.error is not None
        assert (parser.error.close_code, parser.error.reason) == expected.value
        assert parser.feed(raw.text("more")) == []
        assert parser.buffered == 0


def test_a_client_refuses_masked_frames(twin: Twin) -> None:
    parser = twin.client()
    assert parser.feed(raw.text("fine", masked=False) + raw.text("masked")) == ["fine"]
    assert violation(parser) is Violation.MASKED


def test_rsv1_is_for_the_first_frame_of_a_message_only(twin: Twin) -> None:
    class Never:
        more = False

        def begin_frame(self, data: bytes, final: bool) -> None:
            pass

        def inflate_some(self, limit: int) -> bytes:
            raise AssertionError("there is no more")

    for data in (
        raw.frame(2, b"a", fin=False) + raw.frame(0, b"b", rsv=4),
        raw.frame(2, b"a", fin=False, rsv=4) + raw.frame(0, b"b", rsv=4),
        raw.frame(9, b"a", rsv=4),
        raw.frame(8, b"", rsv=4),
        raw.frame(1, b"a", rsv=6),
        raw.frame(1, b"a", rsv=5),
    ):
        parser = twin.server(inflater=Never())
        assert parser.feed(data) == []
        assert violation(parser) is Violation.RESERVED_BITS


def test_nothing_after_a_close_frame_counts(twin: Twin) -> None:
    parser = twin.server()
    data = raw.frame(8, b"\x03\xe8") + raw.text("late") + b"\xff\xff\xff\xff"
    assert parser.feed(data) == [Close(1000)]
    assert parser.feed(raw.text("later")) == []
    assert parser.closed
    assert parser.error is None
    dripped = twin.server()
    assert drip(dripped, data) == [Close(1000)]
    assert dripped.error is None


def test_a_close_inside_a_fragmented_message_drops_the_message(twin: Twin) -> None:
    parser = twin.server()
    assert parser.feed(raw.frame(2, b"x" * 1000, fin=False) + raw.frame(8)) == [Close(None)]
    assert parser.buffered == 0


# ---------------------------------------------------------------- UTF-8, RFC 6455 §8.1, RFC 3629 §4

WRONG = [
    b"\x80", b"\xbf", b"\xc0", b"\xc1", b"\xc2\x41", b"\xe0\x80", b"\xe0\x9f", b"\xe1\x80\xc0", b"\xed\xa0",
    b"\xed\xbf", b"\xf0\x80", b"\xf0\x8f", b"\xf4\x90", b"\xf5", b"\xf8", b"\xff", b"\xf1\x80\x80\x41", b"\xe2\x28",
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.hex())
@pytest.mark.parametrize("before", [b"", b"a", b"x" * 23, "é€😀".encode()])
def test_text_that_cannot_become_utf_8_fails_at_its_byte_and_not_earlier(
    twin: Twin, wrong: bytes, before: bytes
) -> None:
    """In the middle of a frame, in the middle of a message: the rest of neither is awaited."""
    payload = before + wrong
    mid_frame = twin.server()
    data = raw.frame(1, payload + b"more to come" * 20)
    head = len(data) - len(payload) - 240
    assert drip(mid_frame, data[: head + len(payload) - 1]) == []
    assert mid_frame.error is None
    assert mid_frame.feed(data[head + len(payload) - 1 : head + len(payload)]) == []
    assert violation(mid_frame) is Violation.TEXT

    mid_message = twin.server()
    assert mid_message.feed(raw.frame(1, payload[:-1], fin=False)) == []
    assert mid_message.error is None
    assert mid_message.feed(raw.frame(0, payload[-1:], fin=False)) == []
    assert violation(mid_message) is Violation.TEXT


def test_every_character_survives_any_split(twin: Twin) -> None:
    text = "".join(map(chr, [0, 1, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFD, 0xFFFF, 0x10000, 0x10FFFF]))
    payload = text.encode()
    for cut in range(len(payload) + 1):
        parser = twin.server()
        assert parser.feed(raw.frame(1, payload[:cut], fin=False) + raw.frame(0, payload[cut:])) == [text]
        data = raw.frame(1, payload)
        assert parser.feed(data[: 6 + cut]) + parser.feed(data[6 + cut :]) == [text]


def test_binary_messages_are_not_checked(twin: Twin) -> None:
    parser = twin.server()
    assert parser.feed(raw.frame(2, b"\xff\xfe", fin=False) + raw.frame(0, b"\xff")) == [b"\xff\xfe\xff"]
    assert drip(parser, raw.frame(2, b"\xff" * 10)) == [b"\xff" * 10]


def test_the_message_after_a_fragmented_text_starts_afresh(twin: Twin) -> None:
    parser = twin.server()
    data = raw.frame(1, b"\xc3", fin=False) + raw.frame(0, b"\xa9") + raw.frame(1, b"\xc3\xa9") + raw.frame(2, b"\xa9")
    assert parser.feed(data) == ["é", "é", b"\xa9"]


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize("opcode", [1, 2])
def test_a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not(twin: Twin, opcode: int) -> None:
    parser = twin.server(limit=1000)
    assert len(parser.feed(raw.frame(opcode, b"x" * 1000))) == 1
    pieces = raw.frame(opcode, b"x" * 600, fin=False) + raw.frame(0, b"x" * 400)
    assert len(parser.feed(pieces)) == 1
    assert parser.feed(raw.frame(opcode, b"x" * 1001)) == []
    assert violation(parser) is Violation.TOO_BIG
    fragmented = twin.server(limit=1000)
    assert fragmented.feed(raw.frame(opcode, b"x" * 600, fin=False) + raw.frame(0, b"x" * 401)) == []
    assert violation(fragmented) is Violation.TOO_BIG


def test_a_declared_length_over_the_limit_is_refused_before_any_payload(twin: Twin) -> None:
    parser = twin.server(limit=1 << 20)
    assert parser.feed(raw.frame(2, declared=(1 << 20) + 1, masked=True)[:10]) == []
    assert violation(parser) is Violation.TOO_BIG


def test_announcing_a_large_frame_does_not_allocate_it(twin: Twin) -> None:
    """1 000 parsers that were each promised 16 MiB hold the bytes that came, not those promised."""
    data = raw.frame(2, b"x" * 100, declared=16 << 20)
    parsers = [twin.server(limit=16 << 20) for _ in range(1000)]
    tracemalloc.start()
    try:
        for parser in parsers:
            parser.feed(data[:60])
            parser.feed(data[60:])
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
    assert all(parser.buffered == 100 for parser in parsers)


def test_buffered_counts_what_is_held(twin: Twin) -> None:
    parser = twin.server()
    assert parser.buffered == 0
    parser.feed(raw.frame(2, b"x" * 1000, fin=False))
    assert parser.buffered == 1000
    parser.feed(b"\x80")
    assert parser.buffered == 1001
    parser.feed(raw.frame(0, b"y" * 10)[1:])
    assert parser.buffered == 0


def test_empty_fragments_hold_no_memory(twin: Twin) -> None:
    parser = twin.server()
    parser.feed(raw.frame(1, b"", fin=False))
    parser.feed(raw.frame(0, b"", fin=False) * 10_000)
    assert parser.buffered == 0
    assert parser.frames == 10_001


def test_a_message_in_many_small_fragments_is_not_copied_for_each(twin: Twin) -> None:
    """The memory for it is at most twice its size, and grows by steps."""
    parser = twin.server(limit=1 << 24)
    parser.feed(raw.frame(2, b"x" * 100_000, fin=False))
    fragments = raw.frame(0, b"x", fin=False) * 1000
    tracemalloc.start()
    try:
        for _ in range(50):
            parser.feed(fragments)
        assert tracemalloc.get_traced_memory()[0] < 2 * 150_000 + 10_000
    finally:
        tracemalloc.stop()
    assert parser.feed(raw.frame(0, b"end")) == [b"x" * 150_000 + b"end"]


def test_a_limit_must_be_positive_and_may_be_huge(twin: Twin) -> None:
    with pytest.raises(ValueError, match="positive"):
        twin.server(limit=0)
    assert twin.server(limit=1 << 100).feed(raw.text("x")) == ["x"]


def test_what_is_not_a_buffer_is_a_type_error(twin: Twin) -> None:
    with pytest.raises(TypeError):
        twin.server().feed("text")  # type: ignore[arg-type]


# ---------------------------------------------------------------- memory


def test_parsing_leaves_no_memory_behind(twin: Twin) -> None:
    """All paths, many times over: the memory at the end is the same as after warming up."""
    whole = (
        raw.text("a")
        + raw.text("Grüße")
        + raw.frame(2, b"x" * 300)
        + raw.frame(1, b"\xc3", fin=False)
        + raw.frame(9, b"p")
        + raw.frame(0, b"\xa9")
        + raw.frame(2, b"x" * 70_000)
        + raw.frame(8, b"\x03\xe8bye")
    )
    wrong = raw.frame(2, b"x" * 500, fin=False) + raw.frame(1, b"\xff")
    unfinished = raw.frame(2, b"x" * 500, declared=5000)

    def work(rounds: int) -> None:
        for _ in range(rounds):
            for data in (whole, wrong, unfinished):
                parser = twin.server()
                parser.feed(data[:50])
                parser.feed(data[50:])
            twin.encode_message("ü" * 50)
            twin.encode_frame(2, b"x" * 50, mask=raw.KEY)
            twin.mask(bytearray(b"x" * 50), raw.KEY)

    work(20)
    gc.collect()
    tracemalloc.start()
    try:
        work(20)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        work(400)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4096


def test_events_stay_alive_without_their_parser(twin: Twin) -> None:
    parser = twin.server()
    events: list[Event] = parser.feed(raw.frame(2, b"a" * 10, fin=False) + raw.frame(0, b"b" * 10) + raw.text("text"))
    del parser
    gc.collect()
    assert events == [b"a" * 10 + b"b" * 10, "text"]


KIB = 1 << 10
MIB = 1 << 20


def test_a_parser_stops_when_its_work_is_done_and_goes_on_from_there(twin: Twin) -> None:
    data = b"".join(raw.frame(9, b"%d" % number) for number in range(10))
    parser = twin.server()
    at = 0
    events: list[Event] = []
    for done in (3, 6, 9, 10):
        at = parser.feed_some(data, at, len(data), 3, events)
        assert len(events) == done
    assert at == len(data)
    assert events == twin.server().feed(data)


def test_a_frame_in_pieces_is_a_piece_of_work_where_it_begins(twin: Twin) -> None:
    data = raw.frame(2, b"x" * 300) + raw.frame(9, b"")
    parser = twin.server()
    events: list[Event] = []
    assert parser.feed_some(data, 0, 1, 1, events) == 1
    assert parser.feed_some(data, 1, 100, 1, events) == 100
    assert parser.feed_some(data, 100, len(data), 1, events) == len(data)
    assert events == [b"x" * 300, Ping(b"")]


def test_a_message_is_inflated_in_steps(twin: Twin) -> None:
    for text, payload in ((True, b"x" * MIB), (False, bytes(MIB))):
        compressor = zlib.compressobj(wbits=-15)
        data = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        data = raw.frame(1 if text else 2, data, rsv=4) + raw.frame(9, b"behind it")
        agreement = Agreement(server_no_context_takeover=True, client_no_context_takeover=True)
        parser = twin.server(limit=MIB, inflater=Deflate(agreement, Role.SERVER, DeflateConfig()))
        events: list[Event] = []
        at, steps, before = 0, 0, 0
        while not events:
            at = parser.feed_some(data, at, len(data), 1, events)
            assert parser.inflating != bool(events)
            if parser.inflating:
                assert before <= parser.buffered <= before + 129 * KIB
                before = parser.buffered
            steps += 1
        assert at < len(data)
        assert steps >= MIB // (128 * KIB)
        assert events == [payload.decode() if text else payload]
        assert parser.feed_some(data, at, len(data), 1, events) == len(data)
        assert events[1:] == [Ping(b"behind it")]
        assert parser.buffered == 0
