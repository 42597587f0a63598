"""A connection behind its handshake, both sides: RFC 6455 §5.4, §5.5, §7."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from antiphon.types import ClosedBy
from antiphon.wire import LocalError, Phase, Role, Violation, WireConfig, WireConnection, deflate
from antiphon.wire.frames import Close, Event, Ping, Pong
from tests.wire import raw


def pair(config: deflate.DeflateConfig | None = None) -> tuple[WireConnection, WireConnection]:
    if config is None:
        return WireConnection(Role.SERVER), WireConnection(Role.CLIENT)
    ours, value = deflate.negotiate([deflate.offer(config)], config)
    assert value is not None
    return WireConnection(Role.SERVER, deflate=ours), WireConnection(
        Role.CLIENT, deflate=deflate.accept([value], config)
    )


def carry(sender: WireConnection, receiver: WireConnection) -> list[Event]:
    return receiver.receive_data(sender.data_to_send())


@pytest.mark.parametrize(
    "config",
    [
        None,
        deflate.DeflateConfig(),
        deflate.DeflateConfig(server_no_context_takeover=False, client_no_context_takeover=False, threshold=0),
        deflate.DeflateConfig(server_max_window_bits=8, client_max_window_bits=9),
    ],
)
def test_messages_go_both_ways(config: deflate.DeflateConfig | None) -> None:
    server, client = pair(config)
    for sender, receiver in ((server, client), (client, server)):
        sender.send_text("Grüße " * 100)
        sender.send_bytes(b"\x00\xff" * 1000)
        sender.send_text("")
        sender.send_fragments(["a", "", "😀"])
        sender.send_fragments([b"a", b"b"])
        assert carry(sender, receiver) == [
            "Grüße " * 100, b"\x00\xff" * 1000, "", "a😀", b"ab"
        ]  # fmt: skip
        assert sender.data_to_send() == b""


def test_a_client_masks_each_frame_afresh_and_a_server_none() -> None:
    keys = iter([b"\x01\x02\x03\x04", b"\x05\x06\x07\x08"])
    client = WireConnection(Role.CLIENT, random=lambda size: next(keys))
    client.send_bytes(bytes(4))
    client.send_bytes(bytes(4))
    assert client.data_to_send() == b"\x82\x84\x01\x02\x03\x04\x01\x02\x03\x04\x82\x84\x05\x06\x07\x08\x05\x06\x07\x08"
    server = WireConnection(Role.SERVER)
    server.send_bytes(b"abcd")
    assert server.data_to_send() == b"\x82\x04abcd"


def test_a_ping_is_answered_with_its_payload() -> None:
    server, client = pair()
    client.send_ping(b"are you there")
    assert carry(client, server) == [Ping(b"are you there")]
    assert carry(server, client) == [Pong(b"are you there")]
    assert server.data_to_send() == client.data_to_send() == b""
    client.send_pong(b"unasked")
    assert carry(client, server) == [Pong(b"unasked")]
    assert server.data_to_send() == b""


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999, None])
def test_the_closing_handshake_is_answered_and_tells_both_who_began(code: int | None) -> None:
    for first, second in (pair(), pair()[::-1]):
        first.send_close(code, "bye" if code else "")
        assert first.wants_deadline
        assert carry(first, second) == [Close(code, "bye" if code else "")]
        assert second.phase is Phase.CLOSED
        assert carry(second, first) == [Close(code, "bye" if code else "")]
        assert first.phase is Phase.CLOSED
        assert (first.close_code, first.closed_by) == (code or 1005, ClosedBy.US)
        assert (second.close_code, second.closed_by) == (code or 1005, ClosedBy.PEER)
        assert first.close_reason == second.close_reason == ("bye" if code else "")


def test_the_server_closes_the_tcp_connection_first() -> None:
    server, client = pair()
    client.send_close()
    carry(client, server)
    carry(server, client)
    assert server.should_close_transport
    assert not client.should_close_transport
    assert client.wants_deadline
    client.receive_eof()
    assert client.should_close_transport
    assert not client.wants_deadline


def test_closing_at_the_same_time_is_one_closing_handshake() -> None:
    server, client = pair()
    server.send_close(1012, "restart")
    client.send_close(1000, "done")
    to_client, to_server = server.data_to_send(), client.data_to_send()
    assert server.receive_data(to_server) == [Close(1000, "done")]
    assert client.receive_data(to_client) == [Close(1012, "restart")]
    assert server.data_to_send() == client.data_to_send() == b""
    assert (server.close_code, server.closed_by) == (1012, ClosedBy.US)
    assert (client.close_code, client.closed_by) == (1000, ClosedBy.US)


def test_messages_still_arrive_while_closing_but_no_ping_is_answered() -> None:
    server, client = pair()
    server.send_close()
    server.data_to_send()
    client.send_text("crossing")
    client.send_ping()
    assert carry(client, server) == ["crossing", Ping()]
    assert server.data_to_send() == b""


SENDS: dict[str, Callable[[WireConnection], None]] = {
    "text": lambda connection: connection.send_text("x"),
    "bytes": lambda connection: connection.send_bytes(b"x"),
    "fragments": lambda connection: connection.send_fragments(["x"]),
    "ping": lambda connection: connection.send_ping(),
    "pong": lambda connection: connection.send_pong(),
    "close": lambda connection: connection.send_close(),
}


@pytest.mark.parametrize("what", SENDS)
@pytest.mark.parametrize("role", Role)
def test_nothing_is_sent_after_a_close_frame(role: Role, what: str) -> None:
    connection = WireConnection(role)
    connection.send_close()
    with pytest.raises(LocalError, match=r"while the connection is open, but it is closing"):
        SENDS[what](connection)
    connection.receive_eof()
    with pytest.raises(LocalError, match=r"while the connection is open, but it is gone"):
        SENDS[what](connection)


def test_nothing_received_after_a_close_frame_counts() -> None:
    server = WireConnection(Role.SERVER)
    assert server.receive_data(raw.frame(8, b"\x03\xe8") + raw.text("late")) == [Close(1000)]
    assert server.receive_data(raw.text("later") + b"\xff" * 20) == []
    assert server.error is None


@pytest.mark.parametrize(
    ("data", "violation"),
    [
        (raw.frame(3), Violation.RESERVED_OPCODE),
        (raw.frame(1, b"\xff"), Violation.TEXT),
        (raw.frame(2, b"x" * 200), Violation.TOO_BIG),
    ],
)
def test_a_violation_is_answered_with_its_code_behind_what_came_before(data: bytes, violation: Violation) -> None:
    server = WireConnection(Role.SERVER, WireConfig(max_message_size=100))
    for event in server.events(raw.text("before") + data + raw.text("after")):
        assert event == "before"
        server.send_text("echo")
    reason = violation.reason.encode()
    close = raw.frame(8, violation.close_code.to_bytes(2, "big") + reason, masked=False)
    assert server.data_to_send() == raw.text("echo", masked=False) + close
    assert (server.close_code, server.closed_by) == (violation.close_code, ClosedBy.US)
    assert server.error is not None
    assert server.error.violation is violation
    assert server.should_close_transport


def test_a_violation_while_closing_ends_the_wait() -> None:
    server = WireConnection(Role.SERVER)
    server.send_close(1001)
    server.data_to_send()
    assert server.receive_data(raw.frame(3)) == []
    assert server.data_to_send() == b""
    assert server.phase is Phase.CLOSED
    assert server.should_close_transport
    assert server.close_code == 1001


def test_a_connection_lost_without_a_close_frame_is_1006() -> None:
    for connection in pair():
        connection.receive_eof()
        assert (connection.close_code, connection.closed_by) == (1006, ClosedBy.NOBODY)
        assert connection.phase is Phase.GONE
        assert connection.should_close_transport
        connection.receive_eof()
        assert connection.close_code == 1006


def test_a_connection_lost_after_our_close_keeps_our_code() -> None:
    server = WireConnection(Role.SERVER)
    server.send_close(1012)
    server.receive_eof()
    assert (server.close_code, server.closed_by) == (1012, ClosedBy.US)


def test_a_close_that_may_not_be_sent_changes_nothing() -> None:
    connection = WireConnection(Role.SERVER)
    with pytest.raises(ValueError, match="1006"):
        connection.send_close(1006)
    assert connection.phase is Phase.OPEN
    assert connection.close_code is None
    assert connection.data_to_send() == b""


def test_a_message_has_at_least_one_fragment() -> None:
    with pytest.raises(ValueError, match="at least one"):
        WireConnection(Role.SERVER).send_fragments([])


def test_a_ping_longer_than_a_control_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="125"):
        WireConnection(Role.SERVER).send_ping(b"x" * 126)
