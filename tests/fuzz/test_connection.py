"""Each side hears the other's messages, after any negotiation and with the bytes cut anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from antiphon.types import ClosedBy
from antiphon.wire import Close, HandshakeError, Phase, Ping, Pong, Role, WireConfig, WireConnection, deflate, handshake
from antiphon.wire.deflate import Deflate
from antiphon.wire.errors import ProtocolError
from antiphon.wire.frames import Event
from tests.fuzz.strategies import agreements, binaries, close_codes, configs, splits, texts
from tests.search import some

BIG = WireConfig(max_message_size=1 << 20)

sends = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.one_of(texts, binaries)),
        st.tuples(st.just("fragments"), st.one_of(st.lists(texts, min_size=1), st.lists(binaries, min_size=1))),
        st.tuples(st.just("ping"), st.binary(max_size=125)),
        st.tuples(st.just("pong"), st.binary(max_size=125)),
    ),
    max_size=8,
)


def send(connection: WireConnection, what: str, value: object) -> Event:
    if what == "message" and isinstance(value, str):
        connection.send_text(value)
        return value
    if what == "message":
        assert isinstance(value, bytes)
        connection.send_bytes(value)
        return value
    if what == "fragments":
        assert isinstance(value, list)
        connection.send_fragments(value)
        return "".join(value) if isinstance(value[0], str) else b"".join(value)
    assert isinstance(value, bytes)
    if what == "ping":
        connection.send_ping(value)
        return Ping(value)
    connection.send_pong(value)
    return Pong(value)


@given(data=st.data(), server=st.none() | configs, client=configs)
@settings(max_examples=some(40))
def test_a_whole_life_of_a_connection(
    data: st.DataObject, server: deflate.DeflateConfig | None, client: deflate.DeflateConfig
) -> None:
    # A client that insists on parameters that this server refuses has no connection to test.
    if server is not None and client.server_max_window_bits < server.server_max_window_bits:
        server = replace(server, server_max_window_bits=client.server_max_window_bits)
    ours, value = deflate.negotiate([deflate.offer(client)], server)
    theirs = deflate.accept([] if value is None else [value], client)
    sides = [WireConnection(Role.SERVER, BIG, deflate=ours), WireConnection(Role.CLIENT, BIG, deflate=theirs)]
    for sender, receiver in (sides, sides[::-1], sides):
        said = [send(sender, what, value) for what, value in data.draw(sends)]
        heard: list[Event] = []
        for piece in data.draw(splits(sender.data_to_send())):
            heard += receiver.receive_data(piece)
        assert heard == said
        pongs = sender.receive_data(receiver.data_to_send())
        assert pongs == [Pong(event.payload) for event in said if type(event) is Ping]
    code = data.draw(close_codes)
    reason = data.draw(st.text(max_size=30)) if code else ""
    sides[0].send_close(code, reason)
    assert sides[1].receive_data(sides[0].data_to_send()) == [Close(code, reason)]
    assert sides[0].receive_data(sides[1].data_to_send()) == [Close(code, reason)]
    assert [side.phase for side in sides] == [Phase.CLOSED] * 2
    assert [side.close_code for side in sides] == [code or 1005] * 2
    assert [side.closed_by for side in sides] == [ClosedBy.US, ClosedBy.PEER]


@given(agreement=agreements, config=configs, payloads=st.lists(binaries, max_size=6))
def test_what_is_compressed_is_inflated_under_any_agreement(
    agreement: deflate.Agreement, config: deflate.DeflateConfig, payloads: list[bytes]
) -> None:
    for writer, reader in ((Role.SERVER, Role.CLIENT), (Role.CLIENT, Role.SERVER)):
        compressing, inflating = Deflate(agreement, writer, config), Deflate(agreement, reader, config)
        for payload in payloads:
            data = compressing.compress(payload)
            if data is not None:
                assert inflating.inflate(data, True, len(payload)) == payload


@given(agreement=agreements, fragments=st.lists(st.binary(max_size=60), min_size=1), limit=st.integers(1, 2000))
@settings(max_examples=some(60))
def test_inflating_noise_raises_typed_errors_only_and_keeps_the_limit(
    agreement: deflate.Agreement, fragments: list[bytes], limit: int
) -> None:
    inflating = Deflate(agreement, Role.SERVER, deflate.DeflateConfig())
    left = limit
    raised: ProtocolError | None = None
    try:
        for number, fragment in enumerate(fragments, 1):
            left -= len(inflating.inflate(fragment, number == len(fragments), left))
    except ProtocolError as error:
        raised = error
    assert left >= 0
    assert raised is None or raised.close_code in (1007, 1009)


heads = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=50).map(lambda rest: b"GET / HTTP/1.1\r\n" + rest + b"\r\n\r\n"),
    st.binary(max_size=50).map(lambda rest: b"HTTP/1.1 101 x\r\n" + rest + b"\r\n\r\n"),
)


def refusal(shake: Callable[[], object]) -> HandshakeError | None:
    """How it is refused, if it is; anything but a HandshakeError gets through and fails the test."""
    try:
        shake()
    except HandshakeError as error:
        return error
    return None


def shake_as_server(data: bytes) -> None:
    request = handshake.parse_request(data)
    if request is not None:
        handshake.validate(request)


def shake_as_client(data: bytes) -> None:
    response = handshake.parse_response(data)
    if response is not None:
        handshake.check_response(response, b"key")


@given(data=heads)
@settings(max_examples=some(60))
def test_any_head_is_a_handshake_a_refusal_or_a_wish_for_more(data: bytes) -> None:
    refused = refusal(lambda: shake_as_server(data))
    if refused is not None:
        assert refused.status in (400, 405, 414, 426, 431, 505)
        assert (
            handshake.parse_response(handshake.refuse_response(refused.status, refused.headers, refused.body))
            is not None
        )
    refused = refusal(lambda: shake_as_client(data))
    if refused is not None:
        assert refused.status == 0 or 100 <= refused.status < 1000


@example(value=b"x\n")  # `$` matches before a last line feed, and no further: such a value was read for ever
@given(value=st.one_of(st.binary(max_size=60), st.text('permessage-deflate; ="\\,x19', max_size=60).map(str.encode)))
def test_any_extension_header_is_answered_or_refused(value: bytes) -> None:
    refused = refusal(lambda: deflate.negotiate([value], deflate.DeflateConfig()))
    assert refused is None or refused.status == 400
