"""A real redis-server per test: free port, own temporary directory, ended by its own process id.

Knows nothing of the hub. Every method works from synchronous code. The waits are bounded.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.patience import PATIENCE

BINARY = "redis-server"
START_TIMEOUT = PATIENCE
PORTS = range(12_000, 32_000)
"""Below those that Linux gives away."""


class RedisServer:
    """One redis-server without persistence, on a port that was free a moment ago.

    `kill()` then `start()` is a crash and a restart on the same address with all data lost.
    """

    def __init__(self, *, options: tuple[str, ...] = (), password: str | None = None, cluster: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="antiphon-redis-"))
        self.password = password
        self.port = 0
        self._options = options
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL a hub takes."""
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def socket_path(self) -> Path:
        return self.directory / "redis.sock"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    def start(self) -> None:
        """Start, and return when it answers. Raises RuntimeError with its log when it does not."""
        deadline = time.monotonic() + START_TIMEOUT
        chosen = self.port
        while True:
            self.port = chosen or free_port()
            self._process = subprocess.Popen(self._command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if self._answers(deadline):
                return
            self._end()
            if time.monotonic() > deadline:  # else: someone took the port between our look and its bind
                raise RuntimeError(f"redis-server did not start:\n{self.log()}")

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(START_TIMEOUT)

    def stop_answering(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def answer_again(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def command(self, *words: str) -> str:
        """One inline command over a fresh connection. The raw reply, for looking at the server from outside."""
        with self._connect() as stream:
            stream.write(_encode(*words))
            stream.flush()
            return _reply(stream)

    @contextlib.contextmanager
    def _connect(self) -> Iterator[BufferedIOBase]:
        with socket.create_connection(("127.0.0.1", self.port), START_TIMEOUT) as connection:
            with connection.makefile("rwb") as stream:
                if self.password:
                    stream.write(_encode("AUTH", self.password))
                    stream.flush()
                    _reply(stream)
                yield stream

    def key_names(self) -> list[str]:
        """The names of all keys."""
        return self.lines("KEYS", "*")

    def channels(self) -> list[str]:
        """Channels somebody is subscribed to."""
        return self.lines("PUBSUB", "CHANNELS")

    def lines(self, *words: str) -> list[str]:
        """The reply to a command that answers with a list of strings."""
        with self._connect() as stream:
            stream.write(_encode(*words))
            stream.flush()
            count = int(_reply(stream))
            return [_reply(stream) for _ in range(count)]

    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """End the process and remove its directory; idempotent."""
        self._end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _command(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "logfile": str(self.directory / "log"),
            "unixsocket": str(self.socket_path),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
        }
        if self.password:
            settings["requirepass"] = self.password
        if self._cluster:
            settings |= {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf"}
        flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return [_binary(), *flags, *self._options]

    def _answers(self, deadline: float) -> bool:
        assert self._process is not None
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                if self.command("PING") == "PONG":
                    return True
            except OSError:
                pass
            time.sleep(0.01)  # a poll with a deadline: nothing else tells that another process listens
        return False

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGKILL)  # also ends one that was stopped; there is no data to save
        process.wait(START_TIMEOUT)


@contextlib.contextmanager
def redis_server(*options: str, password: str | None = None) -> Iterator[RedisServer]:
    """A running server for the length of a `with` block."""
    with RedisServer(options=options, password=password) as server:
        yield server


def _binary() -> str:
    found = shutil.which(BINARY)
    if found is None:
        raise RuntimeError("redis-server is not installed: these tests need Debian's package of that name")
    return found


def free_port() -> int:
    """A free port, and one that is ours also while the server is dead: the system gives none of these away."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _encode(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def _reply(stream: BufferedIOBase) -> str:
    """One simple reply; of a list, its length."""
    line = stream.readline()
    if not line:
        raise OSError("redis-server closed the connection")
    kind, rest = line[:1], line[1:].rstrip()
    if kind == b"$" and int(rest) >= 0:
        return stream.read(int(rest) + 2)[:-2].decode(errors="replace")
    return rest.decode(errors="replace")
