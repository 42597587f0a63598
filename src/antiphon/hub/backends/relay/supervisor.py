"""Keeps one relay process running for as long as this process lives.

Meant for the process that starts the workers. The listening socket belongs to the supervisor: while a dead relay is
replaced, workers that reconnect wait in its backlog instead of being refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import Final, Self

from ...environment import ENVIRONMENT
from .process import STOP, listen
from .trust import new_key, target

log: Final = logging.getLogger("antiphon.hub.relay")

BACKOFF: Final = (0.05, 2.0)
"""First and longest pause before a relay is started again, in seconds."""

SETTLED: Final = 10.0
"""A relay that lived this many seconds did not fail at starting: the next pause is the first again."""

STOP_TIMEOUT: Final = 3.0
"""Seconds a relay may take to end."""

HANDOVER_TIMEOUT: Final = 30.0
"""Seconds it may take where it writes its histories first: `handover.MAX_BYTES` on a slow disk."""


class Supervisor:
    """One relay for all workers of this host: started, started again when it dies, stopped with us.

    `with Supervisor() as relay:` (workers get `relay.environment`), or `start()` and `stop()`. The relay ends when this
    process does, however it does: it watches a pipe of which this process holds the only other end.

        import subprocess

        from antiphon.hub.backends.relay import Supervisor

        def serve() -> None:
            with Supervisor() as relay:
                subprocess.run(["gunicorn", "main:app", "-w", "4"], env=relay.environment, check=True)
    """

    def __init__(self, state: str | None = None) -> None:
        """`state`: the file that carries histories over a clean stop to the next start, of one server at a time."""
        self.address: str = ""
        self._state = state
        self.key: str = ""
        self._listener: socket.socket | None = None
        self._directory: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._owner = 0

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the workers' environment must hold for `relay://` to find this relay."""
        return {ENVIRONMENT: target(self.key, self.address)}

    @property
    def pid(self) -> int | None:
        """The relay that runs now."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> str:
        """Start the relay. Returns its address. Workers that know `environment` may connect at once."""
        if self._thread is not None:
            raise RuntimeError("this supervisor was started already")
        self._owner = os.getpid()
        self.address, self.key = self._choose_address(), new_key()
        self._listener = listen(self.address)
        self._stopping.clear()
        self._spawn()
        self._thread = threading.Thread(target=self._watch, name="antiphon-relay", daemon=True)
        self._thread.start()
        _running.add(self)
        return self.address

    def stop(self) -> None:
        """End the relay and leave nothing behind. Idempotent, and nothing in a forked child."""
        if self._owner != os.getpid() or self._thread is None:
            return
        self._stopping.set()
        self._end()
        self._thread.join(STOP_TIMEOUT if self._state is None else HANDOVER_TIMEOUT)
        self._thread = None
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        self._close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _choose_address(self) -> str:
        name = f"antiphon-relay-{secrets.token_hex(16)}"
        if sys.platform == "linux":
            return f"@{name}"
        self._directory = tempfile.mkdtemp(prefix="antiphon-")
        return str(Path(self._directory) / "relay")

    def _spawn(self) -> None:
        assert self._listener is not None
        descriptor = self._listener.fileno()
        command = [sys.executable, "-c", _PROGRAM, str(_PACKAGE), self.address, "--fd", str(descriptor)]
        if self._state is not None:
            command += ["--state", self._state]
        # a session of its own: Ctrl-C must reach the workers first, they still say goodbye to the relay
        self._process = subprocess.Popen(
            [*command, "--with-parent"],
            stdin=subprocess.PIPE,
            pass_fds=(descriptor,),
            start_new_session=True,
            env=os.environ | self.environment,
        )

    def _end(self) -> None:
        """The workers have ended, or are no longer ours: the relay hands over and stops."""
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it has ended, and the watching thread closed the pipe
                os.write(process.stdin.fileno(), STOP)

    def _watch(self) -> None:
        pause = BACKOFF[0]
        while True:
            process, started = self._process, time.monotonic()
            assert process is not None
            code = process.wait()
            assert process.stdin is not None
            process.stdin.close()
            if self._stopping.is_set():
                return
            pause = BACKOFF[0] if time.monotonic() - started > SETTLED else pause
            log.warning("the relay process ended with %d; starting another in %.2f s", code, pause)
            if self._stopping.wait(pause):
                return
            pause = min(pause * 2, BACKOFF[1])
            self._spawn()
            if self._stopping.is_set():  # stop() looked for the process before this one was there
                self._end()

    def _close(self) -> None:
        _running.discard(self)
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _forget_in_child(self) -> None:
        """A forked worker must not keep the relay alive, nor its socket open, after its parent."""
        self._thread = None
        process, self._process = self._process, None
        if process is not None:
            process.returncode = 0  # not our child: nothing to wait for, nothing to warn of
            if process.stdin is not None:
                process.stdin.close()
        if self._listener is not None:
            self._listener.close()


_PACKAGE = Path(__file__).resolve().parents[3]

# The relay needs six small modules of the package, not all of it: importing the package's door would cost it
# a second at every start and fifty megabytes for good.
_PROGRAM = """\
import sys, types
root = sys.argv.pop(1)
for name in ("antiphon", "antiphon.hub", "antiphon.hub.backends", "antiphon.hub.backends.relay"):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = ["/".join([root, *name.split(".")[1:]])]
from antiphon.hub.backends.relay.process import main
main()
"""

_running: weakref.WeakSet[Supervisor] = weakref.WeakSet()


def _after_fork() -> None:
    for supervisor in list(_running):
        supervisor._forget_in_child()
    _running.clear()


os.register_at_fork(after_in_child=_after_fork)
