"""Registered routes close to a path that no route serves. For the log: a peer never learns which routes exist.

Pure: compares texts, and knows no request.
"""

from __future__ import annotations

import difflib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from starlette.routing import PARAM_REGEX, BaseRoute, Match
from starlette.routing import WebSocketRoute as StarletteWebSocketRoute

from antiphon.shown import shown
from antiphon.types import Scope

from .include import flatten, select

MOST: Final = 3
"""Routes that a line names."""

_COMPARED: Final = 128
"""Routes, and characters of a path, that are compared: a stranger's request should cost little."""
_SHARE: Final = 20
_SAVED: Final = 0.1
"""Seconds of CPU."""
_SIMILAR: Final = 0.6  # as `difflib.get_close_matches`: below it, words that a person finds alike are rare


def no_route(routes: Sequence[BaseRoute], scope: Scope, path: str) -> str:
    """The line for a WebSocket handshake that no route matches. `path`: the scope's, without the `root_path`."""
    line = f"no WebSocket route matches {shown(scope['path'])}"
    if select(routes, {**scope, "type": "http", "method": "GET"})[0] is not Match.NONE:
        return f"{line}: an HTTP route does, and a WebSocket needs one of its own (@app.websocket)"
    known = [route for route in flatten(routes) if isinstance(route, StarletteWebSocketRoute)]
    if not known:
        return f"{line}: none is registered here; those of a router are with include_router(router)"
    root = shown(scope.get("root_path", ""))
    near = _searching.near(path, known)
    if not near and len(known) <= MOST:
        return f"{line}; registered: {', '.join(root + route.path for route in known)}"
    return f"{line}; near misses: {', '.join(root + one for one in near)}" if near else line


class _Search:
    """Near misses for a twentieth of the time at most: a flood of strangers gets lines without them.

    Unused time is saved, up to `_SAVED`, for a developer who mistypes several paths in a row.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, worked: Callable[[], float] = time.thread_time
    ) -> None:
        """`worked`: seconds of CPU, because a search that waits for a busy machine takes nothing from others."""
        self._clock = clock
        self._worked = worked
        self._paid_at = -math.inf
        """The time at which the searches so far are paid for."""

    def near(self, path: str, known: Sequence[StarletteWebSocketRoute]) -> list[str]:
        now = self._clock()
        if self._paid_at - now > _SHARE * _SAVED:
            return []
        begun = self._worked()
        found = near_misses(path, (route.path for route in known))
        self._paid_at = max(self._paid_at, now) + _SHARE * (self._worked() - begun)
        return found


_searching = _Search()


def near_misses(path: str, known: Iterable[str]) -> list[str]:
    """At most `MOST` of the `known` route paths (`/rooms/{id:int}`) that are like `path`, the likest first."""
    wanted = _parts(path[:_COMPARED])
    ranked = []
    for index, route in enumerate(itertools.islice(dict.fromkeys(known), _COMPARED)):
        likeness = _likeness(wanted, _parts(route[:_COMPARED]))
        if likeness >= _SIMILAR:
            ranked.append((-likeness, index, route))
    return [route for _, _, route in sorted(ranked)[:MOST]]


def _parts(path: str) -> list[str]:
    return [part for part in path.lower().split("/") if part]


def _likeness(wanted: Sequence[str], route: Sequence[str]) -> float:
    """0 to 1: the parts that are text, on average. The two may begin alike, or end so: a prefix is forgotten."""
    length = min(len(wanted), len(route))
    if not length:
        return 0.0
    apart = abs(len(wanted) - len(route))
    begins = _average(wanted[:length], route[:length])
    ends = _average(wanted[-length:], route[-length:]) if apart else begins
    return max(begins, ends) * (1 - 0.15 * apart)


def _average(wanted: Sequence[str], route: Sequence[str]) -> float:
    pairs = [pair for pair in zip(wanted, route, strict=True) if not PARAM_REGEX.search(pair[1])]
    return sum(_alike(one, other) for one, other in pairs) / len(pairs) if pairs else 0.0


def _alike(one: str, other: str) -> float:
    if one == other:
        return 1.0
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    quick = min(matcher.real_quick_ratio(), matcher.quick_ratio())
    return matcher.ratio() if quick >= _SIMILAR else 0.0
