"""The data of a hub in memory for the next start of its server: one file, written at a clean stop, taken once.

A process that is killed writes nothing, and the next one takes nothing: it has a new epoch, so no gap goes unnoticed.
The file is plain numbers and bytes of a fixed layout, readable by its owner alone. Any other file in its place is
ignored, with a line in the log. Knows nothing of backends or of the command line. The relay process imports it, and has
to stay small: the standard library and the store only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from ..records import MAX_NOTE_KEY, Note
from ..store import Saved, Snapshot

log: Final = logging.getLogger("antiphon.hub.handover")

MAX_BYTES: Final = 256 << 20
"""Of the file: a second or two of a stop. Histories that are longer together hand over their newest messages."""

OUTLIVED: Final = 3600.0
"""Seconds after which a file without a message that is still to be kept is too old: somebody left it behind."""

LONGEST: Final = 1e9
"""Seconds: more than any topic may keep its messages."""

_MAGIC: Final = b"antiphon"
_VERSIONS: Final = (1, 2)
"""Without notes and with them: a file that has none is one that earlier versions read."""
_HEADER: Final = struct.Struct(">8sHQ32s")  # magic, version, bytes that follow, their SHA-256
_BEGINNING: Final = struct.Struct(">dQIB")  # when it was written, highest forgotten offset, histories, bytes of epoch
_HISTORY: Final = struct.Struct(">QIH")  # head, entries, bytes of topic
_ENTRY: Final = struct.Struct(">dI")  # seconds left, bytes of data
_NOTES: Final = struct.Struct(">I")  # notes
_NOTE: Final = struct.Struct(">ddH")  # value, seconds left, bytes of its name


class Unusable(Exception):
    """The file in this place is not the one that this user's last server left there."""


class Handover:
    """The place between two starts of one server."""

    def __init__(self, path: str, *, wall: Callable[[], float] = time.time, most: int = MAX_BYTES) -> None:
        """`wall` is the clock that goes on between two processes. `most`: bytes of the file."""
        self.path = path
        self._wall = wall
        self._most = most

    def take(self) -> Snapshot | None:
        """The last server's data, once: the file is gone with this. None: nothing that could be used."""
        try:
            data = self._read()
            if data is None:
                return None
            age, snapshot = unpack(data, self._wall())
        except (Unusable, OSError) as error:
            log.warning("histories start anew: %s was not taken: %s", self.path, error)
            return None
        log.info("took over %s; the server before stopped %.0f s ago", _amount(snapshot), age)
        return snapshot

    def leave(self, snapshot: Snapshot) -> None:
        """Write the data for the next server. Without data there is no file."""
        fitting = fit(snapshot, self._most)
        if not fitting.histories and not fitting.forgotten and not fitting.notes:
            return
        try:
            self._write(fitting)
        except OSError as error:
            log.error(
                "the next start will not have %s: cannot write %s: %s; --state names another place",
                *(_amount(fitting), self.path, error.strerror),
            )
            return
        left = _count(snapshot) - _count(fitting)
        if left:
            log.warning("%d older messages are not handed over: more than %d bytes", left, self._most)
        log.info("left %s for the next start in %s", _amount(fitting), self.path)

    def _read(self) -> bytes | None:
        """The process that removes the name has the file, so two that start at once do not share one epoch."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            check_owner(os.fstat(descriptor))
        except Unusable:
            os.close(descriptor)
            raise
        with open(descriptor, "rb") as file:
            data = file.read(MAX_BYTES + 1)
            if not data.startswith(_MAGIC):
                raise Unusable("it is not of antiphon")  # and stays where it is
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                return None
        if len(data) > MAX_BYTES:
            raise Unusable(f"more than {MAX_BYTES} bytes")
        return data

    def _write(self, snapshot: Snapshot) -> None:
        """Complete, or not at all. The remains after a power failure do not have the checksum."""
        part = f"{self.path}.part"
        os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
        if is_foreign(self.path):
            raise FileExistsError(errno.EEXIST, "there is something that is not of antiphon")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                checksum, length = hashlib.sha256(), 0
                file.write(bytes(_HEADER.size))
                for piece in pack(snapshot, self._wall()):
                    file.write(piece)
                    checksum.update(piece)
                    length += len(piece)
                file.seek(0)
                file.write(_HEADER.pack(_MAGIC, _version(snapshot), length, checksum.digest()))
            os.replace(part, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise


def is_foreign(path: str) -> bool:
    """The place holds something that antiphon did not write: a wrong `--state` must not destroy it."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return True
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) != _MAGIC
    except FileNotFoundError:
        return False


def check_owner(found: os.stat_result) -> None:
    """Raises `Unusable` for a file that another user could have written, or can read."""
    if not stat.S_ISREG(found.st_mode):
        raise Unusable("it is no file")
    if found.st_uid != os.geteuid():
        raise Unusable(f"it belongs to another user (id {found.st_uid})")
    if found.st_mode & 0o077 or found.st_nlink > 1:
        raise Unusable(f"others can reach it (mode {stat.S_IMODE(found.st_mode):o}, {found.st_nlink} names)")


# The form of the file


def pack(snapshot: Snapshot, now: float) -> Iterator[bytes]:
    """The bytes behind the header, in pieces. `now`: wall clock."""
    epoch = snapshot.epoch.encode()
    yield _BEGINNING.pack(now, snapshot.forgotten, len(snapshot.histories), len(epoch)) + epoch
    for topic, head, entries in snapshot.histories:
        name = topic.encode()
        yield _HISTORY.pack(head, len(entries), len(name)) + name
        for left, data in entries:
            yield _ENTRY.pack(left, len(data)) + data
    if snapshot.notes:
        yield _NOTES.pack(len(snapshot.notes))
        for key, value, left in snapshot.notes:
            name = key.encode()
            yield _NOTE.pack(value, left, len(name)) + name


def _version(snapshot: Snapshot) -> int:
    return _VERSIONS[bool(snapshot.notes)]


def unpack(data: bytes, now: float) -> tuple[float, Snapshot]:
    """The file's age in seconds and its data, with the time that has passed taken off. Raises `Unusable`."""
    if len(data) < _HEADER.size:
        raise Unusable(f"it has {len(data)} bytes, less than its header")
    _, version, length, checksum = _HEADER.unpack_from(data)
    if version not in _VERSIONS:
        raise Unusable(f"it has version {version}; this antiphon reads version {_VERSIONS[-1]}")
    body = memoryview(data)[_HEADER.size :]
    if len(body) != length or hashlib.sha256(body).digest() != checksum:
        raise Unusable("it is damaged")
    try:
        written, snapshot = _read_body(body, version)
    except (struct.error, ValueError) as error:
        raise Unusable(f"it is damaged: {error}") from error
    age = max(now - written, 0.0)  # a clock that was put back makes nothing live longer than it had left
    kept = (entry[0] for history in snapshot.histories for entry in history.entries)
    longest = max(max(kept, default=0.0), max((note.ttl for note in snapshot.notes), default=0.0))
    if age > max(longest, OUTLIVED):
        raise Unusable(f"it is {age:.0f} s old, and nothing in it was to be kept for so long")
    aged = [
        Saved(topic, head, [(left - age, data) for left, data in entries])
        for topic, head, entries in snapshot.histories
    ]
    notes = [note._replace(ttl=note.ttl - age) for note in snapshot.notes if note.ttl > age]
    return age, snapshot._replace(histories=aged, notes=notes)


def _read_body(body: memoryview, version: int) -> tuple[float, Snapshot]:
    written, forgotten, histories, length = _BEGINNING.unpack_from(body)
    place = _BEGINNING.size
    epoch, place = _text(body, place, length)
    found = []
    for _ in range(histories):
        head, count, length = _HISTORY.unpack_from(body, place)
        topic, place = _text(body, place + _HISTORY.size, length)
        if count > head:
            _damaged(f"{count} entries up to offset {head}")
        entries = []
        for _ in range(count):
            left, size = _ENTRY.unpack_from(body, place)
            place += _ENTRY.size
            if not 0 <= left < LONGEST:
                _damaged(f"{left} s left")
            entries.append((left, bytes(body[place : place + size])))
            place += size
        found.append(Saved(topic, head, entries))
    notes, place = ([], place) if version == 1 else _read_notes(body, place)
    if place != len(body):
        _damaged(f"{len(body)} bytes instead of {place}")
    return written, Snapshot(epoch, forgotten, found, notes)


def _read_notes(body: memoryview, place: int) -> tuple[list[Note], int]:
    (count,) = _NOTES.unpack_from(body, place)
    place += _NOTES.size
    notes = []
    for _ in range(count):
        value, left, length = _NOTE.unpack_from(body, place)
        key, place = _text(body, place + _NOTE.size, length)
        if not 0 <= left < LONGEST or value != value or len(key) > MAX_NOTE_KEY:
            _damaged(f"a note {key[:80]!a} with {left} s left")
        notes.append(Note(key, value, left))
    return notes, place


def _text(body: memoryview, place: int, length: int) -> tuple[str, int]:
    return bytes(body[place : place + length]).decode(), place + length


def _damaged(what: str) -> NoReturn:
    raise ValueError(what)


def fit(snapshot: Snapshot, most: int) -> Snapshot:
    """The data that fit into so many bytes: all notes, then each topic's newest entries without a gap, in turns."""
    room = most - _HEADER.size - _BEGINNING.size - len(snapshot.epoch.encode())
    room -= _NOTES.size + sum(_NOTE.size + len(note.key.encode()) for note in snapshot.notes)
    room -= sum(_HISTORY.size + len(topic.encode()) for topic, _, _ in snapshot.histories)
    if room < 0:
        forgotten = max([snapshot.forgotten, *(one.head for one in snapshot.histories)])
        return Snapshot(snapshot.epoch, forgotten, [], snapshot.notes)
    taken = [0] * len(snapshot.histories)
    open_ones = list(range(len(snapshot.histories)))
    while open_ones and room > 0:
        still_open = []
        for number in open_ones:
            entries = snapshot.histories[number].entries
            if taken[number] == len(entries):
                continue
            size = _ENTRY.size + len(entries[-1 - taken[number]][1])
            if size <= room:
                room -= size
                taken[number] += 1
                still_open.append(number)
        open_ones = still_open
    fitting = [
        history._replace(entries=history.entries[len(history.entries) - count :])
        for history, count in zip(snapshot.histories, taken, strict=True)
    ]
    return snapshot._replace(histories=fitting)


def _count(snapshot: Snapshot) -> int:
    return sum(len(entries) for _, _, entries in snapshot.histories)


def _amount(snapshot: Snapshot) -> str:
    messages, topics = _count(snapshot), len(snapshot.histories)
    return f"{messages} message{'s' * (messages != 1)} of {topics} topic{'s' * (topics != 1)}"


# Its owner: one hub of a process that serves by itself; elsewhere the relay of its workers.


class _Offer:
    """The place that this process may use, and whether a hub has it."""

    handover: Handover | None = None


def offer(path: str | None) -> None:
    """The first hub in this process that starts, without workers beside it, takes and leaves its histories there."""
    _Offer.handover = None if path is None else Handover(path)


def claim() -> Handover | None:
    """The place, for the first that asks; give it back with `give_back`."""
    handover, _Offer.handover = _Offer.handover, None
    return handover


def give_back(handover: Handover | None) -> None:
    if handover is not None:
        _Offer.handover = handover
