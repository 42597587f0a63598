"""The shares of limits that connections of this process hold, in the backend and, while that is away, beside it.

gate/README.md has the table. Knows no user and no address: a limit has a name.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from antiphon.shown import shown
from antiphon.status import WS_1008_POLICY_VIOLATION
from antiphon.types import Sink

from .backend_access import BackendAccess
from .backends.base import gate_of
from .errors import BackendUnavailable
from .records import Claimed
from .telling import TOGETHER, Telling

logger: Final = logging.getLogger("antiphon.hub")

EVICTED: Final = b"e"
"""The first byte of the control message that names shares which had to make room."""

REPLACED: Final = "replaced"
"""The reason their connections are closed with."""


class Share:
    """One connection's part of one limit."""

    __slots__ = ("key", "ref", "sink")

    def __init__(self, key: str, ref: str, sink: Sink) -> None:
        self.key: str = key
        self.ref: str = ref
        self.sink: Sink = sink


class Shares:
    """All of one process. `claim` in the loop of the connection. Nothing here is per connection but its `Share`."""

    def __init__(self, access: BackendAccess, process: Callable[[], str]) -> None:
        """`process` names this one, as no other is ever named."""
        self._access = access
        self._process = process
        self._serial = itertools.count(1)
        self._held: dict[str, dict[str, Share]] = {}
        """By the limit's name, the oldest first."""
        self._refs: dict[str, Share] = {}
        self._untold: dict[str, tuple[str, bool]] = {}
        """Changes that the backend does not know yet, by ref: the limit's name, and whether the share is held."""
        self._turn = 0
        """How often all were claimed anew."""
        self._telling = Telling(access, "shares", lambda: self._untold, self._tell_some)
        self._lock = threading.Lock()
        access.claim_anew = self._claim_anew

    def __len__(self) -> int:
        return len(self._refs)

    async def claim(self, key: str, limit: int, sink: Sink, *, evict: bool, alone: bool) -> Claimed:
        """A share for the connection, until it ends. `evict`: at the expense of the oldest, which are closed.

        `alone`: while the backend is away, the limit is one of this process. Else that raises `BackendUnavailable`.
        Raises `UnsupportedBackend`.
        """
        share = Share(key, f"{self._process()}.{next(self._serial)}", sink)
        backend, turn = gate_of(self._access.backend, "a Quota"), self._turn
        try:
            claimed = await self._access.at_once("claim", backend.claim, key, share.ref, limit, evict)
        except BackendUnavailable:
            self._tell(share, held=False)  # it may have been done
            if not alone:
                raise
            claimed, turn = self._claim_here(share, limit, evict), -1
        except BaseException:
            self._tell(share, held=False)
            raise
        if claimed.granted:
            self._hold(share, known=turn == self._turn)
            await self._evict(claimed.evicted)
        return claimed

    def evicted(self, payload: bytes) -> None:
        """Some had to make room, here or elsewhere: close those of this process. Raises ValueError, TypeError."""
        for ref in json.loads(payload[1:]):
            share = self._refs.get(ref)
            if share is not None:
                with contextlib.suppress(RuntimeError):  # its loop was closed
                    share.sink.loop.call_soon_threadsafe(share.sink.disconnect, WS_1008_POLICY_VIOLATION, REPLACED)

    def _claim_here(self, share: Share, limit: int, evict: bool) -> Claimed:
        with self._lock:  # one step, for connections of other loops claim and end here too
            held = self._held.setdefault(share.key, {})
            over = len(held) + 1 - limit
            if over > 0 and not evict:
                return Claimed(False)
            evicted = tuple(itertools.islice(held, max(over, 0)))
            held[share.ref] = self._refs[share.ref] = share
        return Claimed(True, 0.0, evicted)

    def _hold(self, share: Share, *, known: bool) -> None:
        """`known`: the backend has it, under the name that this process has there now."""
        with self._lock:
            self._held.setdefault(share.key, {})[share.ref] = share
            self._refs[share.ref] = share
        if not known:
            self._tell(share, held=True)
        share.sink.on_close(lambda: self._ended(share))

    def _ended(self, share: Share) -> None:
        with self._lock:
            self._refs.pop(share.ref, None)
            held = self._held.get(share.key, {})
            held.pop(share.ref, None)
            if not held:
                self._held.pop(share.key, None)
        self._tell(share, held=False)

    async def _evict(self, refs: Iterable[str]) -> None:
        named = tuple(refs)
        if not named:
            return
        payload = EVICTED + json.dumps(named).encode()
        self.evicted(payload)
        try:
            await self._access.at_once("control", self._access.backend.control, payload)
        except BackendUnavailable as error:
            # They hold no share any more. Those of a process that is cut off with us are claimed again by it.
            logger.info("connections that were replaced may stay: %s", shown(error))

    # Reports to the backend

    def _tell(self, share: Share, *, held: bool) -> None:
        if not self._access.connected:
            # The lease releases ended shares. Held ones are claimed anew when the backend is back.
            self._untold.pop(share.ref, None)
            return
        self._untold[share.ref] = share.key, held
        self._access.at_home_soon(self._telling.soon)

    async def _tell_some(self) -> None:
        """Raises `BackendUnavailable` when some of it was not told."""
        some = dict(itertools.islice(tuple(self._untold.items()), TOGETHER))
        told = (self._tell_one(ref, *what) for ref, what in some.items())
        failed = [error for error in await asyncio.gather(*told) if error is not None]
        if failed:
            raise failed[0]

    async def _tell_one(self, ref: str, key: str, held: bool) -> BackendUnavailable | None:
        backend = gate_of(self._access.backend, "a Quota")
        try:
            if held:
                await self._access.once("claim", backend.claim, key, ref, None, False)
            else:
                await self._access.once("release", backend.release, key, ref)
        except BackendUnavailable as error:
            return error
        if self._untold.get(ref) == (key, held):  # else it has ended since
            self._untold.pop(ref, None)
        return None

    async def _claim_anew(self) -> None:
        """The backend has released all shares, or may have: claim them again. Raises `BackendUnavailable`."""
        if not self._refs:
            return
        self._turn += 1
        for ref, share in tuple(self._refs.items()):
            self._untold[ref] = share.key, True
        while self._untold:
            await self._tell_some()
