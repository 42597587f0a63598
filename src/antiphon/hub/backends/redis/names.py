"""The names of keys and channels. Pure. docs/backends.md describes their content."""

from __future__ import annotations

import uuid
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

    def voucher(self, key: str) -> str:
        """The key of a value that is taken once."""
        return f"{self._root(bucket_of(key))}v:{key}"

    def claims(self, key: str) -> str:
        """The key of the shares under this name."""
        return f"{self._root(bucket_of(key))}c:{key}"

    def lease(self, bucket: int, process: str) -> str:
        """The key that is there while a process keeps its shares."""
        return f"{self._root(bucket)}l:{process}"

    @property
    def notes(self) -> str:
        return f"{self._root(0)}n"

    def _root(self, bucket: int) -> str:
        return f"{self._prefix}:{{{bucket:02}}}:"


class Epochs:
    """The epochs of the topics' histories, each decoded once."""

    def __init__(self) -> None:
        self.prefix: str = uuid.uuid4().hex[:6]
        """Of the epochs that this process begins."""
        self._texts: dict[bytes, str] = {}

    def text(self, epoch: bytes) -> str:
        text = self._texts.get(epoch)
        if text is None:
            if len(self._texts) >= BUCKETS * 4:  # only a store that keeps losing its data gets here
                self._texts.clear()
            text = self._texts[epoch] = epoch.decode()
        return text
