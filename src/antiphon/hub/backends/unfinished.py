"""What came of a byte stream and is not whole yet: kept until there is as much as the frame or reply needs. Pure."""

from __future__ import annotations


class Unfinished:
    """The end of what came, which is the beginning of something. A long one is joined once, not with each chunk."""

    __slots__ = ("_rest", "_wanted")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted = 0

    def joined(self, data: bytes) -> bytes:
        """What is there to be read now, `data` the newest of it; empty while less than was wanted is there."""
        if not self._rest:
            return data
        self._rest += data
        if len(self._rest) < self._wanted:
            return b""
        whole = bytes(self._rest)
        self._rest.clear()
        return whole

    def keep(self, rest: bytes | memoryview, wanted: int) -> None:
        """Come back with this when `wanted` bytes are there, counted from its beginning."""
        self._rest += rest
        self._wanted = wanted
