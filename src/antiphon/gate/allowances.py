"""The choice of a bucket: `Per`, and a common bucket as one connection spends from it."""

from __future__ import annotations

import enum
import logging
from collections.abc import Hashable
from typing import Final

from antiphon.connection.owner import owner_token
from antiphon.identity import IDENTITY_KEY, Identity
from antiphon.networks import network_of
from antiphon.types import Scope

from .backend import Purse
from .buckets import ALONE, Bucket, Buckets, Measure

logger: Final = logging.getLogger("antiphon")

_told: set[str] = set()


class Per(enum.Flag):
    """The owner of a bucket. `Per.USER | Per.TOPIC`: each user in each topic.

    For example:

        posting = Rate("2/second", per=Per.USER | Per.TOPIC)
    """

    CONNECTION = enum.auto()
    """Each connection, of any user."""
    USER = enum.auto()
    """The user of the connection's `Identity`, over all connections to this process. A user without one counts by
    address."""
    ADDRESS = enum.auto()
    """The client's address, an IPv6 one by its network of 64 bits. Behind a proxy: as `X-Forwarded-For` says, where the
    server believes it."""
    TOPIC = enum.auto()
    """The topic that is given by hand: `rate.allow(websocket, topic=...)`."""


WHO: Final = (Per.CONNECTION, Per.USER, Per.ADDRESS)
NEVER: Final = -1
"""A turn of no table."""

ALLOWED: Final = frozenset([*WHO, Per.TOPIC, *(who | Per.TOPIC for who in WHO)])


class Allowance(Purse):
    """One connection's share of a rate, from a bucket of its own.

    `Spending` does the work of `take` for all allowances of a connection at once.
    """

    __slots__ = ("buckets", "measure")

    def __init__(self, measure: Measure, buckets: Buckets = ALONE) -> None:
        super().__init__(measure.step, measure.depth, buckets)
        self.measure: Final = measure
        self.buckets: Final = buckets

    def find(self, now: float) -> Bucket | None:
        """The bucket. None where its owner is unknown, and so not limited."""
        return self.bucket

    def _keep(self, bucket: Bucket, turn: int) -> None:
        self.bucket = bucket
        self.turn = turn

    def lack(self, now: float, cost: float) -> float:
        """Seconds until so many tokens are there; not positive when they are. Takes nothing."""
        bucket = self.find(now)
        return 0.0 if bucket is None else self.measure.after(bucket.due, now, cost) - now - self.depth

    def spend(self, now: float, cost: float) -> None:
        """Take the tokens, also those that are still to come: the next caller waits behind."""
        bucket = self.find(now)
        if bucket is not None:
            bucket.due = self.measure.after(bucket.due, now, cost)

    def take(self, now: float, cost: float) -> float:
        """`lack`, and where it lacks nothing `spend`."""
        bucket = self.find(now)
        if bucket is None:
            return 0.0
        after = self.measure.after(bucket.due, now, cost)
        lack = after - now - self.depth
        if lack <= 0:
            bucket.due = after
        return lack


class CommonAllowance(Allowance):
    """Of a bucket that others spend from as well, looked up once in each turn of its table."""

    __slots__ = ("_key", "_per", "_scope", "_topic")

    def __init__(self, buckets: Buckets, per: Per, scope: Scope, topic: str | None) -> None:
        super().__init__(buckets.measure, buckets)
        self._keep(self.bucket, NEVER)
        self._per = per
        self._scope = scope
        self._topic = topic
        self._key: Hashable = None  # once it is certain

    def find(self, now: float) -> Bucket | None:
        """`Allowance`."""
        if self.turn == self.buckets.turn:
            return self.bucket
        key = self._key or self._find_key()
        if key is None:
            return None
        self._keep(self.buckets.find(key, now), NEVER if self._key is None else self.buckets.turn)
        return self.bucket

    def _find_key(self) -> Hashable:
        """The owner of the bucket. None where it is unknown."""
        per, scope = self._per, self._scope
        who: Hashable = ""
        certain = True
        if Per.CONNECTION in per:
            who = owner_token(scope)
        elif Per.USER in per:
            identity: Identity | None = scope.get(IDENTITY_KEY)
            certain = identity is not None  # else it may still say who it is
            who = address_of(scope) if identity is None else (identity.user,)
        elif Per.ADDRESS in per:
            who = address_of(scope)
        if who is None:
            return None
        key = who if self._topic is None else (who, self._topic)
        if certain:
            self._key = key
        return key


def address_of(scope: Scope) -> Hashable:
    """The client's network. None where the server does not know it, which is logged once."""
    client = scope.get("client")
    if client and client[0]:
        return network_of(client[0])
    if "address" not in _told:
        _told.add("address")
        logger.warning(
            "rates per ADDRESS limit nobody: this server knows no client's address, as on a Unix socket; have the "
            "proxy send X-Forwarded-For, and the server believe it (--forwarded-allow-ips)"
        )
    return None
