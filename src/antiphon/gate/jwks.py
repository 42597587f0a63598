"""The keys that an issuer publishes (RFC 7517 §5): fetched at the first need, kept, and refreshed when they change.

Owns the times of fetches. One fetch at a time in each event loop, never more often than `cooldown` allows, and all of
it is bounded in time and bytes. A waiter that is cancelled leaves the fetch to the others.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from antiphon.shown import shown

from .challenge import CannotVerify
from .fetching import NotFetched, check_url, fetched

if TYPE_CHECKING:
    from .keys import KeyRing, SignatureHeader, VerifyingKey

__all__ = ["JWKS", "Fetch"]

logger: Final = logging.getLogger("antiphon")

Fetch: TypeAlias = Callable[[str], Awaitable[bytes | str | Mapping[str, Any]]]
"""From the address of a JWKS to the document, as text or parsed."""


class JWKS:
    """The keys at the address `url` of an issuer. `JWT(jwks_url=...)` makes one, without numbers of your own.

    They are fetched at the first token, and again in the background when they are `refresh` seconds old. A token that
    names an unknown key causes a fetch, at most once in `cooldown` seconds. While the issuer is away, keys are used
    for up to `stale` seconds after they came. Without any, tokens are answered with 503 (Close 1013). A fetch takes
    `timeout` seconds and `max_bytes` at most, and a document with more than `max_keys` keys is refused.

    `http://` is for this machine, or with `plain_http=True` for a network of yours. `fetch` fetches in place of ours,
    for a proxy or a client certificate: an async function of the address. `clock` gives seconds, for tests. Raises
    TypeError and ValueError for arguments that cannot work.

        keys = JWKS("https://login.example.com/.well-known/jwks.json", refresh=600, timeout=2)
        jwt = JWT(keys=keys, algorithms=["RS256"], audience="live")
    """

    def __init__(
        self,
        url: str,
        *,
        refresh: float = 300.0,
        cooldown: float = 10.0,
        stale: float = 86400.0,
        timeout: float = 5.0,
        max_bytes: int = 262144,
        max_keys: int = 100,
        plain_http: bool = False,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = check_url(url, plain_http=plain_http or fetch is not None)
        self.url: Final = url
        for name, number in {
            "refresh": refresh, "cooldown": cooldown, "stale": stale, "timeout": timeout,
            "max_bytes": max_bytes, "max_keys": max_keys,
        }.items():  # fmt: skip
            if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
                raise ValueError(f"JWKS({name}=): expected a number above 0, got {number!r}")
        if fetch is not None and not callable(fetch):
            raise TypeError(f"JWKS(fetch=): expected an async function of the address, got {fetch!r}")
        self._refresh, self._cooldown, self._stale = refresh, cooldown, stale
        self._timeout, self._max_bytes, self._max_keys = timeout, max_bytes, max_keys
        self._fetch = fetch
        self._clock = clock
        self._known: tuple[KeyRing, float] | None = None
        """The keys, and when they came."""
        self._fresh_until = -float("inf")
        """Until then a known key is used without a look at anything else."""
        self._tried_at = -float("inf")
        self._failure = ""
        self._flights: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]]
        self._flights = weakref.WeakKeyDictionary()
        self._under_way: set[asyncio.Task[None]] = set()
        """The fetches of all loops."""

    def __repr__(self) -> str:
        return f"JWKS({self._shown!r})"

    @property
    def _shown(self) -> str:
        """The address as logs have it: a query may hold a secret."""
        return shown(self.url.partition("?")[0])

    def at_hand(self, header: SignatureHeader) -> Sequence[VerifyingKey]:
        """`candidates` where nothing has to be fetched; else none."""
        known = self._known
        return () if known is None or self._clock() >= self._fresh_until else known[0].candidates(header)

    async def candidates(self, header: SignatureHeader) -> Sequence[VerifyingKey]:
        """The keys that may have signed a token. None where there is no such key. Raises `CannotVerify`."""
        ring = self._ring()
        if ring is None:
            await self._updated()
            ring = self._ring()
            if ring is None:
                raise CannotVerify(f"the keys of {self._shown} are not to be had", retry_after=self._cooldown)
        elif self._known is not None and self._clock() - self._known[1] >= self._refresh and self._may_try():
            self._flight()  # nobody waits
        found = ring.candidates(header)
        if not found and header.kid is not None:
            await self._updated()
            found = (self._ring() or ring).candidates(header)
            if not found and self._failure:
                raise CannotVerify(
                    f"kid: '{shown(header.kid, 64)}' is new, and the keys of {self._shown} are not to be had",
                    retry_after=self._cooldown,
                )
        return found

    def _ring(self) -> KeyRing | None:
        if self._known is None or self._clock() - self._known[1] > self._stale:
            return None
        return self._known[0]

    def _may_try(self) -> bool:
        return self._clock() - self._tried_at >= self._cooldown

    async def _updated(self) -> None:
        """Wait for the fetch that is under way, or for a new one if it is time for one.

        One that is under way in another loop cannot be waited for: this loop makes its own.
        """
        flight = self._flights.get(asyncio.get_running_loop())
        if self._may_try() or self._any_under_way() or (flight is not None and not flight.done()):
            await asyncio.shield(self._flight())

    def _any_under_way(self) -> bool:
        """Whether any loop fetches now. A loop that was closed over its fetch does not."""
        return any(not flight.done() and not flight.get_loop().is_closed() for flight in tuple(self._under_way))

    def _flight(self) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        flight = self._flights.get(loop)
        if flight is None or flight.done():
            # In a context of its own: it outlives the connection whose token was first.
            flight = loop.create_task(self._update(), context=contextvars.Context())
            self._flights[loop] = flight
            self._under_way.add(flight)
            flight.add_done_callback(self._under_way.discard)
            self._tried_at = self._clock()  # last: a thread that may not try sees what is under way
        return flight

    async def _update(self) -> None:
        try:
            self._take(await self._fetched())
        except NotFetched as reason:
            self._failure = str(reason)
            left = 0 if self._known is None else self._known[1] + self._stale - self._clock()
            logger.warning(
                "the keys of %s could not be fetched: %s. %s; the next try is in %g s at the earliest",
                self._shown,
                self._failure,
                f"Those from before serve for another {left:.0f} s" if left > 0 else "Tokens are answered with 503",
                self._cooldown,
            )

    def _take(self, keys: list[VerifyingKey]) -> None:
        from .keys import KeyRing

        if self._failure:
            logger.info("the keys of %s are there again: %d", self._shown, len(keys))
        self._failure = ""
        now = self._clock()
        self._known = KeyRing(keys), now
        self._fresh_until = now + min(self._refresh, self._stale)

    async def _fetched(self) -> list[VerifyingKey]:
        """Fetch and read. Raises `NotFetched` for every fault of the answer."""
        if self._fetch is None:
            document: Any = await fetched(self._parts, timeout=self._timeout, max_bytes=self._max_bytes)
        else:
            document = await self._fetched_by_theirs(self._fetch)
        return await asyncio.to_thread(_read, document, self._max_keys)

    async def _fetched_by_theirs(self, fetch: Fetch) -> Any:
        try:
            async with asyncio.timeout(self._timeout) as limit:
                document = await fetch(self.url)
        except Exception as error:  # anything that a user's client raises
            if isinstance(error, TimeoutError) and limit.expired():
                raise NotFetched(f"fetch() gave nothing within {self._timeout:g} s") from None
            raise NotFetched(f"fetch() raised {type(error).__name__}: {shown(error, 200)}") from None
        if isinstance(document, str):
            document = document.encode("utf-8", "surrogatepass")
        if isinstance(document, bytes | bytearray) and len(document) > self._max_bytes:
            raise NotFetched(f"fetch() gave more than {self._max_bytes} bytes")
        return document


def _read(document: Any, max_keys: int) -> list[VerifyingKey]:
    """The keys of a document that verify; in a thread, for a hundred keys take milliseconds. Raises `NotFetched`."""
    from .keys import PUBLIC, UnusableKey, key_of

    if not isinstance(document, Mapping):
        try:
            document = json.loads(document)
        except (ValueError, TypeError, RecursionError):
            raise NotFetched("the answer is no JSON") from None
    given = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(given, list):
        raise NotFetched('the answer is no JWKS, {"keys": [...]} (RFC 7517 §5)')
    if len(given) > max_keys:
        raise NotFetched(f"the JWKS has {len(given)} keys, and {max_keys} are the most")
    keys, why = [], ""
    for jwk in given:
        try:
            keys.append(key_of(jwk if isinstance(jwk, Mapping) else None, PUBLIC))
        except UnusableKey as reason:
            logger.debug("a key of a JWKS is left out: %s", shown(reason))
            why = why or f": {shown(reason)}"
    if not keys:
        raise NotFetched(f"none of the {len(given)} keys of the JWKS verifies signatures{why}")
    return keys
