"""Numbers of one process, and of several that add them up: a dictionary, or a file in a folder that all of them share.

A file outlives its process, so that counters never go backwards: nobody owns it then, and the next process that needs
one goes on with it. The owner of a file holds a lock on it, which the system releases however the process ends.
Values are mapped into memory: counts from before a kill -9 are in the file. Knows nothing of the meaning of the
numbers.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

SUFFIX: Final = ".numbers"
SIZE: Final = 1 << 14
"""Bytes of a new file. It doubles when it is full. A few hundred values fit."""

_USED = struct.Struct("<Q")
_LENGTH = struct.Struct("<Q")
_VALUE = struct.Struct("<d")


class Ledger:
    """Values by key. With a `folder`, in a file there. Opened with the first value, and anew in a forked child.

    Any thread may write.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, holds_on: Callable[[str], bool]) -> None:
        """`holds_on` says of a key whether its value is kept when a file is taken over from a process that ended."""
        self._folder = None if folder is None else Path(folder)
        self._holds_on = holds_on
        self._values: dict[str, float] = {}
        self._lock = threading.Lock()
        self._file: _File | None = None
        self._pid = 0

    def add(self, key: str, amount: float) -> None:
        with self._lock:
            self._open()
            self._write(key, self._values.get(key, 0.0) + amount)

    def set(self, key: str, value: float) -> None:
        with self._lock:
            self._open()
            self._write(key, value)

    def value(self, key: str) -> float:
        with self._lock:
            self._open()
            return self._values.get(key, 0.0)

    def read(self) -> Iterator[tuple[bool, Mapping[str, float]]]:
        """Of each process: whether it lives, and its values; of this one first."""
        with self._lock:
            self._open()
            own = dict(self._values)
        yield True, own
        for path in self._paths():
            if self._file is None or path != self._file.path:
                with contextlib.suppress(FileNotFoundError):
                    yield _is_owned(path), dict(_records(path.read_bytes()))

    def _paths(self) -> list[Path]:
        return [] if self._folder is None else sorted(self._folder.glob(f"*{SUFFIX}"))

    def _open(self) -> None:
        if self._folder is None or self._pid == os.getpid():
            return
        self._pid = os.getpid()
        ours: _File | None = None
        for path in self._paths():
            ours = ours or _File.take(path)
        while ours is None:
            ours = _File.take(self._folder / f"{secrets.token_hex(8)}{SUFFIX}")
        self._file = ours
        self._values = {}
        for key, value in ours.values().items():
            self._write(key, value if self._holds_on(key) else 0.0)

    def _write(self, key: str, value: float) -> None:
        self._values[key] = value
        if self._file is not None:
            self._file.write(key, value)


class _File:
    """How much is used, then records: the length of a key, the key filled up to eight bytes, the value."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        """Holds the lock, for as long as the process lives."""
        self._size = max(os.fstat(descriptor).st_size, SIZE)
        os.ftruncate(descriptor, self._size)
        self._map = mmap.mmap(descriptor, self._size)
        used: int = _USED.unpack_from(self._map)[0]
        self._used = used if _USED.size <= used <= self._size else _USED.size  # else it is new, or none of ours
        self._places: dict[str, int] = {}

    @classmethod
    def take(cls, path: Path) -> _File | None:
        """Make this file one's own. None when another process has it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def values(self) -> dict[str, float]:
        """The values that an earlier process has left. Later writes go to their places."""
        found = {}
        for key, value, place in _places(self._map[: self._used]):
            found[key] = value
            self._places[key] = place
        return found

    def write(self, key: str, value: float) -> None:
        place = self._places.get(key)
        if place is None:
            place = self._append(key)
        self._map[place : place + _VALUE.size] = _VALUE.pack(value)  # in one move: a reader sees no half of it

    def _append(self, key: str) -> int:
        encoded = key.encode()
        head = _LENGTH.pack(len(encoded)) + encoded + bytes(-len(encoded) % 8)
        end = self._used + len(head) + _VALUE.size
        while end > self._size:
            self._size *= 2
            os.ftruncate(self._descriptor, self._size)
            self._map = mmap.mmap(self._descriptor, self._size)
        self._map[self._used : end] = head + bytes(_VALUE.size)
        place = self._places[key] = self._used + len(head)
        self._used = end
        self._map[: _USED.size] = _USED.pack(end)  # last: a reader reads up to here
        return place


def _is_owned(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _records(data: bytes) -> Iterator[tuple[str, float]]:
    return ((key, value) for key, value, _ in _places(data))


def _places(data: bytes) -> Iterator[tuple[str, float, int]]:
    """Key, value and the value's place. Of a file that is only just being made: nothing."""
    used = min(_USED.unpack_from(data)[0], len(data)) if len(data) >= _USED.size else 0
    at = _USED.size
    while at + _LENGTH.size <= used:
        (length,) = _LENGTH.unpack_from(data, at)
        key = at + _LENGTH.size
        place = key + length + -length % 8
        if place + _VALUE.size > used:
            return
        yield data[key : key + length].decode(), _VALUE.unpack_from(data, place)[0], place
        at = place + _VALUE.size
