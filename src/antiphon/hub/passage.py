"""Turns for passing on pages of history. Knows nothing of their content. hub/README.md: long pages."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Final

from .records import Page

ROOM: Final = 64
"""For so much there is room in a turn of the loop: a millisecond or two."""

PART: Final = 16
"""The weight of a part of a long page, at most."""

HELD: Final = 64
"""Different pages that are kept while they wait. The others are asked for again when their turn comes."""


def weight_of(page: Page) -> int:
    """How much it is to pass on: one for each 16 messages, and one for each 16 KiB."""
    few = len(page.entries)
    size = sum([len(entry.data) for entry in page.entries]) if few < 16 * PART else 0
    return min(1 + few // 16 + (size >> 14), PART)


class Passage:
    """Those who pass on pages in one event loop: a bounded amount in each of its turns, from one topic after the other.

    A thousand may wait for one answer, and have it in the same turn.
    """

    __slots__ = ("_free", "_held", "_left", "_waiting")

    def __init__(self) -> None:
        self._free = ROOM
        self._left = 0  # the room that is free again after the loop's next turn
        self._waiting: OrderedDict[str, deque[tuple[int, asyncio.Future[None]]]] = OrderedDict()
        self._held: dict[int, int] = {}  # by the page's identity, how many wait with it

    def admits(self, weight: int) -> bool:
        """There is room for so much at once. Then pass it on, and `leave`."""
        if self._waiting or weight > self._free:
            return False
        self._free -= weight
        return True

    async def enter(self, topic: str, weight: int = PART) -> None:
        """Wait until there is room."""
        if self.admits(weight):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(topic, deque()).append((weight, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(weight)
            raise

    def leave(self, weight: int = PART) -> None:
        """It is passed on. Its room is free again in the next turn of the loop."""
        if not self._left:
            asyncio.get_running_loop().call_soon(self._free_up)
        self._left += weight

    def hold(self, page: Page) -> Held:
        """A page that waits for its turn. `drop` it then."""
        key = id(page)
        if key not in self._held and len(self._held) >= HELD:
            return Held(self, None)
        self._held[key] = self._held.get(key, 0) + 1
        return Held(self, page)

    def forget(self, page: Page) -> None:
        """`Held.drop`: one of those who wait with this page does not any more."""
        left = self._held.pop(id(page)) - 1
        if left:
            self._held[id(page)] = left

    def _free_up(self) -> None:
        self._free += self._left
        self._left = 0
        while self._waiting:
            topic, those = next(iter(self._waiting.items()))
            weight, turn = those[0]
            if not turn.done():
                if weight > self._free:
                    return
                self._free -= weight
                turn.set_result(None)
            those.popleft()
            if those:
                self._waiting.move_to_end(topic)
            else:
                del self._waiting[topic]


class Held:
    """A page that waits, or that was dropped because too many others wait (`page` is None then)."""

    __slots__ = ("_passage", "page")

    def __init__(self, passage: Passage, page: Page | None) -> None:
        self._passage = passage
        self.page: Page | None = page

    def drop(self) -> None:
        """It waits no more."""
        page, self.page = self.page, None
        if page is not None:
            self._passage.forget(page)
