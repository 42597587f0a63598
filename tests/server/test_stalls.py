"""Verdicts on peers that are slow, silent or gone: the clock is a number, and nobody is called."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from antiphon.events import KeepaliveTimeout, SendTimeout
from antiphon.server.keepalive import Keepalive, PingTimes, ping_times
from antiphon.server.sockets import PeerState
from antiphon.server.stalls import GONE_UNREAD, InboxStall, OutboxStall
from antiphon.server.verdict import Verdict

TIMES = PingTimes(after=20.0, timeout=10.0, answer=9.0)


@dataclass
class Line:
    handed: bool = False
    stopped: bool = False
    was_paused: bool = False
    received: int = 0
    parser: Any = None


def asked(keepalive: Keepalive, line: Line) -> bytes:
    """The payload of the ping that is due."""
    verdict = keepalive.check(keepalive.due, line, "/")
    assert verdict.frame is not None
    return verdict.frame[2:]


def test_a_peer_that_takes_something_now_and_then_is_not_stalled() -> None:
    stall = OutboxStall(0.0, 4.0)
    for second in range(1, 100):
        verdict = stall.check(float(second), second // 3, "/", 10)
        assert verdict.ending is None
        assert verdict.due is not None
        assert second < verdict.due <= second + 1


def test_a_peer_that_takes_nothing_for_the_timeout_is_given_up() -> None:
    stall = OutboxStall(0.0, 4.0)
    assert stall.check(1.0, 7, "/room", 10) == Verdict(2.0)
    assert stall.check(3.5, 7, "/room", 10) == Verdict(4.0)
    ending = stall.check(4.0, 7, "/room", 10).ending
    assert ending is not None
    assert ending.event == SendTimeout(path="/room", buffered=10)


def test_a_peer_that_is_gone_while_the_app_does_not_read_is_given_up_at_once() -> None:
    assert InboxStall(0.0, 100.0, 5).check(1.0, PeerState.GONE, 5).ending is GONE_UNREAD


def test_a_peer_that_has_finished_waits_for_the_app_as_long_as_that_reads() -> None:
    stall = InboxStall(0.0, 4.0, 100)
    for second in range(1, 50):
        assert stall.check(float(second), PeerState.FINISHED, 100 - second) == Verdict(second + 1.0)
    assert stall.check(52.0, PeerState.FINISHED, 51).due == 53.0
    assert stall.check(53.0, PeerState.FINISHED, 51).ending is GONE_UNREAD


def test_a_peer_that_is_there_may_wait_for_the_app_for_ever() -> None:
    stall = InboxStall(0.0, 4.0, 100)
    assert all(stall.check(float(second), PeerState.THERE, 100).ending is None for second in range(1, 50))


def test_a_pong_in_time_tells_how_long_it_took_and_asks_for_the_next_ping() -> None:
    keepalive, line = Keepalive(TIMES, 0.0), Line()
    payload = asked(keepalive, line)
    assert keepalive.note_pong(payload, 20.5) is False
    assert keepalive.rtt == 0.5
    assert keepalive.check(30.0, line, "/") == Verdict(40.0)
    assert asked(keepalive, line) != payload


def test_a_missing_pong_is_the_peers_fault_with_the_event_that_says_so() -> None:
    keepalive, line = Keepalive(TIMES, 0.0), Line()
    asked(keepalive, line)
    ending = keepalive.check(29.0, line, "/room").ending
    assert ending is not None
    assert ending.event == KeepaliveTimeout(path="/room", waited=9.0)


def test_a_missing_pong_is_excused_for_one_who_was_not_read_or_is_amid_a_long_frame() -> None:
    for line in (Line(was_paused=True), Line(stopped=True), Line(handed=True)):
        keepalive = Keepalive(TIMES, 0.0)
        asked(keepalive, Line())
        assert keepalive.check(29.0, line, "/") == Verdict(39.0)
    keepalive, line = Keepalive(TIMES, 0.0), Line(parser=SimpleNamespace(buffered=1))
    asked(keepalive, line)
    line.received += 1
    assert keepalive.check(29.0, line, "/") == Verdict(39.0)
    assert keepalive.check(39.0, line, "/").ending is not None


def test_nobody_is_asked_while_the_answer_could_not_come() -> None:
    for line in (Line(stopped=True), Line(handed=True)):
        assert Keepalive(TIMES, 0.0).check(20.0, line, "/") == Verdict(40.0)


def test_a_pong_that_nobody_has_asked_for_is_none() -> None:
    keepalive = Keepalive(TIMES, 0.0)
    assert keepalive.note_pong(bytes(4), 1.0) is False
    assert keepalive.rtt is None


def test_without_an_interval_there_are_no_pings_and_without_a_timeout_no_pong_is_missed() -> None:
    assert ping_times(None, 10.0, 0.5) is None
    times = ping_times(20.0, None, 0.5)
    assert times is not None
    keepalive, line = Keepalive(times, 0.0), Line()
    asked(keepalive, line)
    assert keepalive.check(1000.0, line, "/").ending is None
