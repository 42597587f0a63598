"""What keys and channels are called. Pure; docs/backends.md says what is in them."""

from __future__ import annotations

import zlib
from typing import Final

BUCKETS: Final = 16
"""Hash tags the topics are spread over. Part of the stored format: all processes must agree."""


def bucket_of(topic: str) -> int:
    return zlib.crc32(topic.encode()) % BUCKETS


class Names:
    """The names of one hub in one database."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.control: bytes = f"{prefix}:control".encode()
        """The channel every process listens to."""

    def state_key(self, bucket: int) -> str:
        return f"{self._root(bucket)}state"

    def key(self, topic: str) -> str:
        """The key that a script about this topic is run with."""
        return self.state_key(bucket_of(topic))

    def channel(self, topic: str) -> bytes:
        return f"{self._root(bucket_of(topic))}t:{topic}".encode()

    def _root(self, bucket: int) -> str:
        return f"{self._prefix}:{{{bucket:02}}}:"
