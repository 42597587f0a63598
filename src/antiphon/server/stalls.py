"""Peers that take nothing, and peers that may have gone while they are not read: each case an object while it lasts.

These call nobody: they take observations and the time, and return verdicts.
"""

from __future__ import annotations

import logging
from typing import Final

from antiphon.events import SendTimeout

from .sockets import PeerState
from .verdict import Abort, Verdict

_CHECKS: Final = 4  # so often is it looked at per `send_timeout`
_LONGEST_UNSEEN: Final = 1.0  # seconds until the end of a peer that we do not read from is noticed

GONE_UNREAD: Final = Abort("the peer is gone, and the app does not read", None, logging.DEBUG)


def send_timed_out(path: str, buffered: int) -> Abort:
    """The peer has taken nothing for `send_timeout`, or a sender has waited that long."""
    return Abort("the peer does not read", SendTimeout(path=path, buffered=buffered))


class OutboxStall:
    """The transport holds bytes: does the peer take something from time to time?"""

    __slots__ = ("_since", "_taken", "_timeout", "due", "pong")

    def __init__(self, now: float, timeout: float) -> None:
        self.due: float = now + timeout / _CHECKS
        """When to look again."""
        self.pong: bytes | None = None
        """The payload of the latest ping, when the outbox was full (RFC 6455 §5.5.3)."""
        self._timeout: Final = timeout
        self._since = now
        self._taken: int | None = None  # bytes the peer had taken when we looked last

    def check(self, now: float, taken: int, path: str, buffered: int) -> Verdict:
        """The peer has taken so many bytes of all, and so many wait."""
        timeout = self._timeout
        if taken != self._taken:
            if self._taken is not None:
                self._since = now
            self._taken = taken
        elif now - self._since >= timeout:
            return Verdict(ending=send_timed_out(path, buffered))
        self.due = min(now + timeout / _CHECKS, max(self._since + timeout, now))
        return Verdict(self.due)


class InboxStall:
    """The app does not read, so neither do we: the loop does not report events of the socket meanwhile."""

    __slots__ = ("_since", "_timeout", "_unread", "due")

    def __init__(self, now: float, timeout: float, unread: int) -> None:
        self._timeout: Final = timeout
        self._since = now
        self._unread = unread
        self.due: float = self._next(now)
        """When to look again."""

    def check(self, now: float, peer: PeerState, unread: int) -> Verdict:
        """That became of the peer, and so many bytes wait for the app.

        A peer that is gone is, for us as well. One that has only finished has until the app reads nothing for
        `send_timeout`.
        """
        if peer is PeerState.THERE or unread != self._unread:
            self._since = now
            self._unread = unread
        if peer is PeerState.GONE or now - self._since >= self._timeout:
            return Verdict(ending=GONE_UNREAD)
        self.due = self._next(now)
        return Verdict(self.due)

    def _next(self, now: float) -> float:
        return now + min(_LONGEST_UNSEEN, self._timeout / _CHECKS)
