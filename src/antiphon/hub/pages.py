"""Pages of history on their way to receivers: one request for all that want the same page.

A page goes part by part (`PART_BYTES`), so that none holds a connection, a loop or the backend for long. Knows nothing
of receivers: joining.py hands the pages over. hub/README.md: long pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from .backend_access import BackendAccess
from .errors import BackendUnavailable
from .passage import Passage
from .records import Keep, Page, Position
from .topics import TopicOptions

PART_BYTES: Final = 256 << 10
"""Of a page at a time: a millisecond of work, and a page of a hundred messages of 2 kB is one part."""

AT_ONCE: Final = 8
"""Parts that an event loop asks the backend for at a time. The rest of its connections is for short requests."""

ATTEMPTS: Final = 10
"""Attempts to read a whole history while new messages trim its end."""

Asking: TypeAlias = Callable[[Position | None, int | None, int | None], Awaitable[Page]]
"""`since`, `limit`, `size`, as in `Backend.history`."""

_Key: TypeAlias = tuple[str, Position | None, int | None, int]


class Pages:
    """One hub's way to histories."""

    def __init__(self, access: BackendAccess) -> None:
        self.part_bytes = PART_BYTES
        self._access = access
        self._loops: dict[asyncio.AbstractEventLoop, _Asked] = {}

    async def first(
        self, topic: str, keep: Keep, since: Position | None, limit: int | None, size: int, needed: Position | None
    ) -> Page:
        """The first part of a page that reaches to `needed`, at least. Raises `BackendUnavailable`.

        Others may have asked for it already: an answer that does not reach so far is older than the question.
        """
        if self._access.in_process:
            return await self._call(topic, keep, since, limit, size)
        asked = self._asked()
        key = (topic, since, limit, size)
        while True:
            answer = asked.answers.get(key)
            # One that is there already would be there again, without a turn of the loop, if it does not reach so far.
            ours = answer is None or answer.done()
            if answer is None or answer.done():
                answer = self._ask(asked, key, keep)
            try:
                page = await asyncio.shield(answer)
            except BackendUnavailable as error:
                # One error, raised by many, would collect the traces of all of them.
                raise BackendUnavailable(str(error), uncertain=error.uncertain) from None
            if ours or needed is None or (page.end.epoch == needed.epoch and page.end.offset >= needed.offset):
                return page

    async def whole(self, topic: str, keep: Keep, since: Position | None, limit: int | None) -> Page:
        """All of a page, nothing of it shared. Raises `BackendUnavailable`."""

        async def ask(since: Position | None, limit: int | None, size: int | None) -> Page:
            async with self._asked().turns:
                return await self._call(topic, keep, since, limit, size)

        return await whole(ask, since, limit, None if self._access.in_process else self.part_bytes)

    def size(self, options: TopicOptions) -> int:
        """Bytes of a part for one receiver: no more than may wait for it."""
        return min(self.part_bytes, max(options.outbox_bytes // 2, 1))

    @property
    def passage(self) -> Passage:
        """Of this event loop."""
        return self._asked().passage

    async def _call(self, topic: str, keep: Keep, since: Position | None, limit: int | None, size: int | None) -> Page:
        return await self._access.history(topic, keep, since, limit, size)

    def _asked(self) -> _Asked:
        loop = asyncio.get_running_loop()
        asked = self._loops.get(loop)
        if asked is None:
            for closed in [one for one in tuple(self._loops) if one.is_closed()]:
                self._loops.pop(closed, None)
            asked = self._loops[loop] = _Asked()
        return asked

    def _ask(self, asked: _Asked, key: _Key, keep: Keep) -> asyncio.Future[Page]:
        answer: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        asked.answers[key] = answer

        def done(_: object) -> None:
            if asked.answers.get(key) is answer:
                del asked.answers[key]
            if not answer.done():
                _fail(answer, BackendUnavailable("the hub was stopped"))

        self._access.spawn(self._answer, asked, key, keep, answer).add_done_callback(done)
        return answer

    async def _answer(self, asked: _Asked, key: _Key, keep: Keep, answer: asyncio.Future[Page]) -> None:
        topic, since, limit, size = key
        try:
            async with asked.turns:
                page = await self._call(topic, keep, since, limit, size)
        except Exception as error:
            _fail(answer, error)
        else:
            answer.set_result(page)


class _Asked:
    """The requests under way in one event loop."""

    def __init__(self) -> None:
        self.answers: dict[_Key, asyncio.Future[Page]] = {}
        self.turns = asyncio.Semaphore(AT_ONCE)
        self.passage = Passage()


def _fail(answer: asyncio.Future[Page], error: Exception) -> None:
    answer.set_exception(error)
    answer.exception()  # an awaiting caller gets it; perhaps none is left


async def whole(ask: Asking, since: Position | None, limit: int | None, size: int | None) -> Page:
    """A page out of its parts, all or nothing. Without `since` it is asked for again when its rest was trimmed.

    Raises `BackendUnavailable`, also when that happens again and again.
    """
    for _ in range(ATTEMPTS):
        page = await ask(since, limit, size)
        entries, more = list(page.entries), page
        while more.rest:
            more = await ask(more.position, more.rest, size)
            if not more.recovered:
                break
            entries += more.entries
            await asyncio.sleep(0)
        else:
            return Page(entries, more.position, page.recovered)
        if since is not None:
            return Page((), more.position, False)
    raise BackendUnavailable("the history changes faster than it can be read")
