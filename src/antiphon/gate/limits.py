"""The rates of a route, from the app, its routers and the route itself, and how a connection keeps to them.

Owns the log lines about clients that are too fast. Declarations are checked here. `rates.py` does the counting.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from antiphon.connection import WebSocket
from antiphon.connection.paced import Excess, PacedWebSocket, Passes
from antiphon.events import Refusal
from antiphon.exceptions import HTTPException, RegistrationError
from antiphon.shown import shown
from antiphon.status import WS_1008_POLICY_VIOLATION, WS_3008_TIMEOUT
from antiphon.types import Receive, Scope, Send

from .allowances import Allowance, Per
from .backend import Spending
from .rates import TOO_FAST, OverRate, Rate, now_of, too_many
from .refusals import note_refusal

logger: Final = logging.getLogger("antiphon")

TELL_EVERY: Final = 60.0
"""Seconds between two log lines of one rate at one path: no client may fill a disk."""


class Limits:
    """Rates for messages (`rates`) and for handshakes (`connects`), as the app, a router or a route was given them.

    Raises TypeError for another type, RegistrationError for one that cannot work there.
    """

    __slots__ = ("_told", "connects", "rates", "replying", "unanswered")

    def __init__(self, rates: Iterable[Rate] | None = None, connects: Rate | Iterable[Rate] | None = None) -> None:
        self.rates: tuple[Rate, ...] = tuple(dict.fromkeys(_rates(rates, "rates")))
        self.connects: tuple[Rate, ...] = tuple(dict.fromkeys(_rates(connects, "connects")))
        self.replying: tuple[Rate, ...] = tuple(rate for rate in self.rates if rate.over is OverRate.REPLY)
        """Those that a channel answers for;"""
        self.unanswered: Limits = self
        """these without them."""
        if self.replying:
            self.unanswered = Limits([rate for rate in self.rates if rate not in self.replying], self.connects)
        self._told: dict[tuple[Rate, str, str], float] = {}
        for rate in self.rates:
            check_rate(rate, f"rates=[{rate!r}]")
        for rate in self.connects:
            if rate.in_bytes or rate.per is not Per.ADDRESS:
                raise RegistrationError(
                    f"connects={rate!r}: handshakes are counted per=ADDRESS, and not in bytes. The user is not "
                    "known yet: dependencies=[Depends(rate)] counts per=USER, behind the dependency that identifies "
                    "the user"
                )

    def __bool__(self) -> bool:
        return bool(self.rates or self.connects)

    def __add__(self, other: Limits) -> Limits:
        """These, and behind them the inner ones: all of them hold."""
        if not self and not other:
            return self
        return Limits([*self.rates, *other.rates], [*self.connects, *other.connects])

    def check_plain(self, label: str) -> None:
        """Raise RegistrationError for options that a plain endpoint cannot follow."""
        for rate in self.replying:
            raise RegistrationError(
                f"{label}: {rate!r} answers with an error, and only a channel has a form for one: put it on the "
                "channels or their router, or give over=WAIT or over=CLOSE"
            )

    # One message

    def excess(self, scope: Scope, rate: Rate, data: str | bytes) -> Excess | None:
        """The treatment of a message by a handler's rate. None: it is counted, and may pass."""
        share, cost, now = rate.share(scope), rate.cost_of(data), now_of()
        lack = share.take(now, cost)
        if lack <= 0:
            return None
        excess = excess_of(rate, lack)
        if excess.code is None and rate.over is OverRate.WAIT:
            share.spend(now, cost)
            self.tell(scope, rate, now, "it is read more slowly", "@on(rate=)", refused=False)
        else:
            what = "answered with an error" if excess.code is None else f"closed with {excess.code}"
            self.tell(scope, rate, now, what, "@on(rate=)")
        return excess

    def lack(self, scope: Scope, data: str | bytes) -> float:
        """Seconds until a message may pass by the rates that a channel answers for; not positive: it is counted."""
        now = now_of()
        shares = [(rate, rate.share(scope), rate.cost_of(data)) for rate in self.replying]
        for rate, share, cost in shares:
            if (lack := share.lack(now, cost)) > 0:
                self.tell(scope, rate, now, "answered with an error", "rates=")
                return lack
        for _, share, cost in shares:
            share.spend(now, cost)
        return 0.0

    # One connection

    def websocket(self, scope: Scope, receive: Receive, send: Send) -> WebSocket[Any]:
        """The connection as its endpoint gets it. A rate that would reply closes here."""
        if not self.rates:
            return WebSocket(scope, receive, send)
        return PacedWebSocket(scope, receive, send, pace=RoutePace(self, scope))

    def refusal(self, scope: Scope) -> HTTPException | None:
        """The refusal of a handshake that is one too many. None: it is counted, and may go on."""
        if not self.connects:
            return None
        now, shares = now_of(), [(rate, rate.share(scope)) for rate in self.connects]
        for rate, share in shares:
            if (lack := share.lack(now, 1)) > 0:
                self.tell(scope, rate, now, "refused with 429", "connects=")
                return too_many(lack)
        for _, share in shares:
            share.spend(now, 1)
        return None

    def tell(self, scope: Scope, rate: Rate, now: float, what: str, option: str, *, refused: bool = True) -> None:
        """One was too fast: count it where it was refused, and log it once a minute for each rate and path."""
        if refused:
            note_refusal(scope, Refusal.RATE)
        path = route_path_of(scope)
        last = self._told.get((rate, option, path))
        if last is not None and 0 <= now - last < TELL_EVERY:
            return
        self._told[rate, option, path] = now
        logger.info(
            "%s: a client passes %s (%s): %s. If that is no abuse, raise the rate; the next minute's are not logged",
            shown(f"{scope.get('root_path', '')}{path}"), rate, option, what,
        )  # fmt: skip


class RoutePace:
    """`paced.Pace` of one connection."""

    __slots__ = ("_limits", "_scope", "_shares", "passes", "patience")

    def __init__(self, limits: Limits, scope: Scope) -> None:
        rates = limits.rates
        self._limits = limits
        self._scope = scope
        self._shares: tuple[tuple[Rate, Allowance], ...] = tuple((rate, rate.share(scope)) for rate in rates)
        self.patience: float = max(rate.longest_wait for rate in rates)
        """`paced.Pace`."""
        self.passes: Passes = Spending((share, rate.in_bytes) for rate, share in self._shares).passes
        """`paced.Pace`."""

    def spend(self, now: float, data: str | bytes) -> Excess | None:
        """`paced.Pace`: all of them let it through, or wait; or none is spent."""
        shares = self._shares
        most, slowest = 0.0, None
        for rate, share in shares:
            lack = share.lack(now, rate.cost_of(data))
            if lack <= 0:
                continue
            if (excess := excess_of(rate, lack, replies=False)).code is not None:
                self._limits.tell(self._scope, rate, now, f"closed with {excess.code}", "rates=")
                return excess
            if lack > most:
                most, slowest = lack, rate
        for rate, share in shares:
            share.spend(now, rate.cost_of(data))
        if slowest is None:
            return None
        self._limits.tell(self._scope, slowest, now, "it is read more slowly", "rates=", refused=False)
        return Excess(most)


def excess_of(rate: Rate, lack: float, *, replies: bool = True) -> Excess:
    """The treatment of a message that lacks so many seconds. `replies`: the caller can answer it."""
    if rate.over is OverRate.CLOSE or (rate.over is OverRate.REPLY and not replies):
        return Excess(lack, WS_1008_POLICY_VIOLATION, TOO_FAST)
    if rate.over is OverRate.WAIT and lack > rate.longest_wait:
        return Excess(lack, WS_3008_TIMEOUT, TOO_FAST)
    return Excess(lack)


def check_rate(rate: Rate, where: str) -> None:
    """Raise RegistrationError for a rate of messages that cannot work as declared."""
    if Per.TOPIC in rate.per:
        raise RegistrationError(
            f"{where}: nobody knows the topic of a message before its handler does; ask by hand, "
            "`await rate.spend(websocket, topic=...)`, or count per CONNECTION, USER or ADDRESS"
        )
    if rate.over is OverRate.WAIT and not rate.in_bytes and rate.measure.step > rate.longest_wait:
        raise RegistrationError(
            f"{where}: one message takes {rate.measure.step:g} s, and nobody waits longer than "
            f"longest_wait={rate.longest_wait:g}: give over=CLOSE, over=REPLY on a channel, or a longer longest_wait"
        )


def _rates(given: object, name: str) -> tuple[Rate, ...]:
    if given is None:
        return ()
    if isinstance(given, Rate):
        return (given,)
    if isinstance(given, Iterable) and not isinstance(given, str):
        rates = tuple(given)
        if all(isinstance(rate, Rate) for rate in rates):
            return rates
    raise TypeError(f'{name} takes Rate("20/second"), or several in a list; got {given!r}')


def route_path_of(scope: Scope) -> str:
    """As the route was written: the paths of clients have no bound."""
    path: str = getattr(scope.get("route"), "path_format", "")
    return path


NO_LIMITS: Final = Limits()
