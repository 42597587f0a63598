"""`Rate`: the amount of something per time, its owner, and the fate of an excess.

Owns the counts of one rate by users, addresses and topics. Its count of a connection lies in that connection's scope.
Knows nothing of routes, or of receiving messages.
"""

from __future__ import annotations

import asyncio
import enum
import math
import time
from dataclasses import dataclass, field
from typing import ClassVar, Final

import anyio
from starlette.requests import HTTPConnection

from antiphon.connection import RawWebSocket
from antiphon.connection.paced import pause, size_of
from antiphon.exceptions import HTTPException, WebSocketDisconnect, WebSocketException
from antiphon.status import WS_1008_POLICY_VIOLATION, WS_3008_TIMEOUT
from antiphon.types import Scope

from .allowances import ALLOWED, Allowance, CommonAllowance, Per
from .buckets import Buckets, Measure
from .spelling import read_burst, read_rate

__all__ = ["ADDRESS", "CLOSE", "CONNECTION", "REPLY", "TOPIC", "USER", "WAIT", "OverRate", "Rate", "TooFast"]

RATES_KEY: Final = "antiphon.rates"
"""Key in the scope: this connection's count for each rate with a bucket per connection."""

TOO_FAST: Final = "too fast"
"""Reason of the Close, and detail of the 429."""


class OverRate(enum.Enum):
    """The treatment of a message that is too much.

    For example:

        app = App(rates=[Rate("20/second", over=OverRate.CLOSE)])  # or `CLOSE` alone
    """

    WAIT = "wait"
    """It waits until it is not, and nothing is read meanwhile: the peer is slowed down (backpressure). Close 3008 where
    that takes longer than `longest_wait`."""
    REPLY = "reply"
    """On channels: error `rate_limited` with `retry_after`, counted towards `invalid_limit`."""
    CLOSE = "close"
    """Close 1008 "too fast"."""


CONNECTION: Final = Per.CONNECTION
USER: Final = Per.USER
ADDRESS: Final = Per.ADDRESS
TOPIC: Final = Per.TOPIC
WAIT: Final = OverRate.WAIT
REPLY: Final = OverRate.REPLY
CLOSE: Final = OverRate.CLOSE


class TooFast(WebSocketException):
    """`Rate.spend` says that it is too much. On a channel error `rate_limited`. Uncaught elsewhere Close 1008.

    `retry_after` is in seconds.

        posting = Rate("2/second", over=REPLY)
        try:
            await posting.spend(websocket)
        except TooFast as error:
            await websocket.send_text(f"wait {error.retry_after:.0f} s")
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(WS_1008_POLICY_VIOLATION, TOO_FAST)
        self.retry_after: float = retry_after


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Rate:
    """So many messages, or bytes of messages, in a second, minute, hour or day: a token bucket.

        Rate("20/second", burst=40)
        Rate("1 MiB/second", burst="4 MiB", over=CLOSE)
        Rate("5/minute", per=USER, over=REPLY)

    `limit` is how quickly the bucket fills. `burst` is the size of a full one, by default the amount that `limit` lets
    through in its unit of time. A message larger than that in bytes is always too much. `per` says who shares one.
    `over` is the policy for a message that is too much, and a wait longer than `longest_wait` seconds is Close 3008.
    `remembered` bounds the users, addresses or topics that are kept in mind. Full buckets are not, and the one longest
    unheard of goes first.

    One object is one budget: used in two places, both spend from it. It counts in this process: with four workers a
    user has four buckets. Raises ValueError and TypeError for a misspelt `limit` and for other bad arguments.
    """

    is_called_as_dependency: ClassVar[bool] = True
    """Its objects are the dependencies. The class itself checks nobody."""

    limit: str
    burst: float | str | None = field(default=None, kw_only=True)
    per: Per = field(default=Per.CONNECTION, kw_only=True)
    over: OverRate = field(default=OverRate.WAIT, kw_only=True)
    longest_wait: float = field(default=10.0, kw_only=True)
    """Half of the time for which a server bears an endpoint that reads nothing, while its peer has finished."""
    remembered: int = field(default=100_000, kw_only=True)
    """Some ten megabytes, if all are heard of before their buckets are full."""
    in_bytes: bool = field(init=False)
    """Whether it counts bytes."""
    measure: Measure = field(init=False, repr=False)
    _buckets: Buckets | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError, TypeError."""
        if not isinstance(self.per, Per) or self.per not in ALLOWED:
            raise ValueError(
                f"per is one of CONNECTION, USER, ADDRESS, and TOPIC, alone or with one of them (USER | TOPIC); "
                f"got {self.per!r}"
            )
        if not isinstance(self.over, OverRate):
            raise ValueError(f"over is WAIT, REPLY or CLOSE; got {self.over!r}")
        longest = self.longest_wait
        if isinstance(longest, bool) or not isinstance(longest, int | float) or not 0 < longest < math.inf:
            raise ValueError(f"longest_wait is a number of seconds, more than 0; got {longest!r}")
        if type(self.remembered) is not int or self.remembered < 2:
            raise ValueError(f"remembered is a number of users or addresses, 2 or more; got {self.remembered!r}")
        spelled = read_rate(self.limit)
        burst = read_burst(self.burst, spelled)
        measure = Measure(spelled.amount, spelled.seconds, burst, longest)
        kept = None if self.per is Per.CONNECTION else Buckets(measure, self.remembered)
        for name, value in (("in_bytes", spelled.in_bytes), ("measure", measure), ("_buckets", kept)):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """As it was written, without defaults."""
        said = [repr(self.limit)]
        if self.burst is not None:
            said.append(f"burst={self.burst!r}")
        if self.per is not Per.CONNECTION:
            said.append(f"per={self._per_name(' | ')}")
        if self.over is not OverRate.WAIT:
            said.append(f"over={self.over.name}")
        return f"Rate({', '.join(said)})"

    def _per_name(self, between: str) -> str:
        return between.join(one.name for one in self.per if one.name)

    def __str__(self) -> str:
        """As a log tells of it."""
        burst = "" if self.burst is None else f" with a burst of {self.burst}"
        return f"{self.limit}{burst} per {self._per_name(' and ').lower()}"

    # By hand

    def allow(self, connection: HTTPConnection, *, cost: int | None = None, topic: str | None = None) -> bool:
        """Whether one message more may pass, which is counted then. For code that has its own way to say no.

        `connection` is a `WebSocket` or a `Request`. `cost` counts other than 1: the size in bytes, for a rate of
        bytes. `topic` is named for a rate per topic, and for no other. Raises TypeError where one of them is missing or
        too much, and for a rate per connection on a request, which is a connection of its own.
        """
        return self._lack(connection, cost, topic) <= 0

    async def wait(self, connection: HTTPConnection, *, cost: int | None = None, topic: str | None = None) -> None:
        """Wait until one message more may pass, and count it. Arguments and errors as `allow`.

        Raises WebSocketException 3008, for a request HTTPException 429, where that takes longer than `longest_wait`.
        `WebSocketDisconnect` where the server closes the connection meanwhile.
        """
        share, tokens = self._share(connection, cost, topic)
        now = now_of()
        lack = share.take(now, tokens)
        if lack <= 0:
            return
        if lack > self.longest_wait:
            raise _refusal(connection, lack, WS_3008_TIMEOUT)
        share.spend(now, tokens)
        if not isinstance(connection, RawWebSocket):
            await anyio.sleep(lack)
        elif not await pause(connection, lack):
            closed = connection.closed
            raise WebSocketDisconnect(*((closed.code, closed.reason) if closed is not None else (1006,)))

    async def spend(self, connection: HTTPConnection, *, cost: int | None = None, topic: str | None = None) -> None:
        """Count one message more, and apply `over` to one that is too much. Arguments and errors as `allow`.

        WAIT waits, as `wait`. REPLY raises `TooFast`, which a channel answers with error `rate_limited`, and CLOSE
        WebSocketException 1008. For a request both are HTTPException 429 with Retry-After.
        """
        if self.over is OverRate.WAIT:
            await self.wait(connection, cost=cost, topic=topic)
        elif (lack := self._lack(connection, cost, topic)) > 0:
            if self.over is OverRate.REPLY and _is_websocket(connection):
                raise TooFast(lack)
            raise _refusal(connection, lack, WS_1008_POLICY_VIOLATION)

    @property
    def misuse_as_dependency(self) -> TypeError | None:
        """The fault of `Depends(rate)`, for registration: a rate per connection, per topic or of bytes."""
        if not self.in_bytes and self.per in (Per.USER, Per.ADDRESS):
            return None
        return TypeError(
            f"Depends(rate) counts requests, per USER or ADDRESS; not {self}. For messages: rates=[...] of the route"
        )

    async def __call__(self, connection: HTTPConnection) -> None:
        """As a dependency, `Depends(rate)`: counts a request, or a handshake. HTTP 429 with Retry-After for too many.

        Raises HTTPException. TypeError for a rate per connection, per topic or of bytes.
        """
        if (misuse := self.misuse_as_dependency) is not None:
            raise misuse
        if (lack := self._lack(connection, None, None)) > 0:
            raise too_many(lack)

    def _lack(self, connection: HTTPConnection, cost: int | None, topic: str | None) -> float:
        """Seconds until it may pass. Where it may, it is counted."""
        share, tokens = self._share(connection, cost, topic)
        return share.take(now_of(), tokens)

    def _share(self, connection: HTTPConnection, cost: int | None, topic: str | None) -> tuple[Allowance, float]:
        if cost is None:
            if self.in_bytes:
                raise TypeError(f"{self} counts bytes: say how many, cost=len(data)")
            cost = 1
        elif isinstance(cost, bool) or not isinstance(cost, int) or cost < 0:
            raise TypeError(f"cost is a number of messages or bytes, 0 or more; got {cost!r}")
        if (topic is not None) != (Per.TOPIC in self.per):
            raise TypeError(f"a rate per topic, and no other, is asked with topic=; {self} was asked with {topic!r}")
        if Per.CONNECTION in self.per and not _is_websocket(connection):
            raise TypeError(f"{self}: a request is a connection of its own; count per ADDRESS or USER")
        return self.share(connection.scope, topic), cost

    def cost_of(self, data: str | bytes) -> int:
        """Tokens for a message: one, or its size in UTF-8."""
        return size_of(data) if self.in_bytes else 1

    def share(self, scope: Scope, topic: str | None = None) -> Allowance:
        """The part of it that this connection may spend."""
        if self._buckets is not None:
            return CommonAllowance(self._buckets, self.per, scope, topic)
        shares: dict[Rate, Allowance] = scope.setdefault(RATES_KEY, {})
        own = shares.get(self)
        if own is None:
            own = shares[self] = Allowance(self.measure)
        return own


def too_many(lack: float) -> HTTPException:
    """HTTP 429 (RFC 6585 §4) with the seconds after which one may pass."""
    return HTTPException(429, TOO_FAST, {"Retry-After": str(max(1, math.ceil(lack)))})


def _refusal(connection: HTTPConnection, lack: float, code: int) -> Exception:
    return WebSocketException(code, TOO_FAST) if _is_websocket(connection) else too_many(lack)


def _is_websocket(connection: HTTPConnection) -> bool:
    """Ours, Starlette's or FastAPI's."""
    return bool(connection.scope["type"] == "websocket")


def now_of() -> float:
    """The loop's time, as connections take it; in a thread without a loop the clock behind it."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
