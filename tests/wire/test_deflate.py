"""permessage-deflate: RFC 7692, negotiation on both sides and the messages themselves."""

from __future__ import annotations

import os
import random
import threading
import tracemalloc
import zlib
from dataclasses import FrozenInstanceError

import pytest

from antiphon.wire import deflate as module
from antiphon.wire.deflate import Agreement, Deflate, DeflateConfig, accept, negotiate, offer
from antiphon.wire.errors import HandshakeError, ProtocolError, Violation
from antiphon.wire.frames import Role
from tests.wire import raw
from tests.wire.twins import Twin, drip, violation

ALL = DeflateConfig(threshold=0)
REMEMBER = DeflateConfig(server_no_context_takeover=False, client_no_context_takeover=False, threshold=0)
FORGET = Agreement(server_no_context_takeover=True, client_no_context_takeover=True)
KEEP = Agreement(server_no_context_takeover=False, client_no_context_takeover=False)
LIMIT = 1 << 20


def answer(header: str, config: DeflateConfig = REMEMBER) -> str | None:
    _, value = negotiate([header.encode()], config)
    return None if value is None else value.decode()


def plain_deflate(payload: bytes, bits: int = 15, level: int = 6) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


# ---------------------------------------------------------------- negotiation, server


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        ("permessage-deflate", "permessage-deflate"),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
        ("permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits=8"),
        ("permessage-deflate; server_max_window_bits=15", "permessage-deflate; server_max_window_bits=15"),
        ('permessage-deflate; server_max_window_bits="10"', "permessage-deflate; server_max_window_bits=10"),
        ("permessage-deflate; client_max_window_bits=9", "permessage-deflate; client_max_window_bits=9"),
        ("permessage-deflate ;\tclient_max_window_bits = 9", "permessage-deflate; client_max_window_bits=9"),
        ("x-unknown, permessage-deflate", "permessage-deflate"),
        (" , permessage-deflate,", "permessage-deflate"),
    ],
)
def test_a_server_answers_each_parameter(offered: str, answered: str) -> None:
    assert answer(offered) == answered


@pytest.mark.parametrize(
    "offered",
    [
        "permessage-deflate; unknown",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; server_max_window_bits=+9",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=x",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=true",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
        "permessage-Deflate-x",
        "x-webkit-deflate-frame",
        "",
    ],
)
def test_an_offer_with_a_wrong_parameter_is_declined(offered: str) -> None:
    assert negotiate([offered.encode()], REMEMBER) == (None, None)


def test_the_first_acceptable_offer_wins() -> None:
    offers = "permessage-deflate; unknown, permessage-deflate; server_max_window_bits=9, permessage-deflate"
    assert answer(offers) == "permessage-deflate; server_max_window_bits=9"
    first, value = negotiate([b"other", b"permessage-deflate; server_max_window_bits=11", b"permessage-deflate"], ALL)
    assert first is not None
    assert first.agreement.server_max_window_bits == 11
    assert value is not None
    assert value.endswith(b"server_max_window_bits=11")


@pytest.mark.parametrize(
    "header", ["permessage-deflate; =", "a;", "a b", 'a; b="', 'a; b="x y"', "a;b=;c", "a@", "permessage-deflate; x=,"]
)
def test_a_header_that_breaks_the_grammar_fails_the_handshake(header: str) -> None:
    for config in (REMEMBER, None):
        with pytest.raises(HandshakeError) as caught:
            negotiate([header.encode()], config)
        assert caught.value.status == 400


def test_a_server_may_insist_on_no_context_takeover() -> None:
    """RFC 7692 §7.1.1: both may be answered without having been offered."""
    assert answer("permessage-deflate", ALL) == (
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    )


def test_a_server_s_own_window_sizes_are_answered_where_that_is_allowed() -> None:
    config = DeflateConfig(server_max_window_bits=11, client_max_window_bits=10)
    tail = "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=11"
    assert answer("permessage-deflate", config) == "permessage-deflate" + tail
    assert (
        answer("permessage-deflate; client_max_window_bits", config)
        == "permessage-deflate" + tail + "; client_max_window_bits=10"
    )
    assert answer("permessage-deflate; client_max_window_bits=9; server_max_window_bits=12", config) == (
        "permessage-deflate" + tail + "; client_max_window_bits=9"
    )
    told, _ = negotiate([b"permessage-deflate"], config)
    assert told is not None
    assert told.agreement.client_max_window_bits == 15, "the client was not told, so it may use all of it"


def test_without_a_config_every_offer_is_declined() -> None:
    assert negotiate([b"permessage-deflate"], None) == (None, None)


@pytest.mark.parametrize(
    "options",
    [
        {"server_max_window_bits": 7},
        {"client_max_window_bits": 16},
        {"level": 10},
        {"level": -1},
        {"memory_level": 0},
        {"threshold": -1},
    ],
)
def test_a_config_that_cannot_be_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        DeflateConfig(**options)  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        DeflateConfig().level = 1  # type: ignore[misc]


# ---------------------------------------------------------------- negotiation, client


@pytest.mark.parametrize("server", [ALL, REMEMBER, DeflateConfig(server_max_window_bits=9, client_max_window_bits=12)])
@pytest.mark.parametrize("client", [ALL, REMEMBER, DeflateConfig(server_max_window_bits=10, client_max_window_bits=8)])
def test_both_sides_come_to_the_same_agreement(server: DeflateConfig, client: DeflateConfig) -> None:
    ours, value = negotiate([offer(client)], server)
    assert ours is not None
    assert value is not None
    theirs = accept([value], client)
    assert theirs is not None
    assert theirs.agreement.server_no_context_takeover == ours.agreement.server_no_context_takeover
    assert theirs.agreement.client_no_context_takeover == ours.agreement.client_no_context_takeover
    assert theirs.agreement.server_max_window_bits == ours.agreement.server_max_window_bits
    assert theirs.agreement.client_max_window_bits <= ours.agreement.client_max_window_bits


@pytest.mark.parametrize(
    "value",
    [
        "permessage-deflate, permessage-deflate",
        "x-other",
        "permessage-deflate; unknown",
        "permessage-deflate; server_no_context_takeover; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; client_max_window_bits=16",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=7",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate",
        "permessage-deflate; =",
    ],
)
def test_a_client_refuses_an_answer_it_did_not_ask_for(value: str) -> None:
    with pytest.raises(HandshakeError):
        accept([value.encode()], ALL)


def test_a_client_refuses_any_extension_when_it_offered_none() -> None:
    with pytest.raises(HandshakeError, match="not offered"):
        accept([b"permessage-deflate"], None)
    assert accept([], None) is None
    assert accept([], ALL) is None


def test_a_client_refuses_a_larger_window_than_it_asked_for() -> None:
    config = DeflateConfig(server_no_context_takeover=False, server_max_window_bits=10)
    for value in (b"permessage-deflate", b"permessage-deflate; server_max_window_bits=11"):
        with pytest.raises(HandshakeError, match="server_max_window_bits=10"):
            accept([value], config)
    assert accept([b"permessage-deflate; server_max_window_bits=9"], config) is not None


# ---------------------------------------------------------------- messages


def payloads() -> list[bytes]:
    source = random.Random(7)
    return [
        b"",
        b"a",
        b"Hello" * 3,
        os.urandom(10_000),
        b"x" * 100_000,
        bytes(source.choice(b"abcdef ") for _ in range(50_000)),
        bytes(source.choice(b"ab") for _ in range(300)) * 40,
    ]


@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("forget", [True, False])
def test_messages_survive_every_window_size(bits: int, forget: bool) -> None:
    """And never point further back than the window agreed on: zlib checks that, told the true size."""
    agreement = Agreement(
        server_no_context_takeover=forget, client_no_context_takeover=True, server_max_window_bits=bits
    )
    ours = Deflate(agreement, Role.SERVER, REMEMBER)
    theirs = Deflate(agreement, Role.CLIENT, REMEMBER)
    assert theirs.read_bits == bits
    for payload in payloads() * 2:
        data = ours.compress(payload)
        if data is not None:
            assert theirs.inflate(data, True, LIMIT) == payload
    assert ours.shareable is (forget and bits == 15)


def test_without_takeover_each_message_stands_alone() -> None:
    """Compressed by one shared compressor, and yet nothing of an earlier message is referred to."""
    ours = Deflate(FORGET, Role.SERVER, ALL)
    message = b"the same words again and again, unlike any others " * 3
    first = ours.compress(message)
    for other in payloads():
        ours.compress(other)
        again = ours.compress(message)
        assert again == first
        assert again is not None
        assert zlib.decompressobj(-15).decompress(again + b"\x00\x00\xff\xff") == message


def test_with_takeover_the_second_time_is_shorter() -> None:
    ours = Deflate(KEEP, Role.SERVER, REMEMBER)
    theirs = Deflate(KEEP, Role.CLIENT, REMEMBER)
    message = os.urandom(500)
    first, second = ours.compress(message), ours.compress(message)
    assert first is not None
    assert second is not None
    assert len(second) < 50 < len(first)
    assert theirs.inflate(first, True, LIMIT) == theirs.inflate(second, True, LIMIT) == message


def test_a_message_that_does_not_shrink_goes_uncompressed_unless_the_window_must_see_it() -> None:
    noise = os.urandom(1000)
    assert Deflate(FORGET, Role.SERVER, ALL).compress(noise) is None
    assert Deflate(KEEP, Role.SERVER, REMEMBER).compress(noise) is not None


def test_a_message_below_the_threshold_goes_uncompressed() -> None:
    for agreement in (FORGET, KEEP):
        deflate = Deflate(agreement, Role.SERVER, DeflateConfig(threshold=100))
        assert deflate.compress(b"x" * 99) is None
        assert deflate.compress(b"x" * 100) is not None


def test_a_compression_that_was_interrupted_leaves_nothing_in_the_next_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal's KeyboardInterrupt between zlib's two calls must not put one user's words into another's message."""
    deflate = Deflate(FORGET, Role.SERVER, ALL)
    message = b"a message of somebody else " * 10
    expected = deflate.compress(message)

    def interrupted(compressor: object, payload: bytes, mode: int) -> bytes:
        compressor.compress(payload)  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_flush", interrupted)
        with pytest.raises(KeyboardInterrupt):
            deflate.compress(b"secret words " * 10)
    assert deflate.compress(message) == expected


def test_threads_do_not_mix_their_messages() -> None:
    deflate = Deflate(FORGET, Role.SERVER, ALL)
    wrong: list[int] = []

    def work(number: int) -> None:
        message = b"%d " % number * 5000
        for _ in range(100):
            data = deflate.compress(message)
            if data is None or zlib.decompressobj(-15).decompress(data + b"\x00\x00\xff\xff") != message:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_idle_connection_holds_no_zlib_state() -> None:
    message = b"some text that shrinks " * 20
    config = DeflateConfig()
    compressed = Deflate(FORGET, Role.CLIENT, config).compress(message)
    assert compressed is not None
    tracemalloc.start()
    try:
        idle = [Deflate(FORGET, Role.SERVER, config) for _ in range(1000)]
        for deflate in idle:
            assert deflate.inflate(compressed, True, LIMIT) == message
            deflate.compress(message)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert used / len(idle) < 400
    assert all(deflate._compressor is None and deflate._decompressor is None for deflate in idle)


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("agreement", [FORGET, KEEP], ids=["forget", "keep"])
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_compressed_messages_are_read_whole_split_and_fragmented(twin: Twin, agreement: Agreement, step: int) -> None:
    text = "Grüße, 😀! " * 50
    data = plain_deflate(text.encode())
    parser = twin.server(inflater=Deflate(agreement, Role.SERVER, ALL))
    whole = raw.frame(1, data, rsv=4)
    fragments = (
        raw.frame(1, data[:5], rsv=4, fin=False)
        + raw.frame(9, b"between")
        + raw.frame(0, data[5:6], fin=False)
        + raw.frame(0, b"", fin=False)
        + raw.frame(0, data[6:])
    )
    plain = raw.text("plain between them")
    events = drip(parser, whole + fragments + plain + raw.frame(2, data, rsv=4), step)
    assert [event for event in events if isinstance(event, str | bytes)] == [
        text,
        text,
        "plain between them",
        text.encode(),
    ]
    assert parser.error is None
    assert parser.buffered == 0


@pytest.mark.parametrize("agreement", [FORGET, KEEP], ids=["forget", "keep"])
def test_an_empty_compressed_message_is_empty(twin: Twin, agreement: Agreement) -> None:
    parser = twin.server(inflater=Deflate(agreement, Role.SERVER, ALL))
    assert parser.feed(raw.frame(1, b"\x00", rsv=4)) == [""]
    assert parser.feed(raw.frame(2, b"", rsv=4)) == [b""]
    assert parser.feed(raw.frame(1, b"\x00", rsv=4, fin=False) + raw.frame(0, b"")) == [""]
    assert parser.error is None


@pytest.mark.parametrize("agreement", [FORGET, KEEP], ids=["forget", "keep"])
@pytest.mark.parametrize("limit", [1000, 100_000])
def test_a_bomb_is_stopped_while_it_is_inflated(twin: Twin, agreement: Agreement, limit: int) -> None:
    bomb = plain_deflate(bytes(50 << 20), level=9)
    for data in (
        raw.frame(2, bomb[: limit // 2], rsv=4, fin=False),  # its first fragment is enough
        raw.frame(2, bomb, rsv=4),
    ):
        parser = twin.server(limit=limit, inflater=Deflate(agreement, Role.SERVER, ALL))
        tracemalloc.start()
        try:
            assert parser.feed(data) == []
            assert tracemalloc.get_traced_memory()[1] < 3 * limit + 200_000 + len(data)
        finally:
            tracemalloc.stop()
        assert violation(parser) is Violation.TOO_BIG


@pytest.mark.parametrize("agreement", [FORGET, KEEP], ids=["forget", "keep"])
def test_an_inflated_message_of_exactly_the_limit_passes_and_one_byte_more_does_not(
    twin: Twin, agreement: Agreement
) -> None:
    for noise in (os.urandom(1000), b"x" * 1000):
        parser = twin.server(limit=1000, inflater=Deflate(agreement, Role.SERVER, ALL))
        assert parser.feed(raw.frame(2, plain_deflate(noise), rsv=4)) == [noise]
        halves = raw.frame(2, plain_deflate(noise)[:7], rsv=4, fin=False) + raw.frame(0, plain_deflate(noise)[7:])
        assert parser.feed(halves) == [noise]
        assert parser.feed(raw.frame(2, plain_deflate(noise + b"y"), rsv=4)) == []
        assert violation(parser) is Violation.TOO_BIG


def test_a_compressed_frame_that_could_never_fit_is_refused_by_its_length(twin: Twin) -> None:
    parser = twin.server(limit=1000, inflater=Deflate(FORGET, Role.SERVER, ALL))
    assert parser.feed(raw.frame(2, declared=1400, rsv=4)[:4]) == []
    assert violation(parser) is Violation.TOO_BIG


@pytest.mark.parametrize("agreement", [FORGET, KEEP], ids=["forget", "keep"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff" * 20, id="reserved block type"),
        pytest.param(plain_deflate(b"Hello, Hello, Hello")[:-3], id="cut short"),
        pytest.param(plain_deflate(b"Hello, Hello, Hello") + b"\x00\x00\xff\xff", id="tail left in and a half block"),
        pytest.param(b"\x00\x05\x00\x00\x00hello", id="wrong stored length"),
        pytest.param(b"\x02\x7f\xff" + b"\x00" * 5, id="noise"),
    ],
)
def test_a_corrupt_message_ends_with_1007(twin: Twin, agreement: Agreement, data: bytes) -> None:
    parser = twin.server(inflater=Deflate(agreement, Role.SERVER, ALL))
    assert parser.feed(raw.frame(1, data, rsv=4) + raw.text("after")) == []
    assert violation(parser) is Violation.DEFLATE
    assert parser.error is not None
    assert parser.error.close_code == 1007


def test_a_compressed_fragment_that_is_not_utf_8_fails_before_the_message_ends(twin: Twin) -> None:
    compressor = zlib.compressobj(wbits=-15)
    first = compressor.compress(b"ok \xed\xa0") + compressor.flush(zlib.Z_SYNC_FLUSH)
    parser = twin.server(inflater=Deflate(FORGET, Role.SERVER, ALL))
    assert parser.feed(raw.frame(1, first, rsv=4, fin=False)) == []
    assert violation(parser) is Violation.TEXT
    whole = twin.server(inflater=Deflate(FORGET, Role.SERVER, ALL))
    assert whole.feed(raw.frame(1, plain_deflate(b"\xff"), rsv=4)) == []
    assert violation(whole) is Violation.TEXT


def final_block(payload: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(payload) + compressor.flush(zlib.Z_FINISH)


@pytest.mark.parametrize("agreement", [FORGET, KEEP], ids=["forget", "keep"])
def test_blocks_marked_as_final_do_not_end_the_message(twin: Twin, agreement: Agreement) -> None:
    """RFC 7692 §7.2.3.4 and its example."""
    example = bytes.fromhex("f348cdc9c9070000")
    parser = twin.server(inflater=Deflate(agreement, Role.SERVER, ALL))
    assert parser.feed(raw.frame(1, example, rsv=4)) == ["Hello"]
    several = final_block(b"one ") + final_block(b"two ") + plain_deflate(b"three")
    assert parser.feed(raw.frame(1, several, rsv=4)) == ["one two three"]
    assert parser.feed(raw.frame(1, several[:4], rsv=4, fin=False) + raw.frame(0, several[4:])) == ["one two three"]
    assert parser.feed(raw.frame(1, plain_deflate(b"as ever"), rsv=4)) == ["as ever"]
    assert parser.error is None


def test_final_blocks_without_end_are_refused(twin: Twin) -> None:
    parser = twin.server(inflater=Deflate(FORGET, Role.SERVER, ALL))
    assert parser.feed(raw.frame(1, b"\x03\x00" * 10_000, rsv=4)) == []
    assert violation(parser) is Violation.DEFLATE


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("f248cdc9c90700", id="one block §7.2.3.1"),
        pytest.param("000500faff48656c6c6f00", id="no compression §7.2.3.3"),
        pytest.param("f348cdc9c9070000", id="final block §7.2.3.4"),
        pytest.param("f248050000 00ffff cac9c90700".replace(" ", ""), id="two blocks §7.2.3.5"),
    ],
)
def test_the_rfc_s_examples_say_hello(twin: Twin, data: str) -> None:
    parser = twin.server(inflater=Deflate(FORGET, Role.SERVER, ALL))
    assert parser.feed(raw.frame(1, bytes.fromhex(data), rsv=4)) == ["Hello"]


def test_the_window_of_another_message_cannot_be_read_without_takeover(twin: Twin) -> None:
    """A second message that refers to the first would read another connection's data."""
    compressor = zlib.compressobj(wbits=-15)
    secret = os.urandom(300)
    first = compressor.compress(secret) + compressor.flush(zlib.Z_SYNC_FLUSH)
    second = compressor.compress(secret) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(second) < 50
    parser = twin.server(inflater=Deflate(FORGET, Role.SERVER, ALL))
    assert parser.feed(raw.frame(2, first[:-4], rsv=4)) == [secret]
    assert parser.feed(raw.frame(2, second[:-4], rsv=4)) == []
    assert violation(parser) is Violation.DEFLATE


def test_the_inflater_raises_typed_errors() -> None:
    deflate = Deflate(FORGET, Role.SERVER, ALL)
    with pytest.raises(ProtocolError):
        deflate.inflate(b"\xff\xff", True, LIMIT)
    assert module.compress(b"", level=1, bits=15, memory_level=8) == b"\x00"
