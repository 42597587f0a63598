"""Redis's protocol, cut up wherever the network cuts it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import BusyLoadingError, InvalidResponse, NoScriptError, ResponseError

from antiphon.hub.backends.redis.wire import Replies, Reply, pack

bulks = st.binary(max_size=40)
numbers = st.integers(-(2**63), 2**63 - 1)
replies = st.recursive(bulks | numbers | st.none(), lambda inner: st.lists(inner, max_size=4), max_leaves=8)


def encoded(reply: Reply) -> bytes:
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"*%d\r\n" % len(reply) + b"".join(map(encoded, reply))


@given(st.lists(replies, max_size=5), st.lists(st.integers(1, 9), min_size=1))
def test_replies_come_out_as_they_went_in_however_they_are_cut(sent: list[Reply], steps: list[int]) -> None:
    stream, splitter, found = b"".join(map(encoded, sent)), Replies(), []
    at = turn = 0
    while at < len(stream):
        step = steps[turn % len(steps)]
        found += splitter.feed(stream[at : at + step])
        at, turn = at + step, turn + 1
    assert found == sent


def test_a_large_reply_in_many_parts_costs_no_more_than_its_size() -> None:
    stream, splitter, found = encoded([b"message", b"t", b"x" * (8 << 20)]), Replies(), []
    for at in range(0, len(stream), 1 << 14):
        found += splitter.feed(stream[at : at + (1 << 14)])
    assert [len(part) for part in found[0]] == [7, 1, 8 << 20]


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        (b"-ERR no such thing\r\n", ResponseError, "no such thing"),
        (b"-NOSCRIPT No matching script\r\n", NoScriptError, "NOSCRIPT No matching script"),
        (b"-LOADING Redis is loading\r\n", BusyLoadingError, "LOADING Redis is loading"),
        (b"-WRONGTYPE of value\r\n", ResponseError, "WRONGTYPE of value"),
    ],
)
def test_an_error_is_a_reply_among_others(line: bytes, kind: type[Exception], text: str) -> None:
    error, behind = Replies().feed(line + b"+OK\r\n")
    assert (type(error), str(error), behind) == (kind, text, b"OK")


def test_what_is_no_reply_is_an_error() -> None:
    with pytest.raises(InvalidResponse, match="expected a reply"):
        Replies().feed(b"HTTP/1.1 400 Bad Request\r\n")


def test_commands_are_packed_as_the_server_reads_them() -> None:
    assert pack(("SET", b"\x00", 7, "ü")) == b"*4\r\n$3\r\nSET\r\n$1\r\n\x00\r\n$1\r\n7\r\n$2\r\n\xc3\xbc\r\n"
