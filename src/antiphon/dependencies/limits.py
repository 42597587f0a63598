"""How many runs of one `Depends(..., max_concurrency=n)` go on at a time, counted per event loop."""

from __future__ import annotations

from typing import Final, Protocol
from weakref import WeakKeyDictionary

import anyio
from anyio.lowlevel import RunVar


class Limit:
    """One declaration's limit; compared by identity, so that equal declarations count apart."""

    def __init__(self, max_concurrency: int) -> None:
        if type(max_concurrency) is not int or max_concurrency < 1:
            raise ValueError(f"max_concurrency must be a positive integer or None, not {max_concurrency!r}")
        self.max_concurrency: Final = max_concurrency

    def get_semaphore(self) -> anyio.Semaphore:
        """The semaphore of the running event loop."""
        semaphores = _semaphores.get(None)
        if semaphores is None:
            semaphores = WeakKeyDictionary()
            _semaphores.set(semaphores)
        if self not in semaphores:
            semaphores[self] = anyio.Semaphore(self.max_concurrency)
        return semaphores[self]


class SupportsSemaphore(Protocol):
    """Our `Limit`, or the one that FastAPI's `Depends` carries."""

    def get_semaphore(self) -> anyio.Semaphore: ...


# Weak keys: a declaration that is gone takes its semaphore along.
_semaphores: Final[RunVar[WeakKeyDictionary[Limit, anyio.Semaphore]]] = RunVar("antiphon_dependency_semaphores")
