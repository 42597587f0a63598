"""Access to a relay: a process of our user that knows the relay's key. Pure but for looking things up.

A uid is a number, and means another user in another user namespace. All containers of one network namespace share
abstract sockets. So both ends prove that they know a random key before either reads anything else of the other. Each
sends a nonce, and an HMAC of both nonces under the key. The key itself never travels.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ...environment import ENVIRONMENT

HELLO: Final = b"antiphon relay 3"
"""The first bytes from a worker. The number is the protocol's version."""

NONCE: Final = 32
PROOF: Final = 32
ASKING: Final = len(HELLO) + NONCE
ANSWER: Final = NONCE + PROOF

PATIENCE: Final = 5.0
"""Seconds in which a new connection has to prove itself."""

_TARGET = re.compile(r"(?:([0-9a-f]{64}):)?([/@].+)", re.DOTALL)


class NotTrusted(Exception):
    """The peer has not shown that it knows the key."""


def new_key() -> str:
    return secrets.token_hex(32)


def target(key: str, address: str) -> str:
    """How the environment and a URL name a relay."""
    return f"{key}:{address}"


def read_target(text: str) -> tuple[str, str]:
    """Key and address out of `KEY:ADDRESS` or `ADDRESS`; without a key it is empty. Raises ValueError."""
    found = _TARGET.fullmatch(text)
    if found is None or found[2] == "@":
        raise ValueError("expected a path or @name, or KEY: and one of these")
    return found[1] or "", found[2]


def key_file(address: str) -> Path:
    """Where a relay that was started by hand on a path leaves its key: only its user can read it."""
    return Path(f"{address}.key")


def find_key(address: str) -> str:
    """The key of the relay at this address, as far as this process can know it. Raises LookupError."""
    with contextlib.suppress(ValueError):
        key, named = read_target(os.environ.get(ENVIRONMENT, ""))
        if key and named == address:
            return key
    if not address.startswith("@"):
        with contextlib.suppress(OSError):
            return key_file(address).read_text(encoding="ascii").strip()
    entry = rb"(?:^|\0)%b=([0-9a-f]{64}):%b\0" % (ENVIRONMENT.encode(), re.escape(address.encode()))
    for environment in _environments():
        held = re.search(entry, environment)
        if held is not None:
            return held[1].decode()
    raise LookupError(f"nothing here knows the key of the relay at {address!r}; {ENVIRONMENT}=KEY:ADDRESS names it")


def _environments() -> Iterator[bytes]:
    """The environments of processes that we may read: read access to them already grants their rights."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            yield path.read_bytes()


class WorkerHandshake:
    """The worker's end of the handshake: `asking`, then `answered` with the relay's answer."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._nonce = secrets.token_bytes(NONCE)

    @property
    def asking(self) -> bytes:
        return HELLO + self._nonce

    def answered(self, answer: bytes) -> bytes:
        """The bytes to send now. Raises NotTrusted."""
        nonces = self._nonce + answer[:NONCE]
        if not hmac.compare_digest(answer[NONCE:ANSWER], _proof(self._key, b"relay", nonces)):
            raise NotTrusted("the process that answers there does not know the relay's key")
        return _proof(self._key, b"worker", nonces)


class RelayHandshake:
    """The relay's end: takes bytes until the worker is known. It reads nothing else of them."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._got = bytearray()
        self._nonces = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """The bytes to send back, and the bytes behind the proof (None: it has not come yet). Raises NotTrusted."""
        self._got += data
        answer = b""
        if not self._nonces:
            if len(self._got) < ASKING:
                return b"", None
            if not self._got.startswith(HELLO):
                raise NotTrusted("a peer that speaks another protocol")
            nonce = secrets.token_bytes(NONCE)
            self._nonces = bytes(self._got[len(HELLO) : ASKING]) + nonce
            del self._got[:ASKING]
            answer = nonce + _proof(self._key, b"relay", self._nonces)
        if len(self._got) < PROOF:
            return answer, None
        if not hmac.compare_digest(bytes(self._got[:PROOF]), _proof(self._key, b"worker", self._nonces)):
            raise NotTrusted("a peer that does not know the key")
        return answer, bytes(self._got[PROOF:])


def _proof(key: str, who: bytes, nonces: bytes) -> bytes:
    return hmac.digest(key.encode(), who + nonces, "sha256")


def same_user(connection: socket.socket) -> bool:
    """Whether the peer of a Unix socket runs as our user (root may do anything anyway)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # there the socket is a file in a directory that only our user may enter
    process, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if user == 0:
        return True
    return bool(user == os.getuid() and (user != _overflow_user() or _same_users(process)))


def _overflow_user() -> int:
    """The number that the kernel gives for every user who has none in our user namespace."""
    try:
        return int(Path("/proc/sys/kernel/overflowuid").read_bytes())
    except (OSError, ValueError):
        return 65534


def _same_users(process: int) -> bool:
    """Whether uids mean the same users there as here. A process that we cannot see lives elsewhere."""
    try:
        return Path(f"/proc/{process}/uid_map").read_bytes() == Path("/proc/self/uid_map").read_bytes()
    except OSError:
        return False
