"""Shares of limits: their holders, their order of arrival, and their processes. Pure: knows no clock and no lease."""

from __future__ import annotations

from collections.abc import Collection


class Claims:
    """The shares that are held, by the name of their limit. A name without any takes no memory."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, str]] = {}
        """By name: each share's ref and its process, the oldest first."""
        self._processes: dict[str, set[tuple[str, str]]] = {}

    def claim(self, key: str, ref: str, process: str, limit: int | None, evict: bool) -> tuple[str, ...] | None:
        """A share for `ref`: returns those that had to make room for it, None where it was refused.

        One that is held already is held on, by this process. No limit: it is there whether it fits or not.
        """
        refs = self._names.get(key, {})
        over = 0 if limit is None or ref in refs else len(refs) + 1 - limit
        if over > 0 and not evict:
            return None
        evicted = tuple(refs)[: max(over, 0)]
        for old in evicted:
            self.release(key, old)
        self._disown(key, ref)
        self._names.setdefault(key, {})[ref] = process
        self._processes.setdefault(process, set()).add((key, ref))
        return evicted

    def release(self, key: str, ref: str) -> None:
        """Unknown ones are ignored."""
        refs = self._names.get(key)
        if refs is None or ref not in refs:
            return
        self._disown(key, ref)
        del refs[ref]
        if not refs:
            del self._names[key]

    def drop_process(self, process: str) -> None:
        """All that it holds."""
        for key, ref in tuple(self._processes.get(process, ())):
            self.release(key, ref)

    def count(self, key: str) -> int:
        return len(self._names.get(key, ()))

    def holders(self, key: str) -> Collection[str]:
        """The processes that hold shares under this name."""
        return set(self._names.get(key, {}).values())

    def _disown(self, key: str, ref: str) -> None:
        process = self._names.get(key, {}).get(ref)
        if process is None:
            return
        held = self._processes[process]
        held.discard((key, ref))
        if not held:
            del self._processes[process]
