"""The incomplete end of a byte stream, kept until the frame or reply is whole. Pure."""

from __future__ import annotations


class Unfinished:
    """The beginning of an incomplete frame or reply. A long one is joined once, not with each chunk."""

    __slots__ = ("_rest", "_wanted")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted = 0

    def joined(self, data: bytes) -> bytes:
        """The readable bytes, `data` the newest of them. Empty while there are fewer than wanted."""
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
