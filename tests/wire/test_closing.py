"""The closing handshake as a table: every pair of phase and happening, and that both sides of it meet."""

from __future__ import annotations

import itertools

import pytest

from antiphon.types import ClosedBy
from antiphon.wire import LocalError, Phase, closing
from antiphon.wire.closing import TRANSITIONS, Answer, ClosingStep, End, Happening, Move, Tcp
from antiphon.wire.frames import Close

BYE = (1000).to_bytes(2, "big") + b"bye"

EXPECTED = {
    (Phase.OPEN, Happening.CLOSE_SENT): (Phase.CLOSING, Answer.OURS, Tcp.KEEP),
    (Phase.OPEN, Happening.CLOSE_RECEIVED): (Phase.CLOSED, Answer.ECHO, Tcp.END),
    (Phase.OPEN, Happening.FAILURE): (Phase.CLOSED, Answer.OURS, Tcp.FAIL),
    (Phase.OPEN, Happening.EOF): (Phase.GONE, Answer.NONE, Tcp.ENDED),
    (Phase.CLOSING, Happening.CLOSE_RECEIVED): (Phase.CLOSED, Answer.NONE, Tcp.END),
    (Phase.CLOSING, Happening.FAILURE): (Phase.CLOSED, Answer.NONE, Tcp.FAIL),
    (Phase.CLOSING, Happening.EOF): (Phase.GONE, Answer.NONE, Tcp.ENDED),
    (Phase.CLOSED, Happening.EOF): (Phase.GONE, Answer.NONE, Tcp.ENDED),
    (Phase.GONE, Happening.EOF): (Phase.GONE, Answer.NONE, Tcp.ENDED),
}


@pytest.mark.parametrize(("phase", "happening"), list(itertools.product(Phase, Happening)))
def test_every_pair_of_phase_and_happening_does_what_is_written(phase: Phase, happening: Happening) -> None:
    expected = EXPECTED.get((phase, happening))
    assert TRANSITIONS[phase].get(happening) == (None if expected is None else Move(*expected))


def test_phases_only_go_on() -> None:
    for phase, moves in TRANSITIONS.items():
        for move in moves.values():
            assert move.phase > phase or move.phase is Phase.GONE


def test_our_close_waits_for_the_peers() -> None:
    expected = ClosingStep(Phase.CLOSING, BYE, End(1000, "bye", ClosedBy.US), Tcp.KEEP)
    assert closing.close(Phase.OPEN, 1000, "bye") == expected


def test_a_close_without_a_code_is_empty_on_the_wire_and_noted_as_1005() -> None:
    assert closing.close(Phase.OPEN, None, "") == ClosingStep(Phase.CLOSING, b"", End(1005, "", ClosedBy.US), Tcp.KEEP)
    assert closing.closed_by_peer(Phase.OPEN, Close()) == ClosingStep(
        Phase.CLOSED, b"", End(1005, "", ClosedBy.PEER), Tcp.END
    )


def test_the_peers_close_is_answered_with_its_code_and_reason() -> None:
    expected = ClosingStep(Phase.CLOSED, BYE, End(1000, "bye", ClosedBy.PEER), Tcp.END)
    assert closing.closed_by_peer(Phase.OPEN, Close(1000, "bye")) == expected


def test_behind_our_close_no_second_one_goes_out_and_our_end_counts() -> None:
    for step in (closing.closed_by_peer(Phase.CLOSING, Close(1000, "bye")), closing.failed(Phase.CLOSING, 1002, "x")):
        assert (step.phase, step.payload, step.end) == (Phase.CLOSED, None, None)
    assert closing.eof(Phase.CLOSING) == ClosingStep(Phase.GONE, None, None, Tcp.ENDED)


def test_a_failure_says_why_and_ends_tcp() -> None:
    payload = (1009).to_bytes(2, "big") + b"message too big"
    expected = ClosingStep(Phase.CLOSED, payload, End(1009, "message too big", ClosedBy.US), Tcp.FAIL)
    assert closing.failed(Phase.OPEN, 1009, "message too big") == expected


def test_a_connection_that_ends_without_a_close_is_1006() -> None:
    assert closing.eof(Phase.OPEN) == ClosingStep(Phase.GONE, None, End(1006, "", ClosedBy.NOBODY), Tcp.ENDED)


@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.CLOSED, Phase.GONE])
def test_a_second_close_of_ours_is_refused_with_the_phase(phase: Phase) -> None:
    with pytest.raises(LocalError, match=f"it is {phase.name.lower()}"):
        closing.close(phase, 1000, "")


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (1006, ""), (999, ""), (5000, ""), (None, "why")])
def test_what_may_not_go_on_the_wire_is_refused(code: int | None, reason: str) -> None:
    with pytest.raises(ValueError, match=r"close code|close reason"):
        closing.close(Phase.OPEN, code, reason)
